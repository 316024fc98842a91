"""The record's view of a beat, on records whose truth is known: shapes, rhythm roles, P waves, the normal beats."""

import numpy as np
import pytest

import pqrst
import simulate
import view
from view import ROLES, VIEW_NUMBERS, view_beats

FS = 250


def wave(time, center, width, height):
    return height * np.exp(-0.5 * ((time - center) / width) ** 2)


def record(rr, kinds, noise=0.01, fs=FS, seed=0):
    """Make two leads of beats n (with a P wave), s (without), v (wide, the other way round): (2, T) mV, R peaks."""
    peaks = np.round((1 + np.concatenate([[0], np.cumsum(rr)])) * fs).astype(int)
    time = np.arange(peaks[-1] + fs) / fs
    x = np.zeros((2, len(time)))
    for peak, kind in zip(peaks, kinds, strict=True):
        near = slice(max(0, peak - fs), peak + fs)
        t = time[near] - peak / fs
        if kind == "v":
            x[0, near] += wave(t, 0.01, 0.045, -1.4) + wave(t, 0.3, 0.06, 0.5)
            x[1, near] += wave(t, 0.01, 0.05, 1.1) + wave(t, 0.3, 0.06, -0.4)
            continue
        p = 0.15 if kind == "n" else 0.0
        x[0, near] += wave(t, -0.16, 0.02, p) + wave(t, 0, 0.012, 1.2) + wave(t, 0.28, 0.05, 0.3)
        x[1, near] += wave(t, -0.16, 0.02, p / 2) + wave(t, 0.005, 0.014, -0.7) + wave(t, 0.28, 0.05, 0.1)
    return x + noise * np.random.default_rng(seed).normal(size=x.shape), peaks


def column(numbers, name):
    return numbers[:, VIEW_NUMBERS.index(name)]


def roles(result):
    return np.array(ROLES)[result.role]


# ------------------------------------------------------------------------------------------------ clusters


def test_clusters_are_the_shapes_that_made_them(rng):
    shapes = rng.normal(size=(4, 50))
    truth = rng.choice(4, 500, p=[0.5, 0.3, 0.15, 0.05])
    rows = shapes[truth] * rng.uniform(0.3, 3, (500, 1)) + 0.1 * rng.normal(size=(500, 50))
    found = pqrst.cluster_shapes(rows.astype(np.float32), 0.85, 0.95)
    for kind in range(4):
        assert len(set(found[truth == kind])) == 1
    assert len(set(found)) == 4
    assert list(np.argsort(-np.bincount(found), kind="stable")) == [0, 1, 2, 3], "the largest is 0"


def test_a_row_without_a_shape_belongs_to_no_cluster():
    rows = np.array([[1, 2, 3], [0, 0, 0], [np.nan, 1, 1], [np.inf, 1, 1], [2, 4, 6.1]], np.float32)
    assert pqrst.cluster_shapes(rows, 0.9, 0.9).tolist() == [0, -1, -1, -1, 0]
    assert pqrst.cluster_shapes(np.zeros((0, 5), np.float32), 0.9, 0.9).tolist() == []


def test_there_are_at_most_64_clusters(rng):
    found = pqrst.cluster_shapes(rng.normal(size=(400, 300)).astype(np.float32), 0.99, 0.999)
    assert set(found) == set(range(64))


def test_groups_with_like_means_become_one():
    turn = np.deg2rad(np.array([0.0] * 5 + [20] * 3 + [90] * 2))
    rows = np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)
    assert pqrst.cluster_shapes(rows, 0.99, 0.99).tolist() == [0] * 5 + [1] * 3 + [2] * 2
    assert pqrst.cluster_shapes(rows, 0.99, np.cos(np.deg2rad(21))).tolist() == [0] * 8 + [1] * 2


@pytest.mark.parametrize(
    ("rows", "error"), [(np.zeros(4, np.float32), ValueError), (np.zeros((2, 3, 4), np.float32), ValueError)]
)
def test_clusters_need_a_matrix(rows, error):
    with pytest.raises(error, match="expected shape"):
        pqrst.cluster_shapes(rows, 0.9, 0.9)


# ------------------------------------------------------------------------------------------------ shape


