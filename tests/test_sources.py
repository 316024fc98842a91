"""Every dataset in the layout in which its owner publishes it, small and made up: what comes of it, what is refused."""

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter

import h5py
import numpy as np
import pytest
import wfdb
from conftest import REPOSITORY, write_record
from layouts import TWELVE, TWO, failures, labels_of, run, twelve, write_mat, write_table

import data
import index
import parts
import pqrst
import preprocess
import readers
import sources
from script import Stop

# ---------------------------------------------------------------------------------------------- codes


def test_the_tasks_of_ptbxl_have_the_published_number_of_classes():
    sizes = {name: len(target.classes) for name, target in sources.SOURCES["ptbxl"].targets.items()}
    assert sizes == {"superdiagnostic": 5, "subdiagnostic": 23, "diagnostic": 44, "form": 19, "rhythm": 12, "all": 71}


def test_codes_equal_the_owners_tables(real_data):
    with (real_data / "ptb-xl/scp_statements.csv").open(newline="") as file:
        statements = {row[""]: row for row in csv.DictReader(file)}
    for target, column in (("superdiagnostic", "diagnostic_class"), ("subdiagnostic", "diagnostic_subclass")):
        of = {code: row[column] if row["diagnostic"] else "" for code, row in statements.items()}
        assert sources.SOURCES["ptbxl"].targets[target].of == of
    for target in ("form", "rhythm"):
        of = {code: code if row[target] else "" for code, row in statements.items()}
        assert sources.SOURCES["ptbxl"].targets[target].of == of
    for year, column in (("2020", "SNOMED CT Code"), ("2021", "SNOMEDCTCode")):
        target = sources.SOURCES[f"cinc{year}"].targets["scored"]
        for kind in ("scored", "unscored"):
            with (real_data / f"cinc{year}/dx_mapping_{kind}.csv").open(newline="") as file:
                codes = [row[column] for row in csv.DictReader(file)]
            assert all(bool(target.of[code]) == (kind == "scored") for code in codes)
        with (real_data / f"cinc{year}/weights.csv").open(newline="") as file:
            groups = [set(group.split("|")) for group in next(csv.reader(file))[1:]]
        for group in groups:
            assert len({target.of[code] for code in group}) == 1
    assert len(target.classes) == len(groups)


def test_equivalent_codes_are_one_class():
    of = sources.SOURCES["cinc2021"].targets["scored"].of
    for pair in (
        ("733534002", "164909002"),
        ("713427006", "59118001"),
        ("284470004", "63593006"),
        ("427172004", "17338001"),
    ):
        assert of[pair[0]] == of[pair[1]] != ""
    assert of["Normal"] == of["426783006"] == "NSR"
    assert of["429622005"] == ""  # known, and not scored


# ---------------------------------------------------------------------------------------------- PTB-XL


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("superdiagnostic", {1: ("NORM",), 2: ("MI", "HYP"), 4: ("STTC", "CD")}),
        ("subdiagnostic", {1: ("NORM",), 2: ("AMI", "IMI", "LVH"), 4: ("CLBBB", "STTC")}),
        ("diagnostic", {1: ("NORM",), 2: ("ASMI", "IMI", "LVH"), 4: ("CLBBB", "NDT")}),
        ("form", {3: ("ABQRS",), 4: ("NDT",)}),
        ("rhythm", {1: ("SR",), 2: ("STACH",), 3: ("AFIB",)}),
        ("all", {1: ("NORM", "SR"), 2: ("ASMI", "IMI", "LVH", "STACH"), 3: ("ABQRS", "AFIB"), 4: ("CLBBB", "NDT")}),
    ],
)
def test_ptbxl_aggregates_as_the_benchmark(ptbxl, tmp_path, target, expected):
    words = ["--data.target", target, "--recipe.scale.over", "lead"]
    dataset = run("ptbxl", ptbxl, tmp_path / "out", *words)
    named = {f"records100/00000/{number:05d}_lr.hea": names for number, names in expected.items()}
    assert labels_of(dataset) == named
    assert dict(zip(dataset.record.astype(str), dataset.fold.astype(str))) == {r: str(int(r[-11:-7])) for r in named}
    listed = failures(tmp_path / "out")
    assert len(listed) == 5 - len(expected)
    absent = listed["records100/00000/00005_lr.hea"]
    assert "no such header" in absent
    assert absent.endswith("(ptbxl_database.csv, row 6)")


def test_ptbxl_at_500_hz_is_the_other_file(ptbxl, tmp_path):
    words = ["--recipe.fs", "500", "--recipe.scale.over", "lead", "--data.arguments", '{"rate": 500}']
    dataset = run("ptbxl", ptbxl, tmp_path / "out", *words)
    assert dataset.signals(np.arange(1)).shape == (1, 12, 5000)
    assert set(dataset.record.astype(str)) == {f"records500/00000/{n:05d}_hr.hea" for n in (1, 2, 4)}


def test_a_row_that_comes_twice_counts_once(ptbxl, tmp_path):
    path = ptbxl / "ptbxl_database.csv"
    lines = path.read_text()
    path.write_text(lines + "2,102.0,,\"{'NORM': 1.0}\",7,records100/00000/00002_lr,records500/00000/00002_hr\n")
    dataset = run("ptbxl", ptbxl, tmp_path / "out")
    assert labels_of(dataset)["records100/00000/00002_lr.hea"] == ("MI", "HYP")
    assert "ptbxl_database.csv, row 7: names 2 again" in failures(tmp_path / "out")["2"]


