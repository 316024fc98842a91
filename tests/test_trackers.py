"""TensorBoard, MLflow and Weights & Biases, each read back by its own means."""

import errno
import importlib.util
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY

import config
import runs
import trackers
import train
from script import Stop

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb.*"),
]


@pytest.fixture(autouse=True)
def no_settings_of_the_person(monkeypatch):
    for name in [key for key in os.environ if key.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    # what a tracker sets for itself goes with the test
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY", "WANDB_MODE", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}.get(name, "true"))


def settings_of(track, name="demo", **training):
    tree = {"data": {"name": name}, "training": {"track": track, **training}}
    return config.validated({"test": tree})


def epoch(number):
    return runs.Epoch(number, 0.001 * number, 1 / number, 100.5, 2 / number, 0.5, None, None)


def track(folder, names, numbers=(), **more):
    """Write these epochs to metrics.csv, and have each one tracked."""
    folder.mkdir(parents=True, exist_ok=True)
    with trackers.opened(folder, settings_of(names), more.get("commit", "abc123")) as tell:
        for number in numbers:
            runs.log_epoch(folder, epoch(number))
            tell()


def scalars(folder):
    """Return what TensorBoard shows of a run: {tag: [(step, value), ...]}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def mlflow_client(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def mlflow_runs(client, experiment="demo"):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def history(client, run, key):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


def wandb_records(file):
    """Yield the records of an offline file, a log of LevelDB's format after 7 bytes: wandb has no reader in Python."""
    data, at, record = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no record begins in the last bytes of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield record
            record = b""


def wandb_rows(file):
    """Return the rows that an offline file holds, and the settings of its run."""
    from wandb.proto import wandb_internal_pb2

    rows, settings = [], {}
    for data in wandb_records(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}
            rows.append({"_step": record.history.step.num, **items})
        if record.HasField("run"):
            settings |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
    return rows, settings


# ------------------------------------------------------------------------------------------------ one at a time


def test_tensorboard_shows_each_epoch_once_over_two_processes(tmp_path):
    track(tmp_path, ["tensorboard"], [1, 2])
    track(tmp_path, ["tensorboard"], [3])
    shown = scalars(tmp_path)
    assert [step for step, _ in shown["train_loss"]] == [1, 2, 3]
    np.testing.assert_allclose([value for _, value in shown["train_loss"]], [1, 1 / 2, 1 / 3], rtol=1e-6)  # float32
    assert set(shown) == {"learning_rate", "train_loss", "rows_per_s", "validation_loss", "validation_accuracy"}


def test_lines_of_a_run_are_read_without_empty_cells_and_without_half_a_line(tmp_path):
    assert runs.epochs_of(tmp_path) == []
    runs.log_epoch(tmp_path, epoch(2))
    with (tmp_path / runs.METRICS).open("a") as file:
        file.write("3,0.00")  # a process is at work on it
    (line,) = runs.epochs_of(tmp_path)
    assert line["epoch"] == 2 and line["validation_accuracy"] == 0.5
    assert "validation_macro_f1" not in line


def test_an_epoch_that_was_saved_but_not_tracked_is_tracked_later(tmp_path):
    names = ["tensorboard", "mlflow"]
    run = tmp_path / "run"
    track(run, names, [1])
    runs.log_epoch(run, epoch(2))  # and the process dies
    track(run, names, [3])
    assert [step for step, _ in scalars(run)["train_loss"]] == [1, 2, 3]
    client = mlflow_client((tmp_path / "mlruns").as_uri())
    (only,) = mlflow_runs(client)
    assert history(client, only, "train_loss") == [(1, 1), (2, 1 / 2), (3, 1 / 3)]


def test_mlflow_has_settings_metrics_commit_and_checkpoint(tmp_path):
    run = tmp_path / "first"
    run.mkdir()
    (run / runs.BEST).write_bytes(b"weights")
    track(run, ["mlflow"], [1, 2], commit="0123abcd")
    client = mlflow_client((tmp_path / "mlruns").as_uri())
    (only,) = mlflow_runs(client)
    assert only.info.status == "FINISHED"
    assert only.info.run_name == "first"
    assert only.data.tags["mlflow.source.git.commit"] == "0123abcd"
    wanted = config.flatten(settings_of(["mlflow"]).tree())
    assert only.data.params == {key: str(value) for key, value in wanted.items()}
    assert history(client, only, "validation_loss") == [(1, 2), (2, 1)]
    assert "validation_macro_f1" not in only.data.metrics  # it had no value
    path = client.download_artifacts(only.info.run_id, runs.BEST, str(tmp_path))
    assert Path(path).read_bytes() == b"weights"


@pytest.mark.parametrize("error, status", [(SystemExit(143), "KILLED"), (Stop("not finite"), "FAILED")])
def test_mlflow_is_told_how_a_training_ended_and_that_it_goes_on(tmp_path, error, status):
    run, settings = tmp_path / "run", settings_of(["mlflow"])
    run.mkdir()
    with pytest.raises(type(error)), trackers.opened(run, settings, "abc"):
        raise error
    client = mlflow_client((tmp_path / "mlruns").as_uri())
    assert [found.info.status for found in mlflow_runs(client)] == [status]
    with trackers.opened(run, settings, "abc"):
        assert [found.info.status for found in mlflow_runs(client)] == ["RUNNING"]
    assert [found.info.status for found in mlflow_runs(client)] == ["FINISHED"]


def test_mlflow_writes_where_its_own_variables_say(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "elsewhere").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of mine")
    track(tmp_path / "run", ["mlflow"], [1])
    assert not (tmp_path / "mlruns").exists()
    assert len(mlflow_runs(mlflow_client((tmp_path / "elsewhere").as_uri()), "of mine")) == 1


def test_wandb_writes_each_epoch_and_the_settings_offline(tmp_path):
    run = tmp_path / "run"
    track(run, ["wandb"], [1, 2], commit="0123abcd")
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    rows, settings = wandb_rows(file)
    assert [(row["_step"], row["train_loss"]) for row in rows] == [(1, 1), (2, 1 / 2)]
    assert settings["commit"] == "0123abcd"
    assert settings["training.learning_rate"] == 0.002
    time.sleep(1.1)  # a folder of wandb is named by the second
    track(run, ["wandb"], [3])
    first, second = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    assert first.name == second.name  # the same run
    assert [row["_step"] for row in wandb_rows(second)[0]] == [3]


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_an_unknown_tracker_stops_with_the_nearest_before_any_work(tmp_path, capsys):
    words = ["--data.raw", str(tmp_path / "no"), "--run", str(tmp_path / "run"), "--training.track"]
    with pytest.raises(Stop, match=r"training.track = tensorbord: .*did you mean tensorboard\?"):
        train.main([*words, "mlflow,tensorbord"])
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_stops_with_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else name)
    trackers.check(["mlflow"])
    with pytest.raises(Stop, match=r'training.track = wandb: is not installed; pip install -e "\.\[track\]"'):
        trackers.check(["mlflow", "wandb"])


