"""Intervals over patients: the scores of a draw against scikit-learn's, and how often an interval holds the truth."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

import intervals
from metrics import scores_of


def rows_of(rng, n=120, rare=0.05):
    targets = (rng.random((n, 3)) < [0.3, 0.5, rare]).astype(np.uint8)
    targets[:3] = np.eye(3)
    scores = np.round(0.4 * targets + rng.random((n, 3)), 1)  # many equals
    return targets, scores


def test_the_scores_of_a_draw_are_those_of_scikit_learn_on_the_rows_drawn(rng):
    targets, scores = rows_of(rng)
    times = rng.integers(0, 4, (5, 120)).astype(float)
    for c in range(3):
        auroc, precision = intervals.ranking(targets[:, c], scores[:, c], times)
        for b in range(5):
            drawn = np.repeat(np.arange(120), times[b].astype(int))
            assert auroc[b] == pytest.approx(roc_auc_score(targets[drawn, c], scores[drawn, c]), abs=1e-12)
            assert precision[b] == pytest.approx(
                average_precision_score(targets[drawn, c], scores[drawn, c]), abs=1e-12
            )


def test_every_interval_holds_the_score_of_all_rows(rng):
    targets, scores = rows_of(rng, 600)
    decided = (scores >= 0.7).astype(np.uint8)
    found = intervals.intervals_of(targets, scores, decided, np.arange(600) // 3, (0, 2))
    report = scores_of(targets, scores, ("a", "b", "c"), "multilabel", 0.7, ("a", "c"))
    assert set(found) == {
        "accuracy", "macro_f1", "macro_precision", "macro_recall", "macro_auroc", "macro_average_precision"
    }  # fmt: skip
    for name, (low, high) in found.items():
        assert low < getattr(report, name) < high, name
    assert report.macro_f1 == pytest.approx(f1_score(targets[:, [0, 2]], decided[:, [0, 2]], average="macro"))


def test_a_draw_without_a_class_is_drawn_again():
    of_class = np.zeros(40)
    of_class[0] = 1
    times = intervals.draws(np.stack([np.ones(40), of_class]), 500, 0)
    assert len(times) == 500 and (times[:, 0] > 0).all() and (times.sum(axis=1) == 40).all()


def test_many_rows_are_taken_in_pieces_with_the_same_intervals(rng, monkeypatch):
    targets, scores = rows_of(rng)
    decided = (scores > 0.7).astype(np.uint8)
    whole = intervals.intervals_of(targets, scores, decided, np.arange(120) // 2, (0, 1))
    monkeypatch.setattr(intervals, "CELLS_AT_ONCE", 1000)
    assert intervals.intervals_of(targets, scores, decided, np.arange(120) // 2, (0, 1)) == whole


def test_one_patient_and_a_class_that_hardly_comes_have_no_interval(rng):
    targets, scores = rows_of(rng)
    decided = (scores > 0.7).astype(np.uint8)
    assert intervals.intervals_of(targets, scores, decided, np.zeros(120), (0, 1)) == {}
    # twelve classes with one patient each, of twelve: a draw has all of them in one of 19,000
    alone = np.eye(12, dtype=np.uint8)
    assert intervals.intervals_of(alone, alone.astype(float), alone, np.arange(12), range(12)) == {}


@pytest.mark.slow
def test_nineteen_of_twenty_intervals_hold_the_truth(rng):
    """Patients with four rows that share a part of their score, from a population whose AUROC is known."""
    truth_rows, hits = 200_000, {"macro_auroc": 0, "accuracy": 0}

    def population(n_patients):
        of_patient = np.repeat(rng.normal(size=(n_patients, 1)), 4, axis=0)
        targets = (rng.random((4 * n_patients, 1)) < 0.3).astype(np.uint8)
        scores = targets + of_patient + rng.normal(size=targets.shape)
        return targets, scores, (scores > 0.5).astype(np.uint8), np.repeat(np.arange(n_patients), 4)

    targets, scores, decided, _ = population(truth_rows // 4)
    truth = {"macro_auroc": roc_auc_score(targets, scores), "accuracy": float((targets == decided).mean())}
    for _ in range(300):
        targets, scores, decided, patients = population(80)
        found = intervals.intervals_of(targets, scores, decided, patients, (0,))
        for name in hits:
            low, high = found[name]
            hits[name] += low <= truth[name] <= high
    for name, n in hits.items():
        assert 0.91 <= n / 300 <= 0.98, (name, n)
