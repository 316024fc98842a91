"""The prepared dataset: its summary, and its parts mapped into memory.

Knows nothing of networks and imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import ValidationError

import script
from folds import LEAKS, Rows, choose_rows
from recipe import Recipe, Section
from script import Stop

SUMMARY = "dataset.json"
RECORDS = "records.csv"  # what is known of each recording; for reports, and absent in what older versions prepared
MANY_CLASSES = 12  # more than a table has columns for

# ------------------------------------------------------------------------------------------------ the summary


class Counts(Section):
    """Rows, patients and rows of each class in some folds."""

    rows: int
    patients: int
    classes: dict[str, int]


class SplitCounts(Counts):
    of: tuple[str, ...]  # the folds of the split


class PartFile(Section):
    file: str
    rows: int


class Sources(Section):
    """The raw files that a dataset was made from."""

    records: int
    bytes: int
    sha256: str


class Identity(Section):
    """What makes a prepared dataset what it is: with the same, nothing has to be done again."""

    version: int  # of the format
    data: dict[str, Any]  # the settings that choose recordings, labels and folds
    recipe: Recipe
    sources: Sources


class Summary(Section):
    """What dataset.json holds."""

    name: str
    task: Literal["multiclass", "multilabel"]
    classes: tuple[str, ...]
    labelled: Literal["recordings", "rhythms", "beats"]  # what carries the labels
    recipe: Recipe
    data: dict[str, Any]  # as in the identity
    leak: str | None
    patients_known: bool  # otherwise each record stands for a patient of its own
    row_samples: int
    rows_before: int  # as the index promised
    rows: int
    records: int
    patients: int
    classes_before: dict[str, int]
    classes_after: dict[str, int]
    counts: dict[str, Counts]  # by fold
    splits: dict[str, SplitCounts]
    failures: dict[str, int]  # by stage
    warnings: dict[str, int]
    parts: tuple[PartFile, ...]
    identity: Identity

    @property
    def whole(self) -> Counts:
        """Rows, patients and classes of all folds together."""
        return Counts(rows=self.rows, patients=self.patients, classes=self.classes_after)

    @property
    def warning(self) -> str:
        """Say what leaks as a paragraph of a report; nothing where nothing does."""
        return f"**LEAK: {self.leak}.**\n\n" if self.leak else ""

    @classmethod
    def load(cls, folder: Path) -> Summary:
        """Read the summary of a prepared dataset; Stop where there is none, or not such a one."""
        path = folder / SUMMARY
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            where = folder if folder.is_absolute() else f"{folder} (that is {folder.absolute()})"
            raise Stop(f"{where}: no prepared dataset ({SUMMARY} is missing); run preprocess.py first") from error
        except ValidationError as error:
            key = ".".join(map(str, error.errors()[0]["loc"]))
            raise Stop(f"{path}: is of another version of the format ({key}); run preprocess.py again") from error
        except (ValueError, TypeError) as error:
            raise Stop(f"{path}: not JSON: {error}") from error

    def save(self, folder: Path) -> None:
        """Write the summary, which makes the dataset whole."""
        with script.aside(folder / SUMMARY) as temporary:
            temporary.write_text(json.dumps(self.tree(), indent=1), encoding="utf-8")

    def to_text(self) -> str:
        """Return the counts as a table for people."""
        many = len(self.classes) > MANY_CLASSES  # a line for each class, then, not a column
        before = ("recordings", self.rows_before, "", self.classes_before)
        groups = [*self.counts.items(), *self.splits.items()]
        known = self.patients_known
        *lines, after = (
            (name, group.rows, f"{group.patients:,}" if known else "unknown", group.classes)
            for name, group in [*groups, ("prepared", self.whole)]
        )
        table = [["fold", "rows", "patients", *([] if many else self.classes)]]
        for name, rows, patients, classes in (*lines, before, after):
            table.append([name, f"{rows:,}", patients, *([] if many else [f"{n:,}" for n in classes.values()])])
        if many:
            columns = (*lines[len(self.counts) :], before, after)
            table += [[""], ["class", *(name for name, *_ in columns)]]
            table += [[c, *(f"{classes[c]:,}" for *_, classes in columns)] for c in self.classes]
        width = max(len(line[0]) for line in table) + 2
        text = ["".join([name.ljust(width), *(cell.rjust(11) for cell in cells)]).rstrip() for name, *cells in table]
        for name, stages in (("failures", self.failures), ("warnings", self.warnings)):
            if stages:
                text.append(f"{name} by stage: " + ", ".join(f"{count:,} {stage}" for stage, count in stages.items()))
        return "\n".join(text)


# ------------------------------------------------------------------------------------------------ the dataset


def joined(summaries: Sequence[Summary], folders: Sequence[Path]) -> Summary:
    """Return the summary of several datasets as one: what they share, and what any of them has to be warned of.

    Raises
    ------
    Stop
        They differ in recipe, classes or what carries the labels.
    """
    first = summaries[0]
    for summary, folder in zip(summaries[1:], folders[1:], strict=True):
        if changes := first.recipe.differences(summary.recipe):
            raise Stop(f"{folders[0]} and {folder} cannot be joined: {'; '.join(changes)}")
        for what in ("classes", "task", "labelled"):
            one, other = getattr(first, what), getattr(summary, what)
            if one != other:
                raise Stop(f"{folders[0]} and {folder} cannot be joined: {what} {one} and {other}")
    leaks = [summary.leak for summary in summaries if summary.leak]
    splits = [summary.data["split"] for summary in summaries]
    update = {
        "name": "+".join(summary.name for summary in summaries),
        "leak": "; ".join(leaks) or None,
        "data": {**first.data, "split": next((split for split in splits if split in LEAKS), splits[0])},
        "patients_known": all(summary.patients_known for summary in summaries),
    }
    return first.model_copy(update=update) if len(summaries) > 1 else first


def prefixes(folders: Sequence[Path]) -> list[str]:
    """Return what stands before the names of records and patients of each of several datasets; nothing of one alone."""
    names = [folder.name for folder in folders]
    if len(folders) == 1:
        return [""]
    return [f"{folder.name if names.count(folder.name) == 1 else folder}/" for folder in folders]


class Dataset:
    """A prepared dataset, or several as one. Labels and the like are in memory; signals stay on disk and are mapped.

    Records and patients of several are called by their folder too, `mitdb/100`: no two of them are the same.

    Attributes
    ----------
    summary : what dataset.json holds; of several `joined` says what
    labels : (N, K) uint8
    record, patient : (N,) bytes
    fold : (N,) bytes, name of the fold
    valid : (N, 2) int64, range of samples that lie inside the record
    lead_mask : (N, L) uint8
    start : (N,) int64, the row's first sample in the record, of a beat its centre
    context : (N, F) float32
    sample, symbol, beat_index : (N,) of beats
    """

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

    def __init__(self, *folders: Path) -> None:
        self.folder = ", ".join(map(str, folders))
        summaries = [Summary.load(folder) for folder in folders]
        self.summary = joined(summaries, folders)
        columns: dict[str, list[NDArray[Any]]] = {}
        self._signals: list[NDArray[Any]] = []
        for folder, summary, prefix in zip(folders, summaries, prefixes(folders), strict=True):
            for part in summary.parts:
                with open_part(folder, summary, part) as file:
                    for name in file:
                        if name != "signals":
                            values = file[name][()]
                            named = prefix and name in ("record", "patient")
                            columns.setdefault(name, []).append(
                                np.char.add(prefix.encode(), values) if named else values
                            )
                    self._signals.append(_map(folder / part.file, file["signals"]))
        self._first = np.cumsum([0] + [len(s) for s in self._signals])
        for name, arrays in columns.items():
            setattr(self, name, np.concatenate(arrays))

    @property
    def recipe(self) -> Recipe:
        return self.summary.recipe

    @property
    def classes(self) -> tuple[str, ...]:
        return self.summary.classes

    @property
    def task(self) -> str:
        return self.summary.task

    def __len__(self) -> int:
        return int(self._first[-1])

    def signals(
        self, rows: Rows, starts: NDArray[np.int64] | None = None, n_samples: int | None = None
    ) -> NDArray[Any]:
        """Copy rows out of the mapped parts, (B,) indices -> (B, L, T) in the stored type.

        With starts (B,), n_samples of each row from there.
        """
        n_samples = n_samples or self.summary.row_samples
        out = np.empty((len(rows), len(self.recipe.leads), n_samples), self.recipe.dtype)
        part = np.searchsorted(self._first, rows, side="right") - 1
        for p in np.unique(part):
            here = part == p
            place = rows[here] - self._first[p]
            if starts is None:
                out[here] = self._signals[p][place]
            else:
                out[here] = sliding_window_view(self._signals[p], n_samples, axis=2)[place, :, starts[here]]
        return out

    def splits(
        self, train: Sequence[str], validation: Sequence[str], test: Sequence[str], needed: Collection[str] = ()
    ) -> dict[str, Rows]:
        """Return the rows of training, validation and test, each a list of folds.

        Raises
        ------
        Stop
            A needed split without rows (where none is named: any that has folds), a fold in two splits, or a patient in
            two (but for the leaks that `folds.LEAKS` names).
        """
        splits = {"train": train, "validation": validation, "test": test}
        needed = needed or [name for name, folds in splits.items() if folds]
        try:
            return choose_rows(self.fold, self.patient, splits, needed, self.summary.data["split"] in LEAKS)
        except Stop as error:
            raise Stop(f"{self.folder}: {error}") from error

    @cached_property
    def digest_of_folds(self) -> str:
        """SHA-256 of which patient is in which fold."""
        pairs = np.unique(np.char.add(np.char.add(self.fold, b"\t"), self.patient))
        return hashlib.sha256(b"\n".join(pairs.tolist())).hexdigest()

    def names(self, rows: Rows) -> NDArray[np.bytes_]:
        """Name the rows by record and start, the same in another dataset of the same recordings: (B,) -> (B,)."""
        return np.char.add(self.record[rows], np.char.add(b" ", self.start[rows].astype("S20")))

    def units(self, rows: Rows) -> NDArray[np.int64]:
        """Number what is scored as one: (B,) rows -> (B,). Windows with the labels of their record are one unit."""
        if self.summary.labelled != "recordings":
            return rows
        # the rows of a record follow one another
        begins = np.concatenate([np.ones(1, bool), self.record[1:] != self.record[:-1]])
        return np.cumsum(begins)[rows]

    def inside(self, rows: Rows) -> NDArray[np.int64]:
        """Count the samples of each row that lie inside its record: (B,) rows -> (B,)."""
        first, last = self.valid[rows].T
        return np.asarray(last - first)

    def n_patients(self, rows: Rows) -> int | None:
        """Count the patients of the rows; None where nobody tells who they are."""
        return len(np.unique(self.patient[rows])) if self.summary.patients_known else None

    def patients(self, rows: Rows) -> str:
        """Say of how many patients the rows are, `patients unknown` where nobody tells who they are."""
        n_patients = self.n_patients(rows)
        return "patients unknown" if n_patients is None else f"{n_patients:,} patients"


@contextmanager
def open_part(folder: Path, summary: Summary, part: PartFile) -> Iterator[h5py.File]:
    """Open a part to read; Stop where it does not hold what the summary says of it, or cannot be read."""
    path = folder / part.file
    try:
        with h5py.File(path, "r") as file:
            _check_part(file, summary, part)
            yield file
    except FileNotFoundError as error:
        raise Stop(f"{path}: does not exist, but {SUMMARY} names it") from error
    except (OSError, KeyError) as error:
        raise Stop(f"{path}: not a whole part: {error}") from error


def _check_part(file: h5py.File, summary: Summary, part: PartFile) -> None:
    shape, dtype = (part.rows, len(summary.recipe.leads), summary.row_samples), summary.recipe.dtype
    signals = file["signals"]
    if signals.shape != shape or signals.dtype != dtype:
        found = f"signals {signals.shape} {signals.dtype}"
        raise Stop(f"{file.filename}: has {found}, {SUMMARY} says {shape} {dtype}")
    for name, column in file.items():
        if not isinstance(column, h5py.Dataset) or column.shape[:1] != (part.rows,):
            raise Stop(f"{file.filename}: {name} is no column of {part.rows} rows")


def _map(path: Path, signals: h5py.Dataset) -> NDArray[Any]:
    """Map a contiguous dataset into memory: no HDF5 call per row. Any other, e.g. a compressed one, is read whole."""
    offset = signals.id.get_offset()
    if offset is None:
        return np.asarray(signals[()])
    return np.memmap(path, signals.dtype, "r", offset, signals.shape)
