"""Compare preprocess.py with a plain script in speed, memory and threads.

    python benchmarks/preprocess.py
    python benchmarks/preprocess.py --fs 100 --folder /mnt/scratch
    python benchmarks/preprocess.py --datasets ~/data      # records/s, memory, failures of each dataset

Needs Linux and about 4 GB of disk for a while. The records are simulated: 12 leads, 10 s, 500 Hz, format 16. To fit
the page cache, `--records` headers share `--files` signal files. Both sides run in turn, each in a process of its own,
on one thread. The figures are medians.
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
import script
import simulate
from benchmarks import machine, sources
from benchmarks.machine import REPOSITORY, check_folder, peak_memory, reason
from recipe import Recipe
from script import Stop

N_SHAPES = 200  # distinct simulated signals; the other files repeat them with other noise
NOISE_MV = 0.01
RUNS = 3  # of each script
REPEATS = 9  # of pqrst.prepare on one thread and on two


# ------------------------------------------------------------------------------------------------ the records


def write_records(folder: Path, n_records: int, n_files: int) -> None:
    """Write a folder for source `demo`: records.csv, and headers that share the first `n_files` signal files."""
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
    """Make a folder with the first records of `raw`. Each of these has a signal file of its own."""
    folder.mkdir()
    with (raw / "records.csv").open() as file:
        lines = list(itertools.islice(file, n_records + 1))
    (folder / "records.csv").write_text("".join(lines))
    for number in range(n_records):
        for name in (f"r{number:05d}.hea", f"r{number:05d}.dat"):
            (folder / name).hardlink_to(raw / name)


# ------------------------------------------------------------------------------------------------ the two sides


class Run(NamedTuple):
    """Times and memory of one run of preprocess.py."""

    start_s: float  # from the start of the process to the start of the index
    index_s: float
    rows_s: float  # between the first and the last record
    whole_s: float
    peak: float  # bytes of resident memory, at most


def run_preprocess(raw: Path, out: Path, fs: int, seed: int) -> Run:
    """Run preprocess.py in a process of its own.

    A new seed with --overwrite makes it prepare everything again in the same folder, as a user's second attempt does.

    Raises
    ------
    Stop
        preprocess.py fails, for example because there are fewer patients than folds.
    """
    arguments = ["--data.raw", str(raw), "--data.dir", str(out), "--recipe.fs", str(fs), "--workers", "1"]
    arguments += ["--data.seed", str(seed), "--overwrite"]
    started, clock = time.time(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "preprocess.py"), *arguments],
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
        raise Stop(f"preprocess.py failed: {reason(process.stderr.read(), process.returncode).removeprefix('error: ')}")
    log = json.loads((out / "prepare.log.json").read_text())
    index, first, last = (
        datetime.fromisoformat(log["began"][stage]).timestamp() for stage in ("index", "rows", "summary")
    )
    return Run(index - started, first - index, last - first, whole, peak)


def run_plain(raw: Path, out: Path, n_records: int, fs: int) -> float:
    """Return the seconds that benchmarks/plain.py takes from the first record to the last."""
    command = [sys.executable, str(REPOSITORY / "benchmarks/plain.py"), str(raw), str(out)]
    command += ["--records", str(n_records), "--fs", str(fs)]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    if process.returncode:
        raise Stop(f"benchmarks/plain.py failed: {reason(process.stderr, process.returncode).removeprefix('error: ')}")
    return float(process.stdout)


def largest_difference(prepared: Path, plain: Path) -> float:
    """Return the largest difference between the rows of the two sides, over all rows of the plain script."""
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
    """Return the time of pqrst.prepare on one thread over its time on two: medians of REPEATS calls in turn."""
    paths = [raw / f"r{number:05d}.hea" for number in range(n_records)]
    out = np.zeros((n_records, len(recipe["leads"]), pqrst.row_samples(recipe)), recipe["dtype"])
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(REPEATS):
        for n_threads, durations in times.items():
            started = time.perf_counter()
            pqrst.prepare(paths, recipe, out=out, n_threads=n_threads)
            durations.append(time.perf_counter() - started)
    return float(np.median(times[1]) / np.median(times[2]))


# ------------------------------------------------------------------------------------------------ the table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--files", type=int, default=2_000, help="signal files that the records share")
    parser.add_argument("--fs", type=int, default=500, help="rate of the rows, Hz")
    parser.add_argument("--folder", type=Path, help="make the temporary folder in this one")
    parser.add_argument("--datasets", type=Path, metavar="DATA", help="folder that holds mitdb/, ptb-xl/, ...")
    options = parser.parse_args()
    for name in ("records", "files", "fs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    if options.folder:
        check_folder(options.folder, "give --folder an existing one")
    if options.datasets:
        check_folder(options.datasets, "give --datasets the one that holds mitdb/, ptb-xl/, ...")
        sources.print_table(options.datasets, options.records, options.folder)
        return
    n_small = min(options.files, options.records)  # records of the plain script, which is slow
    recipe = Recipe(fs=options.fs).tree()
    print(machine.describe())
    print(f"12 leads, 10 s, 500 -> {options.fs} Hz, format 16, float16 rows; one thread on both sides", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        raw, small_raw, reference = Path(name, "raw"), Path(name, "small"), Path(name, "plain.h5")
        write_records(raw, options.records, n_small)
        first_records(raw, small_raw, n_small)
        plain_times, small_runs, large_runs, ratios = [], [], [], []
        for seed in range(RUNS):
            plain_times.append(run_plain(raw, reference, n_small, options.fs))
            small_runs.append(run_preprocess(small_raw, Path(name, "small_out"), options.fs, seed))
            ratios.append(thread_ratio(raw, min(1000, n_small), recipe))
            large_runs.append(run_preprocess(raw, Path(name, "out"), options.fs, seed))
        difference = largest_difference(Path(name, "out"), reference)

    small, large = (Run(*np.median(columns, axis=0)) for columns in (small_runs, large_runs))
    rate, plain_rate = options.records / large.rows_s, n_small / float(np.median(plain_times))
    print(f"\n{'':34}{'rows/s':>10}{'us per row':>12}")
    print(f"{f'wfdb, SciPy, h5py: {n_small:,}':34}{plain_rate:10,.0f}{1e6 / plain_rate:12,.0f}")
    print(f"{f'preprocess.py: {options.records:,}':34}{rate:10,.0f}{1e6 / rate:12,.0f}")
    print(f"{'ratio, first to last record':34}{rate / plain_rate:9.1f}x")
    print(f"{'ratio, the whole of preprocess.py':34}{options.records / large.whole_s / plain_rate:9.1f}x")
    print(f"{'largest difference':34}{difference:10.1e}")
    print(f"\n{'preprocess.py, s':20}{'start':>8}{'index':>8}{'rows':>8}{'whole':>8}{'peak MB':>10}")
    for count, run in ((n_small, small), (options.records, large)):
        print(
            f"{f'{count:,} records':20}{run.start_s:8.2f}{run.index_s:8.2f}{run.rows_s:8.2f}{run.whole_s:8.2f}"
            f"{run.peak / 1e6:10.1f}"
        )
    print(f"\npqrst.prepare, two threads against one: {np.median(ratios):.2f}x")


if __name__ == "__main__":
    script.run(main)
