"""The queue of trainings: each a child process with a folder of its own, found again after the service has restarted.

    queue = Queue(Path("runs/.jobs"), Path("runs"))
    job = queue.add(settings, dataset="mitdb", overwrite=False)
    queue.advance()                                         # every half second: ends, cancels, starts the next
    queue.status(job.id)

A folder holds `job.json`, what is known of the job; `config.yaml`, the settings of train.py; `log`, what train.py
prints; and, once train.py has ended, `exit`, its exit status. One training runs at a time.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import config
import models
import runs
import script
from config import Settings
from script import Stop

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_QUEUED = 8  # trainings that wait
MAX_KEPT = 200  # jobs that have ended; the oldest are forgotten, with their logs
GRACE_S = 30.0  # from SIGTERM, upon which train.py finishes its step, to SIGKILL
LOG_LINES, LOG_BYTES = 20, 16384  # shown of the end of a log
# train.py under a shell that outlives SIGTERM, to write down how it ended; the service may be another one by then
SHELL = 'trap : TERM; "$@" > log 2>&1 < /dev/null; echo $? > exit.tmp; mv exit.tmp exit'


class Missing(Stop):
    """There is nothing of the name that a request gives."""


class Busy(Stop):
    """The queue is full."""


class Taken(Stop):
    """The run exists already, or another training writes to it."""


@dataclass(frozen=True)
class Job:
    """What job.json holds."""

    id: str
    run: str  # name of the run
    dataset: str
    epochs: int  # at most
    overwrite: bool
    created: float  # seconds since 1970, as all times here
    started: float = 0.0
    ended: float = 0.0
    state: str = "queued"  # queued | running | finished | failed | cancelled
    pid: int = 0  # of the shell, which leads a session of its own
    born: str = ""  # when that process began, as the system counts: another one may get its number
    cancelled: float = 0.0  # when it was asked to stop
    error: str = ""  # why it failed
    line: dict[str, float] = field(default_factory=dict)  # its last epoch; its run may be replaced when it has ended


class Queue:
    """Trainings one after another; `advance` is called again and again by one thread."""

    def __init__(self, folder: Path, root: Path, hidden: tuple[Path, ...] = ()) -> None:
        self.folder, self.root = folder.absolute(), root.absolute()
        self.hidden = (self.folder, self.root, *hidden)  # folders that no answer tells
        self.lock = threading.RLock()
        self.children: dict[str, subprocess.Popen[bytes]] = {}  # of this service, to be waited for
        self.jobs: dict[str, Job] = {}  # in the order of their coming
        self.folder.mkdir(parents=True, exist_ok=True)
        found = [job for path in self.folder.glob("*/job.json") if (job := _read(path))]
        for job in sorted(found, key=lambda job: job.created):
            self.jobs[job.id] = job

    def add(self, settings: Settings, dataset: str, overwrite: bool) -> Job:
        """Queue a training with these settings, whose run_dir is the name of the run.

        Raises
        ------
        Busy
            MAX_QUEUED wait already.
        Taken
            The run exists and may not be replaced, or is being written.
        """
        name = str(settings.run_dir)
        with self.lock:
            if any(job.run == name for job in self._in(("queued", "running"))):
                raise Taken(f"run {name}: a training of that name is queued or running; choose another name")
            if (self.root / name).exists() and not overwrite:
                raise Taken(f"run {name}: exists already; choose another name, or replace it with overwrite")
            if self.n_queued >= MAX_QUEUED:
                raise Busy(f"{MAX_QUEUED} trainings wait already; try again when one has ended")
            job = Job(secrets.token_hex(8), name, dataset, settings.training.epochs, overwrite, time.time())
            tree = settings.tree() | {"run_dir": str(self.root / name)}
            with script.folder_aside(self.folder / job.id) as folder:
                (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
                (folder / "job.json").write_text(json.dumps(asdict(job)), encoding="utf-8")
            self.jobs[job.id] = job
            return job

    def cancel(self, job_id: str) -> Job:
        """Take a job out of the queue, or ask its process to stop; Missing where there is none."""
        with self.lock:
            job = self._named(job_id)
            if job.state == "queued":
                return self._keep(replace(job, state="cancelled", cancelled=time.time(), ended=time.time()))
            if job.state == "running" and not job.cancelled:
                job = self._keep(replace(job, cancelled=time.time()))
                _signal(job, signal.SIGTERM)
            return job

    def advance(self) -> None:
        """Look after the running job, and start the next where none runs."""
        with self.lock:
            for job in self._in(("running",)):
                if not is_alive(job):
                    self._end(job)
                elif job.cancelled and time.time() > job.cancelled + GRACE_S:
                    _signal(job, signal.SIGKILL)
            for job_id, child in [*self.children.items()]:  # after the look above: who has ended there is taken up here
                if child.poll() is not None:
                    del self.children[job_id]
            waiting = next(self._in(("queued",)), None)
            if waiting and not any(self._in(("running",))):
                self._start(waiting)
            ended = [job.id for job in self._in(("finished", "failed", "cancelled"))]
            for job_id in ended[:-MAX_KEPT]:
                shutil.rmtree(self.folder / job_id, ignore_errors=True)
                del self.jobs[job_id]

    def status(self, job_id: str) -> dict[str, Any]:
        """Say how far a job is, as the service answers it; Missing where there is none."""
        with self.lock:
            job = self._named(job_id)
        folder = self.root / job.run
        line = last_epoch(folder, job.started) if job.state == "running" else job.line
        epoch = int(line.get("epoch", 0))
        left = None
        if job.state == "running" and epoch:
            written = (folder / runs.METRICS).stat().st_mtime
            left = max(0.0, (job.epochs - epoch) * (written - job.started) / epoch - (time.time() - written))
        place = sum(other.created < job.created for other in self._in(("queued",))) if job.state == "queued" else None
        return {
            "job_id": job.id,
            "state": job.state,
            "run": job.run,
            "dataset": job.dataset,
            "epoch": epoch,
            "epochs": job.epochs,
            "metrics": {name: value for name, value in line.items() if name != "epoch"},
            "eta_s": None if left is None else round(left, 1),
            "before": place,
            "error": job.error or None,
            "log": self._log(job.id),
        }

    @property
    def n_queued(self) -> int:
        """Trainings that wait."""
        return sum(1 for _ in self._in(("queued",)))

    def _log(self, job_id: str) -> list[str]:
        """Return the end of a log, without the folders of this machine."""
        lines = tail(self.folder / job_id / "log")
        for folder in self.hidden:
            lines = [line.replace(f"{folder}/", "") for line in lines]
        return lines

    def _named(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise Missing(f"training {job_id[:40]!r}: there is none of that id")
        return self.jobs[job_id]

    def _in(self, states: tuple[str, ...]) -> Iterator[Job]:
        with self.lock:
            return iter([job for job in self.jobs.values() if job.state in states])

    def _keep(self, job: Job) -> Job:
        """Write down what is known of a job now."""
        self.jobs[job.id] = job
        with script.aside(self.folder / job.id / "job.json") as temporary:
            temporary.write_text(json.dumps(asdict(job)), encoding="utf-8")
        return job

    def _start(self, job: Job) -> None:
        """Start the process of a job, in a session of its own: it outlives the service."""
        folder = self.folder / job.id
        words = [sys.executable, str(REPOSITORY / "train.py"), "--config", str(folder / "config.yaml")]
        words += ["--overwrite"] if job.overwrite else []
        # its settings are those of the request, and the token is not its business
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(config.ENV_PREFIX)}
        try:
            child = subprocess.Popen(
                ["/bin/sh", "-c", SHELL, "sh", *words], cwd=folder, env=kept, start_new_session=True
            )
        except OSError as error:
            self._keep(replace(job, state="failed", ended=time.time(), error=script.one_line(error)))
            return
        self.children[job.id] = child
        self._keep(replace(job, state="running", started=time.time(), pid=child.pid, born=born(child.pid)))

    def _end(self, job: Job) -> None:
        """Note how a job has ended: by the exit status that its shell has written, or without one."""
        folder = self.folder / job.id
        try:
            status = int((folder / "exit").read_text())
        except (OSError, ValueError):  # killed with its shell
            status = -1
        lines = self._log(job.id)
        state = "finished" if status == 0 else "cancelled" if job.cancelled else "failed"
        error = (lines[-1] if lines else "ended without a word") if state == "failed" else ""
        line = last_epoch(self.root / job.run, job.started)
        self._keep(replace(job, state=state, ended=time.time(), error=error, line=line))


def _read(path: Path) -> Job | None:
    """Read a job.json; of one that is damaged a warning is left, and no job."""
    try:
        return Job(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        print(f"warning: {path}: is left out: {script.one_line(error)}", file=sys.stderr)
        return None


def born(pid: int) -> str:
    """Return when a process began, "" of one that is gone or only waits to be waited for.

    Linux tells it in ticks since the machine began; elsewhere `ps` does, to the second.
    """
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id")
        return "" if fields[0] in "ZX" else f"{boot.read_text().strip()} {fields[19]}"
    told = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, since = told.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else since.strip()


def is_alive(job: Job) -> bool:
    """Tell whether the process of a job is there still, and is that one."""
    return bool(job.born) and born(job.pid) == job.born


def _signal(job: Job, number: int) -> None:
    """Send a signal to all processes of a job, if it is alive."""
    if is_alive(job):
        with suppress(ProcessLookupError):
            os.killpg(job.pid, number)


def tail(log: Path) -> list[str]:
    """Return the last lines of a log, of a progress bar what it shows last."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            text = file.read(LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line.strip()][-LOG_LINES:]