def test_ventricular_beats_are_wide_alien_and_in_a_cluster_of_their_own(rng):
    kinds = np.where(np.arange(200) % 9 == 5, "v", "n")
    x, peaks = record(np.full(199, 0.8), kinds)
    result = view_beats(x, FS, peaks)
    is_v = kinds == "v"
    assert (result.normal == ~is_v).all()
    assert len(set(result.cluster[is_v])) == 1 and not set(result.cluster[is_v]) & set(result.cluster[~is_v])
    assert (
        column(result.numbers, "correlation")[is_v].max()
        < 0
        < 0.98
        < column(result.numbers, "correlation")[~is_v].min()
    )
    assert column(result.numbers, "width50_ratio")[is_v].min() > 0.5
    assert abs(column(result.numbers, "width50_ratio")[~is_v]).max() < 0.3
    # half height of a Gaussian: 2.355 deviations
    assert np.median(column(result.numbers, "width50")[~is_v] * 50) == pytest.approx(2.355 * 12, abs=10)


def test_the_normal_beats_are_found_where_most_beats_are_ventricular():
    kinds = np.where(np.arange(180) % 3 == 0, "n", "v")
    x, peaks = record(np.full(179, 0.8), kinds)
    assert (view_beats(x, FS, peaks).normal == (kinds == "n")).all()


def test_a_p_wave_is_told_from_none():
    kinds = np.where(np.arange(200) % 4 == 1, "s", "n")
    result = view_beats(*_swap(record(np.full(199, 0.8), kinds)))
    inner = np.arange(2, 198)
    with_p = kinds[inner] == "n"
    correlation = column(result.numbers, "p_correlation")[inner]
    assert np.median(correlation[with_p]) > 0.85 and np.median(correlation[~with_p]) < 0.4


def _swap(made):
    return made[0], FS, made[1]


@pytest.mark.parametrize("fs", [100, 128, 360, 1000])
def test_the_view_depends_little_on_the_rate(fs):
    kinds = np.where(np.arange(120) % 9 == 5, "v", "n")
    rr = np.where(kinds[1:] == "v", 0.5, 0.8)
    here = view_beats(*(lambda x, p: (x, fs, p))(*record(rr, kinds, noise=0, fs=fs)))
    other = view_beats(*(lambda x, p: (x, 500, p))(*record(rr, kinds, noise=0, fs=500)))
    assert (here.normal == other.normal).all() and (here.role == other.role).all()
    for name in ("rr_previous_mean", "correlation", "p_correlation", "t_correlation", "width50_ratio"):
        difference = np.abs(column(here.numbers, name) - column(other.numbers, name))[2:-2]
        assert difference.max() < 0.25, name


def test_the_gain_and_the_lead_order_do_not_matter(rng):
    kinds = np.where(np.arange(120) % 9 == 5, "v", "n")
    x, peaks = record(np.full(119, 0.8), kinds)
    plain, larger = view_beats(x, FS, peaks), view_beats(3 * x[::-1], FS, peaks)
    np.testing.assert_allclose(plain.numbers, larger.numbers, atol=2e-3)


# ------------------------------------------------------------------------------------------------ rhythm


def test_each_pattern_has_its_roles(rng):
    steady = np.full(150, 0.8)
    single = steady.copy()
    single[20::12] = 0.5
    single[21::12] = 1.1
    cases = {"steady": (steady, set()), "single": (single, set(range(21, 151, 12)))}
    bigeminy = np.tile([0.55, 1.05], 75)
    cases["bigeminy"] = (bigeminy, set(range(1, 151, 2)))
    trigeminy = np.tile([0.8, 0.5, 1.1], 50)
    cases["trigeminy"] = (trigeminy, set(range(2, 151, 3)))
    for name, (rr, early) in cases.items():
        rr = rr + 0.005 * rng.normal(size=len(rr))
        result = view_beats(*_swap(record(rr, ["n"] * 151)))
        assert set(np.flatnonzero(roles(result) == "early")) == early, name
        assert not (roles(result) == "irregular").any(), name


def test_fibrillation_is_irregular_and_nothing_in_it_is_early(rng):
    rr = 0.7 * np.exp(0.22 * rng.normal(size=300))
    result = view_beats(*_swap(record(rr, ["s"] * 301)))
    assert (roles(result) == "irregular").mean() > 0.95


def test_a_pause_is_late_and_a_steady_run_is_early():
    rr = np.full(120, 0.9)
    rr[60] = 2.0
    rr[80:86] = 0.45
    result = view_beats(*_swap(record(rr, ["n"] * 121)))
    assert roles(result)[61] == "late"
    assert (roles(result)[81:87] == "early").all()


