"""Who else is told of a run while it is trained: TensorBoard, MLflow, Weights & Biases (`training.track`).

metrics.csv is what happened; each tracker is told the epochs in it that it does not have yet. A run that goes on thus
goes on in each of them without a gap or a double, whichever of the two was written last when it was cut off. A
tracker that fails costs one line of warning and is left out from there on: it never stops a training.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import runs
import script
from config import Settings
from recipe import flatten
from script import Stop

Row = dict[str, float]  # one line of metrics.csv, without what is empty in it

# Seconds: a server that does not answer holds a training up so long, once.
PATIENCE_S = 5


class Tracker(NamedTuple):
    """What has been opened for one run."""

    told: int
    """the last epoch that it has, 0 where it has none"""
    tell: Callable[[Row], None]
    """take in one epoch"""
    close: Callable[[str], None]
    """take in how the training ended: FINISHED, KILLED (it can go on) or FAILED"""


def check(names: Sequence[str]) -> None:
    """Check that these trackers exist and are installed.

    Raises
    ------
    Stop
        An unknown name, with the nearest valid one, or a package that is missing, with how to install it.
    """
    for name in names:
        if name not in OPENERS:
            raise Stop(
                f"training.track = {name}: unknown{script.nearest(name, OPENERS)}; there are {', '.join(OPENERS)}"
            )
        if importlib.util.find_spec(name) is None:
            raise Stop(f'training.track = {name}: is not installed; pip install -e ".[track]"')


@contextmanager
def opened(folder: Path, settings: Settings, commit: str) -> Iterator[Callable[[], None]]:
    """Open the trackers of a run on rank 0, and close them when the training ends, however it ends.

    Parameters
    ----------
    folder : of the run; its metrics.csv holds no epoch that its last.pt does not have
    settings : of the training; `training.track` names the trackers
    commit : of the scripts

    Yields
    ------
    A function that tells every tracker what metrics.csv holds by now.
    """
    trackers: dict[str, Tracker] = {}

    def tell() -> None:
        rows = runs.epochs_of(folder) if trackers else []
        for name, tracker in list(trackers.items()):
            with _left_out_where_it_fails(name, trackers):
                for row in rows:
                    if row["epoch"] > tracker.told:
                        tracker.tell(row)
                        trackers[name] = tracker = tracker._replace(told=int(row["epoch"]))

    for name in settings.training.track if script.rank()[0] == 0 else ():
        with _left_out_where_it_fails(name, trackers):
            trackers[name] = OPENERS[name](folder, settings, commit)
    tell()
    end = "FAILED"
    try:
        yield tell
        end = "FINISHED"
    except (SystemExit, KeyboardInterrupt):
        end = "KILLED"
        raise
    finally:
        for name, tracker in list(trackers.items()):
            with _left_out_where_it_fails(name, trackers):
                tracker.close(end)


@contextmanager
def _left_out_where_it_fails(name: str, trackers: dict[str, Tracker]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a tracker, its server or its disk comes up with
        trackers.pop(name, None)
        print(f"warning: training.track: goes on without {name}: {_reason(error)}", file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    """Return a short line without passwords; what the network has said goes before what was made of it."""
    text, inner = script.one_line(error) or type(error).__name__, error
    while isinstance(inner.__context__, Exception):
        inner = inner.__context__
    if isinstance(inner, OSError) and inner is not error:
        text = f"{inner} ({text.split(' failed with')[0]})"
    return re.sub(r"//[^/@\s]+@", "//", text)[:300]


def _remembered(folder: Path) -> dict[str, Any]:
    """Return what has been kept of the trackers for --resume: ids of the run, epochs told."""
    path = folder / runs.TRACKING
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return kept


def _remember(folder: Path, **more: Any) -> None:
    with script.aside(folder / runs.TRACKING) as temporary:
        temporary.write_text(json.dumps({**_remembered(folder), **more}) + "\n")


# ------------------------------------------------------------------------------------------------ the trackers


def _tensorboard(folder: Path, settings: Settings, commit: str) -> Tracker:
    """Write event files into RUN/tensorboard.

    Of a run that goes on, a new file begins with the mark at which TensorBoard forgets what older files hold, and
    repeats all epochs. The events are written by TensorBoard's own `RecordWriter`, because a `SummaryWriter` writes in
    a thread, whose failure would be a traceback on the terminal.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    (folder / runs.TENSORBOARD).mkdir(exist_ok=True)
    stem = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"

    def write(**content: Any) -> None:
        with (folder / runs.TENSORBOARD / stem).open("ab") as file:
            RecordWriter(file).write(Event(wall_time=time.time(), **content).SerializeToString())

    def tell(row: Row) -> None:
        values = [Summary.Value(tag=key, simple_value=value) for key, value in row.items() if key != "epoch"]
        write(step=int(row["epoch"]), summary=Summary(value=values))

    write(file_version="brain.Event:2")
    write(step=0, session_log=SessionLog(status=SessionLog.START))
    return Tracker(0, tell, lambda end: None)