def test_a_statement_nobody_knows_is_listed_with_its_record(ptbxl, tmp_path):
    path = ptbxl / "ptbxl_database.csv"
    path.write_text(path.read_text().replace("'IMI'", "'XYZ'"))
    dataset = run("ptbxl", ptbxl, tmp_path / "out")
    assert "records100/00000/00002_lr.hea" not in labels_of(dataset)
    reason = failures(tmp_path / "out")["records100/00000/00002_lr.hea"]
    assert "'XYZ' is not known" in reason
    assert reason.endswith("(ptbxl_database.csv, row 3)")


def test_what_is_prepared_can_be_learnt_and_predicted(ptbxl, tmp_path):
    import infer
    import train

    words = ["--dataset", "ptbxl", "--data.raw", str(ptbxl), "--data.dir", str(tmp_path / "out")]
    words += ["--data.train", "1", "--data.validation", "2", "--data.test", "4"]
    preprocess.main(words)
    more = ["--training.epochs", "1", "--training.batch_size", "1", "--training.metric", "macro_f1"]
    train.main([*words, "--run", str(tmp_path / "run"), *more])
    dataset = data.Dataset(tmp_path / "out")
    prediction = infer.predict(ptbxl / "records100/00000/00001_lr.hea", run=tmp_path / "run")
    assert [row["class"] for row in prediction.rows()] == list(dataset.classes)