def test_a_server_that_is_down_is_told_in_one_line_without_its_password(tmp_path, monkeypatch, capfd):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    track(tmp_path, ["mlflow", "tensorboard"], [1, 2])
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: training.track: goes on without mlflow: [Errno")
    assert f"127.0.0.1:{port}" in line and "secret" not in line
    assert len(scalars(tmp_path)["train_loss"]) == 2


def test_a_server_that_never_answers_holds_the_training_up_for_a_moment_only(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        track(tmp_path, ["mlflow"], [1, 2])
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(
        "warning: training.track: goes on without mlflow: timed out (API request to http://127.0.0.1"
    )


def test_wandb_s_server_that_is_down_is_told_once(tmp_path, monkeypatch, capfd):
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    import wandb

    wandb.teardown()  # it reads its variables once in a process
    track(tmp_path, ["wandb"], [1, 2])
    wandb.teardown()
    (line,) = [text for text in capfd.readouterr().err.splitlines() if text.startswith("warning")]
    assert line.startswith("warning: training.track: goes on without wandb: ") and "connection refused" in line


def test_a_disk_that_fills_leaves_out_that_tracker_alone(tmp_path, monkeypatch, capsys):
    from tensorboard.summary.writer.record_writer import RecordWriter

    def fails(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    run, write = tmp_path / "run", RecordWriter.write
    run.mkdir()
    with trackers.opened(run, settings_of(["tensorboard", "mlflow"]), "abc") as tell:
        for number in (1, 2, 3):
            if number == 2:
                monkeypatch.setattr(RecordWriter, "write", fails)
            runs.log_epoch(run, epoch(number))
            tell()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: training.track: goes on without tensorboard: ") and "No space left" in line
    monkeypatch.setattr(RecordWriter, "write", write)
    assert [step for step, _ in scalars(run)["train_loss"]] == [1]
    client = mlflow_client((tmp_path / "mlruns").as_uri())
    assert len(history(client, mlflow_runs(client)[0], "train_loss")) == 3


def test_a_tracker_that_fails_at_the_end_stops_nothing(tmp_path, monkeypatch, capsys):
    def breaks(end):
        raise RuntimeError("gone")

    monkeypatch.setitem(trackers.OPENERS, "mlflow", lambda *_: trackers.Tracker(0, lambda row: None, breaks))
    track(tmp_path, ["mlflow"], [1])
    assert capsys.readouterr().err == "warning: training.track: goes on without mlflow: gone\n"


@pytest.mark.parametrize("kept", ['{"mlflow_run": "0123456789abcdef0123456789abcdef"}', "not JSON"])
def test_a_run_that_mlflow_does_not_know_goes_on_without_it(tmp_path, capsys, kept):
    run = tmp_path / "run"
    run.mkdir()
    (run / runs.TRACKING).write_text(kept)
    track(run, ["mlflow"], [1])
    assert capsys.readouterr().err.startswith("warning: training.track: goes on without mlflow: ")


# ------------------------------------------------------------------------------------------------ in a training


def trained(prepared, folder, *more):
    train.main([*prepared, "--run", str(folder), "--training.epochs", "2", "--training.batch_size", "16", *more])


def test_a_resumed_training_goes_on_in_the_same_places(prepared_demo, tmp_path, monkeypatch):
    run, words = tmp_path / "run", ["--training.track", "tensorboard,mlflow"]
    write = train.write_epoch

    def write_and_die(folder, line, *rest):
        write(folder, line, *rest)
        raise SystemExit(143)  # saved, and not tracked yet

    monkeypatch.setattr(train, "write_epoch", write_and_die)
    with pytest.raises(SystemExit):
        trained(prepared_demo, run, *words)
    monkeypatch.setattr(train, "write_epoch", write)
    trained(prepared_demo, run, *words, "--resume")

    wanted = pd.read_csv(run / runs.METRICS)
    client = mlflow_client((tmp_path / "mlruns").as_uri())
    (only,) = mlflow_runs(client)
    shown = scalars(run)
    for key in ("train_loss", "validation_loss", "learning_rate"):
        assert history(client, only, key) == list(zip(wanted["epoch"], wanted[key]))
        np.testing.assert_allclose([value for _, value in shown[key]], wanted[key], rtol=1e-6)  # float32
        assert [step for step, _ in shown[key]] == [1, 2]
    assert only.data.tags["mlflow.source.git.commit"] == runs.commit()
    path = client.download_artifacts(only.info.run_id, runs.BEST, str(tmp_path))
    assert Path(path).read_bytes() == (run / runs.BEST).read_bytes()

    trained(prepared_demo, run, *words, "--overwrite")
    assert [step for step, _ in scalars(run)["train_loss"]] == [1, 2]
    assert len(mlflow_runs(client)) == 2  # a new training is a new run


def test_a_run_that_is_not_tracked_makes_and_loads_nothing_of_it(prepared_demo, tmp_path):
    command = [sys.executable, "-c", "import sys, train; train.main(sys.argv[1:]); print(sorted(sys.modules))"]
    words = [*prepared_demo, "--run", str(tmp_path / "run"), "--training.epochs", "1", "--training.batch_size", "16"]
    done = subprocess.run([*command, *words], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"'tensorboard'", "'mlflow'", "'wandb'"} & set(done.stdout.splitlines()[-1].strip("[]").split(", "))
    assert not [p for p in (tmp_path / "run").iterdir() if p.name in ("tensorboard", "wandb", "tracking.json")]


@pytest.mark.slow
def test_of_two_processes_one_tracks(prepared_demo, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "train.py"]
    words = [
        *prepared_demo,
        "--run_dir",
        str(tmp_path / "run"),
        "--training.epochs",
        "1",
        "--training.batch_size",
        "16",
    ]
    words += ["--training.track", "tensorboard,mlflow"]
    done = subprocess.run([*command, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    assert [step for step, _ in scalars(tmp_path / "run")["train_loss"]] == [1]
    client = mlflow_client((tmp_path / "mlruns").as_uri())
    (only,) = mlflow_runs(client)
    assert [step for step, _ in history(client, only, "train_loss")] == [1]


@pytest.fixture
def mlflow_server(tmp_path):
    """Start MLflow's own server on loopback; yields its address."""
    if not all(map(importlib.util.find_spec, ("flask", "sqlalchemy", "alembic"))):
        pytest.skip("needs MLflow's server: pip install mlflow (mlflow-skinny has none)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", f"{tmp_path}/kept"]
    log = (tmp_path / "server.log").open("wb")
    with log, subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=2).close()
                    break
                except OSError:
                    assert server.poll() is None, (tmp_path / "server.log").read_text()
                    time.sleep(0.5)
            yield address, server
        finally:
            if server.poll() is None:
                os.killpg(server.pid, 15)


@pytest.mark.slow
def test_mlflow_s_own_server_gets_a_training_and_may_die_in_it(
    mlflow_server, prepared_demo, tmp_path, monkeypatch, capfd
):
    address, server = mlflow_server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    trained(prepared_demo, tmp_path / "run", "--training.track", "mlflow")
    assert "warning" not in capfd.readouterr().err
    client = mlflow_client(address)
    (only,) = mlflow_runs(client)
    wanted = pd.read_csv(tmp_path / "run" / runs.METRICS)
    assert only.info.status == "FINISHED"
    assert history(client, only, "train_loss") == list(zip(wanted["epoch"], wanted["train_loss"]))
    assert only.data.params["training.epochs"] == "2"
    path = client.download_artifacts(only.info.run_id, runs.BEST, str(tmp_path))
    assert Path(path).read_bytes() == (tmp_path / "run" / runs.BEST).read_bytes()

    other = tmp_path / "other"
    other.mkdir()
    with trackers.opened(other, settings_of(["mlflow"]), "abc") as tell:
        for number in (1, 2, 3):
            if number == 2:
                os.killpg(server.pid, 9)
                server.wait()
            runs.log_epoch(other, epoch(number))
            tell()
    assert capfd.readouterr().err.count("goes on without mlflow") == 1
