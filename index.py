"""The index of a raw dataset: its recordings with the rows and labels that they promise, and the fold of each row.

Made from tables, headers and annotations alone, before any signal is read.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import config
import pqrst
import readers
from config import Settings, Stop
from data import LEAKS, beat_context
from sources import BEAT_SYMBOLS, Problem, Recording, Source, Target

# Folds of the owner that each kind of split keeps; all other recordings get a drawn one.
KEPT_FOLDS = {"patients": {"paced"}, "random_rows": {"paced"}, "dechazal": {"DS2", "paced"}, "official": None}


Fold = bytes | NDArray[np.bytes_]  # of a recording, or of each of its rows where a split divides recordings


class Failure(NamedTuple):
    """What was left out, when and why; the same words wherever the raw folder stands."""

    record: str
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"{self.record}: {self.reason}" if self.record else self.reason


class Beats(NamedTuple):
    """The beats of a recording that have a class; each is a row."""

    sample: NDArray[np.int64]
    symbol: NDArray[np.bytes_]
    beat_index: NDArray[np.int64]  # of each among all beats of the record
    context: NDArray[np.float32]


class Known(NamedTuple):
    """What is known of a recording's rows before they are prepared."""

    labels: NDArray[np.uint8]  # (N, K), all 0 for none of the classes
    beats: Beats | None = None
    undetected: int = 0  # beats without a detected R peak where those are the centres; their labels are 0


class Item(NamedTuple):
    """A recording and what is known of it before its signal is read; small, for all are in memory at once."""

    recording: Recording
    n_rows: int
    fs: float
    bytes: int  # of its files, which tell whether the source has changed
    native: bool  # the extension reads it by itself
    counts: NDArray[np.int64]  # (K + 1,) rows of each class, and of none; one array for all recordings alike


# ------------------------------------------------------------------------------------------------ the index


class Index(NamedTuple):
    """All that tables, headers and annotations say of a dataset."""

    raw: Path
    items: list[Item]
    target: Target  # its classes known
    failures: list[Failure]
    warnings: list[Failure]


def build_index(source: Source, settings: Settings, raw: Path) -> Index:
    """All recordings in order, from tables, headers and annotations alone."""
    target = _target(source, settings)
    recordings, failures = _recordings(source, settings, raw)
    if not recordings:
        first = f"; first of {len(failures)} problems: {failures[0]}" if failures else ""
        raise Stop(f"{raw}: no recordings of {settings.data.name} there{first}")
    if target.of is None and not target.classes:
        target = replace(target, classes=tuple(sorted({label for r in recordings for label in r.labels})))
    items: list[Item] = []
    recipe = config.plain(settings.recipe)
    rows_of = cache(partial(pqrst.n_rows, unscaled(recipe)))  # by length and rate

    @cache
    def of_recording(labels: tuple[str, ...], n: int) -> NDArray[np.int64]:
        return n * _counts(one_hot(labels, target))

    unknown: Counter[str] = Counter()
    for recording in tqdm(recordings, "index", unit=" records", disable=None, leave=False):
        stage, path = "index", raw / recording.locator
        try:
            info = readers.info(path, recording.units_per_mv, recording.fs)
            size = info.n_bytes
            if target.rows == "recordings":
                n, stage = rows_of(info.n_samples, info.fs), "labels"
                unknown.update(label for label in recording.labels if target.of is not None and label not in target.of)
                counts = of_recording(recording.labels, n)
            else:
                size += path.with_suffix(f".{_extension(path, recording)}").stat().st_size
                if target.rows == "rhythms":
                    n = rows_of(info.n_samples, info.fs)
                    counts = _counts(_rhythms(path, recording, info.fs, n, target, recipe))
                    without = [f"{counts[-1]} of {n} windows have none of the rhythms"] if counts[-1] else []
                else:
                    _, symbols, labels = _beats(path, recording, target)
                    has_class = labels.any(axis=1)
                    counts, n = _counts(labels[has_class]), int(has_class.sum())
                    others = sorted(Counter(symbols[~has_class].tolist()).items())
                    without = [f"{count} beats {symbol!r} have no class" for symbol, count in others]
                failures += [Failure(recording.locator, "labels", line) for line in without]
                if not counts[:-1].any():
                    stage = "labels"
                    raise ValueError(f"{path}: none of its {target.rows} has a class")
            items.append(Item(recording, n, info.fs, size, info.native, counts))
        except (OSError, ValueError) as error:
            reason = config.one_line(error) + (f" ({recording.table}, row {recording.row})" if recording.table else "")
            failures.append(Failure(recording.locator, stage, reason_below(raw, recording.locator, reason)))
    warnings = []
    if target.unknown == "counted":  # otherwise each is a failure
        said = unknown.most_common()
        warnings = [Failure("", "labels", f"{n:,} recordings say {label!r}: unknown") for label, n in said]
    return Index(raw, items, target, failures, warnings)


