"""The index of a raw dataset: its recordings, the rows and labels that they promise, and the fold of each row.

Made from tables, headers and annotations alone, before any signal is read.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

import pqrst
import readers
import script
from beats import WINDOW_S, context_of, context_of_record, detect, match_beats
from config import Data
from folds import Fold, deal_patients, deal_rows, draw_key, keeps_fold, take_evenly
from recipe import Recipe
from script import Stop
from sources import BEAT_SYMBOLS, Problem, Recording, Source, Target
from variants import vary

Labels = NDArray[np.uint8]  # (N, K), 1 for each class of a row, all 0 for a row of none


class LabelError(ValueError):
    """A recording can be read, but its labels give no class."""


class Beats(NamedTuple):
    """The beats of a recording that are rows."""

    sample: NDArray[np.int64]
    symbol: NDArray[np.bytes_]
    beat_index: NDArray[np.int64]  # of each among all beats of the record


class RowLabels(NamedTuple):
    """Labels of a recording's N rows, the numbers beside each, and the beats where rows are beats."""

    labels: Labels
    context: NDArray[np.float32]  # (N, F)
    beats: Beats | None = None
    undetected: int = 0  # annotated beats without a detected R peak, where those are the centres; their labels are 0


class Promise(NamedTuple):
    """Rows that a recording will give, as far as its labels tell."""

    n_rows: int
    counts: NDArray[np.int64]  # (K + 1,) rows of each class, and of none
    without: tuple[str, ...] = ()  # a line for each kind of row or beat that has no class


class Item(NamedTuple):
    """A recording with its rows and counts, before its signal is read; small, as all are in memory at once."""

    recording: Recording
    n_rows: int
    n_samples: int
    fs: float
    n_bytes: int  # of its files, which tell whether the source has changed
    native: bool  # the extension reads it by itself
    counts: NDArray[np.int64]  # (K + 1,) rows of each class, and of none; one array for all recordings alike
    variant: int = 0  # a changed form of the recording, see variants.py; 0: as it is

    @property
    def name(self) -> str:
        """What its rows say that they come from."""
        return f"{self.recording.locator}~{self.variant}" if self.variant else self.recording.locator


Kind = tuple[str, float, tuple[str, ...], tuple[str, ...]]  # format, rate in Hz, leads, their units


class Index(NamedTuple):
    """The recordings of a dataset, as tables, headers and annotations describe them."""

    raw: Path
    items: list[Item]
    target: Target  # with its classes
    problems: list[Problem]
    warnings: list[Problem]
    own_folds: bool  # they hold where others would be drawn by patient
    kinds: Counter[Kind]  # of recordings

    @property
    def patients_known(self) -> bool:
        """Whether every recording says whose it is."""
        return all(item.recording.patient_known for item in self.items)


# ------------------------------------------------------------------------------------------------ the index


def build_index(source: Source, data: Data, recipe: Recipe, raw: Path) -> Index:
    """List all recordings in order, from tables, headers and annotations alone.

    Raises
    ------
    Stop
        Settings that do not fit the dataset, or no recording at all. A recording that cannot be used is a problem.
    """
    target = _target(source, data, recipe.window.kind)
    pqrst.n_rows(recipe.unscaled().chain(), 1, recipe.fs)  # a recipe that suits no recording is told as such
    recordings, problems = _recordings(source, data, raw)
    if not recordings:
        first = f"; first of {len(problems)} problems: {problems[0]}" if problems else ""
        raise Stop(f"{raw.absolute()}: no recordings of {data.name} there{first}")
    if target.of is None and not target.classes:
        target = replace(target, classes=tuple(sorted({label for r in recordings for label in r.labels})))
    promise_of = PROMISES[target.rows](target, recipe)
    items: list[Item] = []
    unknown: Counter[str] = Counter()
    kinds: Counter[Kind] = Counter()
    for recording in tqdm(recordings, "index", unit=" records", disable=None, leave=False):
        path = path_of(raw, recording)
        try:
            info = readers.info(path, recording.units_per_mv, recording.fs)
            unknown.update(label for label in recording.labels if target.of is not None and label not in target.of)
            promise = promise_of(path, recording, info)
            problems += [Problem(recording.locator, "labels", line) for line in promise.without]
            n_bytes = info.n_bytes
            if target.rows != "recordings":
                n_bytes += _annotation_file(path, recording).stat().st_size
                if not promise.counts[:-1].any():
                    raise LabelError(f"{path}: none of its {target.rows} has a class")
            size = (promise.n_rows, info.n_samples, info.fs, n_bytes)
            items.append(Item(recording, *size, info.native, promise.counts))
            kinds[info.format, info.fs, info.leads, info.units] += 1
        except (OSError, ValueError) as error:
            stage = "labels" if isinstance(error, LabelError) else "index"
            reason = script.one_line(error) + (f" ({recording.table}, row {recording.row})" if recording.table else "")
            problems.append(problem_below(raw, recording.locator, stage, reason))
    warnings = [problem for problem in problems if problem.stage == "table"]
    problems = [problem for problem in problems if problem.stage != "table"]
    if target.unknown == "counted":  # otherwise each is a problem
        counted = unknown.most_common()
        warnings += [Problem("", "labels", f"{n:,} recordings say {label!r}: unknown") for label, n in counted]
    return Index(raw, items, target, problems, warnings, source.own_folds, kinds)


