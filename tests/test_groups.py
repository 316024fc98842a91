"""What is known of recordings."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_record
from layouts import run, twelve, write_mat, write_table

import data
import parts
import preprocess
import sources
from index import Item
from sources import About, Recording

# ---------------------------------------------------------------------------------------------- what a source knows


@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("69 M 1085 1629 x1", About(69, "M")),
        (" 23 F 2546 N/A x1", About(23, "F")),
        ("-1 M 859 694 x1", About(None, "M")),
        ("54 ? 903 654 x2", About(54, "")),
        ("Digoxin", About()),
        ("2 PVCs, Multiform", About()),
    ],
)
def test_the_line_of_mitbih_gives_age_and_sex(line, about):
    assert sources.about_of_holter(["", line, "Digoxin, Lasix"]) == about


@pytest.mark.parametrize(
    ("age", "sex", "about"),
    [
        ("74", "Female", About(74, "F")),
        ("84", "male", About(84, "M")),
        ("0", "M", About(0, "M")),
        ("NaN", "F", About(None, "F")),
        ("Unknown", "Unknown", About()),
        ("-1", "", About()),
        ("300", "", About()),
        ("inf", "", About()),
    ],
)
def test_the_header_of_a_challenge_gives_age_and_sex(tmp_path, rng, age, sex, about):
    for mark, year in (("# ", "2021"), ("#", "2020")):
        comments = (f"{mark}Age: {age}", f"{mark}Sex: {sex}", f"{mark}Dx: 426783006")
        write_mat(tmp_path / year, "A0001", twelve(rng, 1000), comments=comments)
        (recording,) = sources.SOURCES[f"cinc{year}"].recordings(tmp_path / year)
        assert recording.about == about


def test_records_of_mitbih_know_age_and_sex_by_their_headers(tmp_path, rng):
    for name, comments in (("100", ["69 M 1085 1629 x1", "Aldomet, Inderal"]), ("101", [])):
        write_record(tmp_path, name, rng.normal(size=(2, 720)), 360, ("MLII", "V1"), comments=comments)
    (tmp_path / "102.hea").write_text("damaged\n# 84 F 1 1 x1\n")  # a problem later, when the index reads it
    assert [r.about for r in sources.mitdb(tmp_path)] == [About(69, "M"), About(), About()]


def test_real_headers_know_age_and_sex(real_data):
    about = {r.locator: r.about for r in sources.mitdb(real_data / "mitdb")}
    assert about["114.hea"] == About(72, "F") and about["122.hea"] == About(51, "M")
    assert all(each.age and each.sex for name, each in about.items())
    (first, *_) = sources.ptbxl(real_data / "ptb-xl")
    assert first.about == About(56, "F", "CS-12 E", "0")


def records_of(folder):
    with (folder / "records.csv").open(newline="", encoding="utf-8") as file:
        return {row.pop("record"): row for row in csv.DictReader(file)}


def with_people(ptbxl):
    """Add the owner's columns to the table; the fifth recording is absent."""
    table = pd.read_csv(ptbxl / "ptbxl_database.csv", dtype=str)
    table["age"], table["sex"] = ["56.0", "300.0", "", "17.0", "40.0"], ["1", "0", "", "0", "1"]
    table["device"], table["site"] = ["CS-12   E", "AT-6 C", "", "AT-6 C", "AT-6 C"], ["0.0", "1.0", "", "12.0", "1.0"]
    table.to_csv(ptbxl / "ptbxl_database.csv", index=False)
    return ptbxl


def test_records_of_ptbxl_know_what_its_table_says(ptbxl, tmp_path):
    run("ptbxl", with_people(ptbxl), tmp_path / "out")
    found = records_of(tmp_path / "out")
    assert found == {
        f"records100/00000/0000{n}_lr.hea": {"patient": f"{100 + n}", "fold": f"{n}", **known}
        for n, known in {
            1: {"age": "56", "sex": "F", "device": "CS-12 E", "site": "0"},
            2: {"age": "90", "sex": "M", "device": "AT-6 C", "site": "1"},  # published as 300: 90 or more
            4: {"age": "17", "sex": "M", "device": "AT-6 C", "site": "12"},
        }.items()
    }


def test_a_table_of_ptbxl_without_people_leaves_them_unknown(ptbxl, tmp_path):
    run("ptbxl", ptbxl, tmp_path / "out")
    assert {(row["age"], row["sex"], row["device"], row["site"]) for row in records_of(tmp_path / "out").values()} == {
        ("", "", "", "")
    }


def test_exams_of_code15_know_age_and_sex(tmp_path):
    import h5py

    with h5py.File(tmp_path / "part.hdf5", "w") as file:
        file["exam_id"] = np.array([1, 2, 3])
    head = ["exam_id", "age", "is_male", *sources.CODE_CLASSES, "patient_id", "trace_file"]
    people = ((1, 46, "True"), (2, 54, "False"), (3, "", ""))
    write_table(tmp_path / "exams.csv", [head, *([*person, *["False"] * 6, 7, "part.hdf5"] for person in people)])
    assert [r.about for r in sources.code15(tmp_path)] == [About(46, "M"), About(54, "F"), About()]


def test_the_demo_knows_age_and_sex(prepared_demo, demo_folder):
    found = records_of(folder_of(prepared_demo))
    drawn = pd.read_csv(demo_folder / "records.csv", dtype=str)
    assert len(found) == len(drawn)
    for line in drawn.itertuples():
        entry = found[f"{line.record}.hea"]
        assert (entry["patient"], entry["age"], entry["sex"]) == (line.patient, line.age, line.sex)
    dataset = data.Dataset(folder_of(prepared_demo))
    assert all(
        found[record.decode()]["fold"] == fold.decode()
        for record, fold in zip(dataset.record, dataset.fold, strict=True)
    )


def folder_of(words):
    return Path(words[words.index("--data.dir") + 1])


def test_what_is_known_of_people_changes_no_stamp():
    """The text is that of the version before there was `about`, so that its parts are not made again."""
    recording = Recording("100.hea", "100", ("N",), "DS1", "atr", table="table.csv", row=3, about=About(69, "M"))
    item = Item(recording, 5, 720, 360.0, 1234, True, np.zeros(2, np.int64))
    assert parts.item_line(item) == (
        "Recording(locator='100.hea', patient='100', labels=('N',), fold='DS1', annotations='atr', units_per_mv=None, "
        "fs=None, table='', row=0, patient_known=True) 1234 5"
    )


def test_a_dataset_of_an_older_version_gets_the_file_and_keeps_its_parts(ptbxl, tmp_path):
    run("ptbxl", with_people(ptbxl), tmp_path / "out")
    whole = (tmp_path / "out/records.csv").read_bytes()
    (tmp_path / "out/records.csv").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    run("ptbxl", ptbxl, tmp_path / "out")
    assert (tmp_path / "out/records.csv").read_bytes() == whole
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_rows_of_one_recording_in_several_folds_leave_its_fold_empty(mitdb_like, tmp_path):
    words = ["--dataset", "mitdb", "--data.raw", str(mitdb_like), "--data.dir", str(tmp_path / "out")]
    preprocess.main([*words, "--data.folds", "3", "--data.split", "random_rows"])
    folds = {name: row["fold"] for name, row in records_of(tmp_path / "out").items()}
    assert folds.pop("102.hea") == "paced" and set(folds.values()) == {""}
