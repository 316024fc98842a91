import json
import re

import numpy as np
import pytest
from sklearn import metrics as sk

from metrics import report_markdown, scores_of

EXACT = 1e-12  # both sides add the same float64 numbers, perhaps in another order
FEW = ("N", "S", "V")


def multiclass(rng, n_rows, n_classes):
    """Random rows of one class each: targets (N, K), scores (N, K) that lean to the right class, labels (N,)."""
    label = rng.integers(n_classes, size=n_rows)
    targets = np.eye(n_classes, dtype=np.uint8)[label]
    scores = np.exp(rng.normal(size=targets.shape) + 1.5 * targets)
    return targets, scores / scores.sum(axis=1, keepdims=True), label


def multilabel(rng, n_rows, n_classes):
    targets = (rng.random((n_rows, n_classes)) < 0.3).astype(np.uint8)
    return targets, 1 / (1 + np.exp(-rng.normal(size=targets.shape) - 2 * targets + 1))


def names(n_classes):
    return [f"class {k}" for k in range(n_classes)]


def column(report, key):
    return [getattr(entry, key) for entry in report.per_class]


# ------------------------------------------------------------------------------------------------ scores, from outside


def test_a_multiclass_example_gives_the_numbers_computed_by_hand():
    """Six beats: N N N S S V, decided N N S S N V."""
    targets = np.eye(3, dtype=np.uint8)[[0, 0, 0, 1, 1, 2]]
    scores = np.array(
        [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.9, 0.0], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]]
    )
    report = scores_of(targets, scores, FEW, "multiclass")
    assert report.n_rows == 6
    assert report.accuracy == pytest.approx(4 / 6, abs=EXACT)
    assert report.mean_class_accuracy is None
    assert report.confusion == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert column(report, "support") == [3, 2, 1]
    assert column(report, "decided") == [3, 2, 1]
    assert column(report, "precision") == pytest.approx([2 / 3, 1 / 2, 1], abs=EXACT)
    assert column(report, "recall") == pytest.approx([2 / 3, 1 / 2, 1], abs=EXACT)
    assert column(report, "f1") == pytest.approx([2 / 3, 1 / 2, 1], abs=EXACT)
    assert report.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 1) / 3, abs=EXACT)
    assert report.weighted_f1 == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1) / 6, abs=EXACT)
    assert report.micro_f1 == pytest.approx(4 / 6, abs=EXACT)
    two = scores_of(targets, scores, FEW, "multiclass", scored=("S", "V"))
    assert two.scored_classes == ("S", "V")
    assert two.macro_f1 == two.macro_precision == two.macro_recall == pytest.approx((1 / 2 + 1) / 2, abs=EXACT)
    assert two.macro_auroc == pytest.approx((7 / 8 + 1) / 2, abs=EXACT)
    assert (two.macro_auroc_classes, two.micro_f1, two.per_class) == (2, report.micro_f1, report.per_class)
    # N: 0.8 0.7 0.3 against 0.1 0.5 0.1, 8 of 9 pairs in order; S: 0.9 0.4 against 0.1 0.2 0.6 0.1, 7 of 8
    assert column(report, "auroc") == pytest.approx([8 / 9, 7 / 8, 1], abs=EXACT)
    # N in order of score: hit, hit, miss, hit -> 1/3 (1 + 1 + 3/4); S: hit, miss, hit -> 1/2 (1 + 2/3)
    assert column(report, "average_precision") == pytest.approx([11 / 12, 5 / 6, 1], abs=EXACT)
    assert report.macro_auroc == pytest.approx((8 / 9 + 7 / 8 + 1) / 3, abs=EXACT)
    assert report.macro_auroc_classes == 3


