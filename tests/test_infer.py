import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import wfdb
from conftest import REPOSITORY, write_record
from test_view import record as simulated

import bundle
import data
import infer
import models
import pqrst
import readers
from beats import match_beats
from recipe import Recipe
from script import Stop


def answer(record, **more):
    """Return what predict says as the JSON of the command line holds it."""
    return json.loads(infer.predict(record, **more).to_json())


def main(capsys, *words):
    infer.main([str(word) for word in words])
    return capsys.readouterr()


def batches_of(monkeypatch, function):
    """What the network is fed while function() runs."""
    seen = []
    inputs_of = bundle.inputs_of
    monkeypatch.setattr(bundle, "inputs_of", lambda network, batch: seen.append(batch) or inputs_of(network, batch))
    function()
    monkeypatch.undo()
    return [np.concatenate([getattr(b, name) for b in seen]) for name in ("signal", "context", "valid")]


def test_what_the_network_is_fed_equals_bit_for_bit_what_was_stored(beat_run, prepared_beats, mitdb_like, monkeypatch):
    """The recipe test: prediction uses the signal chain of training, no other."""
    dataset = data.Dataset(infer.Path(prepared_beats[prepared_beats.index("--data.dir") + 1]))
    for name in ("101", "102", "114"):
        mine = np.flatnonzero(dataset.record == f"{name}.hea".encode())
        monkeypatch.setattr(infer, "detect", lambda record, mine=mine: dataset.sample[mine])
        signal, context, valid = batches_of(monkeypatch, lambda name=name: answer(mitdb_like / name, run=beat_run))
        assert signal.dtype == dataset.recipe.dtype
        np.testing.assert_array_equal(signal, dataset.signals(mine))
        np.testing.assert_array_equal(context, dataset.context[mine])
        np.testing.assert_array_equal(valid, dataset.valid[mine])


def test_records_are_fed_bit_for_bit_as_stored(demo_run, demo_folder, monkeypatch):
    dataset = data.Dataset(demo_run.parent / "prepared")
    for row in (0, 11, 30):
        record = demo_folder / dataset.record[row].decode()
        signal, _, _ = batches_of(monkeypatch, lambda record=record: answer(record, run=demo_run))
        np.testing.assert_array_equal(signal[0], dataset.signals(np.array([row]))[0])


def test_beats_stand_at_detected_r_peaks(beat_run, mitdb_like):
    result = answer(mitdb_like / "106", run=beat_run)
    record = pqrst.read(mitdb_like / "106")
    assert [b["sample"] for b in result["beats"]] == list(pqrst.rpeaks(record.signal, record.fs))
    annotated = wfdb.rdann(str(mitdb_like / "106"), "atr").sample
    assert abs(len(result["beats"]) - len(annotated)) <= 2
    assert sum(result["summary"]["counts"].values()) == len(result["beats"]) == result["summary"]["beats"]
    expected_rate = 60 * 360 * (len(annotated) - 1) / (annotated[-1] - annotated[0])
    assert abs(result["summary"]["mean_hr_bpm"] - expected_rate) < 2


def test_python_command_line_and_formats_agree(beat_run, mitdb_like, capsys):
    record = mitdb_like / "101.hea"
    expected = answer(record, run=beat_run)
    as_json = json.loads(main(capsys, record, "--run", beat_run, "--format", "json").out)
    assert as_json == expected
    assert list(as_json) == ["record", "fs", "leads", "duration_s", "model", "warnings", "beats", "summary"]
    rows = list(csv.DictReader(io.StringIO(main(capsys, record, "--run", beat_run, "--format", "csv").out)))
    assert [int(r["sample"]) for r in rows] == [b["sample"] for b in expected["beats"]]
    assert [r["class"] for r in rows] == [b["class"] for b in expected["beats"]]
    text = main(capsys, record, "--run", beat_run).out
    assert f"{len(rows):,} beats" in text


def test_a_model_of_records_gives_findings(demo_run, demo_folder, capsys):
    record = next(demo_folder.glob("*.hea"))
    result = answer(record, run=demo_run)
    assert [f["class"] for f in result["findings"]] == ["1dAVb", "RBBB", "LBBB", "SB", "AF", "ST"]
    assert all(f["present"] == (f["probability"] >= f["threshold"]) for f in result["findings"])
    assert "1dAVb" in main(capsys, record, "--run", demo_run).out


def test_several_records_and_folders_give_a_line_each(beat_run, mitdb_like, tmp_path, capsys):
    lines = main(capsys, mitdb_like, "--run", beat_run, "--format", "json").out.splitlines()
    assert [json.loads(line)["record"] for line in lines] == [str(p) for p in sorted(mitdb_like.glob("*.hea"))]
    lines = main(capsys, mitdb_like / "101", mitdb_like / "106.hea", "--run", beat_run, "--format", "json").out
    assert len(lines.splitlines()) == 2


def test_annotations_are_read_back_by_wfdb(beat_run, mitdb_like, tmp_path, capsys):
    for suffix in ("hea", "dat"):
        shutil.copy(mitdb_like / f"106.{suffix}", tmp_path)
    main(capsys, tmp_path / "106.hea", "--run", beat_run, "--annotate", "qrs")
    annotation = wfdb.rdann(str(tmp_path / "106"), "qrs")
    beats = answer(mitdb_like / "106", run=beat_run)["beats"]
    assert list(annotation.sample) == [b["sample"] for b in beats]
    assert annotation.symbol == [b["class"] for b in beats]
    with pytest.raises(Stop, match="106.qrs: already exists"):
        main(capsys, tmp_path / "106.hea", "--run", beat_run, "--annotate", "qrs")