def _mlflow(folder: Path, settings: Settings, commit: str) -> Tracker:
    """Open a run of the server or store that MLFLOW_TRACKING_URI names; of the folder `mlruns` beside the run without.

    That folder is MLflow's store of plain files, which mlflow-skinny can write without a data base. MLflow 3 asks for
    MLFLOW_ALLOW_FILE_STORE=true before it opens one.
    """
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(PATIENCE_S))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or (folder.parent / "mlruns").resolve().as_uri())
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or settings.data.name
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            client.create_experiment(name)
        except MlflowException:  # another run has made it between the two lines
            if client.get_experiment_by_name(name) is None:
                raise
        experiment = client.get_experiment_by_name(name)

    run_id = _remembered(folder).get("mlflow_run")
    if run_id is None:
        tags = {"mlflow.source.git.commit": commit, "mlflow.source.name": "train.py"}
        run_id = client.create_run(experiment.experiment_id, run_name=folder.resolve().name, tags=tags).info.run_id
        parameters = [Param(key, str(value)) for key, value in flatten(settings.tree()).items()]
        for first in range(0, len(parameters), 100):  # so many at a time are allowed
            client.log_batch(run_id, params=parameters[first : first + 100])
        _remember(folder, mlflow_run=run_id)
    else:
        client.update_run(run_id, status="RUNNING")
    known = run_id
    told = max((point.step for point in client.get_metric_history(known, "train_loss")), default=0)

    def tell(row: Row) -> None:
        now, step = time.time_ns() // 1_000_000, int(row["epoch"])
        client.log_batch(known, [Metric(key, value, now, step) for key, value in row.items() if key != "epoch"])

    def close(end: str) -> None:
        try:
            if (folder / runs.BEST).exists():
                client.log_artifact(known, str(folder / runs.BEST))
        finally:
            client.update_run(known, status=end)

    return Tracker(told, tell, close)


def _wandb(folder: Path, settings: Settings, commit: str) -> Tracker:
    """Open a run of Weights & Biases: offline, in RUN/wandb, where WANDB_MODE says nothing else.

    A run that goes on begins a new file under the same id, which `wandb sync` appends to the earlier ones. Nothing of
    wandb reads those offline, so tracking.json says up to which epoch they go.
    """
    os.environ.setdefault("WANDB_MODE", "offline")
    import wandb

    kept = {"wandb_run": secrets.token_hex(8), "wandb_epochs": 0, **_remembered(folder)}
    _remember(folder, **kept)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or settings.data.name,
        name=folder.resolve().name,
        id=kept["wandb_run"],
        resume="allow",
        dir=folder.resolve(),
        config={**flatten(settings.tree()), "commit": commit},
        settings=wandb.Settings(
            console="off", silent=True, x_disable_stats=True, init_timeout=PATIENCE_S, finish_timeout=10 * PATIENCE_S
        ),
    )

    def tell(row: Row) -> None:
        epoch = int(row["epoch"])
        run.log({key: value for key, value in row.items() if key != "epoch"}, step=epoch, commit=True)
        _remember(folder, wandb_epochs=epoch)

    def close(end: str) -> None:
        run.finish(exit_code=0 if end == "FINISHED" else 1)
        wandb.teardown()  # waits for the process that writes the file, which `finish` does not

    return Tracker(kept["wandb_epochs"], tell, close)


OPENERS: dict[str, Callable[[Path, Settings, str], Tracker]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