def test_a_multilabel_example_gives_the_numbers_computed_by_hand():
    """Two classes: A present in rows 0 1, B in rows 1 2; decided A in 0 2, B in 1 2."""
    targets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    scores = np.array([[0.9, 0.1], [0.4, 0.8], [0.6, 0.7], [0.2, 0.3]])
    report = scores_of(targets, scores, ("A", "B"), "multilabel")
    assert report.accuracy == 0.5  # rows 0 and 3 exactly
    assert report.mean_class_accuracy == 0.75  # 6 of 8 decisions
    assert report.thresholds == (0.5, 0.5)
    assert report.confusion == [[[1, 1], [1, 1]], [[2, 0], [0, 2]]]  # [[TN, FP], [FN, TP]]
    assert column(report, "f1") == pytest.approx([0.5, 1], abs=EXACT)
    assert report.micro_precision == pytest.approx(3 / 4, abs=EXACT)
    assert report.macro_f1 == pytest.approx(0.75, abs=EXACT)
    assert column(report, "auroc") == pytest.approx([3 / 4, 1], abs=EXACT)


@pytest.mark.parametrize("n_classes", [2, 3, 5, 71])
@pytest.mark.parametrize("n_rows", [1, 2, 500])
def test_multiclass_scores_equal_scikit_learn_on_labels(rng, n_rows, n_classes):
    targets, scores, label = multiclass(rng, n_rows, n_classes)
    report = scores_of(targets, scores, names(n_classes), "multiclass")
    decided = scores.argmax(axis=1)
    every = list(range(n_classes))
    assert report.accuracy == pytest.approx(np.mean(decided == label), abs=EXACT)
    for average in ("macro", "micro", "weighted"):
        expected = sk.precision_recall_fscore_support(label, decided, labels=every, average=average, zero_division=0)
        got = [getattr(report, f"{average}_{score}") for score in ("precision", "recall", "f1")]
        assert got == pytest.approx(expected[:3], abs=EXACT)
    expected = sk.precision_recall_fscore_support(label, decided, labels=every, average=None, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert column(report, key) == pytest.approx(values, abs=EXACT)
    assert report.confusion == sk.confusion_matrix(label, decided, labels=every).tolist()
    if n_rows == 500 and targets.any(axis=0).all() and n_classes > 2:
        assert report.macro_auroc == pytest.approx(sk.roc_auc_score(label, scores, multi_class="ovr"), abs=EXACT)
        expected = sk.average_precision_score(label, scores, average="macro")
        assert report.macro_average_precision == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("n_classes", [1, 2, 6, 71])
def test_multilabel_scores_equal_scikit_learn_class_by_class(rng, n_classes):
    targets, scores = multilabel(rng, 400, n_classes)
    thresholds = rng.uniform(0.3, 0.7, size=n_classes)
    report = scores_of(targets, scores, names(n_classes), "multilabel", thresholds)
    decided = scores >= thresholds
    for k, entry in enumerate(report.per_class):
        target, decision = targets[:, k], decided[:, k]
        assert entry.precision == pytest.approx(sk.precision_score(target, decision), abs=EXACT)
        assert entry.recall == pytest.approx(sk.recall_score(target, decision), abs=EXACT)
        assert entry.f1 == pytest.approx(sk.f1_score(target, decision), abs=EXACT)
        assert entry.auroc == pytest.approx(sk.roc_auc_score(target, scores[:, k]), abs=EXACT)
        assert entry.average_precision == pytest.approx(sk.average_precision_score(target, scores[:, k]), abs=EXACT)
        assert (entry.support, entry.decided) == (target.sum(), decision.sum())
        assert report.confusion[k] == sk.confusion_matrix(target, decision).tolist()
    assert report.accuracy == pytest.approx(np.mean((targets == decided).all(axis=1)), abs=EXACT)
    assert report.mean_class_accuracy == pytest.approx(np.mean(targets == decided), abs=EXACT)
    for mean, keys in (("f1", "f1"), ("auroc", "auroc"), ("average_precision", "average_precision")):
        assert getattr(report, f"macro_{mean}") == pytest.approx(np.mean(column(report, keys)), abs=EXACT)
    everything = targets.ravel(), decided.ravel()
    assert report.micro_f1 == pytest.approx(sk.f1_score(*everything), abs=EXACT)
    assert report.micro_auroc == pytest.approx(sk.roc_auc_score(targets.ravel(), scores.ravel()), abs=EXACT)
    assert report.micro_average_precision == pytest.approx(
        sk.average_precision_score(targets.ravel(), scores.ravel()), abs=EXACT
    )
    weights = targets.sum(axis=0)
    assert report.weighted_f1 == pytest.approx(np.average(column(report, "f1"), weights=weights), abs=EXACT)


def test_macro_over_named_classes_equals_scikit_learn_with_these_labels(rng):
    targets, scores, label = multiclass(rng, 300, 5)
    report = scores_of(targets, scores, "NSVFQ", "multiclass", scored=("V", "N", "S"))
    expected = sk.f1_score(label, scores.argmax(axis=1), labels=[0, 1, 2], average="macro")
    assert report.macro_f1 == pytest.approx(expected, abs=EXACT)
    alone = scores_of(targets, scores, "NSVFQ", "multiclass", scored=("S",))
    assert alone.macro_f1 == pytest.approx(alone.per_class[1].f1, abs=EXACT)


def test_auroc_and_average_precision_depend_on_the_order_of_scores_only(rng):
    targets, scores = multilabel(rng, 100, 3)
    one, other = (scores_of(targets, s, FEW, "multilabel") for s in (scores, np.log(scores)))
    for key in ("auroc", "average_precision"):
        assert column(one, key) == column(other, key)


# -------------------------------------------------------------------------------------------------- degenerate sets


def test_a_class_without_rows_has_no_auroc_and_is_left_out_of_its_macro_mean(rng):
    targets, scores, _ = multiclass(rng, 200, 3)
    targets = np.insert(targets, 1, 0, axis=1)  # a fourth class that no row has
    scores = np.insert(scores, 1, 0.0, axis=1)
    report = scores_of(targets, scores, ("N", "absent", "S", "V"), "multiclass")
    without = scores_of(np.delete(targets, 1, 1), np.delete(scores, 1, 1), FEW, "multiclass")
    assert report.classes_without_rows == ("absent",)
    absent = report.per_class[1]
    assert (absent.auroc, absent.average_precision) == (None, None)
    assert (absent.precision, absent.recall, absent.f1, absent.support) == (0, 0, 0, 0)
    for score in ("auroc", "average_precision"):
        assert getattr(report, f"macro_{score}") == pytest.approx(getattr(without, f"macro_{score}"), abs=EXACT)
        assert getattr(report, f"macro_{score}_classes") == 3
    assert report.macro_f1 == pytest.approx(without.macro_f1 * 3 / 4, abs=EXACT)  # enters as 0
    assert report.weighted_f1 == pytest.approx(without.weighted_f1, abs=EXACT)


def test_a_class_that_every_row_has_has_no_auroc_and_an_average_precision_of_1(rng):
    targets, scores = multilabel(rng, 50, 3)
    targets[:, 2] = 1
    report = scores_of(targets, scores, FEW, "multilabel")
    assert report.per_class[2].auroc is None
    assert report.per_class[2].average_precision == 1
    assert report.macro_auroc_classes == 2
    assert report.macro_average_precision_classes == 3


@pytest.mark.parametrize("n_rows", [1, 7])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_rows_all_of_one_class_and_all_right_have_accuracy_1_and_no_auroc(n_rows, n_classes):
    targets = np.eye(n_classes, dtype=np.uint8)[[0] * n_rows]
    report = scores_of(targets, targets.astype(float), names(n_classes), "multiclass")
    assert report.accuracy == report.micro_f1 == report.weighted_f1 == 1
    assert report.macro_f1 == pytest.approx(1 / n_classes, abs=EXACT)
    assert report.macro_auroc is None
    assert report.macro_auroc_classes == 0
    assert report.micro_auroc == 1  # over all cells of the table there are both kinds
    assert report.macro_average_precision_classes == 1


@pytest.mark.parametrize("n_rows", [1, 4])
@pytest.mark.parametrize("n_classes", [1, 2, 5])
@pytest.mark.parametrize("score", [0.0, 1.0])
@pytest.mark.parametrize("target", [0, 1])
def test_multilabel_rows_that_are_all_alike_give_numbers_or_none(n_rows, n_classes, score, target):
    targets = np.full((n_rows, n_classes), target, dtype=np.uint8)
    report = scores_of(targets, np.full(targets.shape, score), names(n_classes), "multilabel")
    assert report.accuracy == report.mean_class_accuracy == float(score == target)
    assert report.macro_auroc is None
    assert report.micro_auroc is None
    assert report.macro_average_precision == report.micro_average_precision == (1.0 if target else None)
    for mean in ("macro", "micro", "weighted"):
        assert getattr(report, f"{mean}_f1") == float(score == target == 1)
    assert "NaN" not in json.dumps(report.tree())


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_a_report_is_plain_json_and_comes_back_equal(rng, task):
    targets, scores, _ = multiclass(rng, 40, 3)
    report = scores_of(targets, scores.astype(np.float32), FEW, task, scored=FEW)
    tree = json.loads(json.dumps(report.tree(), allow_nan=False))
    assert tree["macro_f1"] == report.macro_f1 and tree["scored_classes"] == list(FEW)
    assert [entry["class"] for entry in tree["per_class"]] == list(FEW)
    assert set(tree) == set(vars(report))


def test_targets_may_be_bool_int_or_float_and_are_not_changed(rng):
    targets, scores, _ = multiclass(rng, 40, 3)
    expected = scores_of(targets, scores, FEW, "multiclass")
    for kind in (bool, np.int64, np.float32):
        given = targets.astype(kind)
        assert scores_of(given, scores, FEW, "multiclass") == expected
        assert given.dtype == kind


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "binary"}, "task 'binary'"),
        ({"classes": ("N", "S")}, r"must be \(N, 2\)"),
        ({"classes": ("N", "S", "S")}, "names must differ"),
        ({"targets": np.eye(3)[:2]}, r"targets \(2, 3\) and scores \(3, 3\)"),
        ({"targets": 2 * np.eye(3)}, "0 or 1"),
        ({"targets": np.eye(3) * [1, 1, 0]}, "1 rows without exactly one class, first row 2"),
        ({"targets": np.zeros((0, 3)), "scores": np.zeros((0, 3))}, "no rows"),
        ({"targets": np.ones((2, 1)), "scores": np.ones((2, 1)), "classes": ("N",)}, "at least 2"),
        ({"scores": np.full((3, 3), np.nan)}, "NaN or infinity in 3 of 3 rows"),
        ({"thresholds": 0.5}, "thresholds"),
        ({"scored": ("N", "F")}, "scored classes N, F: .* some of N, S, V"),
        ({"scored": ("N", "N")}, "scored classes"),
    ],
)
def test_what_cannot_be_scored_is_an_error(change, words):
    arguments = {"targets": np.eye(3), "scores": np.eye(3), "classes": FEW, "task": "multiclass"} | change
    with pytest.raises(ValueError, match=words):
        scores_of(**arguments)