def first_reason(index: Index) -> str:
    """Say why no recording can be used."""
    return f"none of {len({p.record for p in index.problems})} recordings can be read: {common_reason(index.problems)}"


def common_reason(problems: Sequence[Problem]) -> str:
    """Give the reason that most recordings share, once, with their number; the first problem where none is shared."""
    # the last problem of a recording counts: those before may concern some of its beats
    last = {each.record: re.sub(r" \([^()]+, row \d+\)$", "", each.reason) for each in problems}
    reason, n = Counter(last.values()).most_common(1)[0]
    if n > 1:
        return f"{reason} ({'all' if n == len(last) else f'{n} of'} {len(last)} recordings)"
    return f"first: {problems[0]}" if len(last) > 1 else str(problems[0])


def path_of(raw: Path, recording: Recording) -> str:
    """Return where a recording is. No Path: making one takes longer than reading a header."""
    return f"{raw}/{recording.locator}"


def problem_below(raw: Path, locator: str, stage: str, reason: str) -> Problem:
    """Make a problem, in one line, whose reason repeats neither the recording's name nor the raw folder."""
    reason = reason.replace(f"{raw}/", "").removeprefix(f"{locator}: ")
    return Problem(" ".join(locator.split()), stage, " ".join(reason.split()))


def _target(source: Source, data: Data, kind: str) -> Target:
    """Return the target that the settings name; rows of a kind that cannot carry it stop the program."""
    name = data.target or next(iter(source.targets))
    if name not in source.targets:
        raise Stop(f"data.target = {name!r}: {data.name} has {', '.join(source.targets)}")
    target = source.targets[name]
    if (target.rows == "beats") != (kind == "beat") or (target.rows == "rhythms" and kind != "window"):
        fitting = {"beats": "beat", "rhythms": "window", "recordings": "record or window"}[target.rows]
        raise Stop(f"recipe.window.kind = {kind}: {data.name} tells {name} of rows of kind {fitting}")
    return target


def _recordings(source: Source, data: Data, raw: Path) -> tuple[list[Recording], list[Problem]]:
    """List the recordings that the settings want of a dataset, and the problems of its tables."""
    _check_arguments(source, data)
    found: list[Recording] = []
    problems: list[Problem] = []
    try:
        for entry in source.recordings(raw, **data.arguments):
            if isinstance(entry, Problem):
                problems.append(problem_below(raw, *entry))
            else:
                # an empty cell is no name
                found.append(entry if entry.patient else entry._replace(patient=entry.locator, patient_known=False))
    except FileNotFoundError as error:
        raise Stop(f"{error.filename}: does not exist; is {raw.absolute()} the folder of {data.name}?") from error
    found = found[: data.limit]
    if data.fraction < 1:
        keys = [(recording.labels, draw_key(data.seed, recording.locator)) for recording in found]
        found = [found[place] for place in take_evenly(keys, data.fraction)]
    return found, problems


def _check_arguments(source: Source, data: Data) -> None:
    """Raise Stop for an argument that the dataset does not take, or of another type than it says."""
    names = list(inspect.signature(source.recordings).parameters)[1:]
    types = get_type_hints(source.recordings)
    for name, value in data.arguments.items():
        if name not in names:
            raise Stop(f"data.arguments: {data.name} has no {name} ({', '.join(names) or 'none at all'})")
        try:
            TypeAdapter(types.get(name, Any)).validate_python(value, strict=True)
        except ValidationError as error:
            raise Stop(f"data.arguments: {name} = {value!r}: {error.errors()[0]['msg']}") from error


