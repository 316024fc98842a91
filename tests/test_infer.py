import csv
import io
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import wfdb
from conftest import REPOSITORY, write_record

import bundle
import data
import infer
import models
import pqrst
import readers
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
    assert [finding["class"] for finding in findings if finding["present"]] == [highest["class"]]
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
        answer(mitdb_like / "101")


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
    with pytest.raises(ValueError, match="its rate must be given"):
        main(capsys, tmp_path / "a.csv", "--run", demo_run)
    expected = answer(header, run=demo_run)["findings"]
    words = [tmp_path / "a.csv", "--inference.fs", str(record.fs), "--format", "json"]
    assert json.loads(main(capsys, *words, "--run", demo_run).out)["findings"] == expected
    monkeypatch.chdir(demo_run.parent)
    (demo_run.parent / "runs").mkdir(exist_ok=True)
    (demo_run.parent / "runs/demo").symlink_to(demo_run)
    result = json.loads(main(capsys, f"{tmp_path}/a.hdf5#1", "--format", "json").out)  # and the run that fits is found
    assert (result["fs"], result["duration_s"]) == (400, 3900 / 400)
    with pytest.raises(Stop, match="one of many recordings"):
        main(capsys, f"{tmp_path}/a.hdf5#1", "--annotate", "qrs")


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
