"""Recordings -> one part of a prepared dataset: an HDF5 file with their rows, stamped with all that it was made from.

A part holds the rows of consecutive recordings. It is cut by expected bytes before any signal is read, so any process
can make any part, and the stamp tells whether a part that exists already is the one that is wanted.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import pqrst
import script
from data import Identity
from folds import Fold
from index import (
    Beats,
    Index,
    Item,
    RowLabels,
    no_labels,
    open_recording,
    path_of,
    problem_below,
    read_labels,
    total_rows,
)
from recipe import STRIP, VIEW, Recipe, paddings
from script import Stop
from sources import Problem

PART_BYTES = 64 * 2**20  # about one part's signals
LABEL_RULE = 2  # of windows and of detected beats: parts with labels by another rule are made anew
VIEW_RULE = 1  # of the numbers of view.py and the recordings of variants.py: likewise
STRIP_RULE = 1  # of the numbers of strip.py: likewise
BATCH = 16  # recordings per thread and call of the native chain: few, so that their rows stay in the cache


class Part(NamedTuple):
    """Consecutive recordings whose rows go into one file."""

    items: list[Item]
    folds: list[Fold]


@dataclass(frozen=True)
class Job:
    """What all parts of a dataset have in common."""

    index: Index
    recipe: Recipe
    identity: Identity
    n_threads: int

    @property
    def row_shape(self) -> tuple[int, int]:
        """(L, T) of a row."""
        return len(self.recipe.leads), pqrst.row_samples(self.recipe.unscaled().chain())

    @property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * np.dtype(self.recipe.dtype).itemsize


def cut_parts(items: list[Item], folds: list[Fold], row_bytes: int) -> list[Part]:
    """Cut the recordings into parts whose signals come to about PART_BYTES each."""
    parts = [Part([], [])]
    size = 0
    for item, fold in zip(items, folds, strict=True):
        if parts[-1].items and size + item.n_rows * row_bytes > PART_BYTES:
            parts.append(Part([], []))
            size = 0
        parts[-1].items.append(item)
        parts[-1].folds.append(fold)
        size += item.n_rows * row_bytes
    return parts


# ------------------------------------------------------------------------------------------------ the rows of a part


def label_rows(part: Part, job: Job) -> tuple[list[RowLabels], list[Problem]]:
    """Read labels and beats of every recording in the part; an unreadable one gets no rows and a failure."""
    labelled: list[RowLabels] = []
    failures: list[Problem] = []
    for item in part.items:
        try:
            labelled.append(read_labels(item, job.index, job.recipe))
        except (OSError, ValueError) as error:
            labelled.append(no_labels(job.index.target, job.recipe))
            failures.append(_problem(item, job, "read", script.one_line(error)))
        if labelled[-1].undetected:
            reason = f"{labelled[-1].undetected} annotated beats were not detected"
            failures.append(_problem(item, job, "rpeaks", reason))
    return labelled, failures


def _problem(item: Item, job: Job, stage: str, reason: str) -> Problem:
    return problem_below(job.index.raw, item.recording.locator, stage, reason)


def columns_of(part: Part, labelled: list[RowLabels], job: Job) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """Return the columns of all labelled rows, and which rows are wanted: not those without a class, unless kept."""
    target = job.index.target
    each = [len(rows.labels) for rows in labelled]
    folds = [np.full(n, f) if isinstance(f, bytes) else f[:n] for f, n in zip(part.folds, each, strict=True)]
    empty = no_labels(target, job.recipe)
    labels = np.concatenate([empty.labels, *(rows.labels for rows in labelled)])
    columns: dict[str, NDArray[Any]] = {
        "record": np.repeat(np.array([item.name.encode() for item in part.items]), each),
        "patient": np.repeat(np.array([item.recording.patient.encode() for item in part.items]), each),
        "fold": np.concatenate(folds),
        "labels": labels,
        "context": np.concatenate([empty.context, *(rows.context for rows in labelled)]),
    }
    if empty.beats:
        beats = zip(empty.beats, *(rows.beats for rows in labelled if rows.beats), strict=True)
        columns |= {name: np.concatenate(values) for name, values in zip(Beats._fields, beats, strict=True)}
    return columns, np.logical_or(labels.any(axis=1), target.without == "kept")


class Chunk(NamedTuple):
    """Prepared rows of some recordings of a part."""

    place: NDArray[np.int64]  # (N,) of each among all labelled rows of the part
    prepared: pqrst.Prepared
    failures: list[Problem]
    warnings: list[Problem]


def prepare_rows(
    part: Part, labelled: list[RowLabels], job: Job, bar: tqdm[Any], rooms: Sequence[NDArray[Any]] = ()
) -> Iterator[Chunk]:
    """Send some recordings at a time through the native chain; `rooms`, if given, take their rows in turn."""
    first = np.cumsum([0, *(len(rows.labels) for rows in labelled)])
    tree = job.recipe.chain()
    step = BATCH * job.n_threads
    for turn, start in enumerate(range(0, len(part.items), step)):
        numbers: list[int] = []  # of the recordings that can be read
        inputs: list[str | pqrst.Record] = []
        failures: list[Problem] = []
        some = range(start, min(start + step, len(part.items)))
        for number in some:
            item = part.items[number]
            if not len(labelled[number].labels):
                continue
            try:
                inputs.append(
                    path_of(job.index.raw, item.recording) if item.native else open_recording(item, job.index)
                )
                numbers.append(number)
            except (OSError, ValueError) as error:
                failures.append(_problem(item, job, "read", script.one_line(error)))
        beats = [labelled[number].beats for number in numbers]
        centers = [each.sample for each in beats if each] or None  # where rows are beats, each recording has them
        room = rooms[turn % len(rooms)] if rooms else None
        prepared = pqrst.prepare(inputs, tree, centers, out=room, n_threads=job.n_threads, skip_errors=True)
        failures += [_problem(part.items[numbers[i]], job, stage, reason) for i, stage, reason in prepared.errors]
        warned = [*prepared.warnings, *((i, "rows", text) for i, text in paddings(prepared, job.recipe))]
        warnings = [_problem(part.items[numbers[i]], job, stage, reason) for i, stage, reason in warned]
        place = first[np.array(numbers, np.int64)][prepared.record] + prepared.index
        yield Chunk(place, prepared, failures, warnings)
        bar.update(len(some))


# ------------------------------------------------------------------------------------------------ the file


def make_part(path: Path, part: Part, stamp: str, job: Job, rooms: Sequence[NDArray[Any]], bar: tqdm[Any]) -> None:
    """Prepare the rows of a part and write them, beside the chain that makes the next; `rooms` as `rooms_for` gives."""
    labelled, failures = label_rows(part, job)
    columns, wanted = columns_of(part, labelled, job)
    warnings: list[Problem] = []
    place: list[NDArray[np.int64]] = []
    added: dict[str, list[NDArray[Any]]] = {"valid": [], "lead_mask": [], "start": []}
    with script.aside(path) as temporary:
        room = int(wanted.sum())
        with writer_of(temporary, room, job) as write:
            for chunk in prepare_rows(part, labelled, job, bar, rooms):
                kept = wanted[chunk.place]
                write(chunk.prepared.rows if kept.all() else chunk.prepared.rows[kept])
                place.append(chunk.place[kept])
                for name, arrays in added.items():
                    arrays.append(getattr(chunk.prepared, name)[kept])
                failures += chunk.failures
                warnings += chunk.warnings
        at = np.concatenate(place)
        columns = {name: values[at] for name, values in columns.items()}
        columns |= {name: np.concatenate(arrays) for name, arrays in added.items()}
        if len(at) < room:
            _shorten(temporary, len(at))
        with h5py.File(temporary, "r+") as file:
            for name, values in columns.items():
                file.create_dataset(name, data=values, track_times=False)
            file.attrs["stamp"] = stamp
            file.attrs["failures"] = json.dumps(_in_order(failures, part))
            file.attrs["warnings"] = json.dumps(_in_order(warnings, part))


def rooms_for(parts: Sequence[Part], job: Job) -> list[NDArray[Any]]:
    """Return room for the rows of two chunks of any part: one is prepared while the other is written."""
    step = BATCH * job.n_threads
    starts = ((part.items, start) for part in parts for start in range(0, len(part.items), step))
    most = max(total_rows(items[start : start + step]) for items, start in starts)
    return [np.empty((most, *job.row_shape), job.recipe.dtype) for _ in range(2)]


@contextmanager
def writer_of(path: Path, n_rows: int, job: Job) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Make an HDF5 file with room for the signals of so many rows, and give a function that appends rows to them.

    A thread writes them at their place in the file, without HDF5. A call returns when the rows before have been
    written, so that two arrays can take turns.
    """
    with h5py.File(path, "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        shape = (n_rows, *job.row_shape)
        signals = file.create_dataset("signals", shape, job.recipe.dtype, dcpl=layout, track_times=False)
        place = signals.id.get_offset()
    with path.open("r+b", buffering=0) as raw, ThreadPoolExecutor(1) as thread:
        if place is not None:
            raw.seek(place)
        before: Future[None] | None = None

        def write(rows: NDArray[Any]) -> None:
            nonlocal before
            if before:
                before.result()
            before = thread.submit(_write_all, raw, rows.reshape(-1).view(np.uint8))

        yield write
        if before:
            before.result()


def _write_all(file: io.FileIO, values: NDArray[np.uint8]) -> None:
    while len(values):
        values = values[file.write(values.data) :]  # one call may write less than all, e.g. 2 GiB on Linux


def _shorten(path: Path, n_rows: int) -> None:
    """Take the room of rows that were dropped out of a file of signals, which keeps their bytes in one piece."""
    with h5py.File(path, "r") as file, script.aside(path) as temporary, h5py.File(temporary, "w") as short:
        short.create_dataset("signals", data=file["signals"][:n_rows], track_times=False)


def _in_order(problems: Sequence[Problem], part: Part) -> list[Problem]:
    """Sort problems by recording, however the recordings were batched."""
    number = {item.recording.locator: n for n, item in enumerate(part.items)}
    return sorted(problems, key=lambda problem: number[problem.record])


def stamp_of(part: Part, job: Job) -> str:
    """Return a hash of all that a part is made from."""
    folds = hashlib.sha256(b"\n".join(map(bytes, part.folds))).hexdigest()
    made_from = [job.identity.version, job.identity.data, job.recipe.tree(), *map(item_line, part.items), folds]
    if job.index.target.rows == "rhythms" or job.recipe.centers == "rpeaks":
        made_from.append(LABEL_RULE)
    if VIEW in job.recipe.context:
        made_from.append(VIEW_RULE)
    if STRIP in job.recipe.context:
        made_from.append(STRIP_RULE)
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def item_line(item: Item) -> str:
    """Return what a stamp says of a recording; the rows around it in a table do not matter."""
    fields = item.recording._replace(table="", row=0)._asdict()
    del fields["about"]  # not in any row: parts made before it was known stay as they are
    recording = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"Recording({recording}) {item.n_bytes} {item.n_rows}" + (f" variant {item.variant}" if item.variant else "")


def has_stamp(path: Path, stamp: str) -> bool:
    """Tell whether a part exists, is whole and has this stamp."""
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs["stamp"] == stamp)
    except (OSError, KeyError):
        return False


