"""Runs, pauses, rates and irregular stretches of beats whose truth is known."""

import numpy as np
import pytest

import rhythm

FS = 250


def beats(text, rr=0.8, **changed):
    """Classes and R peaks: one interval for all, others where a letter has its own (before the beat)."""
    steps = np.array([changed.get(letter, rr) for letter in text])
    return np.round(np.cumsum(steps) * FS).astype(np.int64), list(text)


def found(text, **changed):
    r_peaks, classes = beats(text, **changed)
    return rhythm.summarise(r_peaks, classes, FS)


@pytest.mark.parametrize(
    ("text", "changed", "runs"),
    [
        ("NNNNNN", {}, []),
        ("NNVNN", {}, []),
        ("NNVVNN", {"V": 0.4}, [("V couplet", 2)]),
        ("NNVVVNN", {"V": 0.4}, [("VT", 3)]),
        ("NNVVVVNN", {"V": 0.9}, [("V run", 4)]),
        ("NNSSSSNN", {"S": 0.4}, [("SVT", 4)]),
        ("NSSN", {"S": 0.4}, [("S couplet", 2)]),
        ("NVNVNVN", {}, [("bigeminy", 5)]),
        ("NVNVNN", {}, []),
        ("VNNVNNVNN", {}, [("trigeminy", 7)]),
        ("VVVNNNNVV", {"V": 0.4}, [("VT", 3), ("V couplet", 2)]),
        ("", {}, []),
    ],
)
def test_runs_are_named_by_length_and_rate(text, changed, runs):
    assert [(run.kind, run.n_beats) for run in found(text, **changed).runs] == runs


def test_a_run_says_where_it_is_and_how_fast():
    text = "N" * 10 + "VVVV" + "N" * 10
    summary = found(text, V=0.4)
    (run,) = summary.runs
    assert run.start == beats(text, V=0.4)[0][10]
    assert run.bpm == pytest.approx(150)
    assert "VT: 1; longest 4 beats at 0:08, 150 per minute" in summary.to_text()


def test_rates_are_those_of_the_intervals():
    r_peaks = np.round(np.cumsum([1.0] * 60 + [0.5] * 60) * FS).astype(np.int64)
    summary = rhythm.summarise(r_peaks, ["N"] * 120, FS)
    assert summary.mean_bpm == pytest.approx(60 * 119 / (59 + 30))
    assert (summary.slowest_bpm, summary.fastest_bpm) == (pytest.approx(60), pytest.approx(120))
    assert [(start, round(bpm)) for start, bpm in summary.trend] == [(0.0, 60), (60.0, 120)]
    assert summary.tree()["mean_hr_bpm"] == 80.2


def test_a_day_has_a_trend_of_twelve_steps():
    r_peaks = np.arange(0, 24 * 3600 * FS, FS)
    trend = rhythm.summarise(r_peaks, ["N"] * len(r_peaks), FS).trend
    assert len(trend) == 12 and {round(bpm) for _, bpm in trend} == {60}


def test_pauses_are_intervals_without_a_beat_but_not_without_a_signal():
    r_peaks = np.array([0, 1, 2, 5, 6, 9, 10]) * FS
    summary = rhythm.summarise(r_peaks, ["N"] * 7, FS)
    assert summary.pauses == [(2 * FS, 3.0), (6 * FS, 3.0)]
    assert "pauses of 2 s or more: 2; longest 3.0 s at 0:02" in summary.to_text()
    summary = rhythm.summarise(r_peaks, ["N"] * 7, FS, gaps=[(int(6.5 * FS), int(8.5 * FS))])
    assert summary.pauses == [(2 * FS, 3.0)]
    assert summary.mean_bpm == pytest.approx(60 * 5 / 7)


def test_fibrillation_is_irregular_and_sinus_arrhythmia_bigeminy_or_steady_beats_are_not(rng):
    n = 640
    fibrillation = rng.gamma(16, 0.7 / 16, n)
    breathing = 0.8 + 0.12 * np.sin(np.arange(n) / 4) + rng.normal(0, 0.01, n)
    for rr, share in ((fibrillation, (0.8, 1)), (breathing, (0, 0.1)), (np.tile([0.5, 1.1], n // 2), (0, 0))):
        assert share[0] <= rhythm.irregular_share(rr, ["N"] * (n + 1)) <= share[1]
    assert rhythm.irregular_share(fibrillation[:60], ["N"] * 61) is None
    r_peaks = np.round(np.cumsum(fibrillation) * FS).astype(np.int64)
    text = "\n".join(rhythm.summarise(r_peaks, ["N"] * n, FS).to_text())
    assert "irregularly irregular, as in atrial fibrillation, " in text and "no diagnosis" in text


@pytest.mark.parametrize("n", [0, 1])
def test_no_interval_is_no_rate(n):
    summary = rhythm.summarise(np.arange(n) * FS, ["N"] * n, FS)
    assert summary.mean_bpm is None and summary.to_text()[-1] == "rate unknown"
    assert summary.tree()["mean_hr_bpm"] is None


def test_the_clock_counts_hours_only_where_there_are_some():
    assert [rhythm.clock(seconds) for seconds in (0, 59.9, 61, 3599, 3600, 86399)] == [
        "0:00", "0:59", "1:01", "59:59", "1:00:00", "23:59:59",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="classes: 2 names for 3 beats"):
        rhythm.summarise(np.arange(3), ["N", "N"], FS)