def draw_folds(index: Index, recipe: Recipe, data: Data) -> list[Fold]:
    """Return the fold of every recording: the owner's where the split keeps it, else a drawn one.

    Raises
    ------
    Stop
        A recording without a fold where the owner's are wanted, or fewer patients than folds.
    """
    own = index.own_folds and data.split == "patients"
    keeps = [keeps_fold("official" if own else data.split, item.recording.fold) for item in index.items]
    drawn = [item for item, kept in zip(index.items, keeps, strict=True) if not kept]
    if drawn and data.split == "official":
        raise Stop(f"{drawn[0].recording.locator}: has no official fold; use --data.split patients")
    dealt: Iterable[Fold] = ()
    if drawn and data.split == "random_rows":
        annotated = recipe.model_copy(update={"centers": "annotations"})
        labels = [read_labels(item, index, annotated).labels for item in drawn]
        of_rows = deal_rows(np.concatenate(labels), data.folds, data.seed)
        dealt = np.split(of_rows, np.cumsum([len(each) for each in labels])[:-1])
    elif drawn:
        counts = np.array([[*item.counts, item.n_rows] for item in drawn])  # (N, K + 2): classes, none, any
        dealt = deal_patients([item.recording.patient for item in drawn], counts, data.folds, data.seed)
    next_drawn = iter(dealt)
    owners = [(item.recording.fold or "").encode() for item in index.items]
    return [fold if kept else next(next_drawn) for fold, kept in zip(owners, keeps, strict=True)]


def with_variants(index: Index, folds: list[Fold], n: int) -> tuple[Index, list[Fold]]:
    """Add n changed forms of each recording; what comes of fold 0 is in fold 0+.

    Raises
    ------
    Stop
        Rows that are not beats of N, S and V, or folds that divide recordings.
    """
    if not n:
        return index, folds
    if index.target.rows != "beats" or not {"N", "S", "V"} <= set(index.target.classes):
        raise Stop(f"data.variants = {n}: only recordings with beats N, S and V have variants")
    items, more = list(index.items), list(folds)
    for item, fold in zip(index.items, folds, strict=True):
        if not isinstance(fold, bytes):
            raise Stop(f"data.variants = {n}: not with a split that divides recordings")
        items += [item._replace(variant=variant, native=False) for variant in range(1, n + 1)]
        more += [fold + b"+"] * n
    return index._replace(items=items), more


def total_rows(items: Iterable[Item]) -> int:
    """Add up the rows that recordings promise."""
    return sum(item.n_rows for item in items)


# ------------------------------------------------------------------------------------------------ labels of rows


def read_labels(item: Item, index: Index, recipe: Recipe, changed: pqrst.Record | None = None) -> RowLabels:
    """Read labels and beats of a recording's rows; those of all recordings may not fit in memory.

    Parameters
    ----------
    item, index, recipe : of the recording
    changed : the recording in another form, e.g. with noise or at another rate, in which R peaks are looked for and of
        which the numbers beside the rows are; its beats are at its own rate. None: as it is stored

    Raises
    ------
    OSError, ValueError
        The annotations cannot be read any more; or, where detected R peaks are the centres, the signal.
    """
    return READERS[index.target.rows](path_of(index.raw, item.recording), item, index.target, recipe, changed)


def open_recording(item: Item, index: Index) -> pqrst.Record:
    """Read the signal of a recording, or of its variant."""
    path = path_of(index.raw, item.recording)
    return _varied(path, item, index.target)[0] if item.variant else _read(path, item.recording)


def _read(path: str, recording: Recording) -> pqrst.Record:
    return readers.read(path, recording.units_per_mv, recording.fs)


def no_labels(target: Target, recipe: Recipe) -> RowLabels:
    """Return labels and beats of no row."""
    labels, context = (
        np.zeros((0, len(target.classes)), np.uint8),
        np.zeros((0, len(recipe.context_columns)), np.float32),
    )
    none = np.zeros(0, np.int64)
    return RowLabels(labels, context, Beats(none, np.zeros(0, "S4"), none) if target.rows == "beats" else None)


def _beside_rows(
    n_rows: int, path: str, item: Item, recipe: Recipe, changed: pqrst.Record | None
) -> NDArray[np.float32]:
    """Return the numbers about a recording, the same beside each of its rows, (N, F)."""
    numbers = context_of_record(recipe, lambda: changed or _read(path, item.recording))
    return np.broadcast_to(numbers, (n_rows, len(numbers)))


