"""Tests of duplicates.py on copies planted among simulated recordings, and on rows that only look alike."""

import tracemalloc

import h5py
import numpy as np
import pytest
from conftest import write_summary

import data
import duplicates
import simulate
from recipe import Recipe

FS = 125.0
N = 300


@pytest.fixture(scope="module")
def recordings():
    """Return (300, 12, 1375) mV: 11 s of each of 300 simulated patients, half in sinus rhythm, half with any labels."""
    found = []
    for number in range(N):
        generator = np.random.default_rng([5, number])
        patient = simulate.simulate_patient(generator)
        labels = simulate.draw_labels(generator, patient) if number % 2 else ()
        found.append(simulate.simulate_record(generator, patient, labels, 11.0, FS)[0])
    return np.array(found)


def write(folder, signals, patient=None, fold=None, record=None, kind="record", dtype="float16", fs=FS, **columns):
    """A prepared dataset of two parts; without names, each row is a record and patient of its own, in ten folds."""
    n, n_leads, n_samples = signals.shape
    numbers = range(n)
    columns = {
        "signals": signals.astype(dtype),
        "record": np.array([f"{i:03d}.hea" for i in numbers] if record is None else record, "S"),
        "patient": np.array([f"p{i:03d}" for i in numbers] if patient is None else patient, "S"),
        "fold": np.array([i % 10 for i in numbers] if fold is None else fold, "S"),
        "labels": np.ones((n, 1), np.uint8),
        "valid": np.tile([0, n_samples], (n, 1)),
        **columns,
    }
    parts = []
    for number, rows in enumerate((slice(0, n // 2), slice(n // 2, n))):
        name = f"part-{number:05d}.h5"
        with h5py.File(folder / name, "w") as file:
            for column, values in columns.items():
                file[column] = values[rows]
        parts.append({"file": name, "rows": len(columns["signals"][rows])})
    window = {"kind": kind, "samples": n_samples}
    recipe = Recipe(fs=fs, dtype=dtype, leads=[[f"lead {k}"] for k in range(n_leads)], window=window)
    write_summary(folder, recipe, parts)
    return data.Dataset(folder)


def noisy(signal, generator, snr_db=20):
    """Add white noise to each lead."""
    spread = signal.std(axis=-1, keepdims=True) * 10 ** (-snr_db / 20)
    return signal + spread * generator.standard_normal(signal.shape)


def names(found):
    return {pair.records for pair in found.pairs}


HOW = {
    "exact": lambda x, generator: x[:, :1250],
    "scaled, with an offset": lambda x, generator: 0.5 * x[:, :1250] + 0.2,
    "upside down": lambda x, generator: -x[:, :1250],
    "noise of 20 dB": lambda x, generator: noisy(x[:, :1250], generator),
    "rounded to 8 bits": lambda x, generator: np.round(x[:, :1250] / 0.03) * 0.03,
    "0.3 s later": lambda x, generator: x[:, 38:1288],
    "1 s later, noise, half the size": lambda x, generator: noisy(0.5 * x[:, 125:], generator),
}


@pytest.mark.parametrize("n_leads", [1, 2, 12])
def test_planted_copies_are_all_found_and_named_and_nothing_else(tmp_path, recordings, rng, n_leads):
    signals = recordings[:, :n_leads, :1250].copy()
    expected = {}
    for place, (how, change) in enumerate(HOW.items()):
        original, copy = 11 + place, 213 + place  # in folds 1 and 3, 2 and 4, ...
        signals[copy] = change(recordings[original, :n_leads], rng)
        expected[f"{original:03d}.hea", f"{copy:03d}.hea"] = how
    found = duplicates.find(write(tmp_path, signals))
    assert {expected.get(pair.records, pair.records) for pair in found.pairs} == set(HOW)
    assert (found.compared, found.left_out, found.unverified) == (N, 0, 0)
    text = duplicates.report(found)
    for pair in found.pairs:
        how = expected[pair.records]
        assert pair.kind == "across folds"
        assert pair.patients == (f"p{pair.rows[0]:03d}", f"p{pair.rows[1]:03d}")
        assert pair.folds == tuple(str(row % 10) for row in pair.rows)
        assert (pair.correlation < 0) == (how == "upside down")
        later_s = {"0.3 s later": 38 / FS, "1 s later, noise, half the size": 1.0}.get(how, 0.0)
        assert pair.shift_s == pytest.approx(later_s, abs=0.5 / FS)
        assert f"{pair.records[0]} (patient {pair.patients[0]}, fold {pair.folds[0]}) and {pair.records[1]}" in text


def test_a_copy_that_begins_earlier_has_a_negative_shift(tmp_path, recordings):
    signals = recordings[:20, :, 50:1300].copy()
    signals[13] = recordings[2, :, :1250]
    (pair,) = duplicates.find(write(tmp_path, signals)).pairs
    assert pair.shift_s == pytest.approx(-50 / FS, abs=0.5 / FS)


def test_one_patient_in_one_fold_is_not_listed_and_two_patients_there_come_last(tmp_path, recordings):
    signals = recordings[:40, :2, :1250].copy()
    patient, fold = np.arange(40), np.arange(40) % 10
    signals[[30, 31, 32]] = signals[[0, 1, 2]]
    patient[30], fold[30] = patient[0], fold[0]  # one patient, one fold: no harm
    fold[31] = fold[1]  # two patients, one fold
    patient[32], fold[32] = patient[2], 7  # one patient, two folds
    found = duplicates.find(write(tmp_path, signals, patient, fold))
    assert [(pair.kind, pair.rows) for pair in found.pairs] == [("across folds", (2, 32)), ("within a fold", (1, 31))]


def test_windows_of_one_record_are_not_compared_and_a_copied_record_is_named_once(tmp_path, recordings):
    signals = recordings[:40, :1, :1250].copy()
    signals[1] = signals[0]  # two windows of one record with the same signal
    signals[36:39] = signals[8:11]
    record = np.array([f"r{i // 4}" for i in range(40)])
    fold = np.arange(40) // 4
    fold[1] = 5  # as in the split `random_rows`, which reports this leak itself
    found = duplicates.find(write(tmp_path, signals, record, fold, record, kind="window"))
    assert [(pair.records, pair.n_rows) for pair in found.pairs] == [(("r2", "r9"), 3)]
    assert "over 3 rows" in duplicates.report(found)


def test_still_rows_are_left_out_and_counted(tmp_path, recordings):
    signals = recordings[:20, :2, :1250].copy()
    signals[[3, 8]] = 0
    signals[[5, 16]] = 0.7
    found = duplicates.find(write(tmp_path, signals))
    assert found.pairs == []
    assert (found.compared, found.left_out) == (16, 4)
    assert "not compared: 4 rows without any deflection" in duplicates.report(found)


def test_rows_that_share_a_pulse_alone_are_no_copies(tmp_path, rng):
    signals = 0.02 * rng.standard_normal((20, 1, 1250))
    signals[:, :, 400:425] += 1
    dataset = write(tmp_path, signals)
    assert len(duplicates._candidates(dataset, 1.0)[0]) > 100, "their fingerprints do agree"
    assert duplicates.find(dataset).pairs == []


def test_a_copy_that_ends_earlier_is_compared_up_to_its_end(tmp_path, recordings):
    signals = recordings[:20, :2, :1250].copy()
    signals[12] = signals[3]
    signals[12, :, 1000:] = 0
    valid = np.tile([0, 1250], (20, 1))
    valid[12, 1] = 1000
    (pair,) = duplicates.find(write(tmp_path, signals, valid=valid)).pairs
    assert pair.records == ("003.hea", "012.hea")
    assert pair.correlation > 0.999


@pytest.mark.parametrize(("fs", "n_samples"), [(360.0, 900), (50.0, 200), (250.0, 15000)])
def test_any_rate_and_length(tmp_path, rng, fs, n_samples):
    slow = np.hanning(round(0.1 * fs))
    signals = np.apply_along_axis(np.convolve, 2, rng.standard_normal((12, 1, n_samples)), slow, "same")
    signals[9] = noisy(signals[4], rng)
    dataset = write(tmp_path, signals, dtype="float32", fs=fs)
    assert names(duplicates.find(dataset)) == {("004.hea", "009.hea")}


def test_more_candidates_than_are_compared_are_counted(tmp_path, recordings, monkeypatch):
    monkeypatch.setattr(duplicates, "MAX_CANDIDATES", 5)
    signals = np.repeat(recordings[:1, :1, :1250], 10, axis=0)
    found = duplicates.find(write(tmp_path, signals))
    assert len(found.pairs) == 5
    assert found.unverified == 45 - 5
    assert "not compared in full: 40 pairs" in duplicates.report(found)
    assert "across folds: 3 more" in duplicates.report(found, limit=2)


def test_memory_is_bounded_by_blocks_not_by_the_square_of_the_rows(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK_BYTES", 64 * 1250 * 4)
    monkeypatch.setattr(duplicates, "TILE", 512)
    n = 3000
    dataset = write(tmp_path, rng.standard_normal((n, 1, 1250), np.float32))
    tracemalloc.start()
    duplicates.find(dataset, max_shift_s=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n  # bytes, a quarter of all cosines; measured 0.5 n^2, and 1.7 n^2 with blocks of 16 MiB


def test_a_negative_shift_is_an_error(tmp_path, recordings):
    with pytest.raises(ValueError, match="max_shift_s -1"):
        duplicates.find(write(tmp_path, recordings[:4]), max_shift_s=-1)


# ------------------------------------------------------------------------------------------------ beats


def beats_of(n_beats, generator, spread=20):
    """Return R peaks (n_beats,) about a second apart at 360 Hz, and rows (n_beats, 1, 90)."""
    samples = 500 + np.cumsum(np.round(360 + spread * generator.standard_normal(n_beats)).astype(np.int64))
    shape = np.exp(-((np.arange(90) - 45.0) ** 2) / 40)
    return samples, noisy(np.tile(shape, (n_beats, 1, 1)), generator)


def write_beats(folder, records, patient=None, fold=None):
    """Write a prepared dataset of beats from `records`, name -> (samples, rows)."""
    each = [len(samples) for samples, _ in records.values()]
    of_row = np.repeat(np.arange(len(records)), each)
    return write(
        folder,
        np.concatenate([rows for _, rows in records.values()]),
        np.array([f"p{i}" for i in range(len(records))] if patient is None else patient)[of_row],
        of_row if fold is None else np.array(fold)[of_row],
        np.array(list(records))[of_row],
        kind="beat",
        sample=np.concatenate([samples for samples, _ in records.values()]),
        beat_index=np.concatenate([np.arange(n) for n in each]),
    )


def test_a_copied_record_of_beats_is_found_by_its_rhythm_however_late_it_begins(tmp_path, rng):
    records = {f"r{i}": beats_of(100, rng) for i in range(8)}
    samples, rows = records["r2"]
    records["r6"] = samples[30:] - samples[30] + 77, noisy(0.5 * rows[30:], rng)
    found = duplicates.find(write_beats(tmp_path, records))
    (pair,) = found.pairs
    assert (pair.kind, pair.records, pair.folds, pair.n_rows) == ("across folds", ("r2", "r6"), ("2", "6"), 70)
    assert pair.rows == (230, 600)
    assert pair.correlation > 0.95
    assert found.what == "records" and found.compared == 8
    assert "r2 (patient p2, fold 2) and r6 (patient p6, fold 6): correlation 0.9" in duplicates.report(found)


def test_paced_and_short_records_of_beats_are_left_out_and_counted(tmp_path, rng):
    paced = 500 + 360 * np.arange(100)
    records = {"r0": beats_of(100, rng), "r1": beats_of(16, rng)}
    records |= {"r2": (paced, beats_of(100, rng)[1]), "r3": (paced + 5, beats_of(100, rng)[1])}
    found = duplicates.find(write_beats(tmp_path, records))
    assert found.pairs == [] and (found.compared, found.left_out) == (1, 3)
    assert "not compared: 3 records without 16 RR intervals" in duplicates.report(found)


def test_three_copies_of_beats_are_three_pairs_but_not_within_a_patient_and_fold(tmp_path, rng):
    one = beats_of(60, rng)
    records = {"r0": one, "r1": one, "r2": one, "r3": beats_of(60, rng)}
    folder = tmp_path / "all"
    folder.mkdir()
    assert names(duplicates.find(write_beats(folder, records))) == {("r0", "r1"), ("r0", "r2"), ("r1", "r2")}
    patient, fold = ["a", "a", "b", "c"], [0, 0, 0, 1]
    found = duplicates.find(write_beats(tmp_path, records, patient, fold))
    assert [(pair.kind, pair.records) for pair in found.pairs] == [
        ("within a fold", ("r0", "r2")),
        ("within a fold", ("r1", "r2")),
    ]


def test_beats_without_a_class_break_a_run(tmp_path, rng):
    samples, rows = beats_of(60, rng)
    dataset = write_beats(tmp_path, {"r0": (samples, rows), "r1": (samples, rows)})
    dataset.beat_index = np.tile(np.arange(60) + np.arange(60) // 10, 2)  # each eleventh beat has no row
    found = duplicates.find(dataset)
    assert found.pairs == [] and found.left_out == 2
