"""Tests of ec57.py against a maximum matching that ignores order, against wfdb, and against counts made by hand."""

import itertools

import numpy as np
import pytest
import wfdb.processing
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

import ec57
import pqrst
from beats import match_beats
from ec57 import BeatScore, flutter, pooled, score_beats
from sources import BEAT_SYMBOLS


def score(reference, detected, left_out=(), **more):
    """Score beats at 100 Hz, where the window of 150 ms is 15 samples."""
    return score_beats(np.array(reference, int), np.array(detected, int), 100, left_out=left_out, **more)


def counts(result):
    return result.found, result.missed, result.false


def random_series(rng):
    """Return two ascending series, sparse or so dense that each sample reaches several others; samples may repeat."""
    length = int(rng.integers(1, 600))
    return [np.sort(rng.integers(0, length, rng.integers(0, 40))) for _ in range(2)]


# ------------------------------------------------------------------------------------------------ matching


def test_there_are_as_many_pairs_as_any_matching_can_have(rng):
    for _ in range(500):
        (reference, detected), window = random_series(rng), int(rng.integers(0, 40))
        pairs = match_beats(reference, detected, window)
        possible = np.abs(reference[:, None] - detected[None, :]) <= window  # (N, M)
        most = (maximum_bipartite_matching(csr_array(possible)) >= 0).sum() if possible.any() else 0
        assert len(pairs) == most
        assert possible[pairs[:, 0], pairs[:, 1]].all()
        assert (np.diff(pairs, axis=0) > 0).all()  # one to one, and in the order of time


def test_no_pair_has_an_unpaired_neighbour_that_is_nearer(rng):
    for _ in range(200):
        (reference, detected), window = random_series(rng), int(rng.integers(0, 40))
        pairs = match_beats(reference, detected, window)
        alone = np.delete(detected, pairs[:, 1])
        for i, j in pairs:
            # only points between the neighbouring pairs, so that the order stays
            row = int(np.flatnonzero(pairs[:, 0] == i)[0])
            low = detected[pairs[row - 1, 1]] if row else -1
            high = detected[pairs[row + 1, 1]] if row + 1 < len(pairs) else 10_000
            free = alone[(alone > low) & (alone < high)]
            assert (np.abs(free - reference[i]) >= abs(detected[j] - reference[i])).all()


def beats_with_errors(rng, shortest):
    """Return beats at least `shortest` samples apart, and detections of them: shifted, lost or added at random."""
    reference = np.cumsum(rng.integers(shortest, 3 * shortest, 300))
    kept = reference[rng.random(300) > 0.05]
    extra = rng.integers(0, reference[-1], 10)
    return reference, np.unique(np.concatenate([kept + rng.integers(-10, 11, len(kept)), extra]))


def wfdb_pairs(reference, detected, window):
    """Return the pairs that wfdb finds. It compares with <, so for integers `window + 1` includes `window`."""
    result = wfdb.processing.compare_annotations(reference, detected, window + 1)
    return {(i, j) for i, j in enumerate(result.matching_sample_nums.tolist()) if j >= 0}


def test_wfdb_pairs_the_same_beats_where_nothing_is_ambiguous(rng):
    reference, detected = beats_with_errors(rng, shortest=100)
    gaps = np.diff(detected, prepend=-1000) > 40
    detected = detected[gaps]  # at most one detection within reach of each beat
    mine = {(int(i), int(j)) for i, j in match_beats(reference, detected, 20)}
    assert mine == wfdb_pairs(reference, detected, 20)
    assert len(mine) > 250


def test_wfdb_never_finds_more_pairs_and_sometimes_fewer(rng):
    fewer = 0
    for _ in range(50):
        reference, detected = beats_with_errors(rng, shortest=12)
        mine, theirs = match_beats(reference, detected, 20), wfdb_pairs(reference, detected, 20)
        assert len({j for _, j in theirs}) <= len(mine)
        fewer += len(theirs) < len(mine)
    assert fewer > 0


def test_where_wfdb_gives_a_beat_away():
    # wfdb pairs 112 with 110, the nearer beat. Then 100 has no detection, and 124 no beat: only 110 is near enough.
    reference, detected = np.array([100, 110]), np.array([112, 124])
    assert match_beats(reference, detected, 15).tolist() == [[0, 0], [1, 1]]
    assert wfdb_pairs(reference, detected, 15) == {(1, 0)}


