"""Random changes of rows: the generator's published values, the laws that the numbers follow, the same in any batch."""

import numpy as np
import pytest
from scipy import stats

import pqrst

FS = 100.0


def rows(n, n_leads=3, length=1000, value=1e-30):  # next to nothing, but a signal
    return np.full((n, n_leads, length), value, np.float32)


def augmented(x, seed=0, epoch=0, first=0, **amounts):
    n = len(x)
    valid = np.tile([0, x.shape[2]], (n, 1))
    return pqrst.augment(x, np.arange(first, first + n), valid, FS, seed, epoch, **amounts)


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [  # Threefry 4x32, 20 rounds, of the authors' distribution (Random123, kat_vectors)
        ([0] * 4, [0] * 4, [0x9C6CA96A, 0xE17EAE66, 0xFC10ECD4, 0x5256A7D8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 4, [0x2A881696, 0x57012287, 0xF6C7446E, 0xA16A6732]),
        (
            [0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89],
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0x59CD1DBB, 0xB8879579, 0x86B5D00C, 0xAC8B6D84],
        ),
    ],
)
def test_the_generator_gives_its_published_values(key, counter, words):
    assert list(pqrst._random_words(key, counter)) == words


@pytest.mark.parametrize("dtype", [">f2", "<f2", ">f4", "<f4"])
def test_rows_of_either_byte_order_are_read(dtype):
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(augmented(x.astype(dtype)), x)


def test_every_float16_is_widened_as_numpy_does():
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 1, -1)
    np.testing.assert_array_equal(augmented(x).view(np.uint32), x.astype(np.float32).view(np.uint32))


def test_noise_is_normal_and_independent():
    x = augmented(rows(40), noise=1.0)
    assert stats.kstest(x.ravel(), "norm").pvalue > 0.01
    assert np.abs(x).max() < 6
    assert abs(stats.kurtosis(x.ravel())) < 0.05
    n = x[0, 0].size
    for lag in (1, 2, 63, 64, 128, 256):  # neighbours, and those that come from one counter
        assert abs(np.corrcoef(x[:, :, :-lag].ravel(), x[:, :, lag:].ravel())[0, 1]) < 4 / np.sqrt(x.size)
    assert np.abs(np.corrcoef(x.reshape(-1, n)) - np.eye(120)).max() < 6 / np.sqrt(n)  # rows and leads
    np.testing.assert_allclose(augmented(rows(2), noise=0.25), 0.25 * augmented(rows(2), noise=1.0), rtol=1e-6)


def test_gain_is_one_uniform_factor_for_a_row():
    x = augmented(rows(3000, 2, 5, value=2.0), gain=0.3) / 2
    assert (x == x[:, :1, :1]).all()
    assert stats.kstest(x[:, 0, 0], stats.uniform(0.7, 0.6).cdf).pvalue > 0.01


def test_wander_is_a_slow_sine_of_each_lead():
    x = augmented(rows(60, 4, 6000), wander=0.5).astype(np.float64)
    t = np.arange(6000) / FS
    amplitudes, rates = [], []
    for row in x:
        # the rate at which a sine explains most, first roughly and then finely
        def unexplained(hz, signals=row):
            design = np.stack([np.sin(2 * np.pi * hz * t), np.cos(2 * np.pi * hz * t)], axis=1)
            weights, *_ = np.linalg.lstsq(design, signals.T, rcond=None)
            return np.abs(signals.T - design @ weights).max(), np.hypot(*weights)

        hz = min(np.arange(0.04, 0.52, 0.002), key=lambda rate: unexplained(rate)[0])
        for width in (0.002, 0.0002, 0.00002, 0.000002):
            hz = min(np.linspace(hz - width, hz + width, 21), key=lambda rate: unexplained(rate)[0])
        worst, amplitude = unexplained(hz)
        assert worst < 1e-4
        amplitudes.extend(amplitude)
        rates.append(hz)
    assert stats.kstest(amplitudes, stats.uniform(0, 0.5).cdf).pvalue > 0.01
    assert stats.kstest(rates, stats.uniform(0.05, 0.45).cdf).pvalue > 0.01


def test_a_shift_is_a_whole_number_of_samples_and_repeats_the_ends():
    x = np.tile(np.arange(40, dtype=np.float32), (2000, 2, 1))
    moved = augmented(x, shift_s=0.05)  # 5 samples
    shifts = moved[:, 0, 20] - 20
    for row, shift in zip(moved, shifts):
        np.testing.assert_array_equal(row, np.clip(x[0] + shift, 0, 39))
    values, counts = np.unique(shifts, return_counts=True)
    assert values.tolist() == list(range(-5, 6))
    assert stats.chisquare(counts).pvalue > 0.01


def test_a_shift_longer_than_the_row_leaves_its_end():
    x = np.tile(np.arange(4, dtype=np.float32), (50, 1, 1))
    moved = augmented(x, shift_s=1.0)
    assert set(np.unique(moved)) <= {0.0, 1.0, 2.0, 3.0}
    assert (moved == moved[:, :, :1]).all(axis=(1, 2)).any()


