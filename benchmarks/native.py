"""Time the extension beside the tools that a user would take instead: medians in one run, on one thread.

    python benchmarks/native.py

Prints machine and versions, then a table. Its columns are the task, the reference, both medians with their spread, the
ratio and the error: the largest difference from the reference in float64, relative to its largest value. The last lines
compare the whole chain with the least time that this machine could need for it.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read when NumPy loads

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import wfdb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pqrst
import script
import simulate
from benchmarks import machine
from recipe import Recipe

SECONDS = 1.0  # spent on timing each function


def measure(function: Callable[[], Any]) -> tuple[float, float]:
    """Return the median time of one call, s, and its spread: the distance of the quartiles over the median."""
    function()
    times: list[float] = []
    deadline = time.perf_counter() + SECONDS
    while time.perf_counter() < deadline or len(times) < 5:
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    low, median, high = np.percentile(times, [25, 50, 75])
    return float(median), float((high - low) / median)


def row(task: str, ours: Callable[[], Any], reference_name: str, reference: Callable[[], Any]) -> float:
    """Print one line of the table. Return the median time of `ours`, s."""
    mine, spread = measure(ours)
    other, other_spread = measure(reference)
    expected = np.asarray(reference(), np.float64)
    error = np.nanmax(np.abs(np.asarray(ours(), np.float64) - expected)) / np.nanmax(np.abs(expected))
    print(
        f"{task:34} {reference_name:22} {mine * 1e6:9.1f} us ±{spread:4.0%} {other * 1e6:11.1f} us ±{other_spread:4.0%}"
        f" {other / mine:7.1f}x {error:9.1e}"
    )
    return mine


def limits(chain_s: float) -> None:
    """Print the least time for the chain of 12 leads x 5,000 samples: its arithmetic alone, then its memory alone."""
    a = np.random.default_rng(0).standard_normal((512, 512))
    fma_rate = 512**3 / measure(lambda: a @ a)[0]
    source, target = np.zeros(60_000), np.zeros(60_000)  # as large as the filtered record: fits the second-level cache
    copy_rate = 2 * source.nbytes / measure(lambda: np.copyto(target, source))[0]
    values = 60_000
    # per sample: in the band-pass two for each of 3 sections, forward and backward, padding included (5042 samples);
    # for mean and deviation one, for the scaling two
    n_fma = 2 * 3 * 2 * 12 * 5042 + 3 * values
    # bytes per value: stored code read and copied 2 + 2, float32 written and read 4 + 4, filtered float64 written 8 and
    # read twice 8 + 8, float16 written 2
    n_bytes = (2 + 2 + 4 + 4 + 8 + 8 + 8 + 2) * values
    arithmetic, memory = n_fma / fma_rate, n_bytes / copy_rate
    print(
        f"the chain's limits: {n_fma / 1e6:.2f} M fused multiply-adds at {fma_rate / 1e9:.0f} G/s (matrix product) "
        f"take {arithmetic * 1e6:.0f} us,\n{n_bytes / 1e6:.1f} MB at {copy_rate / 1e9:.0f} GB/s (copy of 480 kB) "
        f"{memory * 1e6:.0f} us: the chain takes {chain_s / (arithmetic + memory):.1f} times their sum"
    )


def by_hand(path: str, recipe: Recipe) -> np.ndarray[Any, Any]:
    """Prepare one record with wfdb, SciPy and NumPy. Return (L, T) float16."""
    assert recipe.bandpass
    record = wfdb.rdrecord(path)
    band = [recipe.bandpass.low_hz, recipe.bandpass.high_hz]
    sections = scipy.signal.butter(recipe.bandpass.order, band, "bandpass", fs=record.fs, output="sos")
    x = scipy.signal.sosfiltfilt(sections, record.p_signal.T)
    ratio = Fraction(round(recipe.fs), round(record.fs))
    x = scipy.signal.resample_poly(x, ratio.numerator, ratio.denominator, axis=1)
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    return np.asarray(x, np.float16)


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    rng = np.random.default_rng(0)
    x64 = rng.standard_normal((12, 5000)).cumsum(axis=1)
    x32 = x64.astype(np.float32)
    exact = x32.astype(np.float64)
    print(f"{machine.describe()}\nmedians with quartile spread, one thread; float32 here, float64 there")
    print(f"{'':34} {'reference':22} {'pqrst':>17} {'reference':>19} {'ratio':>7} {'max error':>9}")

    sections = scipy.signal.butter(3, [0.5, 40], "bandpass", fs=500, output="sos")
    row(
        "bandpass 12 x 5000, order 3",
        lambda: pqrst.bandpass(x32, 500, 0.5, 40.0),
        "sosfiltfilt",
        lambda: scipy.signal.sosfiltfilt(sections, exact),
    )
    for fs_in, fs_out in ((360, 500), (400, 500), (1000, 500), (500, 100)):
        x, ratio = np.ascontiguousarray(np.tile(x32, 2)[:, : 10 * fs_in]), Fraction(fs_out, fs_in)
        row(
            f"resample 12 x {10 * fs_in}, {fs_in} -> {fs_out}",
            partial(pqrst.resample, x, fs_in, fs_out),
            "resample_poly",
            partial(scipy.signal.resample_poly, x.astype(np.float64), ratio.numerator, ratio.denominator, axis=1),
        )
    row(
        "zscore 12 x 5000",
        lambda: pqrst.zscore(x32),
        "mean, std",
        lambda: (exact - exact.mean(axis=1, keepdims=True)) / exact.std(axis=1, keepdims=True),
    )
    centers = np.sort(rng.integers(200, 640_000, 2000))
    long = rng.standard_normal((2, 650_000)).astype(np.float32)
    row(
        "segment 2000 beats x 2 x 187",
        lambda: pqrst.segment(long, centers, 187),
        "fancy indexing",
        lambda: long[:, centers[:, None] + np.arange(-93, 94)].transpose(1, 0, 2),
    )
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(1)
        patient = simulate.simulate_patient(generator)
        signal, r_peaks, symbols = simulate.simulate_record(generator, patient, (), 10.0, 500.0)
        simulate.write_signal(Path(folder), "short", signal, 500.0, [])
        signal, r_peaks, symbols = simulate.simulate_record(generator, patient, (), 1800.0, 360.0)
        wfdb.wrann("long", "atr", r_peaks, symbols, write_dir=folder)
        two = np.ascontiguousarray(signal[[1, 6]].T)
        wfdb.wrsamp("long", 360, ["mV"] * 2, ["MLII", "V1"], two, fmt=["212"] * 2, write_dir=folder)
        exam, holter = f"{folder}/short", f"{folder}/long"
        row("read 12 x 5000, format 16", lambda: pqrst.read(exam).signal, "rdrecord", lambda: _signal(exam))
        row("read 2 x 648000, format 212", lambda: pqrst.read(holter).signal, "rdrecord", lambda: _signal(holter))
        row(
            f"read_annotations, {len(r_peaks)} beats",
            lambda: pqrst.read_annotations(holter, "atr").sample,
            "rdann",
            lambda: wfdb.rdann(holter, "atr").sample,
        )
        recipe = Recipe(fs=500.0)
        tree = recipe.tree()
        signal, _, _ = simulate.simulate_record(generator, patient, (), 10.0, 1000.0)
        simulate.write_signal(Path(folder), "double", signal, 1000.0, [])
        chain_s = [
            row(
                f"record -> prepared, {fs} -> 500 Hz",
                partial(_prepared, path, tree),
                "wfdb, SciPy, NumPy",
                partial(by_hand, path, recipe),
            )
            for path, fs in ((exam, 500), (f"{folder}/double", 1000))
        ]
    limits(chain_s[0])


def _prepared(path: str, recipe: dict[str, Any]) -> Any:
    return pqrst.prepare(path, recipe).rows[0]


def _signal(path: str) -> np.ndarray[Any, Any]:
    return np.asarray(wfdb.rdrecord(path).p_signal.T)


if __name__ == "__main__":
    script.run(main)
