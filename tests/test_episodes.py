"""Tests of episodes.py against counts made by hand, and properties of random series."""

import itertools
import json
import shutil

import numpy as np
import pytest

import config
import evaluate
import pqrst
from episodes import (
    LEARNING_S,
    EpisodeCounts,
    RateCounts,
    compare_episodes,
    compare_rates,
    compare_runs,
    pooled,
    report_text,
    report_tree,
    rhythm_intervals,
    score_record,
)
from sources import BEAT_SYMBOLS

FS = 100  # the window of 150 ms is 15 samples
ROUNDING = 1e-9  # sums of a few hundred float64


def runs(reference, test, every=100, **more):
    """Compare letters, a beat each, `every` samples apart; "." is a place without a beat."""
    series = []
    for letters in (reference, test):
        places = [k for k, letter in enumerate(letters) if letter != "."]
        series += [np.array(places, int) * every, np.array([letters[k] == "V" for k in places], bool)]
    return compare_runs(*series, FS, **more)


def cells(counts):
    """Return {(reference category, test category): count} without zeros."""
    return {(int(i), int(j)): int(counts[i, j]) for i, j in np.argwhere(counts)}


# ------------------------------------------------------------------------------------------------ runs


@pytest.mark.parametrize(("length", "category"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 3), (6, 4), (7, 4), (20, 4)])
def test_a_run_is_in_the_category_of_its_length(length, category):
    letters = "N" + "V" * length + "N"
    result = runs(letters, letters)
    assert cells(result.of_reference) == cells(result.of_test) == {(category, category): 1}


def test_a_run_that_ends_with_the_recording_counts():
    assert cells(runs("NVV", "NVV").of_reference) == {(2, 2): 1}
    assert cells(runs("VV", "VV").of_test) == {(2, 2): 1}


def test_a_shorter_test_run_misses_and_a_longer_one_is_found():
    missed = runs("NVVVN", "NVVNN")  # a short run of which the test has a couplet
    assert cells(missed.of_reference) == {(3, 2): 1}
    assert cells(missed.of_test) == {(2, 2): 1}  # in the window of the couplet the reference has two beats as well
    np.testing.assert_array_equal(missed.sensitivity, [np.nan, 0, np.nan])
    np.testing.assert_array_equal(missed.precision, [1, np.nan, np.nan])
    within = runs("NVVVN", "NVVVVVN")  # 3 and 5 beats are both short
    np.testing.assert_array_equal(within.sensitivity, [np.nan, 1, np.nan])
    np.testing.assert_array_equal(within.precision, [np.nan, 1, np.nan])


def test_a_test_run_is_cut_to_the_window_of_the_reference_run():
    result = runs("NNVVNNNN", "NVVVVVVN")
    assert cells(result.of_reference) == {(2, 2): 1}  # of six beats two lie in the window
    assert cells(result.of_test) == {(2, 4): 1}
    np.testing.assert_array_equal(result.sensitivity, [1, np.nan, np.nan])
    np.testing.assert_array_equal(result.precision, [np.nan, np.nan, 0])


def test_one_test_run_over_two_reference_runs_finds_both_and_is_as_long_as_neither():
    result = runs("NVVNVVVN", "NVVVVVVN")
    assert cells(result.of_reference) == {(2, 2): 1, (3, 3): 1}
    assert cells(result.of_test) == {(3, 4): 1}  # six test beats, the longest of the reference has three


def test_two_test_runs_in_one_reference_run_the_longest_counts():
    assert cells(runs("NVVVVVVN", "NVVNVVVN").of_reference) == {(4, 3): 1}


def test_a_run_nobody_sees_is_none_there():
    assert cells(runs("NVVN", "NNNN").of_reference) == {(2, 0): 1}
    assert cells(runs("NNNN", "NVVN").of_test) == {(0, 2): 1}
    assert cells(runs("NVVN", "....").of_reference) == {(2, 0): 1}


def test_a_missed_normal_beat_joins_two_runs_of_the_test():
    assert cells(runs("NVVNVVN", "NVV.VVN").of_test) == {(2, 3): 1}


def test_the_edge_of_the_window_is_inside():
    beats, flags = np.array([100, 200, 300, 400]), np.array([False, True, True, False])
    for shift, found in ((15, 2), (-15, 2), (16, 1), (-16, 1)):
        result = compare_runs(beats, flags, beats + shift, flags, FS)
        assert cells(result.of_reference) == {(2, found): 1}