def _annotation_file(path: str, recording: Recording) -> Path:
    if recording.annotations is None:
        raise ValueError(f"{path}: rows of beats or rhythms need annotations, and this dataset has none")
    return Path(path).with_suffix(f".{recording.annotations}")


def annotations_of(path: str, recording: Recording) -> pqrst.Annotations:
    """Read the beats and rhythms of a recording; ValueError where its dataset has none."""
    return readers.read_annotations(path, _annotation_file(path, recording).suffix[1:])


def count_labels(labels: Labels) -> NDArray[np.int64]:
    """(N, K) -> (K + 1,): rows of each class, and of none."""
    return np.append(labels.sum(axis=0, dtype=np.int64), np.int64((~labels.any(axis=1)).sum()))


# Rows that share the labels of their recording.


def one_hot(labels: tuple[str, ...], target: Target) -> Labels:
    """Return (1, K), 1 for each class that the labels give; LabelError where they give none, or too many."""
    of = {name: name for name in target.classes} if target.of is None else target.of
    unknown = [label for label in labels if label not in of]
    if unknown and target.unknown == "left out":
        raise LabelError(f"label {unknown[0]!r} is not known; known: {_some(of)}")
    given = {of[label] for label in labels if label in of} - {""}
    if not given and target.without == "left out":
        raise LabelError(f"none of the classes {_some(target.classes)}: its labels are {', '.join(labels) or 'empty'}")
    if len(given) > 1 and target.task == "multiclass":
        raise LabelError(f"has several classes, {', '.join(sorted(given))}, where one is wanted")
    return np.array([[name in given for name in target.classes]], dtype=np.uint8)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


PromiseOf = Callable[[str, Recording, readers.Info], Promise]


def _recording_promises(target: Target, recipe: Recipe) -> PromiseOf:
    tree = recipe.unscaled().chain()
    n_rows = cache(lambda n_samples, fs: pqrst.n_rows(tree, n_samples, fs))

    @cache  # one array of counts for all recordings alike
    def promise(labels: tuple[str, ...], n: int) -> Promise:
        return Promise(n, n * count_labels(one_hot(labels, target)))

    return lambda path, recording, info: promise(recording.labels, n_rows(info.n_samples, info.fs))


def _recording_labels(path: str, item: Item, target: Target, recipe: Recipe, changed: pqrst.Record | None) -> RowLabels:
    labels = np.repeat(one_hot(item.recording.labels, target), item.n_rows, axis=0)
    return RowLabels(labels, _beside_rows(len(labels), path, item, recipe, changed))


# Windows, each with the rhythm that fills it.


def window_labels(annotations: pqrst.Annotations, n_samples: int, fs: float, target: Target, recipe: Recipe) -> Labels:
    """Return (N, K): the rhythm that fills at least half of each window; all 0 where none does."""
    tree = recipe.unscaled().chain()
    begin = pqrst.row_starts(tree, n_samples, fs)  # (N,) samples of the record
    length = pqrst.row_samples(tree) * fs / recipe.fs
    covered = np.zeros((len(begin), len(target.classes)))
    noted = zip(annotations.sample, annotations.aux, strict=True)
    marks = [(sample, mark) for sample, aux in noted for mark in re.findall(r"\([^()\0]+|\)", aux)]  # also "(N)", ")(N"
    for (start, mark), (stop, _) in zip(marks, [*marks[1:], (np.inf, "")], strict=True):
        if name := (target.of or {}).get(mark):
            inside = np.minimum(begin + length, stop) - np.maximum(begin, start)
            covered[:, target.classes.index(name)] += np.maximum(inside, 0)
    most = covered.argmax(axis=1)
    filled = covered[np.arange(len(begin)), most] >= length / 2
    labels = np.zeros(covered.shape, np.uint8)
    labels[filled, most[filled]] = 1
    return labels


def _window_promises(target: Target, recipe: Recipe) -> PromiseOf:
    def promise(path: str, recording: Recording, info: readers.Info) -> Promise:
        annotations = annotations_of(path, recording)
        labels = window_labels(annotations, info.n_samples, info.fs, target, recipe)
        n, counts = len(labels), count_labels(labels)
        return Promise(n, counts, (f"{counts[-1]} of {n} windows have none of the rhythms",) if counts[-1] else ())

    return promise


