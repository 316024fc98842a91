import csv
import json
import os
import shutil
import signal as signals
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import wfdb
from conftest import REPOSITORY, write_record

import data
import parts
import pqrst
import preprocess
import view
from config import Data
from folds import LEAKS
from script import Stop
from sources import AAMI

MITDB = ["--dataset", "mitdb", "--data.folds", "3", "--data.train", "0", "--data.validation", "1", "--data.test", "2"]


def run(tmp_path, raw, *words):
    preprocess.main([*MITDB, "--data.raw", str(raw), "--data.dir", str(tmp_path / "prepared"), *words])
    return data.Dataset(tmp_path / "prepared")


def failures(tmp_path):
    with (tmp_path / "prepared/failures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "prepare.log.json"}


def expected_beats(raw):
    """Record, sample and class of every AAMI beat, by wfdb."""
    beats = []
    for header in sorted(raw.glob("*.hea")):
        annotation = wfdb.rdann(str(header.with_suffix("")), "atr")
        beats += [(header.name, s, AAMI[c]) for s, c in zip(annotation.sample, annotation.symbol) if c in AAMI]
    return beats


def test_every_annotated_beat_becomes_a_row_with_its_class(tmp_path, mitdb_like):
    dataset = run(tmp_path, mitdb_like)
    classes = np.array(dataset.classes)[dataset.labels.argmax(axis=1)]
    assert list(zip(dataset.record.astype(str), dataset.sample, classes)) == expected_beats(mitdb_like)
    assert (dataset.labels.sum(axis=1) == 1).all()
    assert len(set(classes)) == 2
    assert not failures(tmp_path)


def test_stored_rows_equal_the_chain_of_public_kernels(tmp_path, mitdb_like):
    dataset = run(tmp_path, mitdb_like)
    for name, leads in {"101": ("MLII", "V1"), "114": ("MLII", "V5"), "102": ("V5", "V2")}.items():
        record = pqrst.read(mitdb_like / name)
        signal = record.signal[[record.leads.index(lead) for lead in leads]].astype(np.float64)
        mine = np.flatnonzero(dataset.record == f"{name}.hea".encode())
        filtered = pqrst.bandpass(signal, 360, 0.5, 40.0, 3)
        rows = pqrst.segment(filtered, dataset.sample[mine], 187)
        inside = (dataset.valid[mine] == [0, 187]).all(axis=1)
        assert inside.sum() > 40
        expected = pqrst.minmax(rows[inside]).astype(np.float32)
        np.testing.assert_array_equal(dataset.signals(mine[inside]), expected)


def test_a_beat_at_the_edge_is_kept_and_scaled_over_its_valid_samples(tmp_path, mitdb_like):
    dataset = run(tmp_path, mitdb_like)
    edge = np.flatnonzero(dataset.valid[:, 0] > 0)
    assert len(edge), "some simulated record has a beat in its first 93 samples"
    for row in edge:
        first, last = dataset.valid[row]
        x = dataset.signals(np.array([row]))[0]
        assert first == 93 - dataset.sample[row]
        assert (x[:, :first] == 0).all()
        assert x[:, first:last].min() == 0 and x[:, first:last].max() == 1


def test_context_is_computed_over_all_beats_of_the_record(tmp_path, mitdb_like):
    dataset = run(tmp_path, mitdb_like)
    mine = dataset.record == b"101.hea"
    samples = wfdb.rdann(str(mitdb_like / "101"), "atr").sample
    expected = np.diff(samples) / 360
    np.testing.assert_allclose(dataset.context[mine][1:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(dataset.context[mine][:-1, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(dataset.context[mine][7, 2], expected[2:12].mean(), rtol=1e-6)
    np.testing.assert_allclose(dataset.context[mine][:, 3], expected.mean(), rtol=1e-6)
    assert np.isnan(dataset.context[mine][0, 0]) and np.isnan(dataset.context[mine][-1, 1])
    assert list(dataset.beat_index[mine]) == list(range(mine.sum()))


def test_wrong_checksums_are_counted_and_named_by_lead(tmp_path, mitdb_like, capsys):
    raw = tmp_path / "raw"
    shutil.copytree(mitdb_like, raw)
    content = bytearray((raw / "101.dat").read_bytes())
    content[1000] ^= 1
    (raw / "101.dat").write_bytes(content)
    dataset = run(tmp_path, raw)
    assert dataset.summary.warnings == {"read": 1}
    assert not failures(tmp_path)
    log = json.loads((tmp_path / "prepared/prepare.log.json").read_text())
    assert "101.dat: lead MLII has checksum" in str(log["warnings"])
    assert "1 warnings" in capsys.readouterr().out


def test_no_patient_is_in_two_folds_and_paced_records_are_aside(tmp_path, mitdb_like):
    dataset = run(tmp_path, mitdb_like)
    folds = {p: set(dataset.fold[dataset.patient == p]) for p in np.unique(dataset.patient)}
    assert all(len(f) == 1 for f in folds.values())
    assert folds[b"102"] == {b"paced"}
    assert {f for p, fs in folds.items() for f in fs} == {b"0", b"1", b"2", b"paced"}


def test_random_rows_splits_patients_and_says_so(tmp_path, mitdb_like, capsys):
    dataset = run(tmp_path, mitdb_like, "--data.split", "random_rows")
    assert len(set(dataset.fold[dataset.patient == b"101"])) == 3
    assert "LEAK" in capsys.readouterr().out
    assert dataset.summary.leak == LEAKS["random_rows"]


def test_dechazal_keeps_ds2_apart(tmp_path, mitdb_like):
    dataset = run(tmp_path, mitdb_like, "--data.split", "dechazal", "--data.test", "DS2")
    assert set(dataset.fold[dataset.record == b"200.hea"]) == {b"DS2"}
    assert dataset.summary.leak is None, "neither 201 nor 202 is there"


def test_201_and_202_are_one_person(tmp_path, mitdb_like, capsys):
    """De Chazal's split puts them on both sides, which is said; a split by patient keeps them together."""
    raw = tmp_path / "raw"
    shutil.copytree(mitdb_like, raw)
    for old, new in (("101", "201"), ("106", "202")):
        for path in list(raw.glob(f"{old}.*")):
            text = path.read_bytes()
            path.with_name(path.name.replace(old, new)).write_bytes(text.replace(old.encode(), new.encode()))
    dataset = run(tmp_path, raw, "--data.split", "dechazal")
    sides = {record.decode(): fold.decode() for record, fold in zip(dataset.record, dataset.fold)}
    assert sides["202.hea"] == "DS2" != sides["201.hea"]
    assert set(dataset.patient[np.isin(dataset.record, [b"201.hea", b"202.hea"])]) == {b"201"}
    assert "201 (DS1) and 202 (DS2) come from one person" in dataset.summary.leak
    assert "LEAK: records 201" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "prepared")
    dataset = run(tmp_path, raw)
    sides = {record.decode(): fold.decode() for record, fold in zip(dataset.record, dataset.fold)}
    assert sides["201.hea"] == sides["202.hea"]
    assert dataset.summary.leak is None


def test_a_patient_in_two_splits_stops_the_load(tmp_path, mitdb_like):
    run(tmp_path, mitdb_like)
    for path in (tmp_path / "prepared").glob("part-*.h5"):
        with h5py.File(path, "r+") as file:
            fold = file["fold"][()]
            fold[np.flatnonzero(file["patient"][()] == b"101")[0]] = b"1"
            fold[np.flatnonzero(file["patient"][()] == b"101")[1]] = b"2"
            file["fold"][...] = fold
    with pytest.raises(Stop, match="patient 101 is in both"):
        data.Dataset(tmp_path / "prepared").splits(["0"], ["1"], ["2"])


def test_a_second_run_does_nothing_and_says_so(tmp_path, mitdb_like, capsys):
    run(tmp_path, mitdb_like)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "prepared").iterdir()}
    run(tmp_path, mitdb_like)
    assert "up to date" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "prepared").iterdir()}


