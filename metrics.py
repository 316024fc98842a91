"""The scores of a set of rows, used by train.py and evaluate.py. scikit-learn computes every one of them.

    report = scores_of(targets, scores, classes=("N", "S", "V"), task="multiclass")
    report["macro_f1"], report["per_class"][1]["recall"]
    Path("metrics.json").write_text(json.dumps(report))
    Path("report.md").write_text(report_markdown(report))

Where a score has no value:

- precision (nothing decided for the class), recall and F1 (no row of the class) are 0 where they would divide by zero
  (`zero_division=0`), and enter macro means as that 0: a class nobody found does not improve the mean. Classes without
  a row are listed in `classes_without_rows`.
- AUROC of a class without positive or without negative rows, and average precision of a class without positive rows,
  are None (null in JSON) and left out of the macro mean; `macro_auroc_classes` and `macro_average_precision_classes`
  say how many classes entered. Without any, the mean is None as well.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    hamming_loss,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

Array = npt.NDArray[Any]
TASKS = ("multiclass", "multilabel")
ZERO_DIVISION = 0.0


def decide(scores: Array, task: str, thresholds: float | Sequence[float] | Array | None = None) -> Array:
    """Decide classes from scores.

    Parameters
    ----------
    scores : (N, K) float, finite
    task : "multiclass" (one class per row: the highest score, the first of equals) or "multilabel" (any number of
        classes: every score at or above its threshold)
    thresholds : one for all classes or (K,), 0.5 if None; multilabel only

    Returns
    -------
    (N, K) uint8, 1 where the class is decided

    Raises
    ------
    ValueError
        another task or shape, scores that are not finite, thresholds for multiclass.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if task not in TASKS:
        raise ValueError(f"task {task!r}: must be one of {', '.join(TASKS)}")
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores {scores.shape}: must be (N, K), rows by classes")
    broken = ~np.isfinite(scores).all(axis=1)  # (N,)
    if broken.any():
        raise ValueError(
            f"scores: NaN or infinity in {broken.sum()} of {len(scores)} rows, first row {broken.argmax()}"
        )
    if task == "multiclass":
        if thresholds is not None:
            raise ValueError("thresholds: multiclass decides for the highest score and has none; leave them out")
        decided: Array = np.eye(scores.shape[1], dtype=np.uint8)[scores.argmax(axis=1)]  # (N, K), one 1 per row
        return decided
    return (scores >= _thresholds(thresholds, scores.shape[1])).astype(np.uint8)