def _read_window_labels(
    path: str, item: Item, target: Target, recipe: Recipe, changed: pqrst.Record | None
) -> RowLabels:
    annotations = annotations_of(path, item.recording)
    labels = window_labels(annotations, item.n_samples, item.fs, target, recipe)
    return RowLabels(labels, _beside_rows(len(labels), path, item, recipe, changed))


# Beats.


def _annotated_beats(
    path: str, recording: Recording, target: Target
) -> tuple[NDArray[np.int64], NDArray[np.str_], Labels]:
    """Read samples, symbols and labels of all N annotated beats; the labels are all 0 for a beat without a class."""
    annotations = annotations_of(path, recording)
    symbols = np.array(annotations.symbol, dtype=str)
    is_beat = np.isin(symbols, list(BEAT_SYMBOLS))
    symbols = symbols[is_beat]
    labels = np.zeros((len(symbols), len(target.classes)), np.uint8)
    for symbol, name in (target.of or {}).items():
        if name:
            labels[symbols == symbol, target.classes.index(name)] = 1
    return annotations.sample[is_beat], symbols, labels


def _varied(path: str, item: Item, target: Target) -> tuple[pqrst.Record, NDArray[np.int64], NDArray[np.str_], Labels]:
    """Change a recording and its beats; the same at every call. Its symbols are the classes."""
    record = _read(path, item.recording)
    r_peaks, _, labels = _annotated_beats(path, item.recording, target)
    known = labels.any(axis=1)
    names = np.array(target.classes)
    rng = np.random.default_rng([item.variant, *item.recording.locator.encode()])
    changed = vary(record.signal, record.fs, r_peaks[known], names[labels[known].argmax(axis=1)], rng)
    signal = changed.signal.astype(np.float32)
    other = pqrst.Record(signal, changed.fs, list(record.leads), list(record.units), f"{path}~{item.variant}")
    return other, changed.r_peaks, changed.classes, (changed.classes[:, None] == names).astype(np.uint8)


def _beat_promises(target: Target, recipe: Recipe) -> PromiseOf:
    def promise(path: str, recording: Recording, info: readers.Info) -> Promise:
        _, symbols, labels = _annotated_beats(path, recording, target)
        has_class = labels.any(axis=1)
        others = sorted(Counter(symbols[~has_class].tolist()).items())
        without = tuple(f"{count} beats {symbol!r} have no class" for symbol, count in others)
        return Promise(int(has_class.sum()), count_labels(labels[has_class]), without)

    return promise


def _beat_labels(path: str, item: Item, target: Target, recipe: Recipe, changed: pqrst.Record | None) -> RowLabels:
    recording, fs = item.recording, item.fs
    if item.variant:
        variant, r_peaks, symbols, labels = _varied(path, item, target)
        fs, changed = variant.fs, changed or variant
    else:
        r_peaks, symbols, labels = _annotated_beats(path, recording, target)
    if changed and changed.fs != fs:
        r_peaks, fs = np.rint(r_peaks * (changed.fs / fs)).astype(np.int64), changed.fs

    @cache
    def record() -> pqrst.Record:
        return changed or _read(path, recording)

    beat_index = np.flatnonzero(labels.any(axis=1))
    labels, symbols, undetected = labels[beat_index], symbols[beat_index], 0
    if recipe.centers == "rpeaks":
        annotated, r_peaks = r_peaks[beat_index], detect(record())
        if len(r_peaks) == 0:
            raise ValueError(f"{path}: no R peak detected")
        pairs = match_beats(annotated, r_peaks, WINDOW_S * fs)
        found = np.isin(np.arange(len(annotated)), pairs[:, 0])
        beat_index = np.zeros(len(annotated), np.int64)
        beat_index[pairs[:, 0]] = pairs[:, 1]
        labels[~found] = 0  # a beat that is not detected loses its label, and with it its row
        undetected = int((~found).sum())
    context = context_of(recipe, r_peaks, fs, record)
    beats = Beats(r_peaks[beat_index], symbols.astype("S4"), beat_index)
    return RowLabels(labels, context[beat_index], beats, undetected)


# By what carries the labels: how a recording's rows are counted for the index, and how their labels are read.
PROMISES = {"recordings": _recording_promises, "rhythms": _window_promises, "beats": _beat_promises}
READERS = {"recordings": _recording_labels, "rhythms": _read_window_labels, "beats": _beat_labels}