def test_a_summary_of_an_older_version_is_written_anew_and_its_parts_are_kept(tmp_path, mitdb_like):
    run(tmp_path, mitdb_like)
    path = tmp_path / "prepared/dataset.json"
    whole = path.read_bytes()
    tree = json.loads(whole)
    del tree["labelled"]
    path.write_text(json.dumps(tree))
    with pytest.raises(Stop, match=r"is of another version of the format \(labelled\); run preprocess.py"):
        data.Dataset(tmp_path / "prepared")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "prepared").glob("part-*")}
    run(tmp_path, mitdb_like)
    assert path.read_bytes() == whole
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "prepared").glob("part-*")}


def test_a_changed_recipe_stops_and_says_what_changed(tmp_path, mitdb_like):
    run(tmp_path, mitdb_like)
    with pytest.raises(Stop, match=r"recipe.bandpass.high_hz: 40.0 -> 35.0.*--data.dir.*--overwrite"):
        run(tmp_path, mitdb_like, "--recipe.bandpass.high_hz", "35")
    dataset = run(tmp_path, mitdb_like, "--recipe.bandpass.high_hz", "35", "--overwrite")
    assert dataset.recipe.bandpass.high_hz == 35.0


def test_same_input_same_bytes_for_any_number_of_workers(tmp_path, mitdb_like):
    run(tmp_path / "a", mitdb_like, "--workers", "1")
    run(tmp_path / "b", mitdb_like, "--workers", "4")
    assert files(tmp_path / "a/prepared") == files(tmp_path / "b/prepared")