def scores_of(
    targets: Array,
    scores: Array,
    classes: Sequence[str],
    task: str,
    thresholds: float | Sequence[float] | Array | None = None,
    macro_classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """All scores of a set of rows.

    Parameters
    ----------
    targets : (N, K) of 0 and 1, N at least 1; multiclass: exactly one 1 per row, K at least 2
    scores : (N, K) float, finite; AUROC and average precision use their order only
    classes : K different names
    task, thresholds : as in `decide`
    macro_classes : some of the classes, each once, for a second macro mean of F1, e.g. ("N", "S", "V") of beats

    Returns
    -------
    dict of str, int, float, lists and None, so that json.dumps takes it. All scores 0..1:
    task, n_rows, classes, thresholds (list, None for multiclass), classes_without_rows;
    accuracy: fraction of rows with every class right (multilabel: exact match);
    mean_class_accuracy: fraction of right decisions over all classes, None for multiclass;
    macro_*, micro_*, weighted_* of f1, precision, recall; macro_ and micro_auroc, macro_ and micro_average_precision,
    macro_auroc_classes, macro_average_precision_classes (int);
    macro_classes (list) and macro_classes_f1, None unless asked for;
    per_class: a list of {class, support, decided, precision, recall, f1, auroc, average_precision}, support and decided
    being rows of the class and rows decided to be;
    confusion: multiclass (K, K) rows, [class][decided]; multilabel (K, 2, 2) rows, [[TN, FP], [FN, TP]] for each class.

    Raises
    ------
    ValueError
        what `decide` raises, shapes that disagree, no rows, targets other than described, unknown macro_classes.
    """
    targets, classes = np.asarray(targets), list(classes)
    scores = np.asarray(scores, dtype=np.float64)
    _check(targets, scores, classes, task)
    targets = targets.astype(np.uint8)
    decided = decide(scores, task, thresholds)  # (N, K)

    per_class = _f1(targets, decided, average=None)  # each (K,)
    support, n_decided = targets.sum(axis=0, dtype=int), decided.sum(axis=0, dtype=int)  # (K,)
    with_positives = support > 0
    with_both = with_positives & (support < len(targets))
    auroc, macro_auroc, micro_auroc = _ranking(roc_auc_score, targets, scores, with_both)
    precisions, macro_precision, micro_precision = _ranking(average_precision_score, targets, scores, with_positives)

    means = {}
    for average in ("macro", "micro", "weighted"):
        for name, value in _f1(targets, decided, average=average).items():
            means[f"{average}_{name}"] = float(value)

    subset_f1 = None
    if macro_classes is not None:
        if not macro_classes or len(set(macro_classes)) != len(macro_classes) or set(macro_classes) - set(classes):
            raise ValueError(f"macro_classes {list(macro_classes)}: must be some of {', '.join(classes)}, each once")
        columns = [classes.index(name) for name in macro_classes]
        subset_f1 = float(_f1(targets[:, columns], decided[:, columns], average="macro")["f1"])

    return {
        "task": task,
        "n_rows": len(targets),
        "classes": classes,
        "thresholds": _thresholds(thresholds, len(classes)).tolist() if task == "multilabel" else None,
        "classes_without_rows": [name for name, n in zip(classes, support, strict=True) if n == 0],
        "accuracy": float(accuracy_score(targets, decided)),
        "mean_class_accuracy": float(1 - hamming_loss(targets, decided)) if task == "multilabel" else None,
        **means,
        "macro_auroc": macro_auroc,
        "macro_auroc_classes": int(with_both.sum()),
        "micro_auroc": micro_auroc,
        "macro_average_precision": macro_precision,
        "macro_average_precision_classes": int(with_positives.sum()),
        "micro_average_precision": micro_precision,
        "macro_classes": None if macro_classes is None else list(macro_classes),
        "macro_classes_f1": subset_f1,
        "per_class": [
            {
                "class": name,
                "support": int(support[k]),
                "decided": int(n_decided[k]),
                "precision": float(per_class["precision"][k]),
                "recall": float(per_class["recall"][k]),
                "f1": float(per_class["f1"][k]),
                "auroc": auroc[k],
                "average_precision": precisions[k],
            }
            for k, name in enumerate(classes)
        ],
        "confusion": _confusion(targets, decided, task).tolist(),
    }


def _check(targets: Array, scores: Array, classes: list[str], task: str) -> None:
    if task not in TASKS:
        raise ValueError(f"task {task!r}: must be one of {', '.join(TASKS)}")
    if targets.ndim != 2 or targets.shape != scores.shape or targets.shape[1] != len(classes):
        raise ValueError(
            f"targets {targets.shape} and scores {scores.shape}: both must be (N, {len(classes)}), rows by classes"
        )
    if len(targets) == 0:
        raise ValueError("targets: no rows, nothing to score")
    if len(set(classes)) != len(classes):
        raise ValueError(f"classes {', '.join(classes)}: names must differ")
    if not np.isin(targets, (0, 1)).all():
        raise ValueError("targets: must be 0 or 1")
    if task == "multiclass":
        if len(classes) < 2:
            raise ValueError(f"classes {classes}: multiclass needs at least 2; one class alone is multilabel")
        wrong = np.flatnonzero(targets.sum(axis=1, dtype=int) != 1)
        if len(wrong):
            raise ValueError(f"targets: {len(wrong)} rows without exactly one class, first row {wrong[0]}")


def _thresholds(thresholds: float | Sequence[float] | Array | None, n_classes: int) -> Array:
    """(K,) float64."""
    values = np.asarray(0.5 if thresholds is None else thresholds, dtype=np.float64)
    if values.shape not in ((), (n_classes,)) or np.isnan(values).any():
        raise ValueError(f"thresholds {values.tolist()}: must be one number or {n_classes}, one per class")
    return np.broadcast_to(values, (n_classes,))


def _f1(targets: Array, decided: Array, average: str | None) -> dict[str, Any]:
    """precision, recall and f1 over the columns of two (N, K) arrays: (K,) each, or their mean."""
    columns = list(range(targets.shape[1]))
    if len(columns) == 1:  # scikit-learn takes one column for a binary problem, where class 1 is the column
        targets, decided, columns = targets[:, 0], decided[:, 0], [1]
    values = precision_recall_fscore_support(
        targets, decided, labels=columns, average=average, zero_division=ZERO_DIVISION
    )
    return dict(zip(("precision", "recall", "f1"), values, strict=False))


def _ranking(
    score: Any, targets: Array, scores: Array, usable: Array
) -> tuple[list[float | None], float | None, float | None]:
    """AUROC or average precision: per class (None where not usable), their macro mean, and micro over all decisions."""
    columns = range(targets.shape[1])
    per_class = [float(score(targets[:, k], scores[:, k])) if usable[k] else None for k in columns]
    macro = float(score(targets[:, usable], scores[:, usable], average="macro")) if usable.any() else None
    # micro: every cell of the (N, K) table is one decision, so a class without rows still counts by its negatives
    positives = targets.sum(dtype=int)
    defined = 0 < positives < targets.size or (positives > 0 and score is average_precision_score)
    micro = float(score(targets.ravel(), scores.ravel())) if defined else None
    return per_class, macro, micro


def _confusion(targets: Array, decided: Array, task: str) -> Array:
    """(K, K) rows of one class decided for another, or for multilabel (K, 2, 2)."""
    columns = list(range(targets.shape[1]))
    if task == "multiclass":
        table: Array = confusion_matrix(targets.argmax(axis=1), decided.argmax(axis=1), labels=columns)
    elif len(columns) == 1:
        table = multilabel_confusion_matrix(targets[:, 0], decided[:, 0], labels=[1])
    else:
        table = multilabel_confusion_matrix(targets, decided, labels=columns)
    return table


# ---------------------------------------------------------------------------------------------------------- the report

MAX_CONFUSION_COLUMNS = 20  # a wider table is no longer read; the most frequent confusions are listed instead


def report_markdown(report: dict[str, Any]) -> str:
    """What `scores_of` returned as Markdown: overall scores, one line per class, and who was taken for whom."""
    sections = [_overall_section(report), _classes_section(report), _confusion_section(report)]
    return "\n\n".join(sections) + "\n"


def _overall_section(report: dict[str, Any]) -> str:
    multilabel = report["task"] == "multilabel"
    rows = [("accuracy" + (" (all classes of a row right)" if multilabel else ""), _number(report["accuracy"]))]
    if multilabel:
        rows.append(("accuracy, mean over classes", _number(report["mean_class_accuracy"])))
    if report["macro_classes"] is not None:
        rows.append((f"macro F1 of {', '.join(report['macro_classes'])}", _number(report["macro_classes_f1"])))
    for score, label in (("f1", "F1"), ("precision", "precision"), ("recall", "recall")):
        rows += [(f"{mean} {label}", _number(report[f"{mean}_{score}"])) for mean in ("macro", "micro", "weighted")]
    for score, label in (("auroc", "AUROC"), ("average_precision", "average precision")):
        entered = f"over {report[f'macro_{score}_classes']} of {len(report['classes'])} classes"
        rows.append((f"macro {label}, {entered}", _number(report[f"macro_{score}"])))
        rows.append((f"micro {label}", _number(report[f"micro_{score}"])))
    kind = "any number of classes per row" if multilabel else "one class per row"
    text = f"{report['n_rows']:,} rows, {len(report['classes'])} classes, {kind} ({report['task']}). Scores are 0 to 1."
    if report["classes_without_rows"]:
        text += (
            f" Without a row, and with an F1 of 0 in the macro means: {_cells(report['classes_without_rows'], ', ')}."
        )
    return f"## Overall\n\n{text}\n\n" + _table(("score", "value"), rows)


def _classes_section(report: dict[str, Any]) -> str:
    header = ["class", "rows", "decided", "precision", "recall", "F1", "AUROC", "average precision"]
    keys = ("precision", "recall", "f1", "auroc", "average_precision")
    rows = []
    for k, entry in enumerate(report["per_class"]):
        row = [entry["class"], f"{entry['support']:,}", f"{entry['decided']:,}", *(_number(entry[key]) for key in keys)]
        rows.append(row if report["thresholds"] is None else [*row, _number(report["thresholds"][k])])
    text = "Rows of the class and rows decided to be of it; a dash where a score is not defined."
    if report["thresholds"] is not None:
        header.append("threshold")
        text += " A class is decided at or above its threshold."
    return f"## Per class\n\n{text}\n\n" + _table(header, rows)


def _confusion_section(report: dict[str, Any]) -> str:
    classes, confusion = report["classes"], report["confusion"]
    if report["task"] == "multilabel":
        text = "Rows of each class against all others."
        header = ["class", "true negative", "false positive", "false negative", "true positive"]
        rows = [
            [name, *(f"{n:,}" for side in table for n in side)] for name, table in zip(classes, confusion, strict=True)
        ]
    elif len(classes) <= MAX_CONFUSION_COLUMNS:
        text = "Rows: one line per class, one column per class decided."
        header = ["class", *classes]
        rows = [[name, *(f"{n:,}" for n in line)] for name, line in zip(classes, confusion, strict=True)]
    else:
        text = f"The {MAX_CONFUSION_COLUMNS} most frequent confusions, in rows."
        header = ["class", "decided", "rows"]
        pairs = [
            (n, i, j) for i, line in enumerate(confusion) for j, n in enumerate(line) if i != j and n > 0
        ]  # (rows, class, decided)
        pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
        rows = [[classes[i], classes[j], f"{n:,}"] for n, i, j in pairs[:MAX_CONFUSION_COLUMNS]]
    return f"## Confusion\n\n{text}\n\n" + _table(header, rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cells(words: Sequence[str], separator: str) -> str:
    return separator.join(word.replace("|", "\\|").replace("\n", " ") for word in words)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, numbers to the right."""
    lines = [_cells(header, " | "), " | ".join([":--", *["--:"] * (len(header) - 1)])]
    lines += [_cells(row, " | ") for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