def test_a_run_across_the_start_is_cut_to_the_beats_behind_it():
    letters = "NVVVVVVN"
    assert cells(runs(letters, letters, start=400).of_reference) == {(3, 3): 1}  # beats at 400, 500, 600
    assert cells(runs(letters, letters, start=401).of_test) == {(2, 2): 1}
    assert runs(letters, letters, start=601).of_reference.sum() == 0
    # the other series keeps the beats before the start that lie in the window
    beats, flags = np.array([400, 500, 600]), np.array([True, True, False])
    assert cells(compare_runs(beats, flags, beats - 10, flags, FS, start=400).of_reference) == {(2, 2): 1}


def test_a_run_that_touches_what_is_left_out_does_not_count():
    letters = "NVVNNVVVN"
    assert cells(runs(letters, letters, left_out=[(200, 250)]).of_reference) == {(3, 3): 1}
    assert cells(runs(letters, letters, left_out=[(201, 250)]).of_reference) == {(2, 2): 1, (3, 3): 1}
    assert cells(runs(letters, letters, left_out=[(0, np.inf)]).of_test) == {}


def test_without_a_run_shares_are_nan():
    for reference, test in itertools.product(["", "NNN"], repeat=2):
        result = runs(reference, test)
        assert np.isnan(result.sensitivity).all() and np.isnan(result.precision).all()
        assert result.of_reference.sum() == result.of_test.sum() == 0


def test_flags_of_another_length_are_refused():
    with pytest.raises(ValueError, match="test: 1 flags for 2 beats"):
        compare_runs(np.array([1]), np.array([True]), np.array([1, 2]), np.array([True]), FS)


def random_beats(rng):
    """Return 300 beats 0.3 to 1.2 s apart, half of them ectopic in long stretches."""
    samples = np.cumsum(rng.integers(30, 120, 300))
    return samples, np.cumsum(rng.random(300) < 0.4) % 2 == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_perfect_prediction_finds_every_run_in_its_category(seed):
    samples, flags = random_beats(np.random.default_rng(seed))
    result = compare_runs(samples, flags, samples, flags, FS, start=int(seed * 100))
    assert (result.sensitivity == 1).all() and (result.precision == 1).all()
    assert all(i == j for i, j in [*cells(result.of_reference), *cells(result.of_test)])


@pytest.mark.parametrize("seed", range(20))
def test_roles_exchanged_exchange_sensitivity_and_precision(seed):
    rng = np.random.default_rng(seed)
    one, other = random_beats(rng), random_beats(rng)
    there, back = (compare_runs(*a, *b, FS, start=1000) for a, b in ((one, other), (other, one)))
    np.testing.assert_array_equal(there.of_reference, back.of_test.T)
    np.testing.assert_array_equal(there.sensitivity, back.precision)
    np.testing.assert_array_equal(there.precision, back.sensitivity)


# ------------------------------------------------------------------------------------------------ episodes


def test_episodes_and_durations_by_hand():
    result = compare_episodes(
        [(100, 200), (400, 500), (800, 900)], [(150, 250), (450, 460), (480, 520), (600, 700)], 1000
    )
    assert result == EpisodeCounts(3, 2, 4, 3, 300, 50 + 10 + 20, 100 + 10 + 40 + 100, 80)
    assert (result.sensitivity, result.precision) == (2 / 3, 3 / 4)
    assert (result.duration_sensitivity, result.duration_precision) == (80 / 300, 80 / 250)


def test_one_test_episode_over_two_reference_episodes_finds_both():
    result = compare_episodes([(100, 200), (300, 400)], [(50, 450)], 1000)
    assert (result.sensitivity, result.precision) == (1, 1)
    assert (result.duration_sensitivity, result.duration_precision) == (1, 0.5)


def test_a_common_edge_is_no_overlap_and_touching_episodes_are_one():
    assert compare_episodes([(100, 200)], [(200, 300)], 1000).sensitivity == 0
    assert compare_episodes([(200, 300), (100, 200)], [(150, 160)], 1000).reference == 1


def test_episodes_are_cut_to_what_is_scored():
    result = compare_episodes([(0, 150), (900, np.inf)], [(100, 200), (0, 50)], 1000, start=100)
    assert result == EpisodeCounts(2, 1, 1, 1, 150, 50, 100, 50)


def test_flutter_of_the_reference_takes_nothing_from_precision():
    plain = compare_episodes([(100, 200)], [(100, 400), (500, 600)], 1000)
    without = compare_episodes([(100, 200)], [(100, 400), (500, 600)], 1000, not_counted=[(200, 350), (450, 650)])
    assert (plain.test, plain.duration_precision) == (2, 100 / 400)
    assert (without.test, without.duration_precision) == (1, 100 / 150)
    assert without.duration_sensitivity == plain.duration_sensitivity == 1
    # a hole in an episode does not make it two
    assert compare_episodes([], [(100, 400)], 1000, not_counted=[(200, 300)]).test == 1