def test_parts_are_cut_by_size_and_hold_whole_records(tmp_path, mitdb_like, monkeypatch):
    whole = run(tmp_path / "one", mitdb_like)
    monkeypatch.setattr(parts, "PART_BYTES", 200_000)
    dataset = run(tmp_path / "many", mitdb_like)
    assert len(dataset.summary.parts) > 3
    rows = np.arange(len(whole))[::-1].copy()
    np.testing.assert_array_equal(dataset.signals(rows), whole.signals(rows))
    assert list(dataset.record) == list(whole.record)


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(tmp_path, mitdb_like):
    words = [*MITDB, "--data.raw", str(mitdb_like)]
    code = "import parts, preprocess, sys; parts.PART_BYTES = 100_000; preprocess.main(sys.argv[1:])"

    def start(folder):
        command = [sys.executable, "-c", code, *words, "--data.dir", str(folder)]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    for number in range(5):
        process = start(tmp_path / "cut")
        deadline = time.time() + 60
        while (
            len(list((tmp_path / "cut").glob("part-*"))) <= number and process.poll() is None and time.time() < deadline
        ):
            time.sleep(0.002)
        process.send_signal(signals.SIGKILL)
        process.wait()
    assert start(tmp_path / "cut").wait() == 0
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_dataset_scale_takes_its_numbers_from_training_rows_alone(tmp_path, mitdb_like):
    words = ["--recipe.scale.kind", "zscore", "--recipe.scale.over", "dataset"]
    dataset = run(tmp_path / "scaled", mitdb_like, *words)
    plain = run(tmp_path / "plain", mitdb_like, "--recipe.scale.kind", "none")
    training = np.flatnonzero((plain.fold == b"0") & (plain.valid == [0, 187]).all(axis=1))
    edges = np.flatnonzero((plain.fold == b"0") & ~(plain.valid == [0, 187]).all(axis=1))
    x = [plain.signals(training).transpose(1, 0, 2).reshape(2, -1)]
    x += [plain.signals(np.array([r]))[0][:, slice(*plain.valid[r])] for r in edges]
    x = np.concatenate(x, axis=1).astype(np.float64)
    np.testing.assert_allclose(dataset.recipe.scale.center, x.mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(dataset.recipe.scale.spread, x.std(axis=1), rtol=1e-9)


def test_damaged_records_are_skipped_listed_and_counted(tmp_path, mitdb_like, capsys):
    raw = tmp_path / "raw"
    shutil.copytree(mitdb_like, raw)
    (raw / "101.dat").unlink()
    os.truncate(raw / "106.dat", 1000)
    (raw / "108.hea").write_text(
        "108 2 360 21600\n108.dat 99 200 11 1024 0 0 0 MLII\n108.dat 99 200 11 1024 0 0 0 V1\n"
    )
    (raw / "109.hea").write_text("109 0 360 21600\n")
    write_record(raw, "111", np.random.default_rng(0).normal(size=(1, 3600)), 360, ["X"], ([100, 500], "NN"))
    (raw / "112.hea").write_text("112 2 0 21600\n112.dat 16 200 11 1024 0 0 0 MLII\n112.dat 16 200 11 1024 0 0 0 V1\n")
    (raw / "119.atr").unlink()
    dataset = run(tmp_path, raw, "--data.folds", "2", "--data.test", "paced")
    assert {r.decode() for r in dataset.record} == {"102.hea", "114.hea", "200.hea"}
    listed = {row["record"]: row["reason"] for row in failures(tmp_path)}
    assert set(listed) == {"101.hea", "106.hea", "108.hea", "109.hea", "111.hea", "112.hea", "119.hea"}
    assert "101.dat" in listed["101.hea"]
    assert "106.dat" in listed["106.hea"]
    assert "99" in listed["108.hea"]
    assert "no leads" in listed["109.hea"]
    assert "X" in listed["111.hea"] and "MLII" in listed["111.hea"]
    assert "119.atr" in listed["119.hea"]
    assert "7 failures" in capsys.readouterr().out
    assert sum(dataset.summary.failures.values()) == 7


def test_a_record_that_cannot_be_decoded_is_listed_in_its_place(tmp_path, mitdb_like, monkeypatch):
    raw = tmp_path / "raw"
    shutil.copytree(mitdb_like, raw)
    for number in ("101", "109"):  # found out by prepare ...
        (raw / f"{number}.hea").write_text((raw / f"{number}.hea").read_text().replace("mV", "pm"))
    for number in ("106", "114"):  # ... and before it: FLAC that is none
        (raw / f"{number}.hea").write_text((raw / f"{number}.hea").read_text().replace(".dat 16 ", ".dat 516 "))
    run(tmp_path / "a", raw, "--workers", "1")
    monkeypatch.setattr(parts, "BATCH", 1)
    dataset = run(tmp_path / "b", raw, "--workers", "2")
    assert [row["record"] for row in failures(tmp_path / "a")] == ["101.hea", "106.hea", "109.hea", "114.hea"]
    assert {r.decode() for r in dataset.record} == {"102.hea", "108.hea", "119.hea", "200.hea"}
    assert files(tmp_path / "a/prepared") == files(tmp_path / "b/prepared")


def test_rows_that_are_dropped_leave_the_others_as_they_are(tmp_path, rng):
    raw = tmp_path / "raw"
    raw.mkdir()
    signal = rng.normal(size=(1, 5000))
    lines = ["record,patient,1dAVb,RBBB,LBBB,SB,AF,ST"]
    for number in range(4):
        x = signal + number
        if number == 1:
            x[:, 1200:1800] = np.nan  # within the second window
        write_record(raw, f"r{number}", x, 100, ["I"])
        lines.append(f"r{number},p{number},{number % 2},0,0,0,0,1")
    (raw / "records.csv").write_text("\n".join(lines) + "\n")
    words = ["--data.raw", str(raw), "--data.dir", str(tmp_path / "prepared"), "--data.folds", "4"]
    words += ["--recipe.leads", '[["I"]]', "--recipe.window.kind", "window", "--recipe.window.length_s", "10"]
    words += ["--recipe.bandpass", "null", "--recipe.scale.kind", "none", "--recipe.dtype", "float32"]
    preprocess.main(words)
    dataset = data.Dataset(tmp_path / "prepared")
    kept = [(n, w) for n in range(4) for w in range(5) if (n, w) != (1, 1)]
    assert [(int(r[1:2]), s // 1000) for r, s in zip(dataset.record, dataset.start)] == kept
    assert [int(p[1:]) for p in dataset.patient] == [n for n, _ in kept]
    assert [list(y) for y in dataset.labels] == [[n % 2, 0, 0, 0, 0, 1] for n, _ in kept]
    assert len(set(zip(dataset.patient, dataset.fold))) == 4
    for row, (n, w) in enumerate(kept):
        expected = signal[:, w * 1000 : (w + 1) * 1000] + n
        np.testing.assert_allclose(dataset.signals(np.array([row]))[0], expected, atol=0.001)
    assert failures(tmp_path)[0]["record"] == "r1.hea"


def test_dataset_scale_of_whole_records(tmp_path, demo_folder):
    words = ["--data.raw", str(demo_folder), "--recipe.dtype", "float32"]
    preprocess.main([*words, "--data.dir", str(tmp_path / "plain"), "--recipe.scale.kind", "none"])
    preprocess.main([*words, "--data.dir", str(tmp_path / "scaled"), "--recipe.scale.over", "dataset"])
    plain, scaled = data.Dataset(tmp_path / "plain"), data.Dataset(tmp_path / "scaled")
    rows = np.arange(len(plain))
    x = plain.signals(rows).astype(np.float64)
    training = x[np.isin(plain.fold, np.array(Data().train, "S"))]
    center, spread = training.mean(axis=(0, 2)), training.std(axis=(0, 2))
    np.testing.assert_allclose(scaled.recipe.scale.center, center, atol=1e-9)
    expected = (x - center[:, None]) / spread[:, None]
    np.testing.assert_allclose(scaled.signals(rows), expected, rtol=1e-5, atol=1e-5)


def test_beats_without_a_class_are_listed_not_lost_in_silence(tmp_path, mitdb_like):
    raw = tmp_path / "raw"
    shutil.copytree(mitdb_like, raw)
    annotation = wfdb.rdann(str(raw / "101"), "atr")
    symbols = list(annotation.symbol)
    symbols[3], symbols[5] = "B", "~"
    wfdb.wrann("101", "atr", annotation.sample, symbols, write_dir=str(raw))
    dataset = run(tmp_path, raw)
    assert (dataset.record == b"101.hea").sum() == len(symbols) - 2
    assert [row["reason"] for row in failures(tmp_path)] == ["1 beats 'B' have no class"]
    # B is a beat and a neighbour of the others, ~ is none
    mine = dataset.context[dataset.record == b"101.hea"]
    np.testing.assert_allclose(mine[3, 0], (annotation.sample[4] - annotation.sample[3]) / 360, rtol=1e-6)


def test_recordings_without_any_beat_give_no_rows_and_stop_nothing(tmp_path, mitdb_like, monkeypatch):
    raw = tmp_path / "raw"
    shutil.copytree(mitdb_like, raw)
    for number in ("101", "106", "200"):
        wfdb.wrann(number, "atr", np.array([10, 20]), ["+", "~"], write_dir=str(raw))
    monkeypatch.setattr(parts, "BATCH", 1)
    dataset = run(tmp_path, raw, "--workers", "1", "--data.folds", "2", "--data.test", "paced")
    assert {r.decode() for r in dataset.record} == {"102.hea", "108.hea", "109.hea", "114.hea", "119.hea"}
    assert {f["record"]: f["reason"] for f in failures(tmp_path)} == {
        f"{number}.hea": "none of its beats has a class" for number in ("101", "106", "200")
    }


def test_detected_peaks_can_be_the_centres(tmp_path, mitdb_like):
    dataset = run(tmp_path, mitdb_like, "--recipe.centers", "rpeaks")
    mine = np.flatnonzero(dataset.record == b"106.hea")
    record = pqrst.read(mitdb_like / "106")
    r_peaks = pqrst.rpeaks(record.signal, record.fs)
    assert set(dataset.sample[mine]) <= set(r_peaks)
    np.testing.assert_array_equal(r_peaks[dataset.beat_index[mine]], dataset.sample[mine])
    assert len(mine) > 0.95 * len(wfdb.rdann(str(mitdb_like / "106"), "atr").sample)


def test_annotated_beats_that_are_not_detected_are_listed(tmp_path, mitdb_like):
    raw = tmp_path / "raw"
    shutil.copytree(mitdb_like, raw)
    annotation = wfdb.rdann(str(raw / "106"), "atr")
    between = (annotation.sample[4] + annotation.sample[5]) // 2  # no beat is there
    samples, symbols = np.append(annotation.sample, between), [*annotation.symbol, "F"]
    order = np.argsort(samples)
    wfdb.wrann("106", "atr", samples[order], [symbols[i] for i in order], write_dir=str(raw))
    usual = run(tmp_path / "a", mitdb_like, "--recipe.centers", "rpeaks")
    dataset = run(tmp_path / "b", raw, "--recipe.centers", "rpeaks")
    np.testing.assert_array_equal(dataset.sample, usual.sample)
    assert "F" not in set(dataset.symbol[dataset.record == b"106.hea"].astype(str))
    before, after = (getattr(dataset.summary, f"classes_{when}")["F"] for when in ("before", "after"))
    assert before == after + 1
    missed = {row["record"]: row for row in failures(tmp_path / "b")}["106.hea"]
    assert missed["stage"] == "rpeaks"
    assert "annotated beats were not detected" in missed["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.name", "mitbd"], r"no such dataset.*did you mean mitdb\?"),
        (["--data.raw", "/nowhere"], "/nowhere: no such folder"),
        (["--data.folds", "50"], "only 7 patients"),
        (["--recipe.bandpass.high_hz", "400"], "no rows could be prepared.*high_hz"),
    ],
)
def test_what_cannot_be_done_stops_with_one_line(tmp_path, mitdb_like, words, message):
    with pytest.raises(Stop, match=message):
        run(tmp_path, mitdb_like, *words)
    assert not (tmp_path / "prepared/dataset.json").exists()