def test_a_plot_is_drawn(beat_run, demo_run, mitdb_like, demo_folder, tmp_path, capsys):
    for record, run in ((mitdb_like / "101.hea", beat_run), (next(demo_folder.glob("*.hea")), demo_run)):
        main(capsys, record, "--run", run, "--plot", tmp_path / "p.png")
        assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
        assert (tmp_path / "p.png").stat().st_size > 20_000


def test_the_newest_run_that_fits_is_used(beat_run, demo_run, mitdb_like, demo_folder, tmp_path, monkeypatch):
    for source, name in ((beat_run, "beats"), (demo_run, "demo")):
        shutil.copytree(source, tmp_path / "runs" / name)
    os.utime(tmp_path / "runs/beats/best.pt", (1, 1))
    monkeypatch.chdir(tmp_path)
    assert answer(mitdb_like / "101")["model"]["run"] == "runs/beats"
    assert answer(next(demo_folder.glob("*.hea")))["model"]["run"] == "runs/demo"
    with pytest.raises(ValueError, match="MLII"):
        answer(mitdb_like / "101", run="latest")


def one_lead(tmp_path, mitdb_like, name="ECG1"):
    record = pqrst.read(mitdb_like / "106")
    return write_record(tmp_path, "one", record.signal[:1].astype(float), 360, [name])


def test_leads_that_do_not_fit_are_refused_naming_both_lists(beat_run, mitdb_like, tmp_path):
    with pytest.raises(ValueError, match=r"ECG1.*MLII.*V1"):
        answer(one_lead(tmp_path, mitdb_like), run=beat_run)


def test_leads_can_be_mapped_and_filled_with_zeros(beat_run, mitdb_like, tmp_path, monkeypatch):
    record = one_lead(tmp_path, mitdb_like)
    result = answer(record, run=beat_run, leads="MLII=ECG1,V1=zeros")
    assert result["leads"] == ["ECG1"]
    assert any("V1 is filled with zeros" in w for w in result["warnings"])
    signal, _, _ = batches_of(monkeypatch, lambda: answer(record, run=beat_run, leads="MLII=ECG1,V1=zeros"))
    assert (signal[:, 1] == 0).all() and (signal[:, 0].max(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("leads", "message"),
    [
        ("MLII=ECG1", r"none fills the slot V1\|V5\|V2\|V4"),
        ("MLII=ECG1,II=ECG1", "gives the slot of II two leads"),
        ("MLII=ECG9,V1=zeros", "has no lead ECG9, its leads are ECG1"),
        ("aVR=ECG1", "aVR is in none"),
        ("MLII", "expected slot=lead pairs"),
    ],
)
def test_a_wrong_mapping_stops(beat_run, mitdb_like, tmp_path, leads, message):
    with pytest.raises(Stop, match=message):
        answer(one_lead(tmp_path, mitdb_like), run=beat_run, leads=leads)


def test_a_flat_lead_becomes_zeros_with_a_warning(beat_run, mitdb_like, tmp_path, monkeypatch):
    signal = pqrst.read(mitdb_like / "106").signal.astype(float)
    signal[1] = 0.25
    record = write_record(tmp_path, "flat", signal, 360, ["MLII", "V1"])
    result = answer(record, run=beat_run)
    assert any("V1 is flat" in w for w in result["warnings"])
    fed, _, _ = batches_of(monkeypatch, lambda: answer(record, run=beat_run))
    assert (fed[:, 1] == 0).all() and np.isfinite(fed).all()


def test_short_gaps_are_bridged_and_long_ones_cost_their_beats(beat_run, mitdb_like, monkeypatch):
    whole = pqrst.read(mitdb_like / "106")
    signal = whole.signal.copy()
    signal[0, 3600:3603] = np.nan  # 8 ms
    signal[1, 7200:9000] = np.nan  # 5 s
    broken = pqrst.Record(signal, 360.0, ["MLII", "V1"])
    result = answer(broken, run=beat_run)
    fed, _, _ = batches_of(monkeypatch, lambda: answer(broken, run=beat_run))
    assert np.isfinite(fed).all()
    samples = np.array([b["sample"] for b in result["beats"]])
    assert ((samples > 3500) & (samples < 3700)).any() or len(samples) > 40
    assert not ((samples > 7200) & (samples < 9000)).any()
    assert any("rows dropped" in w for w in result["warnings"])


def broken_records(folder):
    """Name of a damaged record -> the words that its error must hold."""
    signal = np.random.default_rng(0).normal(size=(2, 3600))
    for name in ("nodat", "short", "units"):
        write_record(folder, name, signal, 360, ["MLII", "V1"])
    (folder / "nodat.dat").unlink()
    os.truncate(folder / "short.dat", 1001)
    (folder / "units.hea").write_text(
        "units 2 360 3600\nunits.dat 16 1000/mmHg 16 0 0 0 0 MLII\nunits.dat 16 1000/mV 16 0 0 0 0 V1\n"
    )
    line = "{0}.dat {1} 1000/mV 16 0 0 0 0 MLII\n{0}.dat {1} 1000/mV 16 0 0 0 0 V1\n"
    (folder / "format.hea").write_text("format 2 360 3600\n" + line.format("format", 99))
    (folder / "zero.hea").write_text("zero 0 360 3600\n")
    (folder / "fs0.hea").write_text("fs0 2 0 3600\n" + line.format("fs0", 16))
    (folder / "empty.hea").write_text("empty 2 360\n" + line.format("empty", 16))
    (folder / "empty.dat").write_bytes(b"")
    (folder / "garbage.hea").write_bytes(bytes(range(256)))
    return {
        "nodat": "nodat.dat", "short": "short.dat", "units": "mmHg", "format": "99", "zero": "no leads",
        "fs0": "fs0", "empty": "empty", "garbage": "garbage.hea", "absent": "absent.hea",
    }  # fmt: skip


def test_each_damaged_record_ends_in_one_line_and_status_2(beat_run, tmp_path):
    for name, words in broken_records(tmp_path).items():
        with pytest.raises((Stop, ValueError, OSError), match=words):
            answer(tmp_path / name, run=beat_run)
    command = [sys.executable, "infer.py", str(tmp_path / "short.hea"), "--run", str(beat_run)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr


def test_of_several_records_the_good_ones_are_predicted_and_the_bad_ones_named(beat_run, mitdb_like, tmp_path, capsys):
    broken_records(tmp_path)
    with pytest.raises(Stop, match="1 of 2 records"):
        main(capsys, mitdb_like / "101.hea", tmp_path / "short.hea", "--run", beat_run, "--format", "json")
    captured = capsys.readouterr()
    assert json.loads(captured.out)["summary"]["beats"] > 40
    assert "short.dat" in captured.err


def test_no_threshold_is_told_where_the_highest_score_decides(demo_folder, tmp_path):
    """A multiclass network of whole records: the highest score decides, even below one half."""
    recipe = Recipe(window={"kind": "record", "length_s": 10})
    network = models.build("cnn1d", 12, 3)
    origin = bundle.Origin(commit="unknown", leak=None)
    trained = bundle.Bundle(network, "cnn1d", {}, recipe, ("a", "b", "c"), "multiclass", None, origin)
    trained.save(tmp_path / "x.pt")
    prediction = infer.predict(next(demo_folder.glob("*.hea")), run=tmp_path / "x.pt")
    findings = json.loads(prediction.to_json())["findings"]
    assert [finding["threshold"] for finding in findings] == [None] * 3
    highest = max(findings, key=lambda finding: finding["probability"])
    assert [finding["present"] for finding in findings] == [True, False, False], "the answer comes first"
    assert findings[0] == highest
    assert findings[1]["probability"] >= findings[2]["probability"]
    assert {row["threshold"] for row in csv.DictReader(io.StringIO(prediction.to_csv()))} == {""}
    assert "0.5" not in prediction.to_text().replace(f"{highest['probability']:.3f}", "")


def test_a_checkpoint_of_the_old_format_is_refused_in_one_line(mitdb_like, tmp_path):
    import torch

    old = {"model_name": "cnn1d", "model_arguments": {}, "classes": ["N"], "recipe": {}, "model": {}, "epoch": 3}
    torch.save(old, tmp_path / "old.pt")
    with pytest.raises(
        Stop, match=r"old.pt: a checkpoint of format 1, and these scripts read format 2; train it again"
    ):
        answer(mitdb_like / "101", run=tmp_path / "old.pt")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"data:\n  name: demo\n", b"epoch,loss\n1,2\n", None])