def test_where_most_beats_are_premature_the_record_tells_it_and_the_neighbours_do_not():
    kinds = np.array((["n"] * 2 + ["s"] * 9) * 20)
    rr = np.where(kinds[1:] == "s", 0.5, 1.1)
    result = view_beats(*_swap(record(rr, kinds)))
    is_s = (kinds == "s")[1:]
    against = {name: column(result.numbers, f"rr_previous_{name}")[1:] for name in ("median33", "q90", "upper61")}
    assert np.median(against["median33"][is_s]) == pytest.approx(0, abs=0.02)
    for name in ("q90", "upper61"):
        assert np.quantile(against[name][is_s], 0.95) < np.log(0.5 / 1.1) + 0.05, name
        assert against[name][~is_s].min() > -0.05, name
    assert result.normal.all(), "their QRS is the normal one"


def test_every_second_p_wave_blocked_is_a_slow_regular_rhythm():
    rng = np.random.default_rng(1)
    signal, peaks, _ = simulate.simulate_record(rng, simulate.simulate_patient(rng), (), 120.0, FS, 1.0, "2:1")
    result = view_beats(signal[[1, 6]], FS, peaks)
    assert (roles(result) == "regular").mean() > 0.95
    assert result.normal.mean() > 0.95
    assert np.median(column(result.numbers, "p_correlation")) > 0.7


def test_paced_beats_are_wide_regular_and_alike():
    x, peaks = record(np.full(120, 0.85), ["v"] * 121)
    spike = np.round(peaks - 0.06 * FS).astype(int)
    x[:, spike] += 2
    result = view_beats(x, FS, peaks)
    assert result.normal.all() and (roles(result) == "regular").all()
    plain = view_beats(*_swap(record(np.full(120, 0.85), ["n"] * 121)))
    assert column(result.numbers, "normal_width50")[0] > 2 * column(plain.numbers, "normal_width50")[0]


def test_numbers_of_the_rhythm_are_what_their_names_say():
    rr = np.random.default_rng(3).uniform(0.5, 1.1, 90)
    x, peaks = record(rr, ["n"] * 91)
    numbers = view_beats(x, FS, peaks).numbers
    rr = np.log(np.diff(peaks) / FS)
    i = 45  # intervals i - 1 and i are before and after it
    assert column(numbers, "rr_previous")[i] == pytest.approx(rr[i - 1], rel=1e-5)
    assert column(numbers, "rr_next")[i] == pytest.approx(rr[i], rel=1e-5)
    assert column(numbers, "rr_previous_median33")[i] == pytest.approx(
        rr[i - 1] - np.median(rr[i - 17 : i + 16]), abs=1e-5
    )
    assert column(numbers, "rr_previous_q90")[i] == pytest.approx(rr[i - 1] - np.quantile(rr, 0.9), abs=1e-5)
    assert column(numbers, "rr+3")[i] == pytest.approx(rr[i + 2] - np.median(rr[i - 31 : i + 30]), abs=1e-5)
    assert column(numbers, "rr_mean")[i] == pytest.approx(np.log(np.exp(rr).mean()), abs=1e-5)


# ------------------------------------------------------------------------------------------------ edges


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 40])
@pytest.mark.filterwarnings("error")
def test_few_beats_give_numbers_or_nan_and_no_warning(n):
    x = np.random.default_rng(0).normal(size=(2, 20000))
    result = view_beats(x, 360, np.arange(n) * 360 + 100)
    assert result.numbers.shape == (n, len(VIEW_NUMBERS)) and result.numbers.dtype == np.float32
    assert not np.isinf(result.numbers).any()
    if n >= 20:
        assert np.isfinite(result.numbers[9:-9]).all()


@pytest.mark.filterwarnings("error")
def test_a_flat_record_a_gap_and_a_missing_lead_give_finite_numbers():
    kinds = np.where(np.arange(60) % 9 == 5, "v", "n")
    x, peaks = record(np.full(59, 0.8), kinds)
    for broken in (
        np.zeros_like(x),
        np.full_like(x, np.nan),
        x * [[1], [0]],
        np.where(np.arange(x.shape[1]) < 900, np.nan, x),
    ):
        numbers = view_beats(broken, FS, peaks).numbers
        assert np.isfinite(numbers[9:-9]).all()
    one = view_beats(x * [[1], [0]], FS, peaks)
    assert (one.normal == (kinds == "n")).all()


def test_marks_that_descend_are_refused():
    with pytest.raises(ValueError, match="ascending"):
        view_beats(np.zeros((1, 1000)), 250, np.array([500, 400]))


def test_no_name_is_given_twice():
    assert len(set(VIEW_NUMBERS)) == len(VIEW_NUMBERS)
    assert set(view.OF_CLUSTER) <= set(VIEW_NUMBERS)
