"""Load the service with clients that send records of 10 s and 12 leads, beside the bare model on the same records.

    python benchmarks/api.py
    python benchmarks/api.py --clients 50 --seconds 20 --run runs/demo

The service is `apps/api.py` in a process of its own on this machine; the clients are in this one, and take their share
of the cores. CPU is the processor time of the process that
predicts, for each record. Records are simulated and sent as WFDB in format 16, `.hea` and `.dat`, 120 kB each. Without
--run a network is trained for an epoch on a few simulated patients: what it says is worth nothing, what it costs is
the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bundle
import infer
import readers
import runs
import script
import simulate
from benchmarks.machine import REPOSITORY, check_folder, describe
from bundle import Bundle
from script import Stop

WARM_UP_S = 2.0
LISTENS = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")


class Line(NamedTuple):
    """A line of the table."""

    name: str
    seconds: list[float]  # of each record
    wall_s: float
    cpu_s: float  # of the process that predicts
    errors: int = 0

    def __str__(self) -> str:
        p50, p99 = np.percentile(self.seconds, [50, 99]) * 1000
        rate = len(self.seconds) / self.wall_s
        cpu = self.cpu_s / len(self.seconds) * 1000
        return f"{self.name:<36}{rate:>10,.0f}{p50:>10.1f}{p99:>10.1f}{cpu:>10.1f}{self.errors:>8}"


class Serving(NamedTuple):
    """The service at work."""

    process: subprocess.Popen[str]
    port: int


def train_demo(folder: Path) -> Path:
    """Simulate a few patients and train a network on them for an epoch."""
    simulate.write_demo(folder / "demo", n_patients=40, seed=1)
    words = ["--data.raw", str(folder / "demo"), "--data.dir", str(folder / "prepared" / "demo")]
    run = folder / "runs" / "demo"
    trained = ["--run", str(run), "--training.epochs", "1", "--training.batch_size", "16"]
    for name, more in (("preprocess.py", []), ("train.py", trained)):
        command = [sys.executable, str(REPOSITORY / name), *words, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Stop(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return run


def write_records(folder: Path, n_records: int) -> list[Path]:
    """Write simulated records of 10 s at 500 Hz."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(n_records):
        patient = simulate.simulate_patient(rng)
        signal = simulate.simulate_record(rng, patient, (), simulate.DURATION_S, simulate.FS)[0]
        simulate.write_signal(folder, f"r{number:03d}", signal, simulate.FS, [simulate.MARK])
    return sorted(folder.glob("*.hea"))


# ------------------------------------------------------------------------------------------------ the bare model


def timed(name: str, function: Callable[[Path], object], paths: Sequence[Path], seconds: float) -> Line:
    """Call a function on one record after another for so long."""
    times: list[float] = []
    for path in paths[:5]:
        function(path)
    start = now = time.perf_counter()
    cpu = time.process_time()
    while now < start + seconds:
        function(paths[len(times) % len(paths)])
        times.append(time.perf_counter() - now)
        now = time.perf_counter()
    return Line(name, times, now - start, time.process_time() - cpu)


def bare(trained: Bundle, paths: Sequence[Path], seconds: float) -> list[Line]:
    """Time infer.py's functions in this process, and the network alone."""
    batches = {}
    for path in paths:
        fed = infer.feed(readers.read(path), trained)
        batches[path] = list(infer.batches_of(fed.prepared, fed.context, len(trained.classes), 512))
    return [
        timed("network alone, a record at a time", lambda path: bundle.score(trained, batches[path]), paths, seconds),
        timed(
            "infer.predict_record, one process",
            lambda path: infer.predict_record(readers.read(path), trained, "demo").to_json(),
            paths,
            seconds,
        ),
    ]


# ------------------------------------------------------------------------------------------------ the service


def cpu_of(pid: int) -> float:
    """Return the processor time that a process has used, s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(service: Serving, requests: Sequence[bytes], n_clients: int, seconds: float) -> Line:
    """Let clients send one record after another, each on a connection of its own that stays open."""
    times: list[float] = []
    failed: Counter[str] = Counter()
    start = time.perf_counter() + WARM_UP_S
    end = start + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        while (begun := time.perf_counter()) < end:
            writer.write(requests[number % len(requests)])
            status, body = await answer_of(reader)
            number += 1
            if begun >= start:
                times.append(time.perf_counter() - begun)
                failed.update([] if status == 200 and b'"findings"' in body else [f"{status} {body[:200]!r}"])
        writer.close()

    clients = [asyncio.ensure_future(client(number)) for number in range(n_clients)]
    await asyncio.sleep(WARM_UP_S)
    cpu = cpu_of(service.process.pid)
    await asyncio.gather(*clients)
    cpu, wall_s = cpu_of(service.process.pid) - cpu, time.perf_counter() - start
    for text, n in failed.most_common(3):
        print(f"{n} x {text}", file=sys.stderr)
    return Line(f"service, {n_clients} clients", times, wall_s, cpu, failed.total())


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one answer: httpx takes more processor time for a request than the service for its answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = re.search(r"content-length: (\d+)", head)
    return int(head.split(" ")[1]), await reader.readexactly(int(length[1]) if length else 0)


def requests_of(paths: Sequence[Path], run: str) -> list[bytes]:
    """Return a request for each record, made beforehand."""
    made = []
    for path in paths:
        files = [("files", (each.name, each.read_bytes())) for each in (path, path.with_suffix(".dat"))]
        request = httpx.Request("POST", "http://localhost/predict", files=files, data={"run": run})
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        made.append("\r\n".join(["POST /predict HTTP/1.1", *lines, "", ""]).encode() + request.read())
    return made


def serve(run: Path, folder: Path) -> Serving:
    """Start the service."""
    words = ["--port", "0", "--runs", str(run.parent.absolute()), "--state", str(folder / "state")]
    command = [sys.executable, str(REPOSITORY / "apps" / "api.py"), *words, "--prepared", str(folder / "prepared")]
    environment = {key: value for key, value in os.environ.items() if key != "ECG_API_TOKEN"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr
    lines = []
    for line in process.stderr:
        if found := LISTENS.match(line):
            return Serving(process, int(found[1]))
        lines.append(line)
    raise Stop(f"apps/api.py: {''.join(lines[-1:]).strip()}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 50], help="at a time")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--records", type=int, default=64, help="that are sent again and again")
    parser.add_argument(
        "--run", type=Path, metavar="FOLDER", help="of a network for 12 leads; one is trained if absent"
    )
    arguments = parser.parse_args(argv)
    if min(*arguments.clients, arguments.records, 1) < 1:
        raise Stop("--clients and --records: must be at least 1")
    if arguments.run:
        check_folder(arguments.run, "give the folder of a run, or leave --run away")
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = arguments.run or train_demo(folder)
        trained = bundle.load(runs.checkpoint_of(run))
        paths = write_records(folder / "records", arguments.records)
        print(
            f"{trained.name}, {arguments.records} records of 12 leads x 10 s at 500 Hz, {arguments.seconds:g} s each\n"
        )
        print(f"{'':<36}{'records/s':>10}{'p50 (ms)':>10}{'p99 (ms)':>10}{'CPU (ms)':>10}{'errors':>8}")
        for line in bare(trained, paths, arguments.seconds):
            print(line, flush=True)
        requests = requests_of(paths, run.name)
        service = serve(run, folder)
        try:
            for n_clients in arguments.clients:
                print(asyncio.run(load(service, requests, n_clients, arguments.seconds)), flush=True)
        finally:
            service.process.terminate()
            service.process.wait()


if __name__ == "__main__":
    script.run(main)