def reason_below(raw: Path, locator: str, text: str) -> str:
    """What is wrong with a recording, without its own name in front or the raw folder's path, which may be moved."""
    return text.replace(f"{raw}/", "").removeprefix(f"{locator}: ")


def _target(source: Source, settings: Settings) -> Target:
    """What the settings ask of a dataset; rows that cannot carry it stop the program."""
    name = settings.data.target or next(iter(source.targets))
    if name not in source.targets:
        raise Stop(f"data.target = {name!r}: {settings.data.name} has {', '.join(source.targets)}")
    target, kind = source.targets[name], settings.recipe.window.kind
    if (target.rows == "beats") != (kind == "beat") or (target.rows == "rhythms" and kind != "window"):
        fitting = {"beats": "beat", "rhythms": "window", "recordings": "record or window"}[target.rows]
        raise Stop(f"recipe.window.kind = {kind}: {settings.data.name} tells {name} of rows of kind {fitting}")
    return target


def _recordings(source: Source, settings: Settings, raw: Path) -> tuple[list[Recording], list[Failure]]:
    """What the dataset yields, as far as the settings want it, and what its tables name in vain."""
    known = list(inspect.signature(source.recordings).parameters)[1:]
    if strange := [name for name in settings.data.arguments if name not in known]:
        raise Stop(f"data.arguments: {settings.data.name} has no {strange[0]} ({', '.join(known) or 'none at all'})")
    found: list[Recording] = []
    failures: list[Failure] = []
    try:
        for entry in source.recordings(raw, **settings.data.arguments):
            if isinstance(entry, Problem):
                failures.append(Failure(entry.locator, "index", reason_below(raw, entry.locator, entry.reason)))
            else:
                found.append(entry)
    except FileNotFoundError as error:
        raise Stop(f"{error.filename}: not there; is {raw} the folder of {settings.data.name}?") from error
    found = found[: settings.data.limit]
    if settings.data.fraction < 1:
        found = _fraction(found, settings.data.fraction, settings.data.seed)
    return found, failures


def _fraction(recordings: list[Recording], fraction: float, seed: int) -> list[Recording]:
    """A part of the recordings, in their order: evenly from all, sorted by labels and then at random."""
    order = sorted(range(len(recordings)), key=lambda n: (recordings[n].labels, _hash(seed, recordings[n].locator)))
    steps = np.ceil(np.arange(len(order) + 1) * fraction)  # the first is always taken
    return [recordings[number] for number in sorted(order[n] for n in np.flatnonzero(np.diff(steps)))]


def known(item: Item, index: Index, recipe: dict[str, Any]) -> Known:
    """Labels and beats of a recording's rows, from its annotations; of all recordings they may not fit in memory.

    Raises
    ------
    OSError, ValueError
        The annotations cannot be read any more; or, where detected R peaks are the centres, the signal.
    """
    recording, target = item.recording, index.target
    path = index.raw / recording.locator
    if target.rows == "recordings":
        return Known(np.repeat(one_hot(recording.labels, target), item.n_rows, axis=0))
    if target.rows == "rhythms":
        return Known(_rhythms(path, recording, item.fs, item.n_rows, target, recipe))
    r_peaks, symbols, labels = _beats(path, recording, target)
    beat_index = np.flatnonzero(labels.any(axis=1))
    labels, symbols, undetected = labels[beat_index], symbols[beat_index], 0
    if recipe["centers"] == "rpeaks":
        r_peaks, beat_index, found = _detected(path, recording, r_peaks[beat_index])
        labels[~found] = 0
        undetected = int((~found).sum())
    context = beat_context(r_peaks, item.fs, recipe["context"])
    return Known(labels, Beats(r_peaks[beat_index], symbols.astype("S4"), beat_index, context[beat_index]), undetected)