# ------------------------------------------------------------------------------------------------ the dataset's scale


def with_scale(job: Job, parts: list[Part], training: Sequence[str]) -> Recipe:
    """Return the recipe with center and spread of each slot taken from the rows of the training folds.

    Raises
    ------
    Stop
        A slot that no training row fills.
    """
    unscaled = replace(job, recipe=job.recipe.unscaled())
    n_slots = len(job.recipe.leads)
    count, total, square = np.zeros(n_slots), np.zeros(n_slots), np.zeros(n_slots)
    low, high = np.full(n_slots, np.inf), np.full(n_slots, -np.inf)
    for x, use in _training_rows(unscaled, parts, training):
        count += use * x.shape[1]
        total += np.where(use, x.sum(axis=1), 0)
        square += np.where(use, (x**2).sum(axis=1), 0)
        low = np.where(use, np.minimum(low, x.min(axis=1)), low)
        high = np.where(use, np.maximum(high, x.max(axis=1)), high)
    if not count.all():
        raise Stop("recipe.scale.over = dataset: a slot has no training rows to take its numbers from")
    if job.recipe.scale.kind == "zscore":
        center, spread = total / count, np.sqrt(np.maximum(square / count - (total / count) ** 2, 0))
    else:
        center, spread = low, high - low
    spread = np.where(spread > 0, spread, 1.0)
    numbers = {"center": tuple(center.tolist()), "spread": tuple(spread.tolist())}
    return job.recipe.model_copy(update={"scale": job.recipe.scale.model_copy(update=numbers)})


def _training_rows(
    job: Job, parts: list[Part], training: Sequence[str]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Give the valid samples (L, T) of every training row, and which slots a lead fills (L,)."""
    folds = np.array(training, "S")
    with tqdm(total=sum(len(p.items) for p in parts), desc="scale", unit=" records", disable=None, leave=False) as bar:
        for part in parts:
            labelled, _ = label_rows(part, job)
            columns, wanted = columns_of(part, labelled, job)
            counts_in = np.isin(columns["fold"], folds) & wanted
            for place, prepared, _, _ in prepare_rows(part, labelled, job, bar):
                for i in np.flatnonzero(counts_in[place]):
                    x = prepared.rows[i][:, slice(*prepared.valid[i])].astype(np.float64)
                    yield x, prepared.lead_mask[i].astype(bool)
