"""Batches of a prepared dataset: which rows come when, random pieces and mixtures of them, fetched ahead by threads.

    order = epoch_order(rows, seed=0, epoch=3, weights=None)
    requests = training_batches(order, batch_size=32, accumulation=1, rank=0, world_size=1)
    for batch in fetched(Batches(dataset, seed=0, epoch=3), requests, threads=1):
        ...

Every random number of a row hangs on (seed, epoch, row): another number of processes, or a training that goes on where
it was cut off, gives the same rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import pqrst
from data import Dataset
from folds import Rows


class Batch(NamedTuple):
    """Rows as a network takes them."""

    signal: Any  # (B, L, T) as stored, float32 once augmented or mixed
    labels: Any  # (B, K) uint8, float32 once mixed
    context: Any  # (B, F) float32
    valid: Any  # (B, 2) int64
    rows: Rows  # (B,)


@dataclass
class Batches:
    """Fetch batches: `batches[rows]` for rows (B,), or (2, B) to mix the first with the second."""

    dataset: Dataset
    augmentation: Mapping[str, float] = field(default_factory=dict)  # amounts that `pqrst.augment` takes
    seed: int = 0
    epoch: int = 0
    crop: int | None = None  # samples of a random piece of each row
    mixup: float = 0.0  # both parameters of the beta distribution that the share of the second row is from

    def __getitem__(self, rows: Rows) -> Batch:
        if rows.ndim == 1:
            return self._batch(rows)
        one, other = self._batch(rows[0]), self._batch(rows[1])
        share = self._shares[rows[0]]  # (B,)
        ends = np.minimum(one.valid, other.valid)[:, 0], np.maximum(one.valid, other.valid)[:, 1]
        signal, labels = (_mixed(getattr(one, name), getattr(other, name), share) for name in ("signal", "labels"))
        return Batch(signal, labels, one.context, np.stack(ends, axis=1), one.rows)

    def _batch(self, rows: Rows) -> Batch:
        data = self.dataset
        labels, context, valid = data.labels[rows], data.context[rows], data.valid[rows]
        if self.crop is None or self.crop >= data.summary.row_samples:
            signal = data.signals(rows)
        else:
            first, last = valid.T
            starts = first + np.floor(self._places[rows] * np.maximum(last - first - self.crop + 1, 1)).astype(np.int64)
            starts = np.minimum(starts, data.summary.row_samples - self.crop)
            signal = data.signals(rows, starts, self.crop)
            valid = np.clip(valid - starts[:, None], 0, self.crop)
        if any(self.augmentation.values()):
            signal = pqrst.augment(signal, rows, valid, data.recipe.fs, self.seed, self.epoch, **self.augmentation)
        return Batch(signal, labels, context, valid, rows)

    @cached_property
    def _places(self) -> NDArray[np.float64]:
        """Where the piece of each row lies, 0..1, (N,)."""
        return np.random.default_rng((self.seed, self.epoch, 1)).random(len(self.dataset))

    @cached_property
    def _shares(self) -> NDArray[np.float32]:
        """How much of the second row each row is mixed with, 0..0.5, (N,): the first stays the larger part."""
        drawn = np.random.default_rng((self.seed, self.epoch, 2)).beta(self.mixup, self.mixup, len(self.dataset))
        return np.minimum(drawn, 1 - drawn).astype(np.float32)


def _mixed(one: NDArray[Any], other: NDArray[Any], share: NDArray[np.float32]) -> NDArray[np.float32]:
    share = share.reshape(-1, *[1] * (one.ndim - 1))
    return np.asarray(one * (1 - share) + other * share, dtype=np.float32)


def fetched(
    fetch: Batches | Callable[[Rows], Batch], requests: Iterable[Rows], threads: int = 1, pinned: bool = False
) -> Iterator[Batch]:
    """Give the batches of the requests in their order, fetched ahead by so many threads; 0: by the caller's.

    pinned: in memory that a GPU reads while the CPU goes on.
    """
    get = fetch.__getitem__ if isinstance(fetch, Batches) else fetch

    def one(rows: Rows) -> Batch:
        batch = get(rows)
        if not pinned:
            return batch
        signal, labels, context, valid = (torch.as_tensor(part).pin_memory() for part in batch[:-1])
        return Batch(signal, labels, context, valid, batch.rows)

    if threads == 0:
        yield from map(one, requests)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for rows in requests:
                waiting.append(pool.submit(one, rows))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


# ------------------------------------------------------------------------------------------------ which rows


def row_weights(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the chance of each row with the weighted sampler, (N,), sum 1: the inverse frequency of its rarest class.

    A row without any class counts as one of a class of its own.
    """
    with_none = np.concatenate([labels, labels.sum(axis=1, keepdims=True) == 0], axis=1)
    weight = (with_none / np.maximum(with_none.sum(axis=0), 1)).max(axis=1)
    chance: NDArray[np.float64] = weight / weight.sum()
    return chance


def epoch_order(rows: Rows, seed: int, epoch: int, weights: NDArray[np.float64] | None) -> Rows:
    """Return the rows in the order of this epoch, the same on every process; with weights, drawn with replacement."""
    generator = np.random.default_rng((seed, epoch))
    if weights is None:
        return generator.permutation(rows)
    return generator.choice(rows, size=len(rows), p=weights)


def with_partners(order: Rows, batch_size: int) -> Rows:
    """Give each row the one before it in its batch, to be mixed with: (N,) -> (2, N)."""
    batches = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
    return np.stack([batches.ravel(), np.roll(batches, 1, axis=1).ravel()])


def training_batches(order: Rows, batch_size: int, accumulation: int, rank: int, world_size: int) -> list[Rows]:
    """List this process's micro-batches, `accumulation` of them per optimiser step; order (N,) or (2, N).

    A step takes the next batch_size rows, whatever the number of processes; the rest that fills no step is left out
    (other rows each epoch).
    """
    steps = order.shape[-1] // batch_size
    shares = order[..., : steps * batch_size].reshape(*order.shape[:-1], steps, world_size, accumulation, -1)
    mine = shares[..., rank, :, :].reshape(*order.shape[:-1], steps * accumulation, -1)
    return list(np.moveaxis(mine, -2, 0))


def scoring_batches(rows: Rows, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Rows]:
    """Give this process's share of the rows in batches; each row comes on one process exactly once."""
    mine = rows[rank::world_size]
    for start in range(0, len(mine), batch_size):
        yield mine[start : start + batch_size]