# ---------------------------------------------------------------------------------------------------------- Markdown


def tables(text):
    """The tables of a Markdown text, each a list of rows of cells; every row of one has the same number of cells."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", text, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.strip().split("\n")]
        assert len({len(row) for row in rows}) == 1
        found.append([rows[0], *rows[2:]])  # without the line of dashes
    return found


def test_the_markdown_of_a_multiclass_report_holds_its_numbers(rng):
    targets, scores, _ = multiclass(rng, 3000, 3)
    report = scores_of(targets, scores, FEW, "multiclass", scored=("S", "V"))
    text = report_markdown(report)
    assert text.startswith("## Overall\n\n3,000 rows, 3 classes, one class per row (multiclass).")
    overall, per_class, confusion = tables(text)
    overall = dict(overall[1:])
    assert overall["accuracy"] == f"{report.accuracy:.3f}"
    assert overall["macro F1 of S, V"] == f"{report.macro_f1:.3f}"
    assert overall["macro AUROC of S, V, over 2 of 2 classes"] == f"{report.macro_auroc:.3f}"
    assert per_class[0] == ["class", "rows", "decided", "precision", "recall", "F1", "AUROC", "average precision"]
    assert [row[0] for row in per_class[1:]] == list(FEW)
    assert [row[5] for row in per_class[1:]] == [f"{value:.3f}" for value in column(report, "f1")]
    assert confusion[0] == ["class", *FEW]
    assert [[int(cell) for cell in row[1:]] for row in confusion[1:]] == report.confusion


def test_the_markdown_of_a_multilabel_report_holds_its_numbers_and_thresholds(rng):
    targets, scores = multilabel(rng, 50, 3)
    targets[:, 1] = 0
    report = scores_of(targets, scores, FEW, "multilabel", [0.5, 0.25, 0.5])
    text = report_markdown(report)
    assert "Without a row, and with an F1 of 0 in the macro means: S." in text
    not_scored = scores_of(targets, scores, FEW, "multilabel", [0.5, 0.25, 0.5], scored=("N", "V"))
    assert "Without a row" not in report_markdown(not_scored)
    overall, per_class, confusion = tables(text)
    assert dict(overall[1:])["accuracy, mean over classes"] == f"{report.mean_class_accuracy:.3f}"
    assert per_class[0][-1] == "threshold"
    assert per_class[2][0] == "S"
    assert per_class[2][-3:] == ["–", "–", "0.250"]
    assert [[int(cell) for cell in row[1:]] for row in confusion[1:]] == np.reshape(report.confusion, (3, 4)).tolist()


def test_the_markdown_of_71_classes_lists_the_most_frequent_confusions(rng):
    targets, scores, label = multiclass(rng, 2000, 71)
    report = scores_of(targets, scores, names(71), "multiclass")
    *_, confusion = tables(report_markdown(report))
    assert confusion[0] == ["class", "decided", "rows"]
    counts = [int(row[2]) for row in confusion[1:]]
    off_diagonal = np.array(report.confusion) - np.diag(np.diag(report.confusion))
    assert counts == sorted(off_diagonal.ravel(), reverse=True)[:20]
    for class_name, decided, rows in confusion[1:]:
        i, j = names(71).index(class_name), names(71).index(decided)
        assert np.sum((label == i) & (scores.argmax(axis=1) == j)) == int(rows)


def test_class_names_with_a_bar_or_a_line_break_keep_the_table_whole():
    report = scores_of(np.eye(2), np.eye(2), ("a|b", "c\nd"), "multiclass")
    _, per_class, _ = tables(report_markdown(report))
    assert [row[0] for row in per_class[1:]] == [r"a\|b", "c d"]


def test_brier_score_and_calibration_error_equal_their_definitions(rng):
    targets = (rng.random((400, 3)) < 0.3).astype(np.uint8)
    scores = rng.random((400, 3))
    report = scores_of(targets, scores, names(3), "multilabel")
    assert report.brier == pytest.approx(np.mean([sk.brier_score_loss(targets[:, k], scores[:, k]) for k in range(3)]))
    error = 0.0
    for low in np.arange(10) / 10:
        inside = (scores >= low) & (scores < low + 0.1)
        error += inside.sum() / scores.size * abs(scores[inside].mean() - targets[inside].mean())
    assert report.calibration_error == pytest.approx(error)
    likely = (rng.random((100_000, 1)) < 0.7).astype(np.uint8)
    calibrated = scores_of(likely, np.full((100_000, 1), 0.7), ("a",), "multilabel")
    assert calibrated.calibration_error < 0.01
    other = scores_of(targets, 3 * scores - 1, names(3), "multilabel")
    assert other.brier is None and other.calibration_error is None