def test_wfdb_pairs_the_same_beats_of_real_recordings(real_data):
    for name in ("108", "203", "207"):  # the records of MIT-BIH where detectors err
        path = real_data / "mitdb" / name
        marks = pqrst.read_annotations(path, "atr")
        reference = marks.sample[[symbol in BEAT_SYMBOLS for symbol in marks.symbol]]
        detected = pqrst.rpeaks(pqrst.read(path).signal[:1], 360)
        for window in (54, 9):  # 150 and 25 ms
            mine = {(int(i), int(j)) for i, j in match_beats(reference, detected, window)}
            assert mine == wfdb_pairs(reference, detected, window)
            assert len(mine) > 1000


# ------------------------------------------------------------------------------------------------ by hand


def test_the_edge_of_the_window_is_inside():
    assert counts(score([100], [85])) == counts(score([100], [115])) == (1, 0, 0)
    assert counts(score([100], [84])) == counts(score([100], [116])) == (0, 1, 1)


@pytest.mark.parametrize(
    ("fs", "window_s"), list(itertools.product([100, 200, 360, 500, 1000], [0.025, 0.05, 0.075, 0.1, 0.15]))
)
def test_a_window_of_whole_samples_is_not_lost_to_rounding(fs, window_s):
    window = round(1000 * window_s) * fs // 1000
    found = score_beats(np.array([1000]), np.array([1000 + window]), fs, window_s)
    missed = score_beats(np.array([1000]), np.array([1001 + window]), fs, window_s)
    assert (found.found, missed.found) == (1, 0)


def test_of_a_double_detection_one_is_false_and_the_nearer_counts():
    result = score([100, 300], [90, 101, 300, 305])
    assert counts(result) == (2, 0, 2)
    np.testing.assert_allclose(result.errors_s, [0.01, 0])


def test_one_detection_for_two_beats_misses_one():
    result = score([100, 110], [109])
    assert counts(result) == (1, 1, 0)
    np.testing.assert_allclose(result.errors_s, [-0.01])


def test_errors_are_detected_minus_annotated_in_seconds():
    result = score([100, 200, 300], [98, 203, 304])
    np.testing.assert_allclose(result.errors_s, [-0.02, 0.03, 0.04])
    assert result.median_error_s == pytest.approx(0.03)
    assert result.median_distance_s == pytest.approx(0.03)


def test_ratios_of_a_score():
    result = BeatScore(found=90, missed=10, false=30, errors_s=np.zeros(90))
    assert result.sensitivity == 0.9
    assert result.precision == 0.75
    assert result.f1 == pytest.approx(2 / (1 / 0.9 + 1 / 0.75))


def test_nothing_detected_nothing_annotated():
    assert counts(score([], [])) == (0, 0, 0)
    assert counts(score([], [5, 6])) == (0, 0, 2)
    assert counts(score([5, 60], [])) == (0, 2, 0)
    assert np.isnan(score([], [5]).sensitivity)
    assert np.isnan(score([5], []).precision)
    assert np.isnan(score([], []).f1)
    assert np.isnan(score([5], []).median_error_s)
    assert score([5], []).f1 == 0
    assert match_beats(np.array([]), np.array([1]), 3).shape == (0, 2)


def test_pooled_scores_add_up():
    total = pooled([score([100, 200], [101]), score([50], [40, 90]), score([], [])])
    assert counts(total) == (2, 1, 1)
    np.testing.assert_allclose(total.errors_s, [0.01, -0.1])
    assert counts(pooled([])) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------ what is left out


def test_what_lies_in_a_stretch_left_out_does_not_count():
    assert counts(score([100, 200, 300], [100, 190, 240, 300], left_out=[(150, 250)])) == (2, 0, 0)
    assert counts(score([100, 200, 300], [], left_out=[(150, 250)])) == (0, 2, 0)
    assert counts(score([100, 200], [], left_out=[(100, 100), (200, 300)])) == (0, 0, 0)  # both ends included


def test_a_pair_across_the_edge_costs_nothing():
    assert counts(score([149], [155], left_out=[(150, 250)])) == (1, 0, 0)  # beat before the stretch, detected in it
    assert counts(score([155], [149], left_out=[(150, 250)])) == (0, 0, 0)  # beat in the stretch, detected before it


