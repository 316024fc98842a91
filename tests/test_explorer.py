"""The explorer: its functions plainly, and the pages as Streamlit's AppTest runs them."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

import attributions
import bundle
import config
import infer
import pqrst
import readers
import runs
import sheet
import simulate
from recipe import TWELVE_LEADS
from script import Stop

pytest.importorskip("streamlit")
from streamlit.testing.v1 import AppTest

from apps import explorer, files, views

FILE = str(REPOSITORY / "apps" / "explorer.py")
HOLTER = REPOSITORY / "examples" / "holter.hea"


def files_of(header: Path):
    return tuple((path.name, path.read_bytes()) for path in (header, header.with_suffix(".dat")))


def numbered_csv(n_samples=2500, time=True, n_leads=12):
    """A table of a sample's leads under their numbers, at 250 Hz."""
    rng = np.random.default_rng(3)
    signal, *_ = simulate.simulate_record(rng, simulate.simulate_patient(rng), (), n_samples / 250, 250)
    columns = [np.arange(n_samples) / 250] * time + list(signal[:n_leads])
    heading = ["time"] * time + [f"lead{k + 1}" for k in range(n_leads)]
    text = io.StringIO()
    np.savetxt(text, np.column_stack(columns), "%.3f", ",", header=",".join(heading), comments="")
    return text.getvalue().encode(), signal


@pytest.fixture(scope="module")
def of_beats():
    """The bundled model's prediction of the example of two minutes."""
    record = readers.read(HOLTER)
    name, trained = infer.find_bundle(infer.PRETRAINED)
    prediction = views.predict(record, trained, name, config.Settings())
    return views.Shown(record, trained, prediction, "key")


# ---------------------------------------------------------------------------------------------------------- the files


