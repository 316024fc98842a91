"""The prepared dataset: its parts mapped into memory, splits, batches, beat context, augmentation.

Knows nothing of networks and imports no torch: batches are NumPy arrays, which a DataLoader turns into tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from config import Augmentation, Data, Stop

Rows = NDArray[np.int64]  # indices of rows in a prepared dataset

LEAKS = {
    "random_rows": "rows of one patient stand in several splits: scores say nothing about new patients",
    "dechazal": "records 201 (DS1) and 202 (DS2) come from one person, as the split is defined",
}


# ------------------------------------------------------------------------------------------------ beat context


def beat_context(r_peaks: NDArray[np.int64], fs: float, names: Sequence[str]) -> NDArray[np.float32]:
    """Numbers about each beat that its own window does not show.

    Parameters
    ----------
    r_peaks : (N,) ascending sample indices of all beats of a record
    fs : rate of r_peaks, Hz
    names : which numbers, in order: `rr_previous_s` and `rr_next_s`, the RR intervals before and after the beat;
        `rr_mean10_s`, the mean of the ten RR intervals around it (five before, five after, fewer at the ends);
        `rr_record_s`, the mean over the record (de Chazal, O'Dwyer and Reilly 2004)

    Returns
    -------
    (N, F) float32, s; NaN where there is no neighbour.
    """
    n = len(r_peaks)
    rr = np.diff(np.asarray(r_peaks, dtype=np.float64)) / fs  # (N - 1,)
    missing = np.full(1, np.nan)
    first, last = np.maximum(np.arange(n) - 5, 0), np.minimum(np.arange(n) + 5, n - 1)
    total = np.concatenate([np.zeros(1), np.cumsum(rr)])
    with np.errstate(invalid="ignore"):  # 0 / 0 of a lone beat is its NaN
        columns = {
            "rr_previous_s": np.concatenate([missing, rr])[:n],
            "rr_next_s": np.concatenate([rr, missing])[:n],
            "rr_mean10_s": (total[last] - total[first]) / (last - first) if n else np.zeros(0),
            "rr_record_s": np.full(n, rr.mean() if n > 1 else np.nan),
        }
    if not names:
        return np.zeros((n, 0), np.float32)
    return np.stack([columns[name] for name in names], axis=1).astype(np.float32)


# ------------------------------------------------------------------------------------------------ the dataset


class Prepared:
    """A prepared dataset. Labels and the like are in memory; signals stay on disk and are mapped.

    Attributes
    ----------
    meta : dict, dataset.json
    labels : (N, K) uint8
    record, patient : (N,) bytes
    fold : (N,) bytes, name of the fold
    valid : (N, 2) int64, range of samples that lie inside the record
    lead_mask : (N, L) uint8
    context : (N, F) float32
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.meta: dict[str, Any] = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise Stop(f"{folder}: no prepared dataset (dataset.json is missing); run preprocess.py first") from error
        except ValueError as error:
            raise Stop(f"{folder / 'dataset.json'}: not JSON: {error}") from error
        self.recipe: dict[str, Any] = self.meta["recipe"]
        self.classes: list[str] = self.meta["classes"]
        self.task: str = self.meta["task"]
        columns: dict[str, list[NDArray[Any]]] = {}
        self._signals: list[NDArray[Any]] = []
        for part in self.meta["parts"]:
            path = folder / part["file"]
            try:
                with h5py.File(path, "r") as file:
                    if len(file["signals"]) != part["rows"]:
                        raise Stop(f"{path}: has {len(file['signals'])} rows, dataset.json says {part['rows']}")
                    for name in file:
                        if name != "signals":
                            columns.setdefault(name, []).append(file[name][()])
                    self._signals.append(_map(path, file["signals"]))
            except FileNotFoundError as error:
                raise Stop(f"{path}: named in dataset.json and not there") from error
            except (OSError, KeyError) as error:
                raise Stop(f"{path}: not a whole part: {error}") from error
        self._first = np.cumsum([0] + [len(s) for s in self._signals])
        for name, arrays in columns.items():
            setattr(self, name, np.concatenate(arrays))

    labels: NDArray[np.uint8]
    record: NDArray[np.bytes_]
    patient: NDArray[np.bytes_]
    fold: NDArray[np.bytes_]
    valid: NDArray[np.int64]
    lead_mask: NDArray[np.uint8]
    start: NDArray[np.int64]
    context: NDArray[np.float32]
    sample: NDArray[np.int64]
    symbol: NDArray[np.bytes_]
    beat_index: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self._first[-1])

    def signals(self, rows: Rows) -> NDArray[Any]:
        """Rows by index -> (B, L, T) in the stored type, copied out of the mapped parts."""
        out = np.empty((len(rows), len(self.recipe["leads"]), self.meta["row_samples"]), self.recipe["dtype"])
        part = np.searchsorted(self._first, rows, side="right") - 1
        for p in np.unique(part):
            here = part == p
            out[here] = self._signals[p][rows[here] - self._first[p]]
        return out


def _map(path: Path, signals: h5py.Dataset) -> NDArray[Any]:
    """The contiguous dataset as a memory map: no HDF5 call per row."""
    offset = signals.id.get_offset()
    if offset is None:  # no rows, so no space in the file
        return np.empty(signals.shape, signals.dtype)
    return np.memmap(path, signals.dtype, "r", offset, signals.shape)


