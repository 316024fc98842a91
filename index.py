"""The index of a raw dataset: its recordings with the rows and labels that they promise, and the fold of each row.

Made from tables, headers and annotations alone, before any signal is read.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Iterable, Sequence
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


class Failure(NamedTuple):
    record: str
    stage: str
    reason: str


class Beats(NamedTuple):
    """The beats of a recording that have a class; each is a row."""

    centers: NDArray[np.int64]
    symbols: NDArray[np.bytes_]
    places: NDArray[np.int64]  # of each among all beats of the record
    context: NDArray[np.float32]


class Item(NamedTuple):
    """A recording and what is known of it before its signal is read; small, for all are in memory at once."""

    recording: Recording
    n_rows: int
    bytes: int  # of its files, which tell whether the source has changed
    native: bool  # the extension reads it by itself
    labels: NDArray[np.uint8]  # (1, K), one array for all recordings with the same; of beats (n_rows, K)
    beats: Beats | None = None


# ------------------------------------------------------------------------------------------------ the index


class Index(NamedTuple):
    """All that tables, headers and annotations say of a dataset."""

    items: list[Item]
    target: Target  # its classes known
    failures: list[Failure]
    warnings: list[Failure]


def build_index(source: Source, settings: Settings, raw: Path) -> Index:
    """All recordings in order, from tables, headers and annotations alone."""
    target = _target(source, settings)
    recordings, failures = _recordings(source, settings, raw)
    if not recordings:
        first = f"; first of {len(failures)} problems: {failures[0].reason}" if failures else ""
        raise Stop(f"{raw}: no recordings of {settings.data.name} there{first}")
    if target.of is None and not target.classes:
        target = replace(target, classes=tuple(sorted({label for r in recordings for label in r.labels})))
    items: list[Item] = []
    recipe = config.plain(settings.recipe)
    rows_of = cache(partial(pqrst.n_rows, unscaled(recipe)))  # by length and rate
    labels = cache(partial(one_hot, target=target))
    unknown: Counter[str] = Counter()
    for recording in tqdm(recordings, "index", unit=" records", disable=None, leave=False):
        try:
            path = raw / recording.locator
            info = readers.info(path, recording.units_per_mv)
            size = info.n_bytes
            if target.rows == "recordings":
                unknown.update(label for label in recording.labels if target.of is not None and label not in target.of)
                try:
                    y = labels(recording.labels)
                except ValueError as error:
                    failures.append(Failure(recording.locator, "labels", str(error)))
                    continue
                items.append(Item(recording, rows_of(info.n_samples, info.fs), size, info.native, y))
                continue
            size += path.with_suffix(f".{recording.annotations}").stat().st_size
            if target.rows == "beats":
                y, beats = _beats_of(recording, target, recipe, path, info.fs, failures)
                items.append(Item(recording, len(y), size, info.native, y, beats))
            else:
                n = rows_of(info.n_samples, info.fs)
                y = _rhythms_of(recording, target, recipe, path, info.fs, n)
                items.append(Item(recording, n, size, info.native, y))
        except (OSError, ValueError) as error:
            failures.append(Failure(recording.locator, "index", config.one_line(error)))
    warnings = []
    if target.unknown == "counted":  # otherwise each is a failure
        counts = unknown.most_common()
        warnings = [Failure("", "labels", f"{n:,} recordings say {label!r}: unknown") for label, n in counts]
    return Index(items, target, failures, warnings)


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
                failures.append(Failure(entry.locator, "index", entry.reason))
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


def _rhythms_of(
    recording: Recording, target: Target, recipe: dict[str, Any], path: Path, fs: float, n: int
) -> NDArray[np.uint8]:
    """(n, K): the rhythm that fills at least half of each window; all 0 where none does."""
    annotations = pqrst.read_annotations(path, recording.annotations or "atr")
    of = target.of or {}
    window = recipe["window"]
    length_s = window["length_s"] or window["samples"] / recipe["fs"]
    begin = np.arange(n) * (length_s - window["overlap_s"]) * fs
    covered = np.zeros((n, len(target.classes)))
    marks = [(sample, aux.rstrip("\0")) for sample, aux in zip(annotations.sample, annotations.aux, strict=True) if aux]
    marks = [(sample, aux) for sample, aux in marks if aux.startswith("(") or aux == ")"]
    for (start, aux), (stop, _) in zip(marks, [*marks[1:], (np.inf, "")], strict=True):
        if name := of.get(aux):
            inside = np.minimum(begin + length_s * fs, stop) - np.maximum(begin, start)
            covered[:, target.classes.index(name)] += np.maximum(inside, 0)
    most = covered.argmax(axis=1)
    filled = covered[np.arange(n), most] >= length_s * fs / 2
    labels = np.zeros((n, len(target.classes)), np.uint8)
    labels[filled, most[filled]] = 1
    return labels


def _beats_of(
    recording: Recording, target: Target, recipe: dict[str, Any], path: Path, fs: float, failures: list[Failure]
) -> tuple[NDArray[np.uint8], Beats]:
    """Labels (N, K) and beats of one recording."""
    if recording.annotations is None:
        raise ValueError(f"{path}: beat rows need beat annotations, and this dataset has none")
    annotations = pqrst.read_annotations(path, recording.annotations)
    symbols = np.array(annotations.symbol, dtype=str)
    is_beat = np.isin(symbols, list(BEAT_SYMBOLS))
    r_peaks, symbols = annotations.sample[is_beat], symbols[is_beat]
    of = {symbol: name for symbol, name in (target.of or {}).items() if name}
    has_class = np.isin(symbols, list(of))
    for symbol, count in sorted(Counter(symbols[~has_class]).items()):
        failures.append(Failure(recording.locator, "labels", f"{count} beats {str(symbol)!r} have no class"))
    beat_index = np.flatnonzero(has_class)
    symbols = symbols[has_class]
    if recipe["centers"] == "rpeaks":
        r_peaks, beat_index, found = _detected(path, r_peaks[has_class])
        symbols = symbols[found]
        if not found.all():
            failures.append(Failure(recording.locator, "rpeaks", f"{(~found).sum()} annotated beats were not detected"))
    classes = np.array([target.classes.index(of[s]) for s in symbols], dtype=np.int64)
    context = beat_context(r_peaks, fs, recipe["context"])[beat_index]
    beats = Beats(r_peaks[beat_index], symbols.astype("S4"), beat_index, context)
    return np.eye(len(target.classes), dtype=np.uint8)[classes], beats


def _detected(
    path: Path, annotated: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """All detected R peaks, the index of the one within 150 ms of each annotated beat, and which beats have one."""
    record = readers.read(path)
    r_peaks = readers.detect(record)
    if len(r_peaks) == 0:
        return r_peaks, np.zeros(0, np.int64), np.zeros(len(annotated), bool)
    right = np.clip(np.searchsorted(r_peaks, annotated), 1, max(len(r_peaks) - 1, 1))
    left_nearer = annotated - r_peaks[right - 1] <= np.abs(r_peaks[np.minimum(right, len(r_peaks) - 1)] - annotated)
    nearest = np.where(left_nearer, right - 1, right)
    found = np.abs(r_peaks[nearest] - annotated) <= round(0.15 * record.fs)
    found[1:] &= nearest[1:] != nearest[:-1]  # one to one
    return r_peaks, nearest[found], found


def one_hot(labels: tuple[str, ...], target: Target) -> NDArray[np.uint8]:
    """(1, K), 1 for each class that the labels give."""
    of = {name: name for name in target.classes} if target.of is None else target.of
    unknown = [label for label in labels if label not in of]
    if unknown and target.unknown == "left out":
        raise ValueError(f"label {unknown[0]!r} is not known; known: {_some(of)}")
    given = {of[label] for label in labels if label in of} - {""}
    if not given and (target.without == "left out" or (target.of and not labels)):  # no label at all is not "none"
        raise ValueError(f"none of the classes {_some(target.classes)}: its labels are {', '.join(labels) or 'empty'}")
    if len(given) > 1 and target.task == "multiclass":
        raise ValueError(f"has several classes, {', '.join(sorted(given))}, where one is wanted")
    return np.array([[name in given for name in target.classes]], dtype=np.uint8)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def n_rows(items: Iterable[Item]) -> int:
    return sum(item.n_rows for item in items)


def label_rows(items: Sequence[Item]) -> NDArray[np.uint8]:
    """(N, K) labels of all rows."""
    each = [n for item in items for n in ([item.n_rows] if len(item.labels) == 1 else [1] * len(item.labels))]
    return np.repeat(np.concatenate([item.labels for item in items]), each, axis=0)


def unscaled(recipe: dict[str, Any]) -> dict[str, Any]:
    """The chain up to its scale, which may still lack the numbers of the dataset."""
    return {**recipe, "dtype": "float32", "scale": {**recipe["scale"], "kind": "none"}}


# ------------------------------------------------------------------------------------------------ folds


def draw_folds(items: list[Item], settings: Settings) -> tuple[NDArray[np.bytes_], str | None]:
    """Fold of every row, (N,), and what leaks, if anything.

    Patients are dealt out one by one, those with the largest share of a rare class first, each to the fold where the
    shares of all classes then lie closest to even. Ties fall by a hash of seed and patient: the same on every machine.
    """
    how = settings.data
    kept = KEPT_FOLDS[how.split]
    stays = [item.recording.fold is not None and (kept is None or item.recording.fold in kept) for item in items]
    drawn = [item for item, stay in zip(items, stays, strict=True) if not stay]
    if drawn and kept is None:
        raise Stop(f"{drawn[0].recording.locator}: has no official fold; use --data.split patients")
    each = [item.n_rows for item in items]
    folds = np.repeat(np.array([(item.recording.fold or "").encode() for item in items], "S16"), each)
    if drawn:
        deal = _deal_rows if how.split == "random_rows" else _deal_patients
        folds[~np.repeat(stays, each)] = deal(drawn, how.folds, how.seed)
    if how.split == "dechazal" and not {"201", "202"} <= {Path(i.recording.locator).stem for i in items}:
        return folds, None
    return folds, LEAKS.get(how.split)


def _deal_patients(items: list[Item], n_folds: int, seed: int) -> NDArray[np.bytes_]:
    number: dict[str, int] = {}  # of each patient
    of_item = [number.setdefault(item.recording.patient, len(number)) for item in items]
    if len(number) < n_folds:
        raise Stop(f"data.folds = {n_folds}: there are only {len(number)} patients to draw from")
    of_row = np.repeat(of_item, [item.n_rows for item in items])
    rows = label_rows(items)
    none = (rows.sum(axis=1) == 0)[:, None]
    every = np.ones((len(rows), 1), np.uint8)
    counts = np.stack([np.bincount(of_row, column, len(number)) for column in np.hstack([rows, none, every]).T], axis=1)
    share = counts / np.maximum(counts.sum(axis=0), 1)  # (patients, K + 2)
    by_weight = np.lexsort((np.array([_hash(seed, patient) for patient in number]), -share.max(axis=1)))
    filled = np.zeros((n_folds, share.shape[1]))  # share of each class in each fold so far
    fold_of = np.empty(len(number), np.int64)
    for patient in by_weight:
        # growth of the sum of squared shares: least where this patient's classes are scarcest
        growth = ((filled + share[patient]) ** 2 - filled**2).sum(axis=1)
        fold = growth.argmin()
        filled[fold] += share[patient]
        fold_of[patient] = fold
    folds: NDArray[np.bytes_] = fold_of[of_row].astype("S16")
    return folds


def _deal_rows(items: list[Item], n_folds: int, seed: int) -> NDArray[np.bytes_]:
    labels = label_rows(items)
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.lexsort(labels[order].T)]  # by class, at random within each
    fold_of = np.empty(len(labels), np.int64)
    fold_of[order] = np.arange(len(labels)) % n_folds
    folds: NDArray[np.bytes_] = fold_of.astype("S16")
    return folds


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()
