"""Compare batches of data.py with those of one compressed .npz per record, plain and augmented.

    python benchmarks/batches.py
    python benchmarks/batches.py --patients 100 --folder /mnt/scratch

Rows of 12 leads and 10 s at 100 Hz as float16, in batches of 64 in random order, all in the page cache, on one thread.
The other side reads each record's file with NumPy, and augments with NumPy's generator and sine. Both run in turn; the
figures are medians.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import preprocess
import script
import simulate
from batches import Batches
from benchmarks import machine
from data import Dataset

AMOUNTS = {"noise": 0.05, "gain": 0.2, "wander": 0.1, "shift_s": 0.1}
BATCH = 64
RUNS = 5


def write_npz(dataset: Dataset, folder: Path) -> list[Path]:
    """Write each row into a compressed file of its own; returns their paths in the order of the rows."""
    paths = []
    for row in range(len(dataset)):
        paths.append(folder / f"{row}.npz")
        np.savez_compressed(paths[-1], signal=dataset.signals(np.array([row]))[0])
    return paths


def plain_batch(paths: Sequence[Path], rows: NDArray[np.int64]) -> NDArray[Any]:
    return np.stack([np.load(paths[row])["signal"] for row in rows])


def plain_augmented(x: NDArray[Any], rng: np.random.Generator, fs: float) -> NDArray[np.float32]:
    """Augment a batch as one would with NumPy: the same laws, other numbers."""
    x = x.astype(np.float32)
    t = np.arange(x.shape[2])
    most = round(AMOUNTS["shift_s"] * fs)
    for row in x:
        row[:] = row[:, np.clip(t + rng.integers(-most, most + 1), 0, len(t) - 1)]
    x *= rng.uniform(1 - AMOUNTS["gain"], 1 + AMOUNTS["gain"], (len(x), 1, 1)).astype(np.float32)
    hz, phase = rng.uniform(0.05, 0.5, (len(x), 1, 1)), rng.uniform(0, 2 * np.pi, (*x.shape[:2], 1))
    amplitude = rng.uniform(0, AMOUNTS["wander"], (*x.shape[:2], 1))
    x += (amplitude * np.sin(2 * np.pi * hz * t / fs + phase)).astype(np.float32)
    x += np.float32(AMOUNTS["noise"]) * rng.standard_normal(x.shape, np.float32)
    return x


def rate(batch_of: Callable[[NDArray[np.int64]], Any], n_rows: int, n_batches: int, seed: int) -> float:
    """Return rows per second over some batches."""
    order = np.random.default_rng(seed).permutation(n_rows)
    batches = [order[k * BATCH % max(1, n_rows - BATCH) :][:BATCH] for k in range(n_batches)]
    started = time.perf_counter()
    for rows in batches:
        batch_of(rows)
    return sum(map(len, batches)) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--patients", type=int, default=500, help="simulated, about two records each")
    parser.add_argument("--folder", type=Path, help="make the temporary folder in this one")
    options = parser.parse_args()
    if options.folder:
        machine.check_folder(options.folder, "give --folder an existing one")
    print(machine.describe())
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        raw, prepared, npz = Path(name, "raw"), Path(name, "prepared"), Path(name, "npz")
        npz.mkdir()
        simulate.write_demo(raw, options.patients)
        preprocess.main(["--data.raw", str(raw), "--data.dir", str(prepared)])
        dataset = Dataset(prepared)
        paths, rng = write_npz(dataset, npz), np.random.default_rng(0)
        mapped, augmented = Batches(dataset), Batches(dataset, AMOUNTS)
        sides: dict[str, tuple[Callable[[NDArray[np.int64]], Any], int]] = {
            "memory map": (mapped.__getitem__, 400),
            "one .npz per record": (lambda rows: plain_batch(paths, rows), 10),
            "memory map, augmented": (augmented.__getitem__, 100),
            "one .npz per record, augmented": (
                lambda rows: plain_augmented(plain_batch(paths, rows), rng, dataset.recipe.fs),
                10,
            ),
            "memory map, augmented by NumPy": (
                lambda rows: plain_augmented(mapped[rows].signal, rng, dataset.recipe.fs),
                10,
            ),
        }
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for run in range(RUNS):
            for side, (batch_of, n_batches) in sides.items():
                rates[side].append(rate(batch_of, len(dataset), n_batches, run))
    print(f"\n{len(dataset):,} rows (12, {dataset.summary.row_samples}) float16, batches of {BATCH}")
    print(f"{'':34}{'rows/s':>10}{'us per row':>12}")
    for side, values in rates.items():
        print(f"{side:34}{np.median(values):10,.0f}{1e6 / np.median(values):12,.1f}")


if __name__ == "__main__":
    script.run(main)