def splits(dataset: Prepared, settings: Data) -> dict[str, Rows]:
    """Rows of training, validation and test, by the folds that the settings name.

    Raises
    ------
    Stop
        A fold that is not there, an empty split, a fold or patient in two splits (but for the leaks of `LEAKS`).
    """
    present = {fold.decode() for fold in np.unique(dataset.fold)}
    chosen = {"train": settings.train, "validation": settings.validation, "test": settings.test}
    rows = {}
    for name, folds in chosen.items():
        rows[name] = np.flatnonzero(np.isin(dataset.fold, np.array(folds, dtype=bytes)))
        if len(rows[name]) == 0:
            raise Stop(f"data.{name} = {folds}: no rows; {dataset.folder} has folds {', '.join(sorted(present))}")
    named = [fold for folds in chosen.values() for fold in folds]
    if len(set(named)) < len(named):
        raise Stop(f"data.train, data.validation and data.test share a fold: {chosen}")
    if dataset.meta["data"]["split"] not in LEAKS:
        patients = {name: set(dataset.patient[index]) for name, index in rows.items()}
        for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
            if shared := patients[a] & patients[b]:
                raise Stop(f"{dataset.folder}: patient {min(shared).decode()} is in both {a} and {b}")
    return rows


def class_counts(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(N, K) -> (K,) rows of each class."""
    counts: NDArray[np.int64] = labels.sum(axis=0, dtype=np.int64)
    return counts


def class_weights(labels: NDArray[np.uint8], task: str, kind: str) -> NDArray[np.float32]:
    """Weight of each class in the loss, (K,).

    `inverse`: N / (K * n_k) for multiclass, negatives / positives for multilabel (the weight of a positive);
    `sqrt`: its square root; `none`: 1. A class without rows gets 1.
    """
    counts = class_counts(labels).astype(np.float64)
    seen = np.maximum(counts, 1)
    inverse = len(labels) / (len(counts) * seen) if task == "multiclass" else (len(labels) - counts) / seen
    weights = {"none": np.ones_like(seen), "inverse": inverse, "sqrt": np.sqrt(inverse)}[kind]
    return np.where(counts > 0, weights, 1.0).astype(np.float32)


def row_weights(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Chance of each row with the weighted sampler, (N,), sum 1: the inverse frequency of its rarest class.

    A row without any class counts as one of a class of its own.
    """
    with_none = np.concatenate([labels, labels.sum(axis=1, keepdims=True) == 0], axis=1)
    weight = (with_none / np.maximum(with_none.sum(axis=0), 1)).max(axis=1)
    chance: NDArray[np.float64] = weight / weight.sum()
    return chance


# ------------------------------------------------------------------------------------------------ batches


class Batch(NamedTuple):
    signal: NDArray[Any]  # (B, L, T) as stored, float32 once augmented
    labels: NDArray[np.uint8]  # (B, K)
    context: NDArray[np.float32]  # (B, F)
    valid: NDArray[np.int64]  # (B, 2)
    rows: Rows  # (B,)


@dataclass
class Batches:
    """Fetches batches by row indices; a DataLoader with `batch_size=None` and lists of rows as sampler drives it."""

    dataset: Prepared
    augmentation: Augmentation | None = None
    seed: int = 0
    epoch: int = 0

    def __getitem__(self, rows: Rows) -> Batch:
        data = self.dataset
        signal, valid = data.signals(rows), data.valid[rows]
        if self.augmentation and any(self.augmentation.model_dump().values()):
            signal = signal.astype(np.float32)
            for row, x, (first, last) in zip(rows, signal, valid, strict=True):
                # keyed by the row, not by the process: the same for any number of them
                generator = np.random.default_rng((self.seed, self.epoch, int(row)))
                augment(x[:, first:last], self.augmentation, data.recipe["fs"], generator)
        return Batch(signal, data.labels[rows], data.context[rows], valid, rows)


def augment(x: NDArray[np.float32], how: Augmentation, fs: float, generator: np.random.Generator) -> None:
    """Change one row in place; x: (L, T), its valid samples."""
    n_leads, n_samples = x.shape
    if how.shift_s:
        shift = int(generator.integers(-round(how.shift_s * fs), round(how.shift_s * fs) + 1))
        x[:] = x[:, np.clip(np.arange(n_samples) + shift, 0, n_samples - 1)]
    if how.gain:
        x *= np.float32(generator.uniform(1 - how.gain, 1 + how.gain))
    if how.wander:
        amplitude = generator.uniform(0, how.wander, (n_leads, 1))
        phase, hz = generator.uniform(0, 2 * np.pi, (n_leads, 1)), generator.uniform(0.05, 0.5)
        x += (amplitude * np.sin(2 * np.pi * hz * np.arange(n_samples) / fs + phase)).astype(np.float32)
    if how.noise:
        x += np.float32(how.noise) * generator.standard_normal(x.shape, np.float32)


def epoch_order(rows: Rows, seed: int, epoch: int, weights: NDArray[np.float64] | None) -> Rows:
    """The rows in the order of this epoch, the same on every process; with weights, drawn with replacement."""
    generator = np.random.default_rng((seed, epoch))
    if weights is None:
        return generator.permutation(rows)
    return generator.choice(rows, size=len(rows), p=weights)


def training_batches(order: Rows, batch_size: int, accumulation: int, rank: int, world_size: int) -> list[Rows]:
    """This process's micro-batches, `accumulation` of them per optimiser step.

    A step takes the next batch_size rows, whatever the number of processes; the rest that fills no step is left out
    (other rows each epoch).
    """
    steps = len(order) // batch_size
    shares = order[: steps * batch_size].reshape(steps, world_size, accumulation, -1)
    return list(shares[:, rank].reshape(steps * accumulation, -1))


def scoring_batches(rows: Rows, batch_size: int, rank: int, world_size: int) -> Iterator[Rows]:
    """This process's share of the rows, each row on one process exactly once."""
    mine = rows[rank::world_size]
    for start in range(0, len(mine), batch_size):
        yield mine[start : start + batch_size]