def test_a_checkpoint_that_is_none_stops(mitdb_like, tmp_path, content):
    path = tmp_path / "x.pt"
    if content is None:
        import torch

        torch.save({"something": 1}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(Stop, match=r"x.pt: not a checkpoint"):
        answer(mitdb_like / "101", run=path)


def test_a_run_that_is_not_there_stops(mitdb_like, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stop, match="best.pt: no such checkpoint"):
        answer(mitdb_like / "101", run="runs/none")
    with pytest.raises(Stop, match="no run in runs/"):
        answer(mitdb_like / "101", run="latest")


def test_flac_is_read_through_wfdb(real_data):
    record = readers.read(real_data / "wfdb-formats/flac_3_constant")
    assert record.signal.shape == (3, 5_600_000)
    np.testing.assert_array_equal(record.signal[:, 1234], np.float32([0.125, 0.25, 0.375]))


def test_recordings_of_other_formats_are_predicted_alike(demo_run, demo_folder, tmp_path, monkeypatch, capsys):
    header = sorted(demo_folder.glob("*.hea"))[0]
    record = readers.read(header)
    np.savetxt(tmp_path / "a.csv", record.signal.T, delimiter=",", header=",".join(record.leads), comments="")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["tracings"] = np.zeros((2, 4096, 12), np.float32)
        file["tracings"][1, 100:4000] = record.signal[:, :3900].T
    with pytest.raises(ValueError, match="does not tell its sampling rate"):
        main(capsys, tmp_path / "a.csv", "--run", demo_run)
    expected = answer(header, run=demo_run)["findings"]
    words = [tmp_path / "a.csv", "--inference.fs", str(record.fs), "--format", "json"]
    assert json.loads(main(capsys, *words, "--run", demo_run).out)["findings"] == expected
    result = json.loads(main(capsys, f"{tmp_path}/a.hdf5#1", "--format", "json", "--run", demo_run).out)
    assert (result["fs"], result["duration_s"]) == (400, 3900 / 400)


@pytest.mark.slow
def test_real_records_are_predicted(beat_run, real_data):
    result = answer(real_data / "mitdb/119", run=beat_run)
    assert abs(len(result["beats"]) - 1987) <= 5  # beats in the reference annotation


def test_a_model_of_one_lead_takes_records_of_one_lead_and_of_two(prepared_beats, mitdb_like, tmp_path):
    import preprocess
    import train

    words = [word for word in prepared_beats if word != "--data.dir"]
    words = [word for word in words if word != prepared_beats[prepared_beats.index("--data.dir") + 1]]
    words += ["--data.dir", str(tmp_path / "prepared"), "--recipe.leads", '[["MLII", "V5"]]']
    preprocess.main(words)
    train.main([*words, "--run", str(tmp_path / "run"), "--training.epochs", "1", "--training.batch_size", "16"])
    alone = answer(one_lead(tmp_path, mitdb_like, "MLII"), run=tmp_path / "run")
    both = answer(mitdb_like / "106", run=tmp_path / "run")
    assert alone["leads"] == ["MLII"] and both["leads"] == ["MLII", "V1"]
    assert len(alone["beats"]) > 40 and len(both["beats"]) > 40


def test_a_mapping_is_followed_where_the_record_has_leads_that_would_fit_by_themselves(
    beat_run, mitdb_like, monkeypatch
):
    plain, _, _ = batches_of(monkeypatch, lambda: answer(mitdb_like / "106", run=beat_run))
    zeroed, _, _ = batches_of(monkeypatch, lambda: answer(mitdb_like / "106", run=beat_run, leads="V1=zeros"))
    np.testing.assert_array_equal(zeroed[:, 0], plain[:, 0])
    assert (zeroed[:, 1] == 0).all()
    swapped, _, _ = batches_of(monkeypatch, lambda: answer(mitdb_like / "106", run=beat_run, leads="MLII=V1,V1=MLII"))
    np.testing.assert_array_equal(swapped, plain[:, ::-1])


def test_a_mapped_lead_that_is_not_calibrated_still_says_so(beat_run, mitdb_like, tmp_path):
    header = one_lead(tmp_path, mitdb_like)
    header.write_text(header.read_text().replace("1000.0(0)/mV", "0"))
    warnings = answer(header, run=beat_run, leads="MLII=ECG1,V1=zeros")["warnings"]
    assert any("ECG1: not calibrated" in w for w in warnings)


@pytest.fixture
def runs_of_a_user(demo_run, beat_run, tmp_path, monkeypatch):
    """A folder with runs/ in which the demo's run is the newest; the user works there."""
    for name, run in (("beats", beat_run), ("demo", demo_run)):
        shutil.copytree(run, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "best.pt", (2_000_000_000 + (name == "demo"),) * 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_line_names_model_data_and_date(runs_of_a_user, demo_folder, mitdb_like, capsys):
    line = main(capsys, min(demo_folder.glob("*.hea"))).err.splitlines()[0]
    assert re.fullmatch(r"model runs/demo \(cnn1d\), trained on demo on \d{4}-\d\d-\d\d; not a medical device", line)
    line = main(capsys, mitdb_like / "106.hea").err.splitlines()[0]
    assert line.startswith("model runs/beats (beatcnn), trained on mitdb on ")
    model = json.loads(infer.predict(mitdb_like / "106.hea").to_json())["model"]
    assert (model["run"], model["data"], len(model["date"])) == ("runs/beats", "mitdb", 10)


def test_the_network_of_the_demo_is_never_chosen_for_a_real_record(runs_of_a_user, demo_folder, capsys):
    record = pqrst.read(min(demo_folder.glob("*.hea")))
    real = write_record(runs_of_a_user, "real", record.signal.astype(float), int(record.fs), record.leads)
    assert main(capsys, real).err.startswith("model runs/beats"), "which is older"
    shutil.rmtree("runs/beats")
    assert main(capsys, real).err.startswith("model beats.pt (beatview)"), "the bundled one"
    assert main(capsys, real, "--run_dir", "runs/demo").err.startswith("model runs/demo")
    assert infer.predict(record.signal, leads=record.leads, fs=record.fs).run == "beats.pt"


def test_a_damaged_run_does_not_hide_the_others(runs_of_a_user, mitdb_like, capsys):
    (runs_of_a_user / "runs/demo/best.pt").write_bytes(b"x")
    os.utime(runs_of_a_user / "runs/demo/best.pt", (2_000_000_002,) * 2)
    captured = main(capsys, mitdb_like / "106.hea")
    assert "warning: runs/demo/best.pt: not a checkpoint" in captured.err and "runs/beats" in captured.err


def test_an_array_is_predicted_as_its_record(beat_run, mitdb_like):
    record = pqrst.read(mitdb_like / "106")
    expected = answer(mitdb_like / "106", run=beat_run)["beats"]
    microvolts = record.signal.astype(np.float64) * 1000
    assert answer(record.signal, run=beat_run, fs=360, leads=record.leads)["beats"] == expected
    assert answer(microvolts, run=beat_run, fs=360, leads=list(record.leads), units="uV")["beats"] == expected
    mixed = np.stack([record.signal[0].astype(float), microvolts[1]])
    assert answer(mixed, run=beat_run, fs=360, leads=record.leads, units=["mV", "uV"])["beats"] == expected
    with pytest.raises(Stop, match=r"an array needs fs \(Hz\) and leads"):
        infer.predict(record.signal, run=beat_run)
    with pytest.raises(ValueError, match="leads"):
        infer.predict(record.signal, run=beat_run, fs=360, leads=["MLII"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"units": "uV"}, "^units: are told of an array; "),
        ({"leads": ["MLII", "V1"]}, "^leads: are named of an array; "),
        ({"fs": 500}, "^fs: array has its own, 360 Hz"),
    ],
)
def test_what_a_recording_knows_itself_is_not_told_to_no_effect(beat_run, mitdb_like, more, message):
    record = pqrst.Record(pqrst.read(mitdb_like / "106").signal, 360.0, ["MLII", "V1"], ["mV"] * 2, "array")
    with pytest.raises(Stop, match=message):
        infer.predict(record, run=beat_run, **more)
    if "fs" not in more:  # which a file may tell wrongly
        with pytest.raises(Stop, match=message):
            infer.predict(mitdb_like / "106.hea", run=beat_run, **more)


