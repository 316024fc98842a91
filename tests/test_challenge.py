"""The challenges' scores against the loops of their rules, and what a table of weights must be."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

import evaluate
from challenge import as_text, challenge_scores, read_weights, score_2017, score_2021
from script import Stop


def by_the_rule(targets, decided, weights, sinus_rhythm):
    """Record by record, class by class, as the challenge's text says it."""

    def observed(answers):
        total = 0.0
        for truth, answer in zip(targets, answers, strict=True):
            n = max(1, sum(1 for t, a in zip(truth, answer, strict=True) if t or a))
            for j, t in enumerate(truth):
                for k, a in enumerate(answer):
                    total += weights[j][k] / n if t and a else 0.0
        return total

    always = [[int(k == sinus_rhythm) for k in range(len(weights))] for _ in targets]
    return (observed(decided) - observed(always)) / (observed(targets) - observed(always))


@pytest.mark.parametrize("seed", range(5))
def test_the_score_of_2021_is_that_of_its_rule(seed):
    rng = np.random.default_rng(seed)
    targets, decided = (rng.random((2, 60, 5)) < 0.3).astype(np.uint8)
    weights = rng.random((5, 5))
    np.fill_diagonal(weights, 1)
    expected = by_the_rule(targets, decided, weights, 2)
    assert score_2021(targets, decided, weights, 2) == pytest.approx(expected, abs=1e-12)
    idle = np.zeros_like(targets)
    idle[:, 2] = 1
    assert score_2021(targets, targets, weights, 2) == 1 and score_2021(targets, idle, weights, 2) == 0
    assert score_2021(idle, idle, weights, 2) == 0  # nothing to tell apart


def test_the_score_of_2017_is_the_mean_f1_of_three_classes(rng):
    classes = ("N", "A", "O", "~")
    truth, answer = rng.choice(4, (2, 300), p=(0.6, 0.1, 0.25, 0.05))
    counts = Counter(zip(truth, answer, strict=True))
    expected = 0.0
    for k in range(3):
        of_class, said = (sum(n for pair, n in counts.items() if pair[side] == k) for side in (0, 1))
        expected += 2 * counts[k, k] / (of_class + said) / 3
    one_hot = np.eye(4, dtype=np.uint8)
    assert score_2017(one_hot[truth], one_hot[answer], classes) == pytest.approx(expected, abs=1e-12)
    assert score_2017(one_hot[[3, 3]], one_hot[[3, 3]], classes) == 0


def test_weights_are_found_by_name_whatever_their_order_and_theirs_of_equivalent_classes(tmp_path):
    names = ["a", "c|b", "d"]
    table = pd.DataFrame(np.arange(9.0).reshape(3, 3), index=names, columns=names)
    table.to_csv(tmp_path / "w.csv")
    np.testing.assert_array_equal(read_weights(tmp_path / "w.csv", ["d", "b|c"]), [[8, 7], [5, 4]])


def test_the_tables_of_the_challenge_hold_the_classes_of_the_dataset(real_data):
    from sources import SOURCES

    classes = SOURCES["cinc2021"].targets["scored"].classes
    weights = read_weights(real_data / "cinc2021/weights_abbreviations.csv", classes)
    assert weights.shape == (26, 26) and (np.diag(weights) == 1).all() and (weights == weights.T).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read as a table of weights"),
        ("", "cannot be read as a table of weights"),
        (",a,b\na,1.0,0.5\nc,0.5,1.0\n", "rows and columns must be the same classes"),
        (",a,b\na,1.0,x\nb,0.5,1.0\n", "its cells numbers"),
        (",a,b\na,1.0,0.5\nb,0.5,1.0\n", "has no class c; its classes are a, b"),
    ],
)
def test_a_table_that_is_none_stops_with_its_name(tmp_path, text, message):
    path = tmp_path / "weights.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Stop, match=f"{path}: .*{message}"):
        read_weights(path, ["a", "c"])


def test_a_report_holds_the_challenges_score(demo_run, tmp_path):
    classes = ["1dAVb", "RBBB", "LBBB", "SB", "AF", "ST"]
    table = pd.DataFrame(np.eye(6), index=classes, columns=classes)
    table.to_csv(tmp_path / "w.csv")
    words = [str(demo_run), "--evaluation.split", "validation", "--evaluation.challenge", str(tmp_path / "w.csv")]
    with pytest.raises(Stop, match="ranks against sinus rhythm"):
        evaluate.main(words)
    decided, targets = np.eye(4, dtype=np.uint8)[[0, 1, 2]], np.eye(4, dtype=np.uint8)[[0, 1, 1]]
    ranked = challenge_scores(targets, decided, ("N", "A", "O", "~"), None)
    assert ranked == {"CinC 2017, mean F1 of N, A, O": pytest.approx((1 + 2 / 3) / 3)}
    assert as_text(ranked) == "Challenge score (CinC 2017, mean F1 of N, A, O): 0.5556\n\n"
    assert json.loads((demo_run / "report/metrics.json").read_text())["challenge"] == {}