def nothing(target: Target, recipe: dict[str, Any]) -> Known:
    """What is known of no rows."""
    labels = np.zeros((0, len(target.classes)), np.uint8)
    if target.rows != "beats":
        return Known(labels)
    none, context = np.zeros(0, np.int64), np.zeros((0, len(recipe["context"])), np.float32)
    return Known(labels, Beats(none, np.zeros(0, "S4"), none, context))


def _extension(path: Path, recording: Recording) -> str:
    """Of the file with its annotations."""
    if recording.annotations is None:
        raise ValueError(f"{path}: rows of beats or rhythms need annotations, and this dataset has none")
    return recording.annotations


def _rhythms(
    path: Path, recording: Recording, fs: float, n: int, target: Target, recipe: dict[str, Any]
) -> NDArray[np.uint8]:
    """(n, K): the rhythm that fills at least half of each window; all 0 where none does."""
    annotations = pqrst.read_annotations(path, _extension(path, recording))
    of = target.of or {}
    window = recipe["window"]
    length_s = window["length_s"] or window["samples"] / recipe["fs"]
    begin = np.arange(n) * (length_s - window["overlap_s"]) * fs
    covered = np.zeros((n, len(target.classes)))
    noted = zip(annotations.sample, annotations.aux, strict=True)
    marks = [(sample, mark) for sample, aux in noted for mark in re.findall(r"\([^()\0]+|\)", aux)]  # also "(N)", ")(N"
    for (start, mark), (stop, _) in zip(marks, [*marks[1:], (np.inf, "")], strict=True):
        if name := of.get(mark):
            inside = np.minimum(begin + length_s * fs, stop) - np.maximum(begin, start)
            covered[:, target.classes.index(name)] += np.maximum(inside, 0)
    most = covered.argmax(axis=1)
    filled = covered[np.arange(n), most] >= length_s * fs / 2
    labels = np.zeros((n, len(target.classes)), np.uint8)
    labels[filled, most[filled]] = 1
    return labels


def _beats(
    path: Path, recording: Recording, target: Target
) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.uint8]]:
    """Samples, symbols and labels of all N annotated beats; the labels (N, K) are all 0 for a beat without a class."""
    annotations = pqrst.read_annotations(path, _extension(path, recording))
    symbols = np.array(annotations.symbol, dtype=str)
    is_beat = np.isin(symbols, list(BEAT_SYMBOLS))
    symbols = symbols[is_beat]
    labels = np.zeros((len(symbols), len(target.classes)), np.uint8)
    for symbol, name in (target.of or {}).items():
        if name:
            labels[symbols == symbol, target.classes.index(name)] = 1
    return annotations.sample[is_beat], symbols, labels