def test_polarity_turns_whole_rows_by_chance():
    x = augmented(rows(4000, 2, 5, value=2.0), polarity=0.25)
    assert set(np.unique(x)) == {-2.0, 2.0} and (x == x[:, :1, :1]).all()
    assert stats.binomtest(int((x[:, 0, 0] < 0).sum()), 4000, 0.25).pvalue > 0.01
    assert (augmented(rows(9, 2, 5, value=2.0), polarity=1.0) == -2).all()


def test_leads_are_dropped_by_chance_each_but_never_all_of_them():
    x = augmented(rows(4000, 3, 5, value=2.0), lead_dropout=0.4)
    zero = (x == 0).all(axis=2)
    assert ((x == 2) | zero[:, :, None]).all() and not zero.all(axis=1).any()
    # of three leads with a chance p each: all of them with p^3, and then none
    n_dropped = np.bincount(zero.sum(axis=1), minlength=3)
    p = stats.binom.pmf(np.arange(4), 3, 0.4)
    assert stats.chisquare(n_dropped, 4000 * np.array([p[0] + p[3], p[1], p[2]])).pvalue > 0.01
    assert stats.chisquare(zero.sum(axis=0)).pvalue > 0.01
    assert (augmented(rows(50, 1, 5, value=2.0), lead_dropout=0.9) == 2).all()


def test_a_subset_keeps_any_number_of_leads_and_any_of_them_alike():
    x = augmented(rows(12000, 4, 5, value=2.0), lead_subset=1.0)
    zero = (x == 0).all(axis=2)
    assert ((x == 2) | zero[:, :, None]).all()
    kept = (~zero).sum(axis=1)
    assert stats.chisquare(np.bincount(kept, minlength=5)[1:]).pvalue > 0.01 and kept.min() == 1
    for n, choices in ((1, 4), (2, 6), (3, 4)):  # each choice of so many of four leads
        _, times = np.unique(zero[kept == n], axis=0, return_counts=True)
        assert len(times) == choices and stats.chisquare(times).pvalue > 0.01
    assert (augmented(rows(50, 1, 5, value=2.0), lead_subset=1.0) == 2).all()


def test_a_subset_comes_by_chance_and_leaves_all_else_of_a_row_as_it_was(rng):
    x = rng.normal(size=(4000, 3, 20)).astype(np.float32)
    amounts = {"noise": 0.1, "gain": 0.2, "wander": 0.3, "shift_s": 0.05, "polarity": 0.5, "time_mask_s": 0.1}
    before, after = augmented(x, **amounts), augmented(x, **amounts, lead_subset=0.4)
    zero = (after == 0).all(axis=2)
    np.testing.assert_array_equal(after, np.where(zero[:, :, None], 0, before))
    # with chance p not all of three leads stay in two thirds of the rows
    assert stats.binomtest(int(zero.any(axis=1).sum()), 4000, 0.4 * 2 / 3).pvalue > 0.01


def test_a_row_with_a_subset_has_no_lead_dropped_besides():
    x = rows(3000, 3, 5, value=2.0)
    subset, dropped = augmented(x, lead_subset=0.5), augmented(x, lead_dropout=0.4)
    both = augmented(x, lead_subset=0.5, lead_dropout=0.4)
    chosen = (subset == 0).any(axis=(1, 2))
    np.testing.assert_array_equal(both[chosen], subset[chosen])
    assert not (both == 0).all(axis=(1, 2)).any()
    others = ~chosen & (both == 0).any(axis=(1, 2))
    np.testing.assert_array_equal(both[others], dropped[others])
    assert others.any()


def test_a_time_mask_is_one_stretch_of_all_leads_of_any_length_and_place():
    x = augmented(rows(6000, 2, 100, value=1.0), time_mask_s=0.3)  # 30 samples
    assert (x[:, 0] == x[:, 1]).all()
    hidden = (x[:, 0] == 0).astype(int)
    edges = np.abs(np.diff(hidden, axis=1, prepend=0, append=0)).sum(axis=1)
    assert set(np.unique(edges)) == {0, 2}
    lengths = hidden.sum(axis=1)
    assert stats.chisquare(np.bincount(lengths, minlength=31)).pvalue > 0.01
    starts = hidden.argmax(axis=1)[lengths == 20]
    assert starts.min() < 8 and starts.max() > 72 and stats.kstest(starts, stats.uniform(0, 81).cdf).pvalue > 0.01
    assert (augmented(rows(300, 1, 4, value=1.0), time_mask_s=9.0) == 0).all(axis=(1, 2)).any()


AMOUNTS = {
    "noise": 0.1, "gain": 0.2, "wander": 0.3, "shift_s": 0.05, "polarity": 0.5, "lead_dropout": 0.3,
    "lead_subset": 0.5, "time_mask_s": 0.1,
}  # fmt: skip


