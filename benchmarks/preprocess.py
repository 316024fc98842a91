"""preprocess.py beside a plain script: speed, memory, threads. Needs Linux and about 4 GB of disk for a while.

    python benchmarks/preprocess.py
    python benchmarks/preprocess.py --fs 100 --folder /mnt/scratch
    python benchmarks/preprocess.py --datasets ~/data      # every dataset instead: records a second, failures, memory

The records are 12 leads, 10 s, 500 Hz, format 16, simulated: `--records` headers that share `--files` signal files, so
that all are in the page cache. Both sides run as processes of their own, on one thread, in turn; figures are medians.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pqrst
import simulate
from benchmarks import machine, sources
from benchmarks.machine import REPOSITORY, peak_memory
from recipe import Recipe

N_SHAPES = 200  # distinct simulated signals; the others are these under other noise
NOISE_MV = 0.01
RUNS = 3  # of each script
REPEATS = 9  # of pqrst.prepare on each number of threads


# ------------------------------------------------------------------------------------------------ the records


def write_records(folder: Path, n_records: int, n_files: int) -> None:
    """Headers that share the first `n_files` signal files, and records.csv: a folder as source `demo` reads it."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    shapes = []
    for _ in range(min(N_SHAPES, n_files)):
        patient = simulate.simulate_patient(rng)
        shapes.append(simulate.simulate_record(rng, patient, (), simulate.DURATION_S, simulate.FS)[0])
    for number in range(n_records):
        name, shared = f"r{number:05d}", f"r{number % n_files:05d}"
        if name == shared:
            signal = shapes[number % len(shapes)]
            noise = NOISE_MV * rng.standard_normal(signal.shape, np.float32)
            simulate.write_signal(folder, name, signal + noise, simulate.FS, [])
        else:
            header = (folder / f"{shared}.hea").read_text()
            (folder / f"{name}.hea").write_text(header.replace(shared, name, 1))
    with (folder / "records.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["record", "patient", *simulate.CLASSES])
        for number in range(n_records):
            labels = [int(rng.random() < 0.15) for _ in simulate.CLASSES]
            table.writerow([f"r{number:05d}", f"p{number // 2:05d}", *labels])


def first_records(raw: Path, folder: Path, n_records: int) -> None:
    """A folder with the first records of `raw`, which have signal files of their own."""
    folder.mkdir()
    with (raw / "records.csv").open() as file:
        lines = list(itertools.islice(file, n_records + 1))
    (folder / "records.csv").write_text("".join(lines))
    for number in range(n_records):
        for name in (f"r{number:05d}.hea", f"r{number:05d}.dat"):
            (folder / name).hardlink_to(raw / name)


# ------------------------------------------------------------------------------------------------ the two sides


class Run(NamedTuple):
    """One run of preprocess.py, seconds and bytes."""

    start_s: float  # from the start of the process to that of the index
    index_s: float
    rows_s: float  # between the first and the last record
    whole_s: float
    peak: float  # resident memory


def run_preprocess(raw: Path, out: Path, fs: int, seed: int) -> Run:
    """Another seed replaces what a run before has left, as a user's second attempt does."""
    words = ["--data.raw", str(raw), "--data.dir", str(out), "--recipe.fs", str(fs), "--workers", "1"]
    words += ["--data.seed", str(seed), "--overwrite"]
    started, clock = time.time(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "preprocess.py"), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, peak_memory(process.pid))
        time.sleep(0.02)
    whole = time.perf_counter() - clock
    if process.returncode:
        assert process.stderr
        sys.exit(process.stderr.read())
    log = json.loads((out / "prepare.log.json").read_text())
    index, first, last = (
        datetime.fromisoformat(log["began"][stage]).timestamp() for stage in ("index", "rows", "summary")
    )
    return Run(index - started, first - index, last - first, whole, peak)