def last_epoch(folder: Path, since: float) -> dict[str, float]:
    """Return the last line of a run's metrics.csv, if it was written since then."""
    try:
        if (folder / runs.METRICS).stat().st_mtime < since:  # of the run that is replaced
            return {}
        return next(reversed(runs.epochs_of(folder)), {})
    except (OSError, ValueError):  # none yet, or half a line
        return {}


def settings_of(tree: dict[str, Any], base: dict[str, Any]) -> Settings:
    """Make the settings of a training of what a request asks for and of what its dataset and run fix.

    Raises
    ------
    Stop
        A setting that a request may not give, an unknown one, or a wrong value.
    """
    for section, values in tree.items():
        allowed = REQUESTED.get(section)
        if allowed is None:
            raise Stop(
                f"settings.{section}: may not be given; {', '.join(REQUESTED)} may{script.nearest(section, REQUESTED)}"
            )
        for key in values if isinstance(values, dict) and allowed else ():
            if key not in allowed:
                raise Stop(f"settings.{section}.{key}: may not be given; of {section} {', '.join(allowed)} may")
    settings = config.validated({"dataset": base, "settings": tree})
    known = _arguments_of(settings.model.name)
    for key in settings.model.arguments:
        if key not in known:
            raise Stop(f"settings.model.arguments: {settings.model.name} has no {key!r}{script.nearest(key, known)}")
    cores = os.cpu_count() or 1
    for key in ("workers", "threads"):
        if (asked := getattr(settings.training, key)) > cores:
            raise Stop(f"settings.training.{key} = {asked}: must be at most {cores}, the cores of this machine")
    return settings


def _arguments_of(network: str) -> dict[str, Any]:
    try:
        return models.arguments_of(network)
    except ValueError as error:
        raise Stop(f"settings.model.name: {error}") from error


# Sections of the settings that a request may give, of some only these keys: no path, and nothing that the prepared
# dataset has decided.
REQUESTED: dict[str, tuple[str, ...]] = {
    "model": (),
    "training": (),
    "data": ("train", "validation", "test", "scored_classes"),
}