def test_a_row_is_changed_alike_in_any_batch_and_differently_in_another_epoch(rng):
    x = rng.normal(size=(9, 3, 187)).astype(np.float32)
    together = augmented(x, seed=3, epoch=2, **AMOUNTS)
    for row in (0, 4, 8):
        alone = augmented(x[row : row + 1], seed=3, epoch=2, first=row, **AMOUNTS)
        np.testing.assert_array_equal(alone[0], together[row])
    for seed, epoch in ((3, 1), (4, 2), (3 + (1 << 32), 2)):
        assert not np.isclose(augmented(x, seed, epoch, **AMOUNTS), together).all(axis=(1, 2)).any()
    late = augmented(x, seed=3, epoch=2, first=1 << 32, **AMOUNTS)
    assert not np.isclose(late, together).all(axis=(1, 2)).any()


def test_padding_stays_and_numbers_follow_the_valid_range(rng):
    x = np.zeros((2, 2, 50), np.float32)
    x[:, :, 10:40] = rng.normal(size=(2, 2, 30))
    changed = pqrst.augment(x, [7, 8], [[10, 40], [10, 40]], FS, **AMOUNTS)
    assert (changed[:, :, :10] == 0).all() and (changed[:, :, 40:] == 0).all()
    cut = np.ascontiguousarray(x[:, :, 10:40])
    np.testing.assert_array_equal(pqrst.augment(cut, [7, 8], [[0, 30]] * 2, FS, **AMOUNTS), changed[:, :, 10:40])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_missing_lead_stays_zeros_and_is_never_all_that_a_row_keeps(rng, dtype):
    """In use it is zeros as well."""
    n, there = 4000, [1, 4]
    x = np.zeros((n, 6, 20), dtype)
    x[:, there] = rng.normal(size=(n, 2, 20))
    changed = augmented(x, noise=0.1, wander=0.5, shift_s=0.02, gain=0.2, polarity=0.5)
    missing = np.delete(changed, there, axis=1)
    assert (missing == 0).all() and not np.signbit(missing).any()
    assert (changed[:, there] != x[:, there]).any(axis=2).all()
    for amounts in ({"lead_subset": 1.0}, {"lead_dropout": 0.7}):
        kept = (augmented(x, **amounts) != 0).any(axis=2)  # (n, 6)
        assert not np.delete(kept, there, axis=1).any()
        assert kept[:, there].any(axis=1).all()
    of_subset = (augmented(x, lead_subset=1.0) != 0).any(axis=2)[:, there]
    shares = [of_subset.all(axis=1).mean(), *(of_subset & ~of_subset[:, ::-1]).mean(axis=0)]
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.03)


def test_without_amounts_nothing_changes_and_the_input_never_does(rng):
    x = rng.normal(size=(3, 2, 100)).astype(np.float32)
    before = x.copy()
    np.testing.assert_array_equal(augmented(x), x)
    augmented(x, **AMOUNTS)
    np.testing.assert_array_equal(x, before)
    strided = np.asfortranarray(x)
    np.testing.assert_array_equal(augmented(strided, **AMOUNTS), augmented(x, **AMOUNTS))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((3, 100), np.float32)}, ValueError, "x: expected shape"),
        ({"x": np.zeros((2, 1, 100))}, TypeError, "x: dtype float64, expected float16 or float32"),
        ({"rows": [1]}, ValueError, "rows: expected shape"),
        ({"rows": [-1, 0]}, ValueError, "rows: -1 is negative"),
        ({"rows": [0.5, 1.5]}, TypeError, "rows: dtype float64, expected int64"),
        ({"valid": [[0, 100]]}, ValueError, "valid: expected shape"),
        ({"valid": [[0, 100], [5, 5]]}, ValueError, r"valid: row 1 has \[5, 5\)"),
        ({"valid": [[0, 101], [0, 100]]}, ValueError, r"valid: row 0 has \[0, 101\)"),
        ({"fs": 0.0}, ValueError, "fs 0.0+: expected"),
        ({"seed": -1}, TypeError, "seed"),
        ({"noise": -0.1}, ValueError, "noise -0.1"),
        ({"noise": np.nan}, ValueError, "noise nan"),
        ({"gain": 1.0}, ValueError, "gain 1.0"),
        ({"wander": np.inf}, ValueError, "wander inf"),
        ({"shift_s": 1e300}, ValueError, "shift_s"),
        ({"polarity": 1.1}, ValueError, "polarity 1.1"),
        ({"lead_dropout": 1.0}, ValueError, "lead_dropout 1.0"),
        ({"lead_subset": 1.1}, ValueError, "lead_subset 1.1.*: expected 0 to 1"),
        ({"lead_subset": -0.1}, ValueError, "lead_subset -0.1"),
        ({"lead_subset": np.nan}, ValueError, "lead_subset nan"),
        ({"time_mask_s": -1.0}, ValueError, "time_mask_s -1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(change, error, message):
    arguments = {"x": rows(2, 1, 100), "rows": [0, 1], "valid": [[0, 100]] * 2, "fs": FS, "seed": 0, **change}
    with pytest.raises(error, match=message):
        pqrst.augment(**arguments)