def _counts(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(N, K) -> (K + 1,): rows of each class, and of none."""
    return np.append(labels.sum(axis=0, dtype=np.int64), np.int64((~labels.any(axis=1)).sum()))


def _detected(
    path: Path, recording: Recording, annotated: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """All detected R peaks, the index of the one nearest to each annotated beat, and whether it is within 150 ms."""
    record = readers.read(path, recording.units_per_mv, recording.fs)
    r_peaks = readers.detect(record)
    if len(r_peaks) == 0:
        raise ValueError(f"{path}: no R peak detected")
    right = np.clip(np.searchsorted(r_peaks, annotated), 1, max(len(r_peaks) - 1, 1))
    left_nearer = annotated - r_peaks[right - 1] <= np.abs(r_peaks[np.minimum(right, len(r_peaks) - 1)] - annotated)
    nearest = np.where(left_nearer, right - 1, right)
    found = np.abs(r_peaks[nearest] - annotated) <= round(0.15 * record.fs)
    found[1:] &= nearest[1:] != nearest[:-1]  # one to one
    return r_peaks, nearest, found


def one_hot(labels: tuple[str, ...], target: Target) -> NDArray[np.uint8]:
    """(1, K), 1 for each class that the labels give."""
    of = {name: name for name in target.classes} if target.of is None else target.of
    unknown = [label for label in labels if label not in of]
    if unknown and target.unknown == "left out":
        raise ValueError(f"label {unknown[0]!r} is not known; known: {_some(of)}")
    given = {of[label] for label in labels if label in of} - {""}
    if not given and target.without == "left out":
        raise ValueError(f"none of the classes {_some(target.classes)}: its labels are {', '.join(labels) or 'empty'}")
    if len(given) > 1 and target.task == "multiclass":
        raise ValueError(f"has several classes, {', '.join(sorted(given))}, where one is wanted")
    return np.array([[name in given for name in target.classes]], dtype=np.uint8)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def n_rows(items: Iterable[Item]) -> int:
    return sum(item.n_rows for item in items)


def unscaled(recipe: dict[str, Any]) -> dict[str, Any]:
    """The chain up to its scale, which may still lack the numbers of the dataset."""
    return {**recipe, "dtype": "float32", "scale": {**recipe["scale"], "kind": "none"}}


# ------------------------------------------------------------------------------------------------ folds


def draw_folds(index: Index, settings: Settings) -> tuple[list[Fold], str | None]:
    """Folds of every recording, and what leaks, if anything.

    Patients are dealt out one by one, those with the largest share of a rare class first, each to the fold where the
    shares of all classes then lie closest to even. Ties fall by a hash of seed and patient: the same on every machine.
    """
    how, items = settings.data, index.items
    kept = KEPT_FOLDS[how.split]
    stays = [item.recording.fold is not None and (kept is None or item.recording.fold in kept) for item in items]
    drawn = [item for item, stay in zip(items, stays, strict=True) if not stay]
    if drawn and kept is None:
        raise Stop(f"{drawn[0].recording.locator}: has no official fold; use --data.split patients")
    folds: list[Fold] = [(item.recording.fold or "").encode() for item in items]
    dealt: Iterable[Fold] = ()
    if drawn and how.split == "random_rows":
        recipe = {**config.plain(settings.recipe), "centers": "annotations"}
        labels = [known(item, index, recipe).labels for item in drawn]
        of_rows = _deal_rows(np.concatenate(labels), how.folds, how.seed)
        dealt = np.split(of_rows, np.cumsum([len(each) for each in labels])[:-1])
    elif drawn:
        dealt = _deal_patients(drawn, how.folds, how.seed)
    for number, fold in zip(np.flatnonzero(~np.array(stays)), dealt, strict=True):
        folds[number] = fold
    leak = LEAKS.get(how.split)
    if how.split == "dechazal" and not {"201", "202"} <= {Path(i.recording.locator).stem for i in items}:
        leak = None
    return folds, leak


def _deal_patients(items: list[Item], n_folds: int, seed: int) -> list[bytes]:
    """Fold of each recording."""
    number: dict[str, int] = {}  # of each patient
    of_item = [number.setdefault(item.recording.patient, len(number)) for item in items]
    if len(number) < n_folds:
        raise Stop(f"data.folds = {n_folds}: there are only {len(number)} patients to draw from")
    counts = np.zeros((len(number), len(items[0].counts) + 1), np.int64)  # (patients, K + 2): classes, none, any
    for patient, item in zip(of_item, items, strict=True):
        counts[patient] += [*item.counts, item.n_rows]
    share = counts / np.maximum(counts.sum(axis=0), 1)
    by_weight = np.lexsort((np.array([_hash(seed, patient) for patient in number]), -share.max(axis=1)))
    filled = np.zeros((n_folds, share.shape[1]))  # share of each class in each fold so far
    fold_of = np.empty(len(number), np.int64)
    for patient in by_weight:
        # growth of the sum of squared shares: least where this patient's classes are scarcest
        growth = ((filled + share[patient]) ** 2 - filled**2).sum(axis=1)
        fold = growth.argmin()
        filled[fold] += share[patient]
        fold_of[patient] = fold
    names = [str(fold).encode() for fold in range(n_folds)]
    return [names[fold_of[patient]] for patient in of_item]


def _deal_rows(labels: NDArray[np.uint8], n_folds: int, seed: int) -> NDArray[np.bytes_]:
    """Fold of each row."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.lexsort(labels[order].T)]  # by class, at random within each
    fold_of = np.empty(len(labels), np.int64)
    fold_of[order] = np.arange(len(labels)) % n_folds
    folds: NDArray[np.bytes_] = fold_of.astype("S16")
    return folds


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()