def test_the_command_line_ends_with_status_2_and_one_line(tmp_path):
    command = [sys.executable, "preprocess.py", "--dataset", "mitdb", "--data.raw", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_part_cut_short_stops_the_load(tmp_path, mitdb_like):
    run(tmp_path, mitdb_like)
    os.truncate(tmp_path / "prepared/part-00000.h5", 5000)
    with pytest.raises(Stop, match="part-00000.h5"):
        data.Dataset(tmp_path / "prepared")


@pytest.mark.parametrize("name", ["mitdb", "demo"])
def test_preprocessing_imports_nothing_that_is_slow_to_import(mitdb_like, demo_folder, tmp_path, name):
    code = (
        "import sys, preprocess; preprocess.main(sys.argv[1:]);"
        "assert not {'torch', 'scipy', 'wfdb', 'sklearn', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    words = {"mitdb": [*MITDB, "--data.raw", str(mitdb_like)], "demo": ["--data.raw", str(demo_folder)]}[name]
    words += ["--data.dir", str(tmp_path / "prepared")]
    subprocess.run([sys.executable, "-c", code, *words], cwd=REPOSITORY, check=True)


def test_the_log_says_how_it_was_made(tmp_path, mitdb_like):
    run(tmp_path, mitdb_like)
    log = json.loads((tmp_path / "prepared/prepare.log.json").read_text())
    assert log["workers"] >= 1 and log["records_per_s"] > 0
    times = [*(log["began"][stage] for stage in ("index", "rows", "summary")), log["finished"]]
    assert times == sorted(times)


def write_tiny(folder, n_records):
    """Records of one lead and 10 s that share a signal file, laid out as source `demo` expects them."""
    folder.mkdir()
    samples = np.random.default_rng(0).integers(-1000, 1000, 1000)
    (folder / "shared.dat").write_bytes(samples.astype("<i2").tobytes())
    lines = ["record,patient,1dAVb,RBBB,LBBB,SB,AF,ST"]
    for number in range(n_records):
        name = f"r{number:05d}"
        (folder / f"{name}.hea").write_text(f"{name} 1 100 1000\nshared.dat 16 1000/mV 16 0 0 0 0 I\n")
        lines.append(f"{name},p{number // 2:05d},{number % 2},0,0,{number % 3 // 2},0,0")
    (folder / "records.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_tiny_beats(folder, n_records):
    """Records of one lead and 200 s with a beat a second, all of one signal and with the same annotations, for svdb."""
    folder.mkdir()
    fs, n = 100, 20_000
    (folder / "shared.dat").write_bytes(np.random.default_rng(0).integers(-1000, 1000, n).astype("<i2").tobytes())
    wfdb.wrann("shared", "atr", np.arange(50, n, fs), ["N", "V"] * (n // fs // 2), write_dir=str(folder))
    annotations = (folder / "shared.atr").read_bytes()
    for number in range(n_records):
        name = f"r{number:05d}"
        (folder / f"{name}.hea").write_text(f"{name} 1 {fs} {n}\nshared.dat 16 1000/mV 16 0 0 0 0 ECG1\n")
        (folder / f"{name}.atr").write_bytes(annotations)
    return folder


PEAK = """
import json, sys, tracemalloc
import parts, preprocess
parts.PART_BYTES = 400_000
for name in ("first", "small", "large"):  # what is made once is made in the first
    words = [*json.loads(sys.argv[2]), "--data.raw", f"{sys.argv[1]}/raw-{name}", "--workers", "1"]
    tracemalloc.start()
    preprocess.main([*words, "--data.dir", f"{sys.argv[1]}/{name}"])
    print("peak", tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_tiny, ["--recipe.leads", '[["I"]]']),  # a row has 2000 bytes
        (write_tiny_beats, ["--dataset", "svdb", "--recipe.leads", '[["ECG1"]]']),  # a record has 200 rows
    ],
)
def test_memory_does_not_grow_with_the_signals(tmp_path, write, words):
    """In a process of its own: how often garbage is collected depends on all that a process holds."""
    for name, n_records in (("first", 50), ("small", 200), ("large", 2200)):
        write(tmp_path / f"raw-{name}", n_records)
    command = [sys.executable, "-c", PEAK, str(tmp_path), json.dumps(words)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    _, small, large = (int(line.split()[1]) for line in run.stdout.splitlines() if line.startswith("peak"))
    assert (large - small) / 2000 < 1000


@pytest.mark.slow
def test_mitdb_counts_equal_the_published_ones(tmp_path, real_data):
    dataset = run(tmp_path, real_data / "mitdb", "--data.folds", "5")
    aside = dataset.fold == b"paced"
    # De Chazal 2004, training set, and the four paced records (data README)
    assert dict(zip(dataset.classes, dataset.labels[~aside].sum(axis=0))) == {
        "N": 45866,
        "S": 944,
        "V": 3788,
        "F": 415,
        "Q": 8,
    }
    assert dict(zip(dataset.classes, dataset.labels[aside].sum(axis=0))) == {
        "N": 506,
        "S": 0,
        "V": 227,
        "F": 0,
        "Q": 8028,
    }
    assert not failures(tmp_path)


# ------------------------------------------------------------------------------------------------ view and variants


def test_the_view_goes_beside_each_beat(tmp_path, mitdb_like):
    dataset = run(tmp_path, mitdb_like, "--recipe.context", "rr_next_s,view", "--data.folds", "3")
    assert dataset.recipe.context_columns == ("rr_next_s", *view.VIEW_NUMBERS)
    record = pqrst.read(mitdb_like / "114.hea")
    r_peaks = wfdb.rdann(str(mitdb_like / "114"), "atr").sample
    mine = dataset.record == b"114.hea"
    slots = record.signal[[list(record.leads).index(lead) for lead in ("MLII", "V5")]]
    expected = view.view_beats(slots, record.fs, r_peaks).numbers
    np.testing.assert_array_equal(dataset.context[mine][:, 1:], expected)
    np.testing.assert_allclose(dataset.context[mine][:-1, 0], np.diff(r_peaks) / 360, rtol=1e-6)


def test_variants_stand_in_folds_of_their_own_beside_unchanged_rows(tmp_path, mitdb_like):
    words = ["--data.folds", "3", "--data.train", "0,0+", "--data.validation", "1", "--data.test", "2"]
    dataset = run(tmp_path, mitdb_like, *words, "--data.variants", "2")
    plain = run(tmp_path / "plain", mitdb_like, "--data.folds", "3")
    fold_of = dict(zip(plain.record.tolist(), plain.fold.tolist(), strict=True))
    originals = ~np.char.endswith(dataset.fold, b"+")
    np.testing.assert_array_equal(dataset.record[originals], plain.record)
    np.testing.assert_array_equal(dataset.signals(np.flatnonzero(originals)), plain.signals(np.arange(len(plain))))
    names = set(dataset.record[~originals].tolist())
    assert names == {name + ending for name in fold_of for ending in (b"~1", b"~2")}
    for name, fold in zip(dataset.record[~originals].tolist(), dataset.fold[~originals].tolist(), strict=True):
        assert fold == fold_of[name[:-2]] + b"+"
    splits = dataset.splits(["0", "0+"], ["1"], ["2"])
    assert set(dataset.fold[splits["train"]]) == {b"0", b"0+"}
    assert not np.char.endswith(dataset.fold[splits["validation"]], b"+").any()


def test_variants_are_the_same_every_time(tmp_path, mitdb_like):
    words = ["--data.folds", "3", "--data.variants", "1", "--data.limit", "4"]
    run(tmp_path / "a", mitdb_like, *words, "--data.workers", "1")
    run(tmp_path / "b", mitdb_like, *words, "--data.workers", "3")
    assert files(tmp_path / "a/prepared") == files(tmp_path / "b/prepared")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.split", "random_rows", "--data.variants", "1"], "divides recordings"),
        (["--data.variants", "-1"], "data.variants"),
        (["--recipe.context", "views"], "recipe.context"),
    ],
)
def test_variants_and_views_that_cannot_be_are_refused(tmp_path, mitdb_like, words, message):
    with pytest.raises(Stop, match=message):
        run(tmp_path, mitdb_like, *words)