def test_without_episodes_shares_are_nan():
    none = compare_episodes([], [], 1000)
    assert np.isnan([none.sensitivity, none.precision, none.duration_sensitivity, none.duration_precision]).all()
    assert compare_episodes([(10, 20)], [], 1000).sensitivity == 0
    assert np.isnan(compare_episodes([(10, 20)], [(10, 20)], 1000, start=1000).sensitivity)


def test_an_episode_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="must not end before"):
        compare_episodes([(20, 10)], [], 1000)


def test_rhythm_changes_become_episodes():
    samples = np.array([5, 100, 150, 200, 300, 400, 500])
    aux = ["(N", "(AFIB", "", "(AFIB\0", "(AFL", "(N", "(AFIB"]
    assert rhythm_intervals(samples, aux, 800) == [(100, 300), (500, 800)]
    assert rhythm_intervals(samples, aux, 800, ["AFIB", "AFL"]) == [(100, 400), (500, 800)]
    assert rhythm_intervals(samples, aux, 800, ["VT"]) == []
    assert rhythm_intervals(samples[:0], [], 800) == []


@pytest.mark.parametrize("seed", range(10))
def test_episodes_against_a_mask_of_samples(seed):
    rng = np.random.default_rng(seed)
    masks = [np.repeat(rng.random(60) < 0.4, 10) for _ in range(2)]
    lists = [[tuple(pair) for pair in np.flatnonzero(np.diff(np.r_[0, mask, 0])).reshape(-1, 2)] for mask in masks]
    there, back = compare_episodes(*lists, 600, start=105), compare_episodes(*lists[::-1], 600, start=105)
    reference, test = (mask[105:] for mask in masks)
    assert there.duration_sensitivity == pytest.approx((reference & test).sum() / reference.sum(), abs=ROUNDING)
    assert there.duration_precision == pytest.approx((reference & test).sum() / test.sum(), abs=ROUNDING)
    assert (there.sensitivity, there.duration_sensitivity) == (back.precision, back.duration_precision)
    perfect = compare_episodes(lists[0], lists[0], 600)
    assert perfect.sensitivity == perfect.precision == perfect.duration_sensitivity == perfect.duration_precision == 1


# ------------------------------------------------------------------------------------------------ heart rate


def test_the_rate_is_the_mean_over_the_intervals_before_a_beat():
    reference, test = np.arange(9) * 100, np.arange(9) * 80  # 60 and 75 bpm, one measurement each
    result = compare_rates(reference, test, FS)
    assert (result.n, result.rms_bpm, result.rms_percent) == (1, pytest.approx(15), pytest.approx(25))


def test_a_missed_beat_lowers_the_rates_over_it():
    reference = np.arange(30) * 100
    test = np.delete(reference, 15)
    # 29 beats have 21 measurements; 8 of them reach over the gap: 9 s for 8 intervals
    expected = np.sqrt(8 * (60 - 60 * 8 / 9) ** 2 / 21)
    result = compare_rates(reference, test, FS)
    assert (result.n, result.rms_bpm) == (21, pytest.approx(expected))
    assert result.rms_percent == pytest.approx(100 * expected / 60)
    assert compare_rates(reference, test, FS, left_out=[(1450, 1550)]).rms_bpm == 0


def test_a_measurement_is_paired_with_the_nearest_in_time_and_the_later_of_two():
    reference = np.array([0, 100, 200, 250])  # over one interval: 60 at 100, 60 at 200, 120 bpm at 250
    for last, expected in ((224, 60), (225, 120), (226, 120), (400, 120), (10, 60)):
        result = compare_rates(reference, np.array([last - 100, last]), FS, n_intervals=1)
        assert (result.n, result.rates, result.rms_bpm) == (1, pytest.approx(expected), pytest.approx(expected - 60))


def test_only_measurements_from_the_start_on_count():
    beats = np.arange(30) * 100
    assert [compare_rates(beats, beats, FS, start=start).n for start in (0, 800, 801, 2900, 2901)] == [22, 22, 21, 1, 0]


def test_too_few_beats_give_no_error():
    beats, none = np.arange(30) * 100, np.empty(0)
    for one, other in ((none, beats), (beats, none), (none, none), (beats[:8], beats), (beats, beats[:8])):
        result = compare_rates(one, other, FS)
        assert result.n == 0 and np.isnan(result.rms_bpm) and np.isnan(result.rms_percent)
    assert compare_rates(beats[:9], beats, FS).rms_bpm == pytest.approx(0, abs=ROUNDING)


