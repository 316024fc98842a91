"""Export every network of the registry and compare it with PyTorch: a Markdown table.

    python benchmarks/export.py
    python benchmarks/export.py cnn1d s4

Networks have fresh weights and their default sizes: 12 leads and rows of 10 s at 100 Hz, those of beats 2 leads and 0.6
s. Differences are the largest of batches of 1, 3 and 64 at two lengths, relative where a logit is above 1. The time is
that of a batch of 64 on one thread, median. The traces of LSTMs by torch.export take minutes.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # read when NumPy loads

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import export
import models
import script
from benchmarks import machine
from bundle import Bundle, Origin
from recipe import TWELVE_LEADS, Recipe, Window
from script import Stop

OF_BEATS = ("beatcnn", "beatview")
N_ROWS, LEAST_S, MOST_CALLS = 64, 3.0, 30  # of the timing


def made(name: str) -> Bundle:
    """Return a network with fresh weights, and batch norm that has seen some rows."""
    torch.manual_seed(0)
    leads, n_samples = (("MLII", "V1"), 60) if name in OF_BEATS else (TWELVE_LEADS, 1000)
    recipe = Recipe(leads=tuple((lead,) for lead in leads), window=Window(samples=n_samples))
    network = models.build(name, len(leads), 5)
    with torch.no_grad():
        network(*export.inputs_for(network, len(leads), 8, n_samples).values())
    return Bundle(network.eval(), name, {}, recipe, tuple("abcde"), "multilabel", None, Origin("", None))


def median_ms(call: Callable[[], Any]) -> float:
    """Return the median time of a call, ms."""
    call()
    times: list[float] = []
    while len(times) < MOST_CALLS and sum(times) < LEAST_S:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def onnx_ms(path: Path, inputs: dict[str, Tensor]) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {name: tensor.numpy() for name, tensor in inputs.items()}
    return median_ms(lambda: session.run(None, feed))


def line(name: str, file_format: str, folder: Path) -> str:
    """Export a network and return its line of the table."""
    trained, path = made(name), folder / f"{name}{export.SUFFIXES[file_format]}"
    start = time.perf_counter()
    try:
        written = export.export(trained, path, file_format)
    except Stop as error:
        return f"| {name} | {file_format} | refused: {error} | | | | | |"
    took = time.perf_counter() - start
    n_samples = export.row_samples(trained)
    inputs = export.inputs_for(trained.network, len(trained.recipe.leads), N_ROWS, n_samples)
    with torch.inference_mode():
        of_torch = median_ms(lambda: trained.network(*inputs.values()))
        if file_format == "onnx":
            of_file = onnx_ms(path, inputs)
        else:
            logits_of = export.OPENERS["torch"](path)
            of_file = median_ms(lambda: logits_of(inputs))
    lengths = f"{written.shortest}" + (f" to {written.longest}" if written.longest else " or more")
    worst = float(np.max(list(written.differences.values())))
    cells = f"{worst:.1e} | {lengths} | {written.n_bytes / 1e6:.2f} | {of_file:,.1f} | {of_torch:,.1f} | {took:.0f}"
    return f"| {name} | {file_format} | {cells} |"


def main() -> None:
    torch.set_num_threads(1)
    print(machine.describe())
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime", "onnxscript")) + "\n")
    print("| network | format | largest difference | samples of a row | MB | ms | ms in PyTorch | s to export |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or sorted(models.NETWORKS):
            for file_format in export.SUFFIXES:
                print(line(name, file_format, Path(folder)), flush=True)


if __name__ == "__main__":
    script.run(main)
