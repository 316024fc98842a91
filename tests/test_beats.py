import numpy as np
import pytest

import beats


def test_context_of_regular_beats_is_their_interval():
    context = beats.beat_context(
        np.arange(20) * 300, 300.0, ["rr_previous_s", "rr_next_s", "rr_mean10_s", "rr_record_s"]
    )
    assert context.dtype == np.float32
    np.testing.assert_array_equal(context[1:-1], 1.0)
    np.testing.assert_array_equal(
        np.isnan(context[[0, -1]]), [[True, False, False, False], [False, True, False, False]]
    )


def test_context_mean_takes_five_intervals_to_either_side(rng):
    r_peaks = np.cumsum(rng.integers(100, 300, 40))
    rr = np.diff(r_peaks) / 100
    context = beats.beat_context(r_peaks, 100.0, ["rr_mean10_s"])[:, 0]
    for i in (0, 3, 20, 39):
        np.testing.assert_allclose(context[i], rr[max(0, i - 5) : i + 5].mean(), rtol=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_a_lone_beat_has_no_context(n):
    context = beats.beat_context(np.arange(n), 360.0, ["rr_previous_s", "rr_next_s", "rr_mean10_s", "rr_record_s"])
    assert context.shape == (n, 4) and np.isnan(context).all()


def test_matching_takes_the_nearer_of_two_beats_for_one_detection():
    """A pair takes the first beat within reach at first, and exchanges it for a nearer one without a partner."""
    assert beats.match_beats(np.array([100, 140]), np.array([139]), 54).tolist() == [[1, 0]]