def test_uploaded_files_are_stored_under_their_bare_names(tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    header, data = (content for _, content in files_of(HOLTER))
    path = files.stored((("../../holter.hea", header), ("C:\\x\\holter.dat", data)), folder)
    assert path == folder / "holter.hea"
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["holter.dat", "holter.hea"]
    assert (folder / "holter.dat").read_bytes() == data


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "nothing was uploaded; upload a .hea with the files that it names"),
        (("a.csv", "b.csv"), r"2 recordings were uploaded \(a.csv, b.csv\); upload a .hea with"),
        (("a.hea", "b.hea", "a.dat"), r"2 recordings were uploaded \(a.hea, b.hea\)"),
        (("x/a.hea", "a.hea"), "a.hea: two files have this name; upload one of them"),
        (("a/..",), "'a/..' is no name of a file; rename it"),
        (("a/",), "'a/' is no name of a file"),
        (("a\0.csv",), "is no name of a file"),
        (("a.H5",), "a.H5: may hold many recordings, and none can be chosen here; upload one as WFDB or CSV"),
    ],
)
def test_uploads_that_are_not_one_recording_are_refused_before_anything_is_written(tmp_path, names, message):
    with pytest.raises(Stop, match=message):
        files.stored(tuple((name, b"") for name in names), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_upload_reads_as_the_record_itself():
    record, expected = files.read(files_of(HOLTER)), readers.read(HOLTER)
    assert (record.fs, record.leads) == (expected.fs, expected.leads)
    np.testing.assert_array_equal(record.signal, expected.signal)


def test_numbered_leads_with_times_read_in_their_usual_order():
    content, signal = numbered_csv()
    record = files.read((("mine.csv", content),))
    assert (record.fs, list(record.leads)) == (250, list(TWELVE_LEADS))
    np.testing.assert_allclose(record.signal, signal, atol=6e-4)  # written to a thousandth of a mV


def test_a_table_without_times_needs_a_rate():
    content, _ = numbered_csv(time=False)
    with pytest.raises(
        Stop, match=r"^mine.csv: does not tell its sampling rate; give the sampling rate in the side bar"
    ):
        files.read((("mine.csv", content),))
    assert files.read((("mine.csv", content),), fs=200).fs == 200
    assert np.ptp(files.read((("mine.csv", content),), 250, 1000).signal) < 0.01


@pytest.mark.parametrize(
    ("uploaded", "message"),
    [
        (files_of(HOLTER)[:1], r"^holter.dat: no such file \(.*\); upload the header together with the files that it"),
        ((("a.hea", b"rubbish"),), r"^a.hea, line 1: number of signals"),
        ((("a.hea", b"a 1 250 1000\n../b.dat 16 200 12 0 0 0 0 I\n"),), "'../b.dat' refused"),
        ((("a.dat", b"rubbish"),), r"^a.dat: is read by the header of its WFDB record, and a.hea does not name it"),
        ((("a.mat", b"rubbish"),), r"^a.mat: not a MATLAB file"),
        ((("a.csv", b""),), r"^a.csv: not a table: the file is empty"),
        ((("a.csv", b"lead1,lead2\n1,2\n3,4\n"),), "expected lead1 to lead12, or lead names"),
        ((("a.png", b"\x89PNG"),), r"^a.png: is of no format that is read"),
        ((("a.csv", numbered_csv()[0][:-9]),), r"^a.csv: line 2501 has"),
    ],
)
def test_a_bad_upload_is_one_line_that_names_the_file_as_it_was_uploaded(uploaded, message):
    with pytest.raises(Stop, match=message) as caught:
        files.read(uploaded)
    assert "\n" not in str(caught.value) and "/tmp" not in str(caught.value)


def test_the_samples_are_those_of_the_script_and_the_example(tmp_path):
    simulate.write_samples(tmp_path)
    offered = explorer.samples()
    assert list(offered) == list(explorer.SAMPLES) == [*simulate.SAMPLES, "holter"]
    for name in simulate.SAMPLES:
        assert offered[name] == files_of(tmp_path / f"{name}.hea")
    assert offered["holter"] == files_of(HOLTER)


# ----------------------------------------------------------------------------------------------------------- the runs


def test_runs_are_offered_in_the_order_of_preference(tmp_path):
    for age, name in enumerate(("newest", "older")):
        (tmp_path / name).mkdir()
        (tmp_path / name / runs.BEST).touch()
        os.utime(tmp_path / name / runs.BEST, (1e9 - age, 1e9 - age))
    (tmp_path / "unfinished").mkdir()
    assert list(explorer.runs_to_choose(None, tmp_path).items()) == [
        (explorer.AS_INFER, None),
        (str(tmp_path / "newest"), str(tmp_path / "newest")),
        (str(tmp_path / "older"), str(tmp_path / "older")),
        (explorer.BUNDLED, str(infer.PRETRAINED)),
    ]
    assert explorer.runs_to_choose("runs/mine", tmp_path) == {"runs/mine (ECG_RUN_DIR)": "runs/mine"}


def test_the_weights_of_a_run_are_best_by_metric_best_by_loss_and_latest(tmp_path):
    assert explorer.weights_of(tmp_path) == {}
    for name in (runs.LAST, runs.BEST_LOSS, runs.BEST):
        (tmp_path / name).touch()
    assert list(explorer.weights_of(tmp_path).items()) == [
        ("best by metric", tmp_path / "best.pt"),
        ("best by loss", tmp_path / "best-loss.pt"),
        ("latest", tmp_path / "last.pt"),
    ]
    assert explorer.weights_of(tmp_path / "best.pt") == {}


def test_a_checkpoint_is_read_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    path = tmp_path / "best.pt"
    shutil.copy(infer.PRETRAINED, path)
    times = []
    monkeypatch.setattr(bundle, "load", lambda path: times.append(path) or len(times))
    assert [explorer.load(path), explorer.load(path)] == [1, 1]
    os.utime(path, (1, 1))
    assert explorer.load(path) == 2


# ------------------------------------------------------------------------------------------------------ what is shown


def test_the_table_of_beats_counts_each_class(of_beats):
    table = views.findings_of(of_beats.prediction)
    assert table["class"].tolist() == list("NSVFQ")
    assert table["beats"].sum() == len(of_beats.prediction.samples)
    assert table["share"].sum() == pytest.approx(1)
    assert table.set_index("class").loc["V", "beats"] == 4  # as simulate.py has placed them


def test_a_prediction_names_the_record_and_not_where_it_was_stored(tmp_path, of_beats):
    record = readers.read(HOLTER)
    moved = pqrst.Record(record.signal, record.fs, ["MLII", "V2"], warnings=[f"{tmp_path}/a.hea: odd"],
                         name=f"{tmp_path}/a.hea")  # fmt: skip
    found = views.predict(moved, of_beats.trained, "run", config.Settings())
    assert found.record == "a.hea" and found.warnings[0] == "a.hea: odd"
    assert str(tmp_path) not in found.to_json()


def test_only_layouts_that_the_leads_allow_are_offered():
    assert views.layouts_of(readers.read(HOLTER)) == [None]
    twelve = pqrst.Record(np.zeros((12, 100), np.float32), 100.0, list(TWELVE_LEADS))
    assert views.layouts_of(twelve) == ["3x4", "6x2", "12x1"]


def test_a_strip_is_ten_seconds_of_the_chosen_leads_and_never_beyond_the_end():
    record = readers.read(HOLTER)
    assert views.latest_start_s(record) == 110
    first, second = views.strip_of(record, [1, 0], 65)
    assert (first.pieces, first.caption) == ([sheet.Piece(1, 65, 10)], "1:05 to 1:15")
    assert (second.pieces, second.caption) == ([sheet.Piece(0, 65, 10)], "")
    short = pqrst.Record(record.signal[:, :1001], 250.0, list(record.leads))
    assert views.latest_start_s(short) == 0
    assert views.strip_of(short, [1], 0)[0].pieces == [sheet.Piece(1, 0, 10)]
    longer = pqrst.Record(record.signal[:, :2626], 250.0, list(record.leads))  # 10.504 s
    assert views.latest_start_s(longer) == 1


def test_a_strip_begins_with_the_leads_that_the_network_reads(of_beats):
    twelve = pqrst.Record(np.zeros((12, 100), np.float32), 100.0, list(TWELVE_LEADS))
    assert views.leads_used(twelve, of_beats.trained) == [1, 6]
    strange = pqrst.Record(np.zeros((4, 100), np.float32), 100.0, ["A", "B", "C", "D"])
    assert views.leads_used(strange, of_beats.trained) == [0, 1, 2]


def test_a_moment_tells_its_time_once():
    assert views.text_of_moment(65.4, "uncertain: N 0.50 at 1:05") == "1:05 uncertain: N 0.50"
    assert views.text_of_moment(5, "longest pause: 2.1 s") == "0:05 longest pause: 2.1 s"


def test_a_name_is_shown_as_it_is_whatever_markdown_makes_of_it():
    assert views.literal("a*b_[c](d)$e.hea") == r"a\*b\_\[c\](d)\$e.hea"
    assert views.literal("plain-name 1.csv") == "plain-name 1.csv"


def test_the_page_tells_what_a_probability_is(of_beats):
    assert views.told_of(of_beats.trained).endswith("; the class with the highest one is taken.")
    cool = replace(of_beats.trained, temperature=0.8, thresholds=(0.5,) * 5)
    expected = "Probabilities are calibrated by a temperature of 0.80; a class is present from its threshold on."
    assert views.told_of(cool) == expected
    assert views.told_of(replace(cool, temperature=1.0)).startswith("Probabilities are not calibrated;")


def test_bars_add_up_to_what_is_explained_and_name_the_numbers_that_count_most():
    numbers = {f"n{k}": (-1.0) ** k * k for k in range(8)}
    found = attributions.Attribution(
        "V",
        "integrated",
        ("II", "V1"),
        np.array([[1.0, 2.0], [-3.0, 1.0]]),
        numbers,
        output=5.0,
        baseline=1.0,
        fs=100.0,
    )
    table = views.per_lead(found)
    assert table["name"].tolist() == ["II", "V1", "n7", "n6", "n5", "n4", "n3"]
    assert table["adds"].tolist() == [3, -2, -7, 6, -5, 4, -3]
    drawn = views.bars_of(found).to_dict()
    assert [row["adds"] for row in next(iter(drawn["datasets"].values()))] == table["adds"].tolist()
    assert drawn["encoding"]["y"]["sort"] is None, "in the order of the table"
    assert views.told_of_row(found).startswith("Log odds of V: 5.00; of a flat line with typical numbers: 1.00. ")


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_picture_is_a_file_of_its_kind_at_the_speed_that_was_chosen(of_beats, kind, start):
    rows = views.strip_of(of_beats.record, [1], 0)
    slow, fast = (views.picture(of_beats, rows, views.Drawing(None, mm, 10), kind) for mm in (25, 50))
    assert slow.startswith(start) and fast.startswith(start) and slow != fast


# ---------------------------------------------------------------------------------------------------------- the pages


@pytest.fixture
def app(tmp_path, demo_run, monkeypatch):
    """The explorer in a folder whose runs/ has a run of the simulated patients."""
    shutil.copytree(demo_run, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ECG_RUN_DIR", raising=False)
    return AppTest.from_file(FILE, default_timeout=60)


def shown(app):
    """All texts of the page, which must have no traceback and no error."""
    assert not app.exception, app.exception[0].value
    assert not app.error, app.error[0].value
    kinds = ("markdown", "text", "caption", "warning", "info")
    return " ".join(element.value for kind in kinds for element in app.get(kind)).replace("\\", "")


def error_of(app):
    assert not app.exception, app.exception[0].value
    (error,) = app.error
    assert "\n" not in error.value and "Traceback" not in error.value and "/tmp" not in error.value
    return error.value.replace("\\", "")


def upload(app, *files):
    app.run()
    app.radio(key="source").set_value("upload").run()
    shown(app)  # nothing uploaded yet, and that is no error
    app.file_uploader(key="files").set_value([(name, content, "application/octet-stream") for name, content in files])
    return app.run()


def test_the_first_page_shows_a_sample_with_its_findings_and_says_what_it_is_not(app):
    text = shown(app.run())
    assert "Not a medical device" in text
    assert "**normal.hea**: 10.0 s at 500 Hz" in text and "runs/demo" in text
    table = app.dataframe[0].value
    assert table["class"].tolist() == list(simulate.CLASSES)
    assert set(table["present"]) <= {"present", "absent"}
    decided = np.where(table["probability"] >= table["threshold"], "present", "absent")
    assert table["present"].tolist() == decided.tolist()
    assert [button.label for button in app.download_button] == ["JSON", "PDF"]


def test_every_sample_is_shown_with_what_infer_py_says_of_it(app, tmp_path):
    simulate.write_samples(tmp_path / "samples")
    app.run()
    for name in explorer.SAMPLES:
        text = shown(app.selectbox(key="sample").set_value(name).run())
        header = HOLTER if name == "holter" else tmp_path / "samples" / f"{name}.hea"
        prediction = infer.predict(header)
        assert f"**{name}.hea**" in text and f"**{prediction.run}**" in text
        column = "probability" if prediction.samples is None else "beats"
        expected = prediction.scores[0] if prediction.samples is None else list(prediction.counts.values())
        np.testing.assert_allclose(app.dataframe[0].value[column], expected, rtol=1e-6)


def test_layout_speed_and_gain_may_be_chosen(app):
    app.run()
    for layout in sheet.LAYOUTS:
        shown(app.selectbox(key="layout").set_value(layout).run())
    app.selectbox(key="speed").set_value(50)
    shown(app.selectbox(key="gain").set_value(20).run())


def test_a_run_and_its_weights_may_be_chosen(app):
    assert "**runs/demo** (" in shown(app.run())
    assert app.selectbox(key="run").options == [explorer.AS_INFER, "runs/demo", explorer.BUNDLED]
    assert app.radio(key="weights").options == ["best by metric", "best by loss", "latest"]
    assert "**runs/demo/best-loss.pt**" in shown(app.radio(key="weights").set_value("best by loss").run())
    assert "**runs/demo/last.pt**" in shown(app.radio(key="weights").set_value("latest").run())
    app.selectbox(key="run").set_value(explorer.BUNDLED)
    assert "**beats.pt**" in shown(app.run())
    assert app.dataframe[0].value["class"].tolist() == list("NSVFQ")


@pytest.mark.parametrize(
    ("named", "expected"),
    [("elsewhere", "**elsewhere**"), ("runs/demo/last.pt", "**runs/demo/last.pt**"), ("latest", "**runs/demo**")],
)
def test_the_environment_overrides_the_choice(app, tmp_path, monkeypatch, named, expected):
    shutil.copytree(tmp_path / "runs/demo", tmp_path / "elsewhere")
    monkeypatch.setenv("ECG_RUN_DIR", named)
    assert expected in shown(app.run())
    assert app.selectbox(key="run").options == [f"{named} (ECG_RUN_DIR)"] and app.selectbox(key="run").disabled


@pytest.mark.parametrize(
    ("named", "message"),
    [("nowhere", "nowhere/best.pt: no such checkpoint"), ("runs/demo/config.yaml", "not a checkpoint of train.py")],
)
def test_a_run_that_is_none_is_one_line(app, monkeypatch, named, message):
    monkeypatch.setenv("ECG_RUN_DIR", named)
    assert message in error_of(app.run()).replace("nowhere: ", "nowhere/best.pt: ")


def test_without_a_run_the_bundled_model_is_taken(app, tmp_path):
    shutil.rmtree(tmp_path / "runs")
    assert "**beats.pt**" in shown(app.run())
    assert app.selectbox(key="run").options == [explorer.AS_INFER, explorer.BUNDLED]


def test_a_run_may_be_removed_while_it_is_shown(app, tmp_path):
    app.run()
    app.selectbox(key="run").set_value("runs/demo").run()
    shutil.rmtree(tmp_path / "runs")
    assert "**beats.pt**" in shown(app.run())


def test_a_record_may_be_uploaded(app):
    assert "**holter.hea**: 120.0 s at 250 Hz, leads MLII, V1" in shown(upload(app, *files_of(HOLTER)))
    assert app.dataframe[0].value["beats"].sum() > 100


def test_an_uploaded_table_needs_no_run_of_the_demo_and_where_it_has_no_times_a_rate(app):
    content, _ = numbered_csv(time=False)
    message = error_of(upload(app, ("mine.csv", content)))
    assert message == "mine.csv: does not tell its sampling rate; give the sampling rate in the side bar"
    text = shown(app.number_input(key="fs").set_value(250).run())
    assert "**mine.csv**: 10.0 s at 250 Hz" in text and "**beats.pt**" in text


def test_a_record_that_does_not_fit_the_run_is_one_line_without_the_folder_that_it_was_in(app, monkeypatch):
    monkeypatch.setenv("ECG_RUN_DIR", "runs/demo")
    message = error_of(upload(app, *files_of(HOLTER)))
    assert message.startswith("holter.hea: has leads MLII, V1; the recipe's slots accept I, II")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (files_of(HOLTER)[:1], "holter.dat: no such file"),
        ((("a.csv", b"a\x00\xff"),), "a.csv: "),
        ((("a.csv", b""),), "a.csv: not a table: the file is empty"),
        ((("a.mat", b"MATLAB 5.0 " * 9),), "a.mat: "),
        ((("a.hea", b"a 1 250 99999999999999\na.dat 16 200 12 0 0 0 0 I\n"), ("a.dat", b"")), "a.dat"),
        ((("a.csv", b"1,2\n"), ("b.csv", b"1,2\n")), "2 recordings were uploaded"),
    ],
)
def test_a_bad_upload_is_one_line_and_another_record_may_follow(app, files, message):
    assert message in error_of(upload(app, *files))
    shown(app.radio(key="source").set_value("simulated sample").run())