def run_plain(raw: Path, out: Path, n_records: int, fs: int) -> float:
    command = [sys.executable, str(REPOSITORY / "benchmarks/plain.py"), str(raw), str(out)]
    command += ["--records", str(n_records), "--fs", str(fs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def largest_difference(prepared: Path, plain: Path) -> float:
    """Between the rows of the two sides, as far as the plain one goes."""
    worst, done = 0.0, 0
    with h5py.File(plain, "r") as reference:
        n_rows = len(reference["signals"])
        for part in sorted(prepared.glob("part-*.h5")):
            with h5py.File(part, "r") as file:
                rows = file["signals"]
                for start in range(0, min(len(rows), n_rows - done), 100):
                    mine = rows[start : min(start + 100, n_rows - done)].astype(np.float32)
                    theirs = reference["signals"][done + start : done + start + len(mine)].astype(np.float32)
                    worst = max(worst, float(np.abs(mine - theirs).max()))
                done += len(rows)
            if done >= n_rows:
                break
    return worst


# ------------------------------------------------------------------------------------------------ threads


def thread_ratio(raw: Path, n_records: int, recipe: dict[str, Any]) -> float:
    """Time of pqrst.prepare on one thread over that on two, each the median of a few calls in turn."""
    paths = [raw / f"r{number:05d}.hea" for number in range(n_records)]
    out = np.zeros((n_records, len(recipe["leads"]), pqrst.row_samples(recipe)), recipe["dtype"])
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(REPEATS):
        for n_threads, here in times.items():
            started = time.perf_counter()
            pqrst.prepare(paths, recipe, out=out, n_threads=n_threads)
            here.append(time.perf_counter() - started)
    return float(np.median(times[1]) / np.median(times[2]))


# ------------------------------------------------------------------------------------------------ the table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=2_000, help="signal files that they share")
    parser.add_argument("--fs", type=int, default=500, help="rate of the rows, Hz")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    parser.add_argument("--datasets", type=Path, metavar="DATA", help="the folder above mitdb/, ptb-xl/ ..., or none")
    options = parser.parse_args()
    if options.datasets:
        sources.print_table(options.datasets, options.records, options.folder)
        return
    few = min(options.files, options.records)
    recipe = Recipe(fs=options.fs).tree()
    print(machine.describe())
    print(f"12 leads, 10 s, 500 -> {options.fs} Hz, format 16, float16 rows; one thread on both sides", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        raw, few_raw, reference = Path(name, "raw"), Path(name, "few"), Path(name, "plain.h5")
        write_records(raw, options.records, few)
        first_records(raw, few_raw, few)
        plain_times, few_runs, runs, ratios = [], [], [], []
        for seed in range(RUNS):
            plain_times.append(run_plain(raw, reference, few, options.fs))
            few_runs.append(run_preprocess(few_raw, Path(name, "few_out"), options.fs, seed))
            ratios.append(thread_ratio(raw, min(1000, few), recipe))
            runs.append(run_preprocess(raw, Path(name, "out"), options.fs, seed))
        difference = largest_difference(Path(name, "out"), reference)

    small, whole = (Run(*np.median(columns, axis=0)) for columns in (few_runs, runs))
    rate, plain_rate = options.records / whole.rows_s, few / float(np.median(plain_times))
    print(f"\n{'':34}{'rows/s':>10}{'us per row':>12}")
    print(f"{f'wfdb, SciPy, h5py: {few:,}':34}{plain_rate:10,.0f}{1e6 / plain_rate:12,.0f}")
    print(f"{f'preprocess.py: {options.records:,}':34}{rate:10,.0f}{1e6 / rate:12,.0f}")
    print(f"{'ratio, first to last record':34}{rate / plain_rate:9.1f}x")
    print(f"{'ratio, the whole of preprocess.py':34}{options.records / whole.whole_s / plain_rate:9.1f}x")
    print(f"{'largest difference':34}{difference:10.1e}")
    print(f"\n{'preprocess.py, s':20}{'start':>8}{'index':>8}{'rows':>8}{'whole':>8}{'peak MB':>10}")
    for count, run in ((few, small), (options.records, whole)):
        print(
            f"{f'{count:,} records':20}{run.start_s:8.2f}{run.index_s:8.2f}{run.rows_s:8.2f}{run.whole_s:8.2f}"
            f"{run.peak / 1e6:10.1f}"
        )
    print(f"\npqrst.prepare, two threads against one: {np.median(ratios):.2f}x")


if __name__ == "__main__":
    main()
