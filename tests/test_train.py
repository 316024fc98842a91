import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY

import bundle
import models
import runs
import simulate
import train
import validation
from script import Stop

ALL_ON = [
    "--training.sampler", "weighted", "--training.class_weights", "sqrt", "--training.ema_decay", "0.9",
    "--training.augmentation.noise", "0.02", "--training.augmentation.gain", "0.2",
    "--training.augmentation.shift_s", "0.01", "--training.augmentation.wander", "0.1",
    "--training.augmentation.polarity", "0.3", "--training.augmentation.lead_dropout", "0.2",
    "--training.augmentation.time_mask_s", "0.05",
]  # fmt: skip
# Losses differ only by the order in which float32 sums are taken, and by what 20 steps make of that.
PROCESS_TOLERANCE = 1e-5


def steps(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [event["loss"] for event in map(json.loads, lines) if event["event"] == "step"]


def metrics_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "rows_per_s"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_the_loss_does_not_depend_on_processes_or_accumulation(prepared_beats, tmp_path):
    words = [*prepared_beats, *ALL_ON, "--training.batch_size", "16", "--training.epochs", "2"]
    # AdamW divides by the gradient's size: large steps amplify rounding
    words += ["--training.threads", "1", "--training.learning_rate", "1e-4"]
    for processes, accumulation in ((1, 1), (1, 4), (2, 2)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command += ["tests/train_frozen.py", str(tmp_path / f"{processes}x{accumulation}"), *words]
        command += ["--training.accumulation", str(accumulation)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for name in models.NETWORKS:
        reference = tmp_path / "1x1" / name
        assert len(steps(reference)) >= 20
        for other in ("1x4", "2x2"):
            np.testing.assert_allclose(steps(tmp_path / other / name), steps(reference), rtol=0, atol=PROCESS_TOLERANCE)
            for mine, theirs in zip(metrics_of(tmp_path / other / name), metrics_of(reference), strict=True):
                # every validation row was scored once, or this mean would be another
                assert abs(float(mine["validation_loss"]) - float(theirs["validation_loss"])) < PROCESS_TOLERANCE


class Cut(Exception):
    pass


def train_and_cut(words, monkeypatch, epoch):
    """Train until the validation of this epoch, as if the process had been killed there."""
    calls = []
    score_rows = validation.score_rows

    def cut(*arguments):
        calls.append(1)
        if len(calls) == epoch:
            raise Cut
        return score_rows(*arguments)

    monkeypatch.setattr(validation, "score_rows", cut)
    with pytest.raises(Cut):
        train.main(words)
    monkeypatch.undo()


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(prepared_beats, tmp_path, monkeypatch):
    words = [*prepared_beats, *ALL_ON, "--training.batch_size", "16", "--training.epochs", "4"]
    train.main([*words, "--run", str(tmp_path / "whole")])

    train_and_cut([*words, "--run", str(tmp_path / "cut")], monkeypatch, 3)
    with pytest.raises(Stop, match=r"unfinished run.*--resume.*--run.*--overwrite"):
        train.main([*words, "--run", str(tmp_path / "cut")])
    with pytest.raises(Stop, match=r"training.seed: 0 -> 1.*--resume needs the same"):
        train.main([*words, "--run", str(tmp_path / "cut"), "--resume", "--training.seed", "1"])
    train.main([*words, "--run", str(tmp_path / "cut"), "--resume"])

    assert metrics_of(tmp_path / "whole") == metrics_of(tmp_path / "cut")
    assert steps(tmp_path / "whole") == steps(tmp_path / "cut")
    for name in ("last.pt", "best.pt", "best-loss.pt"):
        a, b = (torch.load(tmp_path / run / name, weights_only=True) for run in ("whole", "cut"))
        assert a["origin"]["epoch"] == b["origin"]["epoch"]
        for key in a["weights"]:
            assert torch.equal(a["weights"][key], b["weights"][key]), key


def test_a_run_is_resumed_on_a_machine_with_other_threads_and_workers(prepared_beats, tmp_path, monkeypatch):
    words = [*prepared_beats, "--run", str(tmp_path / "run"), "--training.batch_size", "16", "--training.epochs", "2"]
    train_and_cut([*words, "--training.threads", "1"], monkeypatch, 2)
    train.main([*words, "--resume", "--training.threads", "2", "--training.workers", "1", "--data.workers", "3"])
    assert len(metrics_of(tmp_path / "run")) == 2


def test_a_last_checkpoint_without_a_training_cannot_be_resumed(beat_run, prepared_beats, tmp_path):
    shutil.copytree(beat_run, tmp_path / "run")
    shutil.copy(beat_run / "best.pt", tmp_path / "run/last.pt")
    words = [*prepared_beats, "--run", str(tmp_path / "run"), "--training.batch_size", "16", "--training.epochs", "2"]
    with pytest.raises(Stop, match="last.pt: holds no training to go on with"):
        train.main([*words, "--resume"])


def test_a_finished_run_is_not_overwritten_unasked(beat_run, prepared_beats):
    before = (beat_run / "last.pt").read_bytes()
    words = [*prepared_beats, "--run", str(beat_run), "--training.batch_size", "16"]
    with pytest.raises(Stop, match=r"finished run.*training.epochs: 2 -> 3.*--run.*--overwrite"):
        train.main([*words, "--training.epochs", "3"])
    assert (beat_run / "last.pt").read_bytes() == before


def test_overwrite_replaces_a_run(prepared_beats, tmp_path):
    words = [*prepared_beats, "--run", str(tmp_path / "run"), "--training.batch_size", "16", "--training.epochs", "1"]
    train.main(words)
    train.main([*words, "--training.learning_rate", "0.001", "--overwrite"])
    assert len(metrics_of(tmp_path / "run")) == 1
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["training"]["learning_rate"] == 0.001


def test_a_run_folder_holds_what_it_promises(beat_run):
    names = {p.name for p in beat_run.iterdir()}
    assert names == {
        "config.yaml", "best.pt", "best-loss.pt", "last.pt", "metrics.csv", "log.jsonl", "curves.png", "report"
    }  # fmt: skip
    trained = bundle.load(beat_run / "best.pt")
    assert trained.classes == ("N", "S", "V", "F", "Q")
    assert trained.recipe.window.samples == 187
    assert trained.recipe == runs.settings_of(beat_run).recipe


def test_early_stopping_stops_when_the_scripted_score_says(prepared_beats, tmp_path, monkeypatch, capsys):
    scripted = iter([0.1, 0.5, 0.4, 0.3, 0.9])

    def scores(*_):
        return validation.Validation(loss=1.0, accuracy=0.5, macro_f1=next(scripted), macro_auroc=None)

    monkeypatch.setattr(validation, "validate", scores)
    words = [*prepared_beats, "--run", str(tmp_path / "run"), "--training.batch_size", "16", "--training.patience", "2"]
    train.main([*words, "--training.epochs", "9"])
    assert "stopped: no better macro_f1 in 2 validations" in capsys.readouterr().out
    assert len(metrics_of(tmp_path / "run")) == 4
    assert bundle.load(tmp_path / "run/best.pt").origin.epoch == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--training.batch_size", "15", "--training.accumulation", "2"], "multiple of 1 processes x 2"),
        (["--training.batch_size", "100000"], "there are only"),
        (["--model.name", "resnet2d"], r"resnet2d.*did you mean resnet1d"),
        (["--model.arguments", '{"dropuot": 0.5}'], "dropuot"),
        (["--model.arguments", '{"width": "a"}'], "model beatcnn: width = 'a': Input should be a valid integer"),
        (["--model.name", "cnn1d", "--model.arguments", '{"pool": 4.5}'], r"cnn1d: pool = 4.5: .* valid integer"),
        (
            ["--model.name", "cnn1d", "--model.arguments", '{"channels": [8, 1.5]}'],
            r"channels = \[8, 1.5\]: .* integer",
        ),
        (["--model.name", "cnn1d", "--model.arguments", '{"dropout": true}'], "dropout = True: .* valid number"),
        (["--recipe.fs", "500"], r"has another recipe \(recipe.fs: 360.0 -> 500.0\)"),
        (["--data.test", "1"], "data.validation and data.test share fold 1"),
        (["--data.dir", "/nowhere"], "/nowhere: no prepared dataset"),
        (["--resume"], "no run to resume"),
    ],
)
def test_what_cannot_be_done_stops_with_one_line_and_leaves_nothing(prepared_beats, tmp_path, words, message):
    if "--training.batch_size" not in words:
        words = [*words, "--training.batch_size", "16"]
    with pytest.raises((Stop, ValueError), match=message):
        train.main([*prepared_beats, "--run", str(tmp_path / "run"), *words])
    assert not (tmp_path / "run").exists()


def test_a_name_that_is_near_nothing_gets_no_suggestion(prepared_beats, tmp_path):
    with pytest.raises(ValueError, match="zzzz") as error:
        train.main(
            [*prepared_beats, "--run", str(tmp_path / "run"), "--training.batch_size", "16", "--model.name", "zzzz"]
        )
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("scored", ["N,X", "N,N"])
def test_scored_classes_that_the_dataset_does_not_have_stop_before_training(prepared_beats, tmp_path, scored):
    with pytest.raises(Stop, match="data.scored_classes = N, .: must be some of N, S, V, F, Q, each once"):
        train.main([*prepared_beats, "--run", str(tmp_path / "run"), "--data.scored_classes", scored])
    assert not (tmp_path / "run").exists()


def test_scored_classes_enter_every_macro_score_of_training_and_evaluation(prepared_beats, tmp_path):
    words = [*prepared_beats, "--run", str(tmp_path / "run"), "--training.batch_size", "16", "--training.epochs", "1"]
    train.main([*words, "--data.scored_classes", "N"])
    report = json.loads((tmp_path / "run/report/metrics.json").read_text())
    (normal,) = (entry for entry in report["per_class"] if entry["class"] == "N")
    assert report["scored_classes"] == ["N"]
    for score in ("f1", "precision", "recall", "auroc", "average_precision"):
        assert report[f"macro_{score}"] == pytest.approx(normal[score], abs=1e-12), score


def test_importing_train_and_listing_networks_loads_nothing_that_only_a_report_needs():
    code = (
        "import sys, train; train.main(['--list_models']);"
        "slow = {'preprocess', 'evaluate', 'plots', 'metrics', 'sklearn', 'matplotlib', 'pandas', 'scipy', 'wfdb'};"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def test_list_models_names_every_network(capsys):
    train.main(["--list_models"])
    text = capsys.readouterr().out
    assert all(name in text for name in models.NETWORKS)


@pytest.mark.parametrize("name", ["demo", "mitdb", "mitdb-dechazal"])
def test_a_yaml_runs_for_a_step(name, tmp_path, mitdb_like, demo_folder):
    """The other datasets are prepared by theirs in test_sources.py, and so is one trained."""
    import preprocess

    path = REPOSITORY / f"configs/{name}.yaml"
    tree = yaml.safe_load(path.read_text())
    raw = {"mitdb": mitdb_like, "demo": demo_folder}[tree["data"]["name"]]
    words = ["--config", str(path), "--data.raw", str(raw), "--data.dir", str(tmp_path / "prepared")]
    preprocess.main(words)
    train.main([*words, "--run", str(tmp_path / "run"), "--training.epochs", "1", "--training.batch_size", "16"])
    assert math.isfinite(steps(tmp_path / "run")[0])


def test_two_processes_share_the_parts_of_the_demo(tmp_path):
    """If rank 0 alone prepared the demo, it would wait for ever for the parts of the other."""
    simulate.write_demo(tmp_path / "demo", n_patients=40, seed=1)
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import parts, train; parts.PART_BYTES = 400_000; "
    (tmp_path / "start.py").write_text(code + "train.main(sys.argv[1:])")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "start.py"]
    subprocess.run([*command, "--training.epochs", "1"], cwd=tmp_path, check=True, timeout=120)
    assert len(list((tmp_path / "prepared/demo").glob("part-*.h5"))) > 2
    assert (tmp_path / "runs/demo/report/metrics.json").exists()


@pytest.mark.slow
def test_the_demo_is_learnt(tmp_path):
    """The README's first command, in a folder of its own."""
    command = [sys.executable, str(REPOSITORY / "train.py")]
    fewer = {"ECG_TRAINING__EPOCHS": "8", "ECG_TRAINING__THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, **fewer})
    report = json.loads((tmp_path / "runs/demo/report/metrics.json").read_text())
    assert report["macro_f1"] >= 0.90


def test_a_metric_that_is_never_defined_stops_before_the_first_epoch(prepared_beats, tmp_path):
    """No validation row is of class F."""
    words = [*prepared_beats, "--run_dir", str(tmp_path / "run"), "--training.batch_size", "16"]
    words += ["--training.metric", "macro_auroc", "--data.scored_classes", "F"]
    with pytest.raises(
        Stop, match="training.metric = macro_auroc: no scored class has validation rows with and without"
    ):
        train.main(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_full_disk_ends_a_training_in_one_line_that_names_the_file(prepared_beats, beat_run, tmp_path, share):
    """A quota on the size of files, that of the largest being 1."""
    largest = max(path.stat().st_size for path in beat_run.iterdir())
    text = "import resource, sys, script, train\n"
    text += "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\n"
    text += "script.run(lambda: train.main(sys.argv[2:]))"
    words = [*prepared_beats, "--run_dir", str(tmp_path / "run"), "--training.batch_size", "16"]
    command = [sys.executable, "-c", text, str(int(share * largest)), *words, "--training.epochs", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"error: {tmp_path}/run/[\w.-]+: cannot be written: .*", done.stderr.splitlines()[-1])
    assert not list((tmp_path / "run").glob("*.tmp"))
