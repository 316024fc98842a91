"""The comparison of two runs: its tests against permutations and published definitions, and what it refuses."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

import data
import evaluate
import intervals
import train
from compare import delong, mcnemar
from script import Stop


def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ(rng):
    targets = (rng.random((200, 2)) < 0.5).astype(np.uint8)
    one, other = (np.where(rng.random((200, 2)) < share, targets, 1 - targets) for share in (0.8, 0.9))
    right = [(targets == of).all(axis=1) for of in (one, other)]
    b, c = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
    assert mcnemar(targets, one, other) == (b, c, pytest.approx(min(1, 2 * binom.cdf(min(b, c), b + c, 0.5))))
    assert mcnemar(targets, one, one) == (0, 0, 1.0)


def structural(target, one, other):
    """DeLong's variance by its definition, over all pairs of rows with and without the class."""
    present, absent = np.flatnonzero(target > 0), np.flatnonzero(target == 0)
    tables = []
    for score in (one, other):
        a, b = score[present][:, None], score[absent][None]
        tables.append((a > b) + 0.5 * (a == b))
    difference = tables[1] - tables[0]  # (m, n)
    return difference.mean(axis=1).var(ddof=1) / len(present) + difference.mean(axis=0).var(ddof=1) / len(absent)


def test_delong_has_the_aurocs_and_the_variance_of_its_definition(rng):
    from scipy.stats import norm

    target = (rng.random(150) < 0.3).astype(np.uint8)
    one, other = (np.round(target * lift + rng.normal(size=150), 1) for lift in (0.5, 1.0))
    a, b, p = delong(target, one, other)
    assert (a, b) == (pytest.approx(roc_auc_score(target, one)), pytest.approx(roc_auc_score(target, other)))
    z = (b - a) / np.sqrt(structural(target, one, other))
    assert p == pytest.approx(2 * norm.sf(abs(z)))
    assert delong(target, one, one)[2] == 1.0


def test_of_equal_networks_one_comparison_in_twenty_is_significant(rng):
    p = []
    for _ in range(400):
        target = (rng.random(120) < 0.4).astype(np.uint8)
        shared = target + rng.normal(size=120)
        p.append(delong(target, shared + 0.7 * rng.normal(size=120), shared + 0.7 * rng.normal(size=120))[2])
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09


def test_the_interval_of_a_difference_is_narrower_than_that_of_either(rng):
    targets = (rng.random((300, 1)) < 0.4).astype(np.uint8)
    one = targets + rng.normal(size=(300, 1))
    other = one + 0.1 * targets
    answers = [(scores, (scores > 0.5).astype(np.uint8)) for scores in (one, other)]
    low, high = intervals.differences_of(targets, *answers, np.arange(300), (0,))["macro_auroc"]
    assert 0 < low < roc_auc_score(targets, other) - roc_auc_score(targets, one) < high
    alone = intervals.intervals_of(targets, *answers[0], np.arange(300), (0,))["macro_auroc"]
    assert high - low < (alone[1] - alone[0]) / 3


def test_two_runs_are_compared_and_runs_on_other_rows_refused(demo_run, beat_run, prepared_demo, tmp_path, capsys):
    words = [*prepared_demo, "--run_dir", str(tmp_path / "other"), "--training.epochs", "1", "--training.seed", "1"]
    train.main([*words, "--training.batch_size", "16"])
    capsys.readouterr()
    evaluate.main([str(demo_run), str(tmp_path / "other")])
    said = capsys.readouterr().out
    assert f"# {tmp_path / 'other'} against {demo_run}: " in said
    for text in ("| macro auroc | 0.", "McNemar's exact test: p = ", "| 1dAVb | 0."):
        assert text in said
    evaluate.main([str(demo_run), str(demo_run)])
    assert "| macro f1 |" in (said := capsys.readouterr().out) and "+0.0000 (+0.000 to +0.000)" in said
    with pytest.raises(Stop, match=r"knows classes 1dAVb, .*, .* N, S, V, F, Q"):
        evaluate.main([str(demo_run), str(beat_run)])
    with pytest.raises(Stop, match="3 runs: one is scored, two are compared"):
        evaluate.main([str(demo_run)] * 3)
    train.main([*words[:-1], "2", "--training.batch_size", "16", "--data.test", "8", "--overwrite"])
    with pytest.raises(Stop, match="are scored on different rows"):
        evaluate.main([str(demo_run), str(tmp_path / "other")])


def test_a_comparison_counts_no_patients_where_nobody_knows_them(demo_run, monkeypatch, capsys):
    load = data.Summary.load
    unknown = {"patients_known": False}
    monkeypatch.setattr(data.Summary, "load", lambda folder: load(folder).model_copy(update=unknown))
    evaluate.main([str(demo_run), str(demo_run)])
    heading, *_ = capsys.readouterr().out.splitlines()
    assert heading.endswith(" test rows, patients unknown")