# ------------------------------------------------------------------------------------------------ the report


def record(reference, test):
    beats = np.arange(len(reference)) * 100
    return score_record(beats, np.array(list(reference)), beats, np.array(list(test)), FS)


def test_gross_pools_and_average_is_the_mean_over_recordings_that_have_runs():
    first = record("NVVNVVNVVNVVNSSN", "NVVNVVNVVNNVNNSN")  # 3 of 4 couplets
    second = record("NVVNVVNNNNNNNNNN", "NVVNNNNNNNSSNNNN")  # 1 of 2
    third = record("NNNNNNNNNNNNNNNN", "NNNNNNNNNNNNNNNN")
    tree = json.loads(json.dumps(report_tree([first, second, third], 0), allow_nan=False))
    couplets = tree["VEB"]["couplets"]
    assert (couplets["annotated"], couplets["predicted"]) == (6, 4)
    assert couplets["se_gross"] == pytest.approx(4 / 6) and couplets["se_average"] == pytest.approx(5 / 8)
    assert couplets["precision_gross"] == couplets["precision_average"] == 1
    assert tree["SVEB"]["couplets"]["se_gross"] == 0 and tree["SVEB"]["couplets"]["precision_average"] == 0
    assert tree["VEB"]["long runs"]["se_gross"] is None
    assert tree["rate"]["rms_bpm_gross"] == 0
    text = report_text(tree)
    assert "| VEB couplets (2 beats) | 6 | 0.6667 | 0.6250 | 4 | 1.0000 | 1.0000 |" in text
    assert "| VEB long runs (>5 beats) | 0 | - | - | 0 | - | - |" in text


def test_a_fusion_beat_is_ventricular_and_an_unclassified_one_ends_a_run():
    both = record("NVFVNVQVN", "NVVVNVNVN")
    assert cells(both.runs["VEB"].of_reference) == {(3, 3): 1, (1, 1): 2}


def test_pooled_counts_add_up():
    total = pooled([RateCounts(2, 8.0, 100.0), RateCounts(2, 24.0, 140.0)])
    assert (total.n, total.rms_bpm, total.rms_percent) == (4, pytest.approx(8**0.5), pytest.approx(100 * 8**0.5 / 60))
    episodes = pooled([compare_episodes([(0, 10)], [(0, 5)], 20), compare_episodes([(0, 10)], [], 20)])
    assert (episodes.sensitivity, episodes.duration_sensitivity) == (0.5, 0.25)


def test_the_learning_period_of_the_settings_is_that_of_the_module():
    assert config.Evaluation().first_s == LEARNING_S


@pytest.mark.slow
@pytest.mark.parametrize("r_peaks", ["annotated", "detected"])
def test_the_external_report_holds_the_section(beat_run, mitdb_like, tmp_path, r_peaks):
    run = shutil.copytree(beat_run, tmp_path / "runs" / beat_run.name)
    words = ["--data.name", "mitdb", "--data.raw", str(mitdb_like), "--evaluation.r_peaks", r_peaks]
    evaluate.main([str(run), *words, "--evaluation.first_s", "5"])
    place = run / f"report-mitdb{'-detected' if r_peaks == 'detected' else ''}"
    tree = json.loads((place / "metrics.json").read_text())["runs"]
    text = (place / "report.md").read_text()
    assert text.count("## Runs and rate (ANSI/AAMI EC57)") == 1 and report_text(tree) in text
    ventricular = np.zeros(5, int)  # runs by category, counted from the annotations
    headers = [path for path in mitdb_like.glob("*.hea") if path.stem != "102"]  # which is paced
    for header in headers:
        marks = pqrst.read_annotations(header, "atr")
        symbols = [c for sample, c in zip(marks.sample, marks.symbol) if sample >= 5 * 360 and c in BEAT_SYMBOLS]
        for is_it, run_of in itertools.groupby(symbol == "V" for symbol in symbols):
            ventricular[np.searchsorted([1, 2, 3, 6], len(list(run_of)), "right")] += is_it
    assert tree["recordings"] == len(headers) and ventricular.sum() > 0
    assert np.array(tree["VEB"]["of_reference"]).sum(axis=1).tolist() == ventricular.tolist()
    assert tree["rate"]["measurements"] > 100
    if r_peaks == "annotated":
        assert tree["rate"]["rms_bpm_gross"] == 0
    else:
        assert 0 < tree["rate"]["rms_bpm_gross"] < 20