def test_predictions_work_from_any_folder(beat_run, mitdb_like, tmp_path):
    text = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import infer; "
    text += f"print(infer.predict({str(mitdb_like / '106')!r}, run={str(beat_run)!r}).to_text())"
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)
    assert "beats per minute" in done.stdout, done.stderr


# ------------------------------------------------------------------------------------------------ folders and files


@pytest.fixture
def tree(mitdb_like, tmp_path):
    """Recordings of three formats in two levels, and a damaged one."""
    folder = tmp_path / "tree"
    (folder / "deep/er").mkdir(parents=True)
    record = pqrst.read(mitdb_like / "101")
    times = np.arange(record.signal.shape[1]) / 360
    table = np.column_stack([times, record.signal.T])
    np.savetxt(folder / "a.csv", table, delimiter=",", header="time," + ",".join(record.leads), comments="")
    for name in ("101.hea", "101.dat"):
        shutil.copy(mitdb_like / name, folder / "deep/er")
    write_record(folder, "broken", record.signal.astype(float), 360, record.leads)
    os.truncate(folder / "broken.dat", 1001)
    (folder / "records.csv").write_text("record,label\na,x\n")
    return folder


def test_a_folder_gives_every_format_and_on_request_what_lies_deeper(beat_run, tree, capsys):
    with pytest.raises(Stop, match="1 of 2 records"):
        main(capsys, tree, "--run", beat_run, "--format", "json")
    flat = [json.loads(line)["record"] for line in capsys.readouterr().out.splitlines()]
    with pytest.raises(Stop, match="1 of 3 records"):
        main(capsys, tree, "--run", beat_run, "--format", "json", "--recursive")
    deep = [json.loads(line)["record"] for line in capsys.readouterr().out.splitlines()]
    assert flat == [str(tree / "a.csv")] and deep == [str(tree / "a.csv"), str(tree / "deep/er/101.hea")]
    with pytest.raises(Stop, match=r"deep: no recording in it.*--recursive"):
        main(capsys, tree / "deep", "--run", beat_run)


