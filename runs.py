"""The run folder: the names in it, whether it may be written to, its settings and its logs."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import config
import script
from config import Settings
from recipe import differences
from script import Stop

CONFIG, METRICS, LOG, CURVES, REPORT = "config.yaml", "metrics.csv", "log.jsonl", "curves.png", "report"
FILLED = "filled.png"  # of pretraining.py
BEST, BEST_LOSS, LAST = "best.pt", "best-loss.pt", "last.pt"
TENSORBOARD, WANDB, TRACKING = "tensorboard", "wandb", "tracking.json"  # of trackers.py


class Epoch(NamedTuple):
    """One line of metrics.csv; the fields are its columns, which plots.py draws."""

    epoch: int  # counted from 1
    learning_rate: float  # of the last step
    train_loss: float  # mean over the steps
    rows_per_s: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_macro_f1: float | None = None
    validation_macro_auroc: float | None = None


# The panels of curves.png and the columns that each one draws.
PANELS = {
    "loss": ("train_loss", "validation_loss"),
    "validation score": ("validation_accuracy", "validation_macro_f1", "validation_macro_auroc"),
    "learning rate": ("learning_rate",),
}


def settings_of(folder: Path) -> Settings:
    """Read the settings that a run was trained with."""
    path = folder / CONFIG
    if not path.exists():
        raise Stop(f"{folder}: no run there ({CONFIG} is missing)")
    return config.validated({str(path): config.read_yaml(path)})


def check_run(folder: Path, settings: Settings, finished: bool, resume: bool, overwrite: bool) -> None:
    """Check that a training with these settings may write to the folder.

    Parameters
    ----------
    folder : of the run
    settings : of the training that is asked for
    finished : whether the run in the folder is finished
    resume, overwrite : what the user has allowed

    Raises
    ------
    Stop
        There is a run that may not be overwritten or cannot be resumed; the message says what differs and what to do.
    """
    if not (folder / CONFIG).exists():
        if resume:
            raise Stop(f"{folder}: no run to resume")
        return
    if overwrite:
        begins_with = settings.model.pretrained
        if begins_with and checkpoint_of(begins_with).resolve().parent == folder.resolve():
            raise Stop(f"model.pretrained = {begins_with}: is the run itself, which would be replaced")
        return
    changes = differences(config.of_the_work(settings_of(folder)), config.of_the_work(settings))
    if not resume or finished:
        state = "a finished run" if finished else "an unfinished run"
        differ = f" with other settings ({'; '.join(changes)})" if changes else ""
        ways = "train under another name with --run_dir runs/NAME, or replace it with --overwrite"
        raise Stop(f"{folder} holds {state}{differ}: " + (ways if finished else f"go on with --resume, {ways}"))
    if changes:
        raise Stop(f"{folder} was trained with other settings ({'; '.join(changes)}); --resume needs the same")


def begin(folder: Path, settings: Settings, epochs: int, anew: bool) -> None:
    """Make the folder ready for a training that has done so many epochs; one that begins anew removes what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    if anew:
        if (folder / CONFIG).exists():  # a run that may be replaced; other files of these names are left alone
            for name in (BEST, BEST_LOSS, LAST, METRICS, LOG, CURVES, FILLED, TRACKING, CONFIG):
                (folder / name).unlink(missing_ok=True)
            for made in (*folder.glob(f"{REPORT}*"), folder / TENSORBOARD, folder / WANDB):
                shutil.rmtree(made, ignore_errors=True)
        for stale in folder.glob("*.tmp"):  # of a process that was killed
            stale.unlink(missing_ok=True)
        with script.writing(folder / CONFIG):
            (folder / CONFIG).write_text(yaml.safe_dump(settings.tree(), sort_keys=False))
    _keep(folder / METRICS, lambda line: 0 if line.startswith("epoch,") else int(line.split(",")[0]), epochs)
    _keep(folder / LOG, lambda line: int(json.loads(line)["epoch"]), epochs)


def _keep(path: Path, epoch_of: Callable[[str], int], epochs: int) -> None:
    """Drop what a log holds beyond so many epochs: a resumed run writes it again."""
    kept = []
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        try:
            if epoch_of(line) > epochs:
                break
        except ValueError:  # cut off by the end of the process
            break
        kept.append(line)
    if kept:
        path.write_text("".join(kept))


def log_epoch(folder: Path, epoch: Epoch) -> None:
    """Add a line to metrics.csv."""
    path = folder / METRICS
    new = not path.exists()
    with script.writing(path), path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(Epoch._fields)
        writer.writerow(epoch)


def epochs_of(folder: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.csv without what is empty in them; one that is only half written is left out."""
    path = folder / METRICS
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if None not in line.values()]
    return [{name: float(value) for name, value in line.items() if value} for line in lines]


def log_events(folder: Path, events: Iterable[dict[str, Any]]) -> None:
    """Add lines to log.jsonl."""
    with script.writing(folder / LOG), (folder / LOG).open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def checkpoint_of(run: str | Path) -> Path:
    """Return the best checkpoint of a run folder; a path with a suffix is a checkpoint itself."""
    path = Path(run)
    return path / BEST if path.is_dir() or not path.suffix else path


def newest(root: Path = Path("runs")) -> list[Path]:
    """Return the run folders with a best checkpoint, the newest first."""
    return sorted((p.parent for p in root.glob(f"*/{BEST}")), key=lambda p: -(p / BEST).stat().st_mtime_ns)


def commit() -> str:
    """Return the git commit of these scripts, `unknown` outside a repository."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