@pytest.mark.parametrize("column", ["scp_codes", "strat_fold", "filename_lr"])
def test_a_missing_column_stops_with_the_file_and_its_name(ptbxl, tmp_path, column):
    path = ptbxl / "ptbxl_database.csv"
    path.write_text(path.read_text().replace(column, "other", 1))
    with pytest.raises(Stop, match=rf"ptbxl_database\.csv: has no column {column}; it has ecg_id"):
        run("ptbxl", ptbxl, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_real_part_of_ptbxl_equals_an_independent_count(real_data, tmp_path):
    import ast

    import pandas as pd

    folder = real_data / "ptb-xl"
    table = pd.read_csv(folder / "ptbxl_database.csv", index_col="ecg_id")
    statements = pd.read_csv(folder / "scp_statements.csv", index_col=0)
    codes = table.scp_codes.apply(ast.literal_eval)
    diagnostic = statements[statements.diagnostic == 1]
    of = {
        "superdiagnostic": diagnostic.diagnostic_class.to_dict(),
        "subdiagnostic": diagnostic.diagnostic_subclass.to_dict(),
        "diagnostic": {code: code for code in diagnostic.index},
        "form": {code: code for code in statements[statements.form == 1].index},
        "rhythm": {code: code for code in statements[statements.rhythm == 1].index},
        "all": {code: code for code in statements.index},
    }
    for target, mapping in of.items():
        counted = Counter(name for each in codes for name in {mapping[code] for code in each if code in mapping})
        dataset = run("ptbxl", folder, tmp_path / target, "--data.target", target)
        assert +Counter(dict(zip(dataset.classes, map(int, dataset.labels.sum(axis=0, dtype=int))))) == counted
        assert len(dataset) == sum(any(code in mapping for code in each) for each in codes)


# ---------------------------------------------------------------------------------------------- CODE


@pytest.fixture
def code15(tmp_path, rng):
    """Two parts; the table in another order than the files, with its columns in the owner's order."""
    raw = tmp_path / "code15"
    raw.mkdir()
    parts = {"exams_part0.hdf5": [11, 12, 13, 0], "exams_part1.hdf5": [21, 22, 99]}
    for name, ids in parts.items():
        tracings = np.zeros((len(ids), 4096, 12), np.float32)
        for row, exam in enumerate(ids):
            if exam:
                n = 2934 if exam == 12 else 4096
                first = (4096 - n) // 2
                tracings[row, first : first + n] = twelve(rng, n).T
        with h5py.File(raw / name, "w") as file:
            file["exam_id"] = np.array(ids)
            file.create_dataset("tracings", data=tracings, compression="gzip")
    rows = [["exam_id", "age", "1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "patient_id", "normal_ecg", "trace_file"]]
    flags = {21: "ST", 13: "AF", 11: "", 22: "RBBB", 12: "1dAVb", 14: ""}
    for exam, flag in flags.items():
        part = "exams_part1.hdf5" if exam > 20 else "exams_part0.hdf5"
        patient, normal = 5 if exam in (11, 12) else exam, str(exam == 11)
        rows.append([exam, 50, *(str(name == flag) for name in rows[0][2:8]), patient, normal, part])
    write_table(raw / "exams.csv", rows)
    return raw


def test_code15_joins_by_exam_and_by_name_of_class(code15, tmp_path):
    dataset = run("code15", code15, tmp_path / "out", *TWO)
    assert dataset.classes == ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")
    assert labels_of(dataset) == {
        "exams_part0.hdf5#0": (),
        "exams_part0.hdf5#1": ("1dAVb",),
        "exams_part0.hdf5#2": ("AF",),
        "exams_part1.hdf5#0": ("ST",),
        "exams_part1.hdf5#1": ("RBBB",),
    }
    patient = dict(zip(dataset.record.astype(str), dataset.patient.astype(str)))
    assert patient["exams_part0.hdf5#0"] == patient["exams_part0.hdf5#1"] == "5"
    assert len(set(dataset.fold[:2])) == 1
    assert dataset.summary.patients_known and dataset.summary.patients == 4
    listed = failures(tmp_path / "out")
    assert set(listed) == {
        "14",
        "exams_part1.hdf5#2",
    }  # named and absent; there and not named; the empty row is neither
    assert "no exam 14" in listed["14"]


def test_ids_of_code15_that_were_written_as_floats_are_the_same(code15, tmp_path):
    expected = labels_of(run("code15", code15, tmp_path / "expected", *TWO))
    with (code15 / "exams.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    places = [header.index(name) for name in ("exam_id", "patient_id")]
    floats = [[f"{cell}.0" if k in places else cell for k, cell in enumerate(row)] for row in rows]
    write_table(code15 / "exams.csv", [header, *floats])
    dataset = run("code15", code15, tmp_path / "floats", *TWO)
    assert labels_of(dataset) == expected
    assert not any(patient.endswith(b".0") for patient in dataset.patient)


def test_code15_tells_normal_from_none_of_the_six(code15, tmp_path):
    table = (code15 / "exams.csv").read_text()
    (code15 / "exams.csv").write_text(table.replace("12,50,True", "12,50,False"))  # neither normal nor one of the six
    dataset = run("code15", code15, tmp_path / "out", *TWO, "--data.target", "with_normal")
    assert dataset.classes == ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST", "normal")
    told = labels_of(dataset)
    assert told["exams_part0.hdf5#0"] == ("normal",)
    assert told["exams_part0.hdf5#1"] == ()
    assert told["exams_part0.hdf5#2"] == ("AF",)


def test_the_padding_of_code15_is_recognised(code15, tmp_path):
    dataset = run("code15", code15, tmp_path / "out", *TWO)
    assert (dataset.valid[1] == [0, 2934]).all()
    assert (dataset.valid[0] == [0, 4096]).all()
    with h5py.File(code15 / "exams_part0.hdf5") as file:
        expected = file["tracings"][1, 581:3515].T
    rows = dataset.signals(np.array([1]))[0]
    np.testing.assert_array_equal(rows[:, :2934], expected.astype(np.float16))
    assert not rows[:, 2934:].any()
    with pytest.raises(ValueError, match="#3: is empty"):
        readers.read(f"{code15}/exams_part0.hdf5#3")
    with pytest.raises(ValueError, match="no row 4"):
        readers.info(f"{code15}/exams_part0.hdf5#4")


def test_a_part_cut_short_is_listed_and_the_others_are_made(code15, tmp_path):
    path = code15 / "exams_part0.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    dataset = run("code15", code15, tmp_path / "out", *TWO)
    assert set(labels_of(dataset)) == {"exams_part1.hdf5#0", "exams_part1.hdf5#1"}
    assert "and with it 4 exams" in failures(tmp_path / "out")["exams_part0.hdf5"]


def test_codetest_has_its_own_order_of_labels_and_one_fold(tmp_path, rng):
    raw = tmp_path / "raw"
    write_table(raw / "annotations/gold_standard.csv", [sources.CODE_CLASSES, [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]])
    with h5py.File(raw / "ecg_tracings.hdf5", "w") as file:
        file["tracings"] = np.stack([twelve(rng, 4096).T for _ in range(2)]).astype(np.float32)
    dataset = run("codetest", raw, tmp_path / "out")
    assert labels_of(dataset) == {"ecg_tracings.hdf5#0": ("AF",), "ecg_tracings.hdf5#1": ("ST",)}
    assert set(dataset.fold) == {b"test"}
    assert not dataset.summary.patients_known


# ---------------------------------------------------------------------------------------------- challenges


def test_cinc2021_and_2020_headers_words_and_gains(tmp_path, rng):
    x = twelve(rng, 5000)
    raw = tmp_path / "raw"
    write_mat(raw / "training/georgia/g1", "E00001", x, "1000.0(0)/mV", ["# Age: 84", "# Dx: 164889003,429622005"])
    write_mat(raw / "training/ptb-xl/g1", "HR00001", x, "1000.0(0)/mv", ["# Age: NaN", "# Dx: 284470004,63593006"])
    write_mat(raw / "training/ningbo/g1", "JS00001", x, "1000.0(0)/mV", ["# Dx: "])
    write_mat(raw / "training/ningbo/g1", "JS00002", x, "1000.0(0)/mV", ["# Dx: 429622005"])
    write_mat(raw / "training/ningbo/g1", "JS00003", x, "1000.0(0)/mV", ["# Dx: 1,164889003"])
    dataset = run("cinc2021", raw, tmp_path / "2021", *TWO, "--recipe.fs", "500")
    assert labels_of(dataset) == {
        "training/georgia/g1/E00001.hea": ("AF",),
        "training/ptb-xl/g1/HR00001.hea": ("PAC|SVPB",),
        "training/ningbo/g1/JS00002.hea": (),  # a diagnosis that is not scored
    }
    listed = failures(tmp_path / "2021")
    assert "empty" in listed["training/ningbo/g1/JS00001.hea"]  # no diagnosis is not a normal one
    assert "'1' is not known" in listed["training/ningbo/g1/JS00003.hea"]

    raw = tmp_path / "raw2020"
    write_mat(raw, "A0001", x, "1000/mV", ["#Age: 74", "#Dx: I-AVB"])
    write_mat(raw, "E00001", x, "4880/mV", ["#Dx: Normal"], extension=".mat")
    write_mat(raw, "HR00001", x, "200/mV", ["#Dx: 426783006,59118001"])
    words = ["--recipe.fs", "500", "--recipe.scale.kind", "none", "--recipe.dtype", "float32"]
    dataset = run("cinc2020", raw, tmp_path / "2020", *TWO, *words)
    assert labels_of(dataset) == {"A0001.hea": ("IAVB",), "E00001.hea": ("NSR",), "HR00001.hea": ("CRBBB|RBBB", "NSR")}
    rows = dataset.signals(np.arange(3))
    np.testing.assert_allclose(rows[1], rows[0], atol=1e-6)  # whatever the gain that the header claims
    np.testing.assert_allclose(rows[2], rows[0], atol=1e-6)
    assert not dataset.summary.patients_known


def test_cpsc2018_structs_and_headers_are_the_same_recording(tmp_path, rng):
    from scipy.io import savemat

    x = np.round(twelve(rng, 6 * 500), 3)
    (tmp_path / "mat").mkdir()
    savemat(tmp_path / "mat/A0001.mat", {"ECG": {"sex": "Male", "age": 74.0, "data": x}})
    write_mat(tmp_path / "hea", "A0001", x)
    a, b = readers.read(tmp_path / "mat/A0001.mat"), readers.read(tmp_path / "hea/A0001.hea")
    assert (a.fs, a.leads) == (b.fs, b.leads) == (500, TWELVE)
    np.testing.assert_allclose(a.signal, b.signal, atol=1e-6)
    rows = [["Recording", "First_label", "Second_label", "Third_label"], ["A0001", 2, 5, ""], ["A0002", 1, "", ""]]
    for kind in ("mat", "hea"):
        write_table(tmp_path / kind / "REFERENCE.csv", rows)
        words = [*TWO, "--data.split", "random_rows", "--recipe.fs", "500"]
        dataset = run("cpsc2018", tmp_path / kind, tmp_path / f"out-{kind}", *words)
        assert labels_of(dataset) == {f"A0001.{kind}": ("AF", "RBBB")}
        assert (dataset.valid == [0, 3000]).all()
        assert not dataset.summary.patients_known
        assert set(failures(tmp_path / f"out-{kind}")) == {"A0002.mat"}


def test_cinc2017_takes_the_latest_labels(tmp_path, rng):
    raw = tmp_path / "raw"
    for name in ("A00001", "A00002", "A00003"):
        write_mat(raw / "training2017", name, twelve(rng, 3000, ["ECG"]), fs=300, leads=["ECG"])
    write_table(raw / "training2017/REFERENCE.csv", [["A00001", "N"], ["A00002", "A"], ["A00003", "O"]])
    words = [*TWO, "--data.split", "random_rows"]
    first = run("cinc2017", raw, tmp_path / "a", *words)
    write_table(raw / "REFERENCE-v3.csv", [["A00001", "~"], ["A00002", "A"], ["A00003", "?"]])
    later = run("cinc2017", raw, tmp_path / "b", *words)
    names = [f"training2017/A0000{n}.hea" for n in (1, 2, 3)]
    assert labels_of(first) == dict(zip(names, (("N",), ("A",), ("O",))))
    assert labels_of(later) == dict(zip(names[:2], (("~",), ("A",))))
    assert not later.summary.patients_known
    assert "'?' is not known" in failures(tmp_path / "b")[names[2]]


# ---------------------------------------------------------------------------------------------- others


def test_ptbdb_reads_the_diagnosis_from_the_header(tmp_path, rng):
    raw = tmp_path / "raw"
    reasons = ["Myocardial infarction", "Healthy control", "Heart failure (NYHA 2)", "n/a", "Plague"]
    leads = [*(lead.lower() for lead in TWELVE), "vx", "vy", "vz"]
    for number, reason in enumerate(reasons, 1):
        (raw / f"patient00{number}").mkdir(parents=True)
        comments = ["age: 81", "Diagnose:", f"Reason for admission: {reason}"]
        folder, name = raw / f"patient00{number}", f"s000{number}lre"
        write_record(folder, name, twelve(rng, 20_000, leads), 1000, leads, comments=comments)
    words = ["--data.folds", "2", "--data.train", "0", "--data.validation", "1", "--recipe.leads", '[["II"], ["vx"]]']
    dataset = run("ptbdb", raw, tmp_path / "a", *words)
    names = [f"patient00{n}/s000{n}lre.hea" for n in range(1, 6)]
    assert labels_of(dataset) == {names[0]: ("MI",), names[1]: ("healthy",)}
    assert len(dataset) == 4  # windows of 10 s
    assert set(dataset.patient) == {b"patient001", b"patient002"}
    assert dataset.summary.patients_known
    assert "'plague' is not known" in failures(tmp_path / "a")[names[4]]
    dataset = run("ptbdb", raw, tmp_path / "b", *words, "--data.target", "diagnosis")
    assert labels_of(dataset)[names[2]] == ("cardiomyopathy",)
    assert len(dataset.classes) == 9


@pytest.fixture
def icentia(tmp_path, rng):
    raw, fs = tmp_path / "raw", 250
    for patient in ("p00000", "p00001"):
        folder = raw / patient[:3] / patient
        folder.mkdir(parents=True)
        name, n = f"{patient}_s00", 100 * fs
        write_record(folder, name, twelve(rng, n, ["ECG"]), fs, ["ECG"])
        beats = np.arange(fs // 2, n, fs)
        samples = [0, *beats, 40 * fs, 45 * fs, 80 * fs, 90 * fs]
        symbols = ["+", *("NSVQ"[i % 4] for i in range(len(beats))), "+", "+", "+", "+"]
        notes = ["(N", *[""] * len(beats), ")", "(AFIB", ")", "(N)"]
        order = np.argsort(samples, kind="stable")
        wfdb.wrann(
            name,
            "atr",
            np.array(samples)[order],
            [symbols[i] for i in order],
            aux_note=[notes[i] for i in order],
            write_dir=str(folder),
        )
    return raw


def test_icentia_has_beats_and_rhythms(icentia, tmp_path):
    beats = run("icentia11k", icentia, tmp_path / "beats", *TWO)
    assert beats.classes == ("N", "S", "V", "Q")
    assert beats.labels.sum(axis=0, dtype=int).tolist() == [50, 50, 50, 50]
    assert set(beats.patient) == {b"p00000", b"p00001"}


def test_icentia_windows_take_the_rhythm_that_fills_half_of_them(icentia, tmp_path):
    words = ["--data.raw", str(icentia), "--data.dir", str(tmp_path / "out"), *TWO]
    preprocess.main(["--dataset", "icentia11k-rhythms", *words])
    dataset = data.Dataset(tmp_path / "out")
    one = dataset.patient == b"p00000"
    # 0-20 N, 20-40 N, 40-60: 15 s of AFIB, 60-80 AFIB, 80-100 none
    assert np.array(dataset.classes)[dataset.labels[one].argmax(axis=1)].tolist() == ["N", "N", "AFIB", "AFIB"]
    assert (dataset.start[one] / 250).tolist() == [0, 20, 40, 60]
    assert failures(tmp_path / "out")["p00/p00000/p00000_s00.hea"] == "labels: 1 of 5 windows have none of the rhythms"
    record = readers.read(icentia / "p00/p00000/p00000_s00")
    expected = pqrst.prepare(record, dataset.recipe.tree()).rows[:4]
    np.testing.assert_array_equal(dataset.signals(np.flatnonzero(one)), expected)


def test_labels_of_windows_lie_where_the_windows_are_cut(icentia, tmp_path):
    """20 s at 250 Hz, overlap 0.333 s, which is 83.25 samples: windows are cut every 4,917 samples, not 4,916.75."""
    header = icentia / "p00/p00000/p00000_s00.hea"
    n = 250 * 1200
    signal = np.random.default_rng(0).standard_normal((1, n))
    name = "p00000_s01"
    write_record(header.parent, name, signal, 250, ["ECG"])
    starts = np.arange(0, n, 4917)
    starts = starts[: (n - 83 + 4916) // 4917]
    k = len(starts) - 3
    # AF begins where it fills one sample more than half of window k
    begin = int(starts[k]) + 2499
    wfdb.wrann(name, "atr", np.array([0, begin]), ["+", "+"], aux_note=["(N", "(AFIB"], write_dir=str(header.parent))
    words = [
        "--data.raw",
        str(icentia),
        "--data.dir",
        str(tmp_path / "out"),
        *TWO,
        "--recipe.window.overlap_s",
        "0.333",
    ]
    preprocess.main(["--dataset", "icentia11k-rhythms", *words])
    dataset = data.Dataset(tmp_path / "out")
    mine = dataset.record == f"p00/p00000/{name}.hea".encode()
    np.testing.assert_array_equal(dataset.start[mine], starts)
    expected = np.where(np.arange(len(starts)) < k, "N", "AFIB")
    assert np.array(dataset.classes)[dataset.labels[mine].argmax(axis=1)].tolist() == expected.tolist()


def test_rhythms_that_were_labelled_by_an_older_rule_are_made_anew(icentia, tmp_path, monkeypatch):
    words = ["--dataset", "icentia11k-rhythms", *TWO, "--data.raw", str(icentia), "--data.dir", str(tmp_path / "out")]
    monkeypatch.setattr(parts, "LABEL_RULE", 1)
    preprocess.main(words)
    path, summary = tmp_path / "out/part-00000.h5", tmp_path / "out/dataset.json"
    right = data.Dataset(tmp_path / "out").labels
    with h5py.File(path, "r+") as file:
        file["labels"][...] = 0
    tree = json.loads(summary.read_text())
    del tree["labelled"]  # as the older version wrote it
    summary.write_text(json.dumps(tree))
    monkeypatch.undo()
    preprocess.main(words)
    np.testing.assert_array_equal(data.Dataset(tmp_path / "out").labels, right)


def test_mimic_maps_statements_and_counts_the_rest(tmp_path, rng, capsys):
    raw = tmp_path / "raw"
    order = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
    records = [["subject_id", "study_id", "file_name", "ecg_time", "path"]]
    measured = [["subject_id", "study_id", "cart_id", "ecg_time", *(f"report_{i}" for i in range(18)), "rr_interval"]]
    reports = {
        1: ["Sinus rhythm.", "Borderline ECG"],
        2: ["Atrial fibrillation", "Martian waves"],
        3: ["Martian waves"],
        4: ["Sinus rhythm with borderline 1st degree A-V block.", "RBBB and LAFB", "Possible left atrial abnormality"],
    }
    for study, statements in reports.items():
        folder = raw / f"files/p1000/p1000000{study}/s{study}"
        folder.mkdir(parents=True)
        write_record(folder, str(study), twelve(rng, 5000, order), 500, order)
        records.append([f"1000000{study}", study, study, "", f"files/p1000/p1000000{study}/s{study}/{study}"])
        measured.append([f"1000000{study}", study, 1, "", *statements, *[""] * (18 - len(statements)), 659])
    write_table(raw / "record_list.csv", records)
    write_table(raw / "machine_measurements.csv", measured)
    dataset = run("mimic_iv_ecg", raw, tmp_path / "a", *TWO)
    found = {name.split("/")[-1]: classes for name, classes in labels_of(dataset).items()}
    assert found == {"1.hea": ("SR",), "2.hea": ("AF",), "4.hea": ("LAFB", "RBBB", "SR")}
    log = json.loads((tmp_path / "a/prepare.log.json").read_text())
    assert ["", "labels", "2 recordings say 'martian waves': unknown"] in log["warnings"]
    aVL = dataset.recipe.leads.index(("aVL",))
    signal = pqrst.read(raw / "files/p1000/p10000001/s1/1").signal
    row = pqrst.prepare(raw / "files/p1000/p10000001/s1/1", dataset.recipe.tree()).rows[0]
    assert np.corrcoef(row[aVL, ::1].astype(float)[:1000], signal[5, ::5].astype(float))[0, 1] > 0.3
    dataset = run("mimic_iv_ecg", raw, tmp_path / "b", *TWO, "--data.target", "unlabelled")
    assert dataset.labels.shape == (4, 0)


def test_names_of_any_length_are_kept_whole(tmp_path, rng):
    raw, deep = tmp_path / "raw", "/".join(["a folder with a long name"] * 6)
    (raw / deep).mkdir(parents=True)
    rows = [["record", "label", "patient", "fold"]]
    for name in "abcd":
        write_record(raw / deep, name, twelve(rng, 1000), 100, TWELVE)
        rows.append([f"{deep}/{name}", name, "patient " * 9 + name, "a fold with a long name " + str(name < "c")])
    write_table(raw / "unified_label_mapping.csv", rows)
    dataset = run("folder", raw, tmp_path / "out", "--data.split", "official")
    assert dataset.record.astype(str).tolist() == [f"{deep}/{name}.hea" for name in "abcd"]
    assert dataset.patient.astype(str).tolist() == ["patient " * 9 + name for name in "abcd"]
    assert {fold.decode() for fold in dataset.fold} == set(dataset.summary.counts)
    assert len(dataset.summary.counts) == 2


def test_a_folder_of_anything_resolves_names_as_people_write_them(tmp_path, rng, capsys):
    raw = tmp_path / "raw"
    for place in ("a/one", "a/two", "b/two", "b/deep/three"):
        folder = raw / place.rsplit("/", 1)[0]
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder, place.rsplit("/", 1)[1], twelve(rng, 5000), 500, TWELVE)
    time = np.arange(1000) / 100
    rows = np.column_stack([time, twelve(rng, 1000).T])
    header = ",".join(["time", *(f"lead{i}" for i in range(1, 13))])
    np.savetxt(raw / "b/four.csv", rows, delimiter=",", header=header, comments="", fmt="%.6f")
    table = [
        ["dataset", "record", "label", "patient"],
        ["", "A\\one.hea", "x", "p1"],
        ["", "a/one", "y", "p1"],
        ["b", "two", "x", "p2"],
        ["", "two", "x", "p3"],
        ["", "three.dat", "y", "p4"],
        ["", "four", "z", "p5"],
        ["", "five", "z", "p6"],
    ]
    write_table(raw / "unified_label_mapping.csv", table)
    dataset = run("folder", raw, tmp_path / "out", *TWO)
    expected = {"a/one.hea": ("x", "y"), "b/two.hea": ("x",), "b/deep/three.hea": ("y",), "b/four.csv": ("z",)}
    assert labels_of(dataset) == expected
    assert dataset.classes == ("x", "y", "z")
    listed = failures(tmp_path / "out")
    assert "row 5: two could be a/two.hea, b/two.hea" in listed["two"]
    assert "row 8: five is no recording here" in listed["five"]
    assert "has no row for a/two.hea" in listed["a/two.hea"]

    (raw / "unified_label_mapping.csv").unlink()
    with pytest.raises(Stop, match=r"unified_label_mapping\.csv: does not exist; .* give all one label"):
        run("folder", raw, tmp_path / "none")
    dataset = run("folder", raw, tmp_path / "one", *TWO, "--data.arguments", '{"default_label": "unknown"}')
    assert dataset.classes == ("unknown",)
    assert len(dataset) == 5


def test_a_new_dataset_is_one_function_and_one_file(tmp_path, rng):
    """The example of CONTRIBUTING, from another script."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("r1", "r2"):
        write_record(raw, name, twelve(rng, 5000), 500, TWELVE)
    write_table(raw / "index.csv", [["file", "patient", "label"], ["r1", "a", "normal"], ["r2", "b", "abnormal"]])
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    lines = text.split("## Add a dataset")[1].split("## ")[0].splitlines()
    start = next(i for i, line in enumerate(lines) if "@source(" in line)
    code = "\n".join(
        line[4:] for line in lines[start : next(i for i in range(start, len(lines)) if "# configs" in lines[i])]
    )
    assert len(code.strip().splitlines()) <= 20
    yaml = next(i for i, line in enumerate(lines) if "data: {name: clinic}" in line)
    (tmp_path / "clinic.yaml").write_text("\n".join(line[4:] for line in lines[yaml : yaml + 2]))
    imports = "import csv, sys\nfrom collections.abc import Iterator\nfrom pathlib import Path\n"
    imports += "from sources import Recording, source\nimport preprocess\n"
    (tmp_path / "mine.py").write_text(f"{imports}{code}\npreprocess.main(sys.argv[1:])\n")
    words = ["--config", "clinic.yaml", "--data.raw", "raw", *TWO]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "mine.py", *words], cwd=tmp_path, env=environment, check=True)
    dataset = data.Dataset(tmp_path / "prepared/clinic")
    assert labels_of(dataset) == {"r1.hea": ("normal",), "r2.hea": ("abnormal",)}


# ------------------------------------------------------------------------------------------------ tables of a folder


@pytest.fixture
def tree(tmp_path, rng):
    """Eight recordings r1 to r8 without a table yet."""
    (tmp_path / "raw").mkdir()
    for number in range(1, 9):
        write_record(tmp_path / "raw", f"r{number}", twelve(rng, 5000), 500, TWELVE)
    return tmp_path / "raw"


def write_labels(tree, header, **columns):
    rows = [[f"r{number}", "x", *(values[number - 1] for values in columns.values())] for number in range(1, 9)]
    write_table(tree / "unified_label_mapping.csv", [["record", "label", *header], *rows])


PATIENTS = ["p1", "p1", "p2", "p2", "p3", "p3", "p4", "p4"]


@pytest.mark.parametrize("name", ["patient", "patient_id", "Patient ID", "subject-id", "SUBJECT", "pid"])
def test_patients_are_kept_together_however_their_column_is_called(tree, tmp_path, name):
    write_labels(tree, [name], patients=PATIENTS)
    dataset = run("folder", tree, tmp_path / "out", *TWO)
    assert dataset.patient.astype(str).tolist() == PATIENTS
    assert dataset.summary.patients_known and dataset.summary.patients == 4
    assert all(len(set(dataset.fold[dataset.patient == patient])) == 1 for patient in set(dataset.patient))


def test_numbers_of_patients_and_records_may_be_written_as_floats(tmp_path, rng):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("101", "102"):
        write_record(raw, name, twelve(rng, 5000), 500, TWELVE)
    rows = [["101.0", "x", "17.0", "1.0"], ["102", "y", "18", "2"]]
    write_table(raw / "unified_label_mapping.csv", [["record", "label", "patient", "fold"], *rows])
    dataset = run("folder", raw, tmp_path / "out", "--data.train", "1", "--data.validation", "2")
    assert (dataset.patient.tolist(), dataset.fold.tolist()) == ([b"17", b"18"], [b"1", b"2"])


def test_folds_of_a_table_hold_and_columns_that_are_not_used_are_named(tree, tmp_path):
    folds = ["a", "a", "b", "b", "c", "c", "c", "c"]
    write_labels(tree, ["strat_fold", "age", "pat_nr"], folds=folds, ages=range(8), patients=PATIENTS)
    dataset = run("folder", tree, tmp_path / "out", "--data.train", "a", "--data.validation", "b", "--data.test", "c")
    assert dataset.fold.astype(str).tolist() == folds
    warnings = json.loads((tmp_path / "out/prepare.log.json").read_text())["warnings"]
    (text,) = [reason for _, stage, reason in warnings if stage == "table"]
    assert text.endswith("unified_label_mapping.csv: columns that are not used: age, pat_nr")
    assert not dataset.summary.patients_known


def test_where_patients_are_unknown_this_is_said(tree, tmp_path, capsys):
    write_labels(tree, ["patient"], patients=[*PATIENTS[:7], ""])
    dataset = run("folder", tree, tmp_path / "out", *TWO)
    captured = capsys.readouterr()
    assert "8 recordings of unknown patients" in captured.err
    assert captured.out.splitlines()[1].split()[2] == "unknown"
    assert dataset.patients(np.arange(8)) == "patients unknown"


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("patient", "p9", r"r1 has the patient p1 \(row 2\) and p9 \(row 10\)"),
        ("fold", "9", r"r1 has the fold p1 \(row 2\) and 9 \(row 10\)"),
        ("patient", "", r"r1 has the patient p1 \(row 2\) and nothing \(row 10\)"),
    ],
)
def test_rows_that_contradict_each_other_leave_their_recording_out(tree, tmp_path, header, row, message):
    write_labels(tree, [header], patients=PATIENTS)
    with (tree / "unified_label_mapping.csv").open("a") as file:
        file.write(f"r1,y,{row}\n")
    words = ["--data.train", "p1", "--data.validation", "p2"] if header == "fold" else TWO
    dataset = run("folder", tree, tmp_path / "out", *words)
    assert len(dataset) == 7
    assert re.search(message, failures(tmp_path / "out")["r1.hea"])


def test_two_columns_for_one_thing_stop_where_they_differ(tree, tmp_path):
    write_labels(tree, ["patient", "subject_id"], patients=PATIENTS, subjects=[*PATIENTS[:3], "p9", *PATIENTS[4:]])
    message = "columns patient and subject_id both give the patient and differ in row 5: p2 and p9; leave one"
    with pytest.raises(Stop, match=message):
        run("folder", tree, tmp_path / "out", *TWO)
    numbers = [1, 1, 2, 2, 3, 3, 4, 4]
    write_labels(tree, ["patient", "Patient ID"], patients=numbers, again=[f"{number}.0" for number in numbers])
    assert run("folder", tree, tmp_path / "out", *TWO).patient.astype(int).tolist() == numbers


def test_recordings_without_a_fold_where_others_have_one_are_said(tree, tmp_path):
    folds = ["a", "a", "b", "b", "", "", "", ""]
    write_labels(tree, ["patient", "fold"], patients=PATIENTS, folds=folds)
    words = ["--data.folds", "2", "--data.train", "a", "--data.validation", "b", "--data.test", "0,1"]
    dataset = run("folder", tree, tmp_path / "out", *words)
    assert dataset.fold.astype(str).tolist()[:4] == folds[:4]
    assert {*dataset.fold[4:6], *dataset.fold[6:]} == {b"0", b"1"}
    ((record, stage, reason),) = json.loads((tmp_path / "out/prepare.log.json").read_text())["warnings"]
    assert (record, stage) == ("", "table")
    assert reason == "unified_label_mapping.csv: 4 of 8 recordings have no fold: theirs are drawn"
    with pytest.raises(Stop, match="data.folds = 3: there are only 2 patients without a given fold: p3, p4"):
        run("folder", tree, tmp_path / "three", "--data.folds", "3")


def test_a_patient_in_two_given_folds_is_named_with_both(tree, tmp_path):
    write_labels(tree, ["patient", "split"], patients=PATIENTS, folds=["fit", "fit", "fit", *["held out"] * 5])
    words = ["--data.train", "fit", "--data.validation", "held out"]
    dataset = run("folder", tree, tmp_path / "out", *words)
    with pytest.raises(Stop, match=r"out: patient p2 is in both train \(fold fit\) and validation \(fold held out\)"):
        dataset.splits(["fit"], ["held out"], [])


def test_a_table_as_spreadsheets_write_it(tree, tmp_path):
    """With a byte order mark, spaces and an empty label; with semicolons it is refused."""
    rows = ["record,label,Patient ID", *(f" r{n}, x ,{PATIENTS[n - 1]}" for n in range(1, 8)), "r8,,p4"]
    path = tree / "unified_label_mapping.csv"
    path.write_text("\ufeff" + "\r\n".join(rows), encoding="utf-8")
    dataset = run("folder", tree, tmp_path / "out", *TWO)
    assert (dataset.classes, dataset.patient.astype(str).tolist()) == (("x",), PATIENTS[:7])
    reason = "labels: none of the classes x: its labels are empty (unified_label_mapping.csv, row 9)"
    assert failures(tmp_path / "out") == {"r8.hea": reason}
    path.write_text("record;label\nr1;x\n")
    with pytest.raises(Stop, match="has no column record, label; it has record;label$"):
        run("folder", tree, tmp_path / "none", *TWO)


@pytest.mark.parametrize("cell", ["", " "])
def test_a_row_without_a_record_is_listed(tree, tmp_path, cell):
    write_labels(tree, [])
    with (tree / "unified_label_mapping.csv").open("a") as file:
        file.write(f"{cell},x\n")
    run("folder", tree, tmp_path / "out", *TWO)
    assert failures(tmp_path / "out")[""] == (
        "index: unified_label_mapping.csv, row 10: an empty name is no recording here"
    )


def test_a_recipe_that_suits_no_recording_is_told_as_such(tree, tmp_path):
    write_labels(tree, [])
    with pytest.raises(ValueError, match=r"^recipe.window: a row needs between 1 and 2\^32 samples"):
        run("folder", tree, tmp_path / "out", *TWO, "--recipe.window.length_s", "0.001")
    words = [*TWO, "--recipe.fs", "1e-7", "--recipe.window.length_s", "1e9"]
    with pytest.raises(Stop, match=r"none of 8 recordings can be read: fs\S* 1e-07: .* \(all 8 recordings\)$"):
        run("folder", tree, tmp_path / "out", *words)
    with (tree / "unified_label_mapping.csv").open("a") as file:
        file.write("gone,x\n")
    with pytest.raises(Stop, match=r"none of 9 recordings can be read: fs\S* 1e-07: .* \(8 of 9 recordings\)$"):
        run("folder", tree, tmp_path / "out", *words)


def test_beats_without_a_class_count_each_recording_once(tmp_path, rng):
    for number in (100, 101):
        write_record(tmp_path, str(number), twelve(rng, 3600, ["I"]), 360, ["MLII"], ([500, 900, 1300], "B?B"))
    with pytest.raises(Stop, match=r"none of 2 recordings can be read: none of its beats has a class \(all 2 rec"):
        run("mitdb", tmp_path, tmp_path / "out")


def test_the_commonest_reason_is_given_and_else_the_first():
    shared = [sources.Problem(f"r{n}", "filter", "high_hz") for n in range(2)]
    other = [sources.Problem("x", "index", "is gone"), sources.Problem("y", "index", "is empty")]
    assert index.common_reason([*other, *shared]) == "high_hz (2 of 4 recordings)"
    assert index.common_reason(other) == "first: x: is gone"
    assert index.common_reason(other[:1]) == "x: is gone"


def test_an_empty_cell_names_no_patient(ptbxl, tmp_path):
    path = ptbxl / "ptbxl_database.csv"
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    place = header.index("patient_id")
    write_table(path, [header, *([*row[:place], "", *row[place + 1 :]] for row in rows)])
    dataset = run("ptbxl", ptbxl, tmp_path / "out")
    assert not dataset.summary.patients_known
    assert len(set(dataset.patient)) == len(set(dataset.record)) > 1


def test_a_label_table_may_come_from_any_spreadsheet(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("a", "b", "c", "d", "e"):
        (raw / f"{name}.csv").write_text("time,I\n0,1\n0.004,2\n0.008,3\n")
    (raw / "loop").symlink_to(raw)  # a link that leads back
    rows = ["a,AF,p1", "a,AF,p1", "b,af,p2", " c , A F ,p3", "d,,p4", '"e\nf",N,p5']
    (raw / "unified_label_mapping.csv").write_bytes(
        "\ufeff record , Label ,Patient\r\n".encode() + "\r\n".join(rows).encode()
    )
    found = list(sources.folder(raw))
    recordings = [entry for entry in found if isinstance(entry, sources.Recording)]
    assert [(r.locator, r.patient, r.labels) for r in recordings] == [
        ("a.csv", "p1", ("AF",)), ("b.csv", "p2", ("af",)), ("c.csv", "p3", ("A F",)), ("d.csv", "p4", ()),
    ]  # fmt: skip
    problems = [entry for entry in found if isinstance(entry, sources.Problem)]
    assert [p.reason.removeprefix(f"{raw}/unified_label_mapping.csv") for p in problems] == [
        ": labels that differ in case or blanks alone: A F, AF, af",
        ", row 7: e\nf is no recording here",
        ": has no row for e.csv",
    ]


def test_a_problem_is_one_line_whatever_a_record_is_called(tmp_path):
    from index import problem_below

    problem = problem_below(tmp_path, "e\r\nf", "index", f"{tmp_path}/t.csv, row 7: e\nf is no recording here")
    assert problem == ("e f", "index", "t.csv, row 7: e f is no recording here")


def test_the_folder_takes_every_format_and_its_rate_wins(tmp_path, rng):
    raw = tmp_path / "raw"
    raw.mkdir()
    x = rng.normal(0, 0.3, (2, 2500)).astype(np.float32)
    write_record(raw, "a", x, 250, ["I", "II"])
    np.savetxt(
        raw / "b.CSV", np.c_[np.arange(2500) / 250, x.T], delimiter=",", header="time,I,II", comments="", fmt="%.4f"
    )
    from scipy.io import savemat

    savemat(raw / "c.mat", {"data": x, "fs": 250, "leads": np.array(["I", "II"], dtype=object)})
    words = ["--recipe.leads", '[["I"],["II"]]', "--data.split", "random_rows", "--data.folds", "3"]
    words += ["--data.train", '["0"]', "--data.validation", '["1"]', "--data.test", '["2"]']
    for arguments, rate in (({}, 250), ({"fs": 500}, 500)):
        tree = json.dumps({"default_label": "X", **arguments})
        dataset = run("folder", raw, tmp_path / f"out{rate}", *words, "--data.arguments", tree)
        assert len(dataset.summary.parts) == 1 and dataset.summary.rows == 3
        assert (dataset.valid[:, 1] == 2500 * 100 // rate).all()