def test_predictions_come_one_by_one(beat_run, mitdb_like, monkeypatch, capsys):
    """What was predicted before the process is killed is there."""
    calls = []

    def one_then_killed(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict_record(*arguments)

    predict_record = infer.predict_record
    monkeypatch.setattr(infer, "predict_record", one_then_killed)
    with pytest.raises(KeyboardInterrupt):
        main(capsys, mitdb_like, "--run", beat_run, "--format", "csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "record,sample,time_s,class,probability"
    assert {Path(line.split(",")[0]).stem for line in lines[1:]} == {"101", "102"}


def test_annotations_and_pictures_go_into_a_folder(beat_run, tree, mitdb_like, tmp_path, capsys):
    (tree / "broken.hea").unlink()
    out = tmp_path / "out/er"
    words = [tree, "--recursive", "--run", beat_run, "--annotate", "qrs", "--plot", "png", "--out", out]
    main(capsys, *words)
    assert sorted(path.name for path in out.iterdir()) == ["101.png", "101.qrs", "a.png", "a.qrs"]
    assert len(wfdb.rdann(str(out / "101"), "qrs").sample) > 40
    main(capsys, mitdb_like / "106.hea", "--run", beat_run, "--plot", tmp_path / "one.svg")
    assert "<svg" in (tmp_path / "one.svg").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot", "x.pgn"], r"--plot x.pgn: a picture is one of png, svg, pdf; did you mean png\?"),
        (["--plot", "x.png"], "--plot x.png: draws one record, several were given"),
        (["--annotate", "q1"], "made of letters"),
        (["--annotate", "atr"], r"101.atr: already exists; choose another name with --annotate, or --out FOLDER"),
        (["--out", "somewhere"], "--out FOLDER: is for the files of --annotate and --plot"),
        (["--out", "somewhere", "--plot", "x.png"], "--out FOLDER: is for the files of --annotate and --plot png"),
        (["--annotate", "png", "--plot", "png"], r"101.png: would be written by --annotate and by --plot"),
        (["--plot", "png", "--layout", "2x6"], "--layout 2x6: must be one of 3x4, 6x2, 12x1"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(beat_run, mitdb_like, monkeypatch, capsys, words, message):
    monkeypatch.setattr(infer, "predict_record", lambda *_: pytest.fail("a record was predicted"))
    with pytest.raises(Stop, match=message):
        main(capsys, mitdb_like, "--run", beat_run, *words)
    assert not Path("somewhere").exists()


def test_a_picture_that_cannot_be_drawn_leaves_no_annotation_in_the_way(beat_run, mitdb_like, tmp_path, capsys):
    words = [mitdb_like / "106.hea", "--run", beat_run, "--annotate", "qrs", "--plot", "png", "--out", tmp_path]
    with pytest.raises(ValueError, match="layout 6x2: the record has no lead"):
        main(capsys, *words, "--layout", "6x2")
    assert not list(tmp_path.iterdir())
    main(capsys, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["106.png", "106.qrs"]


def test_classes_that_wfdb_has_no_symbol_for_are_not_annotated(beat_run, mitdb_like, tmp_path, monkeypatch, capsys):
    """WFDB would write a comment in place of the beat, or nothing."""
    trained = replace(bundle.load(beat_run / "best.pt"), classes=("N", "PVC", "V", "F", "other"))
    monkeypatch.setattr(infer, "find_bundle", lambda *_: ("run", trained))
    words = [mitdb_like / "106.hea", "--run", beat_run, "--annotate", "qrs", "--out", tmp_path / "out"]
    with pytest.raises(Stop, match="--annotate qrs: WFDB has no symbol for PVC, other; --format csv has all classes"):
        main(capsys, *words)
    assert not (tmp_path / "out").exists()


def test_files_that_would_take_one_name_are_refused(beat_run, demo_run, tree, mitdb_like, tmp_path, capsys):
    words = [mitdb_like / "101.hea", tree / "deep/er/101.hea", "--run", beat_run, "--annotate", "qrs"]
    with pytest.raises(Stop, match=r"101.qrs: would be written for 2 records"):
        main(capsys, *words, "--out", tmp_path / "out")
    with pytest.raises(Stop, match="--annotate qrs: the model finds no beats"):
        main(capsys, mitdb_like, "--run", demo_run, "--annotate", "qrs")


def test_a_cell_that_a_spreadsheet_would_take_for_a_formula_is_quoted(beat_run, mitdb_like):
    record = pqrst.read(mitdb_like / "106")
    named = pqrst.Record(record.signal, record.fs, record.leads, name="=HYPERLINK(1)")
    rows = list(csv.DictReader(io.StringIO(infer.predict(named, run=beat_run).to_csv())))
    assert {row["record"] for row in rows} == {"'=HYPERLINK(1)"}


# ------------------------------------------------------------------------------------------------ long and short


def bundle_that_sees(amplitude_of_class, tmp_path):
    """A network of windows of 10 s at 100 Hz that says `high` where lead I goes beyond 2 mV, otherwise `low`."""
    import torch

    network = models.build("cnn1d", 1, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    recipe = Recipe(fs=100, leads=[["I"]], bandpass=None, scale={"kind": "none"}, window={"length_s": 10})
    origin = bundle.Origin(commit="unknown", leak=None)
    trained = bundle.Bundle(network, "cnn1d", {}, recipe, ("low", "high"), "multilabel", (0.5, 0.5), origin)

    def forward(x, *_):
        high = x.abs().amax(dim=(1, 2)) > amplitude_of_class
        return torch.where(high[:, None], torch.tensor([[-5.0, 5.0]]), torch.tensor([[5.0, -5.0]]))

    network.forward = forward
    return trained


def test_all_of_a_long_record_is_judged(tmp_path, rng):
    """30 s with something in the last ten only: three windows, each of which weighs a third."""
    signal = rng.normal(scale=0.1, size=(1, 15_000))
    signal[0, 12_000:12_100] += 5
    trained = bundle_that_sees(2, tmp_path)
    prediction = infer.predict_record(pqrst.Record(signal, 500.0, ["I"], name="long"), trained, "run")
    high, low = 1 / (1 + np.exp(-5)), 1 / (1 + np.exp(5))
    np.testing.assert_allclose(prediction.scores, [[(2 * high + low) / 3, (high + 2 * low) / 3]], rtol=1e-5)
    warnings = " ".join(prediction.warnings)
    assert "3 windows of 10 s are pooled" in warnings
    assert "high is found in 1 of the windows, not in the record as a whole; most in that at 20.0 s, 0.99" in warnings


@pytest.mark.parametrize(("n_samples", "starts"), [(5000, [0]), (5001, [0, 0]), (12_000, [0, 3500, 7000])])
def test_the_windows_of_a_record_cover_it_evenly_and_without_padding(rng, n_samples, starts):
    tree = Recipe(fs=500, leads=[["I"]], bandpass=None, scale={"kind": "none"}).chain()
    record = pqrst.Record(rng.normal(size=(1, n_samples)), 500.0, ["I"])
    prepared = pqrst.prepare(record, tree)
    assert len(prepared.rows) == len(starts) == pqrst.n_rows(tree, n_samples, 500.0)
    assert (prepared.valid == [0, 5000]).all()
    assert prepared.start[-1] + 5000 == n_samples and prepared.start[0] == 0
    assert prepared.start.tolist() == pqrst.row_starts(tree, n_samples, 500.0).tolist()
    for row, start in zip(prepared.rows, prepared.start):
        np.testing.assert_array_equal(row, record.signal[:, start : start + 5000].astype(np.float16))


def test_padding_beyond_a_tenth_is_said(tmp_path, rng):
    import preprocess

    trained = bundle_that_sees(2, tmp_path)

    def said(n_samples):
        record = pqrst.Record(rng.normal(size=(1, n_samples)), 500.0, ["I"], name="r")
        return [text for text in infer.predict_record(record, trained, "run").warnings if "padding" in text]

    assert said(4500) == said(5500) == said(15_000) == []
    assert said(250) == ["r: is 0.5 s long; the rest of 10 s is padding"]
    for number, n_samples in enumerate([250, 5000, 4400, 7000, 5000, 5000]):
        write_record(tmp_path, f"r{number}", rng.normal(size=(1, n_samples)), 500, ["I"])
    words = ["--dataset", "folder", "--data.raw", str(tmp_path), "--data.dir", str(tmp_path / "p"), "--data.folds", "2"]
    preprocess.main([*words, "--data.arguments", '{"default_label": "x"}', "--recipe.leads", '[["I"]]'])
    summary = data.Summary.load(tmp_path / "p")
    assert summary.warnings == {"rows": 2} and summary.rows == 7


def test_evaluation_and_prediction_say_the_same_of_records_longer_than_the_window(demo_folder, tmp_path):
    import preprocess
    import train

    words = ["--data.raw", str(demo_folder), "--data.dir", str(tmp_path / "p"), "--recipe.window.length_s", "3"]
    preprocess.main(words)
    train.main([*words, "--run", str(tmp_path / "run"), "--training.epochs", "1", "--training.batch_size", "16"])
    dataset = data.Dataset(tmp_path / "p")
    assert len(dataset) == 4 * len(set(dataset.record)), "10 s in windows of 3 s"
    table = pd.read_csv(tmp_path / "run/report/predictions.csv", keep_default_na=False)
    assert table.record.is_unique
    for line in table.head(5).itertuples():
        scores = infer.predict(demo_folder / line.record, run=tmp_path / "run").scores[0]
        written = table.loc[line.Index, [f"score_{name}" for name in dataset.classes]].to_numpy(float)
        np.testing.assert_allclose(scores, written, rtol=1e-4)


# ------------------------------------------------------------------------------------------------ damaged checkpoints


def test_a_damaged_checkpoint_is_refused_wherever_it_is_damaged(beat_run, tmp_path):
    content = (beat_run / "best.pt").read_bytes()
    for place in range(0, len(content) - 4096, len(content) // 12):
        damaged = bytearray(content)
        damaged[place : place + 4096] = bytes(4096)
        (tmp_path / "x.pt").write_bytes(damaged)
        with pytest.raises(Stop, match="x.pt: (is damaged|not a checkpoint)"):
            bundle.load(tmp_path / "x.pt")


def test_weights_that_are_not_numbers_are_refused(beat_run, tmp_path):
    trained = bundle.load(beat_run / "best.pt")
    next(trained.network.parameters()).data[0] = float("nan")
    trained.save(tmp_path / "x.pt")
    with pytest.raises(Stop, match="x.pt: is damaged, .*weights are NaN or infinite"):
        bundle.load(tmp_path / "x.pt")


def test_a_checkpoint_that_unpacks_to_more_than_it_is_gets_no_memory(beat_run, tmp_path):
    import zipfile

    import torch

    with zipfile.ZipFile(beat_run / "best.pt") as old, zipfile.ZipFile(tmp_path / "x.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(Stop, match="x.pt: not a checkpoint of train.py: it unpacks to more than it is"):
        bundle.load(tmp_path / "x.pt")
    checkpoint = torch.load(beat_run / "best.pt", weights_only=True)
    checkpoint["name"], checkpoint["arguments"] = "resnet1d", {"base_channels": 1 << 14}  # terabytes of weights
    torch.save(checkpoint, tmp_path / "y.pt")
    with pytest.raises(Stop, match="y.pt: is damaged, or not of these networks"):
        bundle.load(tmp_path / "y.pt")


def test_leads_that_are_missing_and_filled_with_zeros_are_named(tmp_path, rng):
    recipe = Recipe(fs=100, leads=[["I"], ["II"], ["V1"]], missing="zeros")
    origin = bundle.Origin(commit="unknown", leak=None)
    network = models.build("cnn1d", 3, 2)
    trained = bundle.Bundle(network, "cnn1d", {}, recipe, ("a", "b"), "multilabel", (0.5, 0.5), origin)
    record = pqrst.Record(rng.normal(size=(1, 5000)), 500.0, ["II"])
    assert "leads I, V1 are missing: 2 of 3 are zeros" in infer.predict_record(record, trained, "run").warnings


@pytest.mark.parametrize(("n_invalid", "n_rows"), [(8_000, 1), (20_000, 4)])
def test_a_lead_without_a_valid_signal_is_named_as_one_that_is_missing_is(rng, n_invalid, n_rows):
    recipe = Recipe(fs=100, leads=[["I"], ["II"]], missing="zeros")
    origin = bundle.Origin(commit="unknown", leak=None)
    trained = bundle.Bundle(models.build("cnn1d", 2, 1), "cnn1d", {}, recipe, ("a",), "multilabel", (0.5,), origin)
    signal = rng.normal(size=(2, 20_000))  # four windows of 10 s
    signal[1, :n_invalid] = np.nan
    fed = infer.feed(pqrst.Record(signal, 500.0, ["I", "II"]), trained)
    n_empty = int((fed.prepared.rows[:, 1] == 0).all(axis=1).sum())
    assert n_empty >= n_rows
    assert f"lead II has too few valid samples in {n_empty} of 4 rows, which have zeros for it" in fed.warnings
    signal[1] = 0.25
    flat = infer.feed(pqrst.Record(signal, 500.0, ["I", "II"]), trained)
    assert [warning for warning in flat.warnings if "II" in warning] == [": lead II is flat"]


# ------------------------------------------------------------------------------------------------ the bundled model


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A folder without runs; the user works there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def holter(kinds, rr, fs=250):
    return simulated(rr, kinds, noise=0.01, fs=fs)


def test_without_a_run_the_bundled_model_tells_wide_early_beats(nowhere):
    kinds = np.where(np.arange(300) % 11 == 7, "v", "n")
    rr = np.where(kinds[1:] == "v", 0.5, np.where(kinds[:-1] == "v", 1.15, 0.8))
    x, peaks = holter(kinds, rr)
    for leads in (["MLII", "V1"], ["ECG1", "ECG2"]):
        said = infer.predict(x, leads=leads, fs=250)
        assert said.run == "beats.pt" and not said.warnings
        pairs = match_beats(peaks, said.samples, 0.05 * 250)
        found = np.array(said.classes)[said.beat_classes[pairs[:, 1]]]
        truth = np.where(kinds == "v", "V", "N")[pairs[:, 0]]
        assert len(pairs) >= 298 and (found != truth).sum() <= 6


@pytest.mark.parametrize(
    ("leads", "warnings"),
    [
        (["II"], ["leads V1 are missing: 1 of 2 are zeros"]),
        (["aVF"], ["lead aVF stands for MLII", "leads V1 are missing: 1 of 2 are zeros"]),
        (["aVF", "V6"], ["lead aVF stands for MLII", "lead V6 stands for V1"]),
        (["V6", "II"], ["lead V6 stands for V1"]),
    ],
)
def test_leads_that_the_model_has_not_met_fill_its_slots_with_a_warning(nowhere, leads, warnings):
    x, _ = holter(["n"] * 60, np.full(59, 0.8))
    assert list(infer.predict(x[: len(leads)], leads=leads, fs=250).warnings) == warnings


def test_a_lead_of_zeros_stays_one(nowhere):
    x, _ = holter(["n"] * 60, np.full(59, 0.8))
    write_record(nowhere, "r", x, 250, ["II", "V1"])
    assert any("V1 is filled with zeros" in w for w in answer(nowhere / "r", leads="V1=zeros")["warnings"])


def test_what_is_no_ecg_says_so_and_never_ends_in_a_crash(nowhere):
    time = np.arange(250 * 120) / 250
    cases = {
        "flat": np.zeros(250 * 30),
        "noise": np.random.default_rng(0).normal(size=len(time)),
        "short": holter(["n"] * 2, [0.8])[0][0][:500],
        "spikes": (np.arange(len(time)) % 250 < 2).astype(float),
        "mains": np.sin(2 * np.pi * 50 * time),
        "one beat": holter(["n"], [])[0][0],
    }
    for name, x in cases.items():
        said = infer.predict(x, leads=["II"], fs=250)
        assert np.isfinite(said.scores).all(), name
        assert said.to_text() and json.loads(said.to_json()), name
        if len(said.samples) and name != "spikes":
            assert any("a guess" in warning for warning in said.warnings), (name, len(said.samples), said.warnings)


def test_of_a_long_record_the_moments_worth_a_look_are_drawn(nowhere, capsys):
    kinds = np.where(np.arange(400) % 40 == 17, "v", "n")
    kinds[200:205] = "v"
    rr = np.where(kinds[1:] == "v", 0.45, 0.8)
    rr[100] = 3.0
    x, _ = holter(kinds, rr)
    moments = infer.predict(x, leads=["II", "V1"], fs=250).moments()
    captions = [caption for _, caption in moments]
    assert captions[0].startswith("longest run: V") and captions[1] == "longest pause: 3.0 s"
    assert 3 <= len(moments) <= 12
    assert all(caption.startswith("uncertain: ") for caption in captions[2:])
    uncertain = np.sort([sample for sample, _ in moments[2:]])
    assert (np.diff(uncertain) > 5 * 250).all()
    write_record(nowhere, "long", x, 250, ["II", "V1"])
    main(capsys, nowhere / "long.hea", "--plot", nowhere / "long.png")
    assert (nowhere / "long.png").stat().st_size > 50_000


def test_a_sheet_is_laid_out_and_scaled_as_asked(tmp_path, demo_run, demo_folder):
    record = sorted(demo_folder.glob("*.hea"))[0]
    sizes = {}
    for name, words in (("a", []), ("b", ["--layout", "12x1", "--speed", "50", "--gain", "5"])):
        infer.main([str(record), "--run", str(demo_run), "--plot", str(tmp_path / f"{name}.svg"), *words])
        text = (tmp_path / f"{name}.svg").read_text()
        sizes[name] = float(re.search(r'width="([\d.]+)pt"', text)[1]) * 25.4 / 72, text.count('id="calibration"')
    assert sizes["a"] == (pytest.approx(270, abs=0.01), 4) and sizes["b"] == (pytest.approx(525, abs=0.01), 12)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layout", "6x2"], "are for the pictures of --plot; give it too"),
        (["--plot", "out.png", "--speed", "0"], "--speed 0: must be 1 to 200 mm"),
        (["--plot", "out.png", "--gain", "nan"], "--gain nan: must be 1 to 200 mm"),
    ],
)
def test_a_sheet_that_cannot_be_is_an_error(tmp_path, monkeypatch, demo_run, demo_folder, words, message):
    record = sorted(demo_folder.glob("*.hea"))[0].resolve()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((Stop, ValueError), match=message):
        infer.main([str(record), "--run", str(demo_run), *words])
    assert not list(tmp_path.iterdir())
