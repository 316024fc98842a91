"""Variants of recordings: what changes and what must not, on records whose beats are known."""

import numpy as np
import pytest
from test_view import record

import pqrst
import variants
from variants import Annotated, vary

FS = 250


def annotated(n=200, seed=0):
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.array(["N", "S", "V"]), n, p=[0.8, 0.1, 0.1])
    rr = np.where(classes[1:] == "N", 0.8, 0.55) + 0.01 * rng.normal(size=n - 1)
    x, peaks = record(rr, np.where(classes == "V", "v", "n"), noise=0.002)
    return Annotated(x, FS, peaks, classes)


def aligned(result, kind):
    """Return the median QRS of the beats of a class, (L, W)."""
    at = [
        r
        for r, c in zip(result.r_peaks, result.classes, strict=True)
        if c == kind and 40 < r < result.signal.shape[1] - 40
    ]
    return np.median([result.signal[:, r - 20 : r + 20] for r in at], axis=0)


def test_the_same_seed_gives_the_same_variant_and_another_seed_another():
    given = annotated()
    one, again, other = (vary(*given, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.signal, again.signal)
    assert one.fs == again.fs != other.fs


@pytest.mark.parametrize("seed", range(12))
def test_a_variant_is_a_whole_recording_with_no_more_beats(seed):
    given = annotated()
    before = given.signal.copy()
    result = vary(*given, np.random.default_rng(seed))
    np.testing.assert_array_equal(given.signal, before)
    assert np.isfinite(result.signal).all() and len(result.signal) == 2
    assert len(result.r_peaks) == len(result.classes) <= len(given.r_peaks)
    assert (np.diff(result.r_peaks) > 0).all()
    assert result.r_peaks[0] >= 0 and result.r_peaks[-1] < result.signal.shape[1]
    assert set(result.classes) <= set(given.classes)
    assert 0.7 * FS < result.fs < 1.4 * FS
    pqrst.resample(result.signal, result.fs, 100)  # its rate is one that the chain takes


def test_a_recut_recording_holds_whole_beats_and_more_of_s(rng):
    given = annotated(600)
    given.classes[300:] = "N"  # all S beats are in the first half
    result = variants._recut(given, rng)
    assert 0.35 < len(result.r_peaks) / 600 < 1
    assert (result.classes == "S").mean() > (given.classes == "S").mean()
    for kind in "NV":
        np.testing.assert_allclose(aligned(result, kind), aligned(given, kind), atol=0.02)


def test_other_intervals_leave_the_qrs_as_it_is(rng):
    given = annotated()
    rr = rng.uniform(0.4, 1.5, 199)
    result = variants._retimed(given, rr, np.zeros(200, bool))
    np.testing.assert_allclose(np.diff(result.r_peaks) / FS, rr, atol=1.01 / FS)
    for kind in "NV":
        np.testing.assert_allclose(aligned(result, kind), aligned(given, kind), atol=0.12)
    assert result.signal.shape[1] == pytest.approx(
        given.signal.shape[1] + (rr.sum() * FS - np.ptp(given.r_peaks)), abs=2
    )


def test_fibrillation_takes_p_waves_and_s_beats_and_makes_the_rhythm_irregular():
    given = annotated(400, seed=3)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        if np.random.default_rng(seed).random() < 0.5:  # all of the record
            result = variants._fibrillated(given, rng)
            break
    assert "S" not in result.classes and (result.classes == "V").sum() == (given.classes == "V").sum()
    rr = np.diff(result.r_peaks)[result.classes[1:] == "N"] / FS
    assert 0.12 < np.std(np.log(rr)) < 0.35
    change = np.log(rr)
    assert abs(np.corrcoef(change[1:], change[:-1])[0, 1]) < 0.15, "one interval says nothing of the next"
    window = slice(-45, -33)  # 180 to 132 ms ahead of the R peak: the P wave is at 160

    def p_wave(of):
        beats = [r for r, c in zip(of.r_peaks, of.classes, strict=True) if c == "N" and r > 100]
        return np.ptp(np.mean([of.signal[0, r + window.start : r + window.stop] for r in beats], axis=0))

    assert p_wave(result) < 0.5 * p_wave(given)