def test_flutter_is_from_bracket_to_bracket():
    samples, symbols = np.array([10, 50, 60, 70, 90, 120]), ["N", "[", "!", "!", "]", "N"]
    assert flutter(samples, symbols) == [(50, 90)]
    assert flutter(samples[:4], symbols[:4]) == [(50, np.inf)]
    assert flutter(samples[4:], symbols[4:]) == []
    assert counts(score([10, 120], [10, 55, 65, 75, 120], left_out=flutter(samples, symbols))) == (2, 0, 0)


def test_flutter_costs_no_beat_around_it():
    # the first beat comes 0.2 s after the flutter; a detection 0.01 s after the flutter is false
    samples, symbols = np.array([10, 50, 90, 110]), ["N", "[", "]", "N"]
    assert counts(score([10, 110], [10, 91, 110], left_out=flutter(samples, symbols))) == (2, 0, 1)


# -------------------------------------------------------------------------------------------------- annotation files


def write_pair(folder, name, reference, test, fs=100, n_samples=100_000):
    """A header and two annotation files; each entry is (sample, symbol, aux)."""
    (folder / f"{name}.hea").write_text(f"{name} 1 {fs} {n_samples}\n{name}.dat 16 200 12 0 0 0 0 II\n")
    for extension, entries in (("atr", reference), ("qrs", test)):
        samples, symbols, aux = zip(*entries, strict=True)
        wfdb.wrann(name, extension, np.array(samples), list(symbols), fs=fs, aux_note=list(aux), write_dir=str(folder))
    return folder / f"{name}.hea"


def test_two_annotation_files_are_compared_beat_by_beat_and_by_rhythm(tmp_path):
    """By hand: of N V V S | the test finds N V N, misses S, and adds a V; AF of 300 s is found for 200 s."""
    reference = [(1000, "N", ""), (30_100, "+", "(AFIB"), (31_000, "N", ""), (31_080, "V", ""), (31_160, "V", "")]
    reference += [(31_300, "A", ""), (60_100, "+", "(N"), (61_000, "L", "")]
    test = [(1000, "V", ""), (31_003, "N", ""), (31_082, "V", ""), (31_158, "N", ""), (32_000, "V", "")]
    test += [(40_100, "+", "(AFIB"), (60_100, "+", "(N"), (61_000, "N", "")]
    agreement = ec57.compare_files(write_pair(tmp_path, "a", reference, test), "atr", "qrs", 300.0)
    expected = np.zeros((6, 6), int)
    expected[0, 0], expected[2, 2], expected[2, 0], expected[1, 5], expected[5, 2] = 2, 1, 1, 1, 1
    np.testing.assert_array_equal(agreement.beats, expected)
    assert agreement.fibrillation.duration_sensitivity == pytest.approx(2 / 3)
    assert agreement.fibrillation.sensitivity == agreement.fibrillation.duration_precision == 1
    assert agreement.runs_and_rate.runs["VEB"].sensitivity[0] == 0  # the couplet is found as one beat
    whole = ec57.compare_files(tmp_path / "a.hea", "atr", "qrs", 0.0)
    assert whole.beats[0, 2] == 1 and whole.beats.sum() == expected.sum() + 1


def test_the_tables_of_equal_files_are_perfect(tmp_path, capsys):
    beats = [(400 + 80 * k, "NNVN"[k % 4], "") for k in range(500)]
    paths = [write_pair(tmp_path, name, beats, beats) for name in ("a", "b")]
    ec57.main([*map(str, paths), "--first_s", "0"])
    text = capsys.readouterr().out
    assert "| N | 750 | 0 | 0 | 0 | 0 | 0 | 100.00 % | 100.00 % |" in text
    assert "| V | 0 | 0 | 250 | 0 | 0 | 0 | 100.00 % | 100.00 % |" in text
    assert "RMS error: 0.00 bpm" in text and "0 episodes in the reference" in text


def test_a_missing_annotation_file_is_one_line(tmp_path):
    path = write_pair(tmp_path, "a", [(10, "N", "")], [(10, "N", "")])
    with pytest.raises((OSError, ValueError), match=r"a\.ecg"):
        ec57.compare_files(path, "atr", "ecg", 0.0)
