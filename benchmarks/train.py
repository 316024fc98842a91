"""Measure what a training costs: steps per second of each network, of its feeding, of two processes.

    python benchmarks/train.py
    python benchmarks/train.py --networks resnet1d s4 --seconds 10

Rows are simulated, 12 leads and 10 s at 100 Hz as float16, and in the page cache. A step is forward, backward and AdamW
on 32 rows, or on --batch. On a GPU also with bfloat16 and compiled, and the share of the card's peak that the
convolutions and products reach.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import batches
import bundle
import models
import preprocess
import script
import simulate
from batches import Batch, Batches
from benchmarks import machine
from data import Dataset
from objectives import row_losses

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OF_RECORDS = [name for name in models.NETWORKS if "context_features" not in models.arguments_of(name)]
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16 operations per second, of the data sheets
RUNS = 3


class Files(TorchDataset[Any]):
    """One compressed .npz per record, as one would write it: the other side of the comparison of feeding."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        return np.load(self.paths[row])["signal"]


def stepper(network: nn.Module, dataset: Dataset, dtype: torch.dtype | None = None) -> Callable[[Batch], None]:
    """Return one step of a training, without logs and checks."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    weights = torch.ones(len(dataset.classes), device=DEVICE)

    def step(batch: Batch) -> None:
        target: Tensor = torch.as_tensor(batch.labels).to(DEVICE, non_blocking=True)
        with torch.autocast(DEVICE.type, dtype, enabled=dtype is not None):
            loss = row_losses(network(*bundle.inputs_of(network, batch)), target, dataset.task, weights).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def rate(step: Callable[[Any], Any], items: Iterable[Any], seconds: float) -> float:
    """Return steps per second over so many seconds, after two steps to warm up."""
    ahead = iter(items)
    for item in islice(ahead, 2):
        step(item)
    _finish()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step(next(ahead))
        done += 1
    _finish()
    return done / (time.perf_counter() - started)


def _finish() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def requests(dataset: Dataset, batch_size: int) -> Iterator[Any]:
    """Give the rows of batches for ever."""
    for epoch in cycle(range(1000)):
        order = batches.epoch_order(np.arange(len(dataset)), 0, epoch, None)
        yield from batches.training_batches(order, batch_size, 1, 0, 1)


def networks_table(names: list[str], dataset: Dataset, batch_size: int, seconds: float) -> None:
    """Print steps per second of each network on one fixed batch."""
    fixed = Batches(dataset)[np.arange(batch_size)]
    print(f"\nsteps of {batch_size} rows on {DEVICE}, {torch.get_num_threads()} threads, one fixed batch")
    columns = ["float32", *(["bfloat16", "share of peak", "bfloat16, compiled"] if DEVICE.type == "cuda" else [])]
    print(f"{'network':16}{'parameters':>12}" + "".join(f"{column:>20}" for column in columns) + "   steps/s")
    for name in names:
        torch.manual_seed(0)
        network = models.build(name, len(dataset.recipe.leads), len(dataset.classes)).to(DEVICE)
        figures = [f"{rate(stepper(network, dataset), cycle([fixed]), seconds):.2f}"]
        if DEVICE.type == "cuda":
            with FlopCounterMode(display=False) as counted:
                stepper(network, dataset)(fixed)
            half = rate(stepper(network, dataset, torch.bfloat16), cycle([fixed]), seconds)
            card = torch.cuda.get_device_name()
            peak = next((peak for key, peak in PEAKS.items() if key in card), None)
            share = f"{counted.get_total_flops() * half / peak:.1%}" if peak else "peak unknown"
            compiled = stepper(torch.compile(network), dataset, torch.bfloat16)  # type: ignore[arg-type]
            figures += [f"{half:.2f}", share, f"{rate(compiled, cycle([fixed]), seconds):.2f}"]
        n_parameters = sum(parameter.numel() for parameter in network.parameters())
        print(f"{name:16}{n_parameters:12,}" + "".join(f"{figure:>20}" for figure in figures), flush=True)


def feeding(dataset: Dataset, batch_size: int, seconds: float) -> None:
    """Print steps per second with batches fetched ahead beside those on one fixed batch, and rows per second alone."""
    network = models.build("resnet1d", len(dataset.recipe.leads), len(dataset.classes)).to(DEVICE)
    step, fixed = stepper(network, dataset), Batches(dataset)[np.arange(batch_size)]
    augmentation = {"noise": 0.05, "gain": 0.2, "wander": 0.1}
    sides: dict[str, Callable[[], Iterable[Batch]]] = {
        "one fixed batch": lambda: cycle([fixed]),
        "fetched ahead": lambda: batches.fetched(Batches(dataset), requests(dataset, batch_size)),
        "fetched ahead, augmented": lambda: batches.fetched(
            Batches(dataset, augmentation), requests(dataset, batch_size)
        ),
    }
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(RUNS):
        for side, feed in sides.items():
            rates[side].append(rate(step, feed(), seconds))
    whole = np.median(rates["one fixed batch"])
    print(f"\nresnet1d, {batch_size} rows a step{'':14}steps/s   of one fixed batch")
    for side, values in rates.items():
        print(f"{side:36}{np.median(values):12.2f}{np.median(values) / whole:12.3f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{row}.npz") for row in range(len(dataset))]
        for row, path in enumerate(paths):
            np.savez_compressed(path, signal=dataset.signals(np.array([row]))[0])
        loader: DataLoader[Any] = DataLoader(Files(paths), batch_size, shuffle=True, num_workers=2, drop_last=True)

        def for_ever() -> Iterator[Any]:
            while True:
                yield from loader

        theirs = batch_size * rate(lambda _: None, for_ever(), seconds)
    mine = batch_size * rate(lambda _: None, map(Batches(dataset).__getitem__, requests(dataset, batch_size)), seconds)
    print(f"\nfeeding alone: {mine:,.0f} rows/s from the memory map; {theirs:,.0f} of a DataLoader with two workers")
    print(f"over one compressed .npz per record: {mine / theirs:.0f} times as many")


def processes(raw: Path, prepared: Path) -> None:
    """Print the rows per second of trainings by one and by two processes, each with one thread."""
    print("\nresnet1d by train.py, one thread for each process")
    for n in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n)]
            words = [
                "--data.raw",
                str(raw),
                "--data.dir",
                str(prepared),
                "--run_dir",
                f"{folder}/run",
                "--model.name",
                "resnet1d",
            ]
            words += ["--training.epochs", "3", "--training.threads", "1"]
            subprocess.run([*command, str(TRAIN), *words], check=True, capture_output=True, cwd=prepared)
            with Path(folder, "run/metrics.csv").open(newline="") as file:
                rates = [float(row["rows_per_s"]) for row in csv.DictReader(file)]
        print(f"{n} processes {np.median(rates):10,.0f} rows/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="*", choices=OF_RECORDS, default=OF_RECORDS, metavar="NAME")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--patients", type=int, default=300, help="simulated, about two records each")
    options = parser.parse_args()
    print(machine.describe())
    print(f"torch {torch.__version__}, " + (torch.cuda.get_device_name() if DEVICE.type == "cuda" else "no GPU"))
    with tempfile.TemporaryDirectory() as name:
        raw, prepared = Path(name, "demo"), Path(name, "prepared")
        simulate.write_demo(raw, options.patients)
        preprocess.main(["--data.raw", str(raw), "--data.dir", str(prepared)])
        dataset = Dataset(prepared)
        networks_table(options.networks, dataset, options.batch, options.seconds)
        feeding(dataset, options.batch, options.seconds)
        processes(raw, prepared)


if __name__ == "__main__":
    script.run(main)
