"""What is known of recordings, the scores of groups, and coverage against risk."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_record
from layouts import run, twelve, write_mat, write_table
from sklearn.metrics import f1_score, roc_auc_score

import data
import evaluate
import groups
import parts
import preprocess
import risk
import sources
from index import Item
from script import Stop
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


# ---------------------------------------------------------------------------------------------- groups


def frame(**columns):
    n = len(next(iter(columns.values())))
    return pd.DataFrame({name: columns.get(name, [""] * n) for name in groups.COLUMNS})


def test_ages_are_in_bands():
    ages = ["0", "17", "17.9", "18", "39", "40", "59", "60", "79", "80", "90", ""]
    bands = ["0-17"] * 3 + ["18-39"] * 2 + ["40-59"] * 2 + ["60-79"] * 2 + ["80+"] * 2 + ["unknown"]
    assert [groups._band(age) for age in ages] == bands


def test_small_groups_are_pooled_and_unknown_ones_counted():
    known = frame(
        sex=["F"] * 30 + ["M"] * 20 + [""] * 15,
        device=["A"] * 25 + ["B"] * 21 + ["C"] * 9 + ["D"] * 7 + [""] * 3,
        site=["0"] * 46 + ["1"] * 19,  # one large group alone is no comparison
    )
    found = groups.group_names(known)
    counts = {column: pd.Series(names).value_counts().to_dict() for column, names in found.items()}
    assert counts == {
        "sex": {"F": 30, "M": 20, "unknown": 15},
        "device": {"A": 25, "B": 21, "other": 16, "unknown": 3},
    }


def hand_made(rng, n=200):
    """A multilabel set of two rows a patient, with a class that no man has."""
    sex = np.array(["F", "M"])[(np.arange(n) // 2) % 2]
    targets = rng.integers(0, 2, (n, 3)).astype(np.uint8)
    targets[sex == "M", 2] = 0
    scores = np.clip(0.3 * targets + rng.uniform(0, 0.7, targets.shape), 0, 1)
    answers = groups.Answers(targets, scores, np.arange(n) // 2, ("a", "b", "c"), "multilabel", (0.5,) * 3, ("a", "c"))
    return sex, answers


def test_each_group_is_scored_as_by_sklearn_over_the_classes_that_it_has(rng):
    sex, answers = hand_made(rng)
    table = groups.score_groups(frame(sex=list(sex)), answers).set_index("group")
    for name, columns in (("F", [0, 2]), ("M", [0])):
        here, line = sex == name, table.loc[name]
        decided = answers.scores[here] >= 0.5
        targets = answers.targets[here]
        assert (line.by, line.rows, line.patients, line.classes) == ("sex", 100, 50, len(columns))
        f1 = np.mean([f1_score(targets[:, c], decided[:, c]) for c in columns])
        auroc = np.mean([roc_auc_score(targets[:, c], answers.scores[here][:, c]) for c in columns])
        assert (line.macro_f1, line.macro_auroc) == (pytest.approx(f1), pytest.approx(auroc))
        assert line.macro_f1_low < line.macro_f1 < line.macro_f1_high
        assert line.macro_auroc_low < line.macro_auroc < line.macro_auroc_high


def test_a_group_too_small_for_a_score_has_its_rows_and_a_dash(rng):
    sex, answers = hand_made(rng)
    sex[:5] = ""
    table = groups.score_groups(frame(sex=list(sex)), answers)
    assert list(table.group) == ["F", "M", "unknown"] and table.rows.sum() == 200
    text = groups.as_text(table)
    assert text.startswith("## By sex\n") and "## By age" not in text
    assert "| unknown | 5 | 3 | 2 | – | – |" in text


def test_one_patient_alone_has_no_interval(rng):
    sex, answers = hand_made(rng)
    table = groups.score_groups(frame(sex=list(sex)), answers._replace(patients=np.zeros(len(sex), int)))
    assert table.macro_f1.notna().all() and table.macro_f1_low.isna().all()


def test_records_are_joined_by_name_whatever_stands_before_it(tmp_path):
    head = ["record", "patient", "fold", *groups.COLUMNS]
    for name, sex in (("a", "F"), ("b", "M")):
        write_table(tmp_path / name / "records.csv", [head, ["100.hea", "1", "0", "", sex, "", ""],
                                                      ["'=1.hea", "2", "0", "50", sex, "", ""]])  # fmt: skip
    (tmp_path / "c").mkdir()
    one = groups.known_of([tmp_path / "a"], ["100.hea", "100.hea", "=1.hea", "absent.hea"])
    assert one.sex.tolist() == ["F", "F", "F", ""] and one.age.tolist() == ["", "", "50", ""]
    folders = [tmp_path / name for name in "abc"]
    several = groups.known_of(folders, ["b/100.hea", "a/=1.hea", "c/100.hea"])
    assert several.sex.tolist() == ["M", "F", ""]
    assert groups.known_of([tmp_path / "c"], ["100.hea"]) is None


def test_a_file_that_is_no_table_of_records_stops(tmp_path):
    (tmp_path / "records.csv").write_text("record,age\n100.hea,50\n")
    with pytest.raises(Stop, match="records.csv: has no column sex, device, site; preprocess.py writes it anew"):
        groups.known_of([tmp_path], ["100.hea"])


# ---------------------------------------------------------------------------------------------- coverage


def test_four_rows_by_hand():
    curve = risk.coverage_curve(np.array([1, 0, 1, 0]), np.array([0.6, 0.9, 0.8, 0.7]))
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 2 / 4])  # right, wrong, right, wrong
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert [curve.risk_at(percent) for percent in (100, 75, 74, 50, 25, 1)] == pytest.approx(
        [1 / 2, 1 / 3, 1 / 3, 1 / 2, 0, 0]
    )


def test_no_order_has_less_area_than_the_perfect_one(rng):
    wrong = rng.integers(0, 2, 60)
    best = risk.best_curve(wrong)
    assert best.area == pytest.approx(risk.coverage_curve(wrong, 1.0 - wrong).area)
    right, k = int((wrong == 0).sum()), np.arange(1, 61)
    np.testing.assert_allclose(best.risk, np.maximum(0, k - right) / k)
    areas = [risk.coverage_curve(wrong, rng.permutation(60)).area for _ in range(200)]
    assert best.area < min(areas) and max(areas) < risk.coverage_curve(wrong, 1.0 * wrong).area


def test_the_order_of_rows_of_equal_certainty_does_not_matter(rng):
    wrong, certain = rng.integers(0, 2, 40), rng.integers(0, 4, 40) / 4
    curve = risk.coverage_curve(wrong, certain)
    for _ in range(20):
        order = rng.permutation(40)
        np.testing.assert_allclose(risk.coverage_curve(wrong[order], certain[order]).risk, curve.risk)
    drawn = [_plain_area(wrong[order], certain[order]) for order in (rng.permutation(40) for _ in range(4000))]
    assert curve.area == pytest.approx(np.mean(drawn), abs=0.005)  # the mean of so many orders spreads by less
    np.testing.assert_allclose(risk.coverage_curve(wrong, np.ones(40)).risk, wrong.mean())


def _plain_area(wrong, certain):
    kept = wrong[np.argsort(-certain, kind="stable")]
    return (kept.cumsum() / np.arange(1, len(kept) + 1)).mean()


def test_certainty_is_the_highest_score_or_the_least_distance_from_a_threshold():
    np.testing.assert_allclose(risk.certainty([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3]], "multiclass"), [0.7, 0.4])
    multilabel = risk.certainty([[0.9, 0.1], [0.35, 0.0]], "multilabel", (0.5, 0.2))
    np.testing.assert_allclose(multilabel, [0.1, 0.15])


@pytest.mark.parametrize(("wrong", "certain"), [([], []), ([0, 1], [0.5]), ([[0]], [[0.5]])])
def test_shapes_that_are_no_rows_are_refused(wrong, certain):
    with pytest.raises(ValueError, match="N at least 1"):
        risk.coverage_curve(np.array(wrong), np.array(certain))


# ---------------------------------------------------------------------------------------------- the report


def test_the_report_has_sections_for_groups_and_the_curve(demo_run, prepared_demo, monkeypatch):
    monkeypatch.setattr(groups, "LEAST", 2)  # the test rows are few
    place = ["--evaluation.split", "train"]
    evaluate.main([str(demo_run), *place])
    folder = demo_run / "report-train"
    text, tree = (folder / "report.md").read_text(), json.loads((folder / "metrics.json").read_text())
    assert "\n## By sex\n" in text and "\n## By age\n" in text and "\n## By device\n" not in text
    table = pd.read_csv(folder / "groups.csv")
    assert set(table.by) == {"age", "sex"}
    assert (table.groupby("by").rows.sum() == tree["n_rows"]).all(), "every row is in a group"
    drawn = pd.DataFrame.from_dict(records_of(folder_of(prepared_demo)), orient="index")
    predictions = pd.read_csv(folder / "predictions.csv")
    counts = drawn.loc[predictions.record].sex.value_counts()
    assert table[table.by == "sex"].set_index("group").rows.to_dict() == counts.to_dict()
    wrong = predictions.target != predictions.decided
    assert tree["abstention"]["risk_at_coverage"]["100"] == pytest.approx(wrong.mean())
    assert 0 <= tree["abstention"]["least_aurc"] <= tree["abstention"]["aurc"] <= 1
    assert "\n## Abstention\n" in text and f"| {100 * wrong.mean():.2f} % |" in text
    assert (folder / "coverage.png").stat().st_size > 0
    shutil.rmtree(folder)


def test_without_the_file_the_report_says_nothing_of_groups(demo_run, prepared_demo, tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "LEAST", 2)
    shutil.copytree(folder_of(prepared_demo), tmp_path / "old", ignore=shutil.ignore_patterns("records.csv"))
    evaluate.main([str(demo_run), "--evaluation.split", "validation", "--data.dir", str(tmp_path / "old")])
    folder = demo_run / "report-validation"
    assert "## By" not in (folder / "report.md").read_text() and not (folder / "groups.csv").exists()
    assert (folder / "coverage.png").exists()
    shutil.rmtree(folder)


def test_rows_of_one_recording_in_several_folds_leave_its_fold_empty(mitdb_like, tmp_path):
    words = ["--dataset", "mitdb", "--data.raw", str(mitdb_like), "--data.dir", str(tmp_path / "out")]
    preprocess.main([*words, "--data.folds", "3", "--data.split", "random_rows"])
    folds = {name: row["fold"] for name, row in records_of(tmp_path / "out").items()}
    assert folds.pop("102.hea") == "paced" and set(folds.values()) == {""}