def test_a_record_without_beats_is_shown_on_every_page(app):
    assert "too few beats (0)" in shown(upload(app, ("a.csv", numbered_csv(30)[0])))
    for page in ("Beats", "Importance"):
        shown(app.radio(key="page").set_value(page).run())
    assert "no beats" in app.info[0].value


def test_two_leads_of_one_name_are_both_shown(app, monkeypatch):
    """As in the Paroxysmal AF Prediction Challenge Database, where both leads are called ECG."""
    header, data = files_of(HOLTER)
    for name in (b"MLII", b"V1"):
        header = (header[0], header[1].replace(name, b"ECG"))
    shown(upload(app, header, data))
    drawn, draw = [], sheet.save_sheet

    def save_sheet(path, record, title, rows, *more, **scale):
        drawn.append([row.pieces[0].lead for row in rows])
        draw(path, record, title, rows, *more, **scale)

    monkeypatch.setattr(sheet, "save_sheet", save_sheet)
    shown(app.radio(key="page").set_value("Beats").run())
    assert drawn[-1] == [0, 1]
    (leads,) = app.multiselect
    assert leads.options == ["ECG (1)", "ECG (2)"]
    shown(leads.set_value([1]).run())
    assert drawn[-1] == [1]


def test_a_long_record_is_scrolled_and_its_moments_are_reached(app):
    app.run()
    app.selectbox(key="sample").set_value("holter").run()
    shown(app.radio(key="page").set_value("Beats").run())
    (slider,) = app.slider
    assert (slider.min, slider.max, slider.value) == (0, 110, 0)
    shown(slider.set_value(60).run())
    _, on = app.button
    shown(on.click().run())
    assert app.slider[0].value == 70
    shown(app.button[0].click().run())
    assert app.slider[0].value == 60
    (jump,) = (box for box in app.selectbox if box.label == "Jump to")
    moment = jump.options[0]
    shown(jump.set_value(moment).run())
    minutes, seconds = moment.split()[0].split(":")
    middle = 60 * int(minutes) + int(seconds)
    assert app.slider[0].value <= middle <= app.slider[0].value + 10
    shown(app.slider[0].set_value(110).run())
    assert app.button[1].disabled and not app.button[0].disabled
    shown(app.selectbox(key="sample").set_value("AF").run())  # which has no page of beats
    assert app.radio(key="page").value == "Findings"


def test_a_real_record_of_half_an_hour_is_shown_on_every_page(app, real_data):
    shown(upload(app, *files_of(real_data / "mitdb" / "119.hea")))
    counts = app.dataframe[0].value.set_index("class")["beats"]
    assert abs(counts["V"] - 444) < 10 and abs(counts["N"] - 1543) < 10  # as two cardiologists have annotated them
    for page in ("Importance", "Beats"):
        shown(app.radio(key="page").set_value(page).run())
    shown(app.slider[0].set_value(1200).run())


@pytest.mark.parametrize("sample", ["AF", "holter"])
def test_the_importance_of_each_lead_is_shown(app, sample):
    app.run()
    app.selectbox(key="sample").set_value(sample).run()
    text = shown(app.radio(key="page").set_value("Importance").run())
    assert "Log odds" in text
    (name,) = (box for box in app.selectbox if box.label == "Class")
    assert name.value in name.options
    shown(name.set_value(name.options[-1]).run())
    (method,) = (box for box in app.selectbox if box.label == "Method")
    assert method.options == (["integrated", "occlusion"] if sample == "holter" else list(attributions.METHODS))
    for name in method.options:
        text = shown(method.set_value(name).run())
        assert "of the difference is not explained" in text
