"""Raw recordings -> prepared dataset.

    python preprocess.py                                                     # the demo set, simulated on the spot
    python preprocess.py --config configs/mitdb.yaml --data.raw ~/data/mitdb

Writes prepared/<name>/: parts (HDF5), dataset.json, failures.csv, prepare.log.json. A recording that cannot be
prepared is listed in failures.csv and counted, and the run goes on. What is whole is never made twice.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import config
import pqrst
import readers
from config import Settings, Stop
from data import LEAKS, beat_context
from sources import BEAT_SYMBOLS, SOURCES, Recording, Source

PART_BYTES = 64 * 2**20  # about one part's signals
FORMAT_VERSION = 1  # of the prepared dataset

# Folds of the owner that each kind of split keeps; all other recordings get a drawn one.
KEPT_FOLDS = {"patients": {"paced"}, "random_rows": {"paced"}, "dechazal": {"DS2", "paced"}, "official": None}


class Failure(NamedTuple):
    record: str
    stage: str
    reason: str


@dataclass
class Item:
    """A recording and what is known of it before its signal is read."""

    recording: Recording
    n_rows: int
    bytes: int  # of its files, which tell whether the source has changed
    labels: NDArray[np.uint8]  # (1, K) or, of beats, (n_rows, K)
    centers: NDArray[np.int64] | None = None  # of the beats that have a class
    symbols: NDArray[np.bytes_] | None = None
    beat_index: NDArray[np.int64] | None = None  # place of each among all beats of the record
    context: NDArray[np.float32] | None = None
    folds: NDArray[np.bytes_] = field(default_factory=lambda: np.zeros(0, "S1"))  # (n_rows,)


# ------------------------------------------------------------------------------------------------ the index


def build_index(source: Source, settings: Settings, raw: Path) -> tuple[list[Item], list[Failure]]:
    """All recordings in order, from tables, headers and annotations alone."""
    items: list[Item] = []
    failures: list[Failure] = []
    try:
        recordings = list(source.recordings(raw))
    except FileNotFoundError as error:
        raise Stop(f"{error.filename}: not there; is {raw} the folder of {settings.data.name}?") from error
    if not recordings:
        raise Stop(f"{raw}: no recordings of {settings.data.name} there")
    recipe = config.plain(settings.recipe)
    for recording in tqdm(recordings, "index", unit=" records", disable=None, leave=False):
        try:
            items.append(_index_one(recording, source, recipe, raw, failures))
        except (OSError, ValueError) as error:
            failures.append(Failure(recording.locator, "index", config.one_line(error)))
    return items, failures


def _index_one(
    recording: Recording, source: Source, recipe: dict[str, Any], raw: Path, failures: list[Failure]
) -> Item:
    path = raw / recording.locator
    info = pqrst.header(path)
    files = [path, *(path.parent / name for name in info.files)]
    if not info.n_samples:
        raise ValueError(f"{path}: has no samples, or its data file is missing")
    if recipe["window"]["kind"] != "beat":
        n_rows = pqrst.n_rows(recipe, info.n_samples, info.fs, 0)
        labels = one_hot(recording.labels, source.classes)[None]
        return Item(recording, n_rows, sum(file.stat().st_size for file in files), labels)

    if recording.annotations is None:
        raise ValueError(f"{path}: beat rows need beat annotations, and this dataset has none")
    files.append(path.with_suffix(f".{recording.annotations}"))
    annotations = pqrst.read_annotations(path, recording.annotations)
    symbols = np.array(annotations.symbol, dtype=str)
    is_beat = np.isin(symbols, list(BEAT_SYMBOLS))
    r_peaks, symbols = annotations.sample[is_beat], symbols[is_beat]
    has_class = np.isin(symbols, list(source.symbols))
    for symbol, count in sorted(Counter(symbols[~has_class]).items()):
        failures.append(Failure(recording.locator, "labels", f"{count} beats {str(symbol)!r} have no class"))
    beat_index = np.flatnonzero(has_class)
    symbols = symbols[has_class]
    if recipe["centers"] == "rpeaks":
        r_peaks, beat_index, found = _detected(path, r_peaks[has_class])
        symbols = symbols[found]
        if not found.all():
            failures.append(Failure(recording.locator, "rpeaks", f"{(~found).sum()} annotated beats were not detected"))
    classes = np.array([source.classes.index(source.symbols[s]) for s in symbols], dtype=np.int64)
    return Item(
        recording,
        len(classes),
        sum(file.stat().st_size for file in files),
        np.eye(len(source.classes), dtype=np.uint8)[classes],
        r_peaks[beat_index],
        symbols.astype("S4"),
        beat_index,
        beat_context(r_peaks, info.fs, recipe["context"])[beat_index],
    )


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


def one_hot(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.uint8]:
    """(K,), 1 for each class named."""
    for label in labels:
        if label not in classes:
            raise ValueError(f"label {label!r} is none of {', '.join(classes)}")
    return np.array([name in labels for name in classes], dtype=np.uint8)


# ------------------------------------------------------------------------------------------------ folds


def draw_folds(items: list[Item], settings: Settings) -> str | None:
    """Give every row its fold; returns what leaks, if anything.

    Patients are dealt out one by one, those with the largest share of a rare class first, each to the fold where the
    shares of all classes then lie closest to even. Ties fall by a hash of seed and patient: the same on every machine.
    """
    how = settings.data
    kept = KEPT_FOLDS[how.split]
    drawn = []
    for item in items:
        official = item.recording.fold
        if official is not None and (kept is None or official in kept):
            item.folds = np.full(item.n_rows, official.encode())
        elif kept is None:
            raise Stop(f"{item.recording.locator}: has no official fold; use --data.split patients")
        else:
            drawn.append(item)
    if how.split == "random_rows":
        _deal_rows(drawn, how.folds, how.seed)
    elif drawn:
        _deal_patients(drawn, how.folds, how.seed)
    if how.split == "dechazal" and not {"201", "202"} <= {Path(i.recording.locator).stem for i in items}:
        return None
    return LEAKS.get(how.split)


def _deal_patients(items: list[Item], n_folds: int, seed: int) -> None:
    counts: dict[str, NDArray[np.float64]] = {}
    for item in items:
        rows = np.broadcast_to(item.labels, (item.n_rows, item.labels.shape[1]))
        none = (rows.sum(axis=1) == 0).sum()
        here = np.append(rows.sum(axis=0, dtype=np.float64), [none, item.n_rows])
        counts[item.recording.patient] = counts.get(item.recording.patient, 0) + here
    if len(counts) < n_folds:
        raise Stop(f"data.folds = {n_folds}: there are only {len(counts)} patients to draw from")
    total = np.maximum(sum(counts.values()), 1)
    share = {patient: count / total for patient, count in counts.items()}
    by_weight = sorted(share, key=lambda p: (-share[p].max(), _hash(seed, p)))
    filled = np.zeros((n_folds, len(total)))  # share of each class in each fold so far
    fold_of = {}
    for patient in by_weight:
        # growth of the sum of squared shares: least where this patient's classes are scarcest
        growth = ((filled + share[patient]) ** 2 - filled**2).sum(axis=1)
        fold = int(np.argmin(growth))
        filled[fold] += share[patient]
        fold_of[patient] = fold
    for item in items:
        item.folds = np.full(item.n_rows, str(fold_of[item.recording.patient]).encode())


def _deal_rows(items: list[Item], n_folds: int, seed: int) -> None:
    labels = np.concatenate([np.broadcast_to(i.labels, (i.n_rows, i.labels.shape[1])) for i in items])
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.lexsort(labels[order].T)]  # by class, at random within each
    folds = np.empty(len(labels), "S4")
    folds[order] = np.array([str(k % n_folds) for k in range(len(labels))], "S4")
    first = 0
    for item in items:
        item.folds = folds[first : first + item.n_rows]
        first += item.n_rows


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


# ------------------------------------------------------------------------------------------------ parts


def cut_parts(items: list[Item], row_bytes: int) -> list[list[Item]]:
    """Consecutive recordings, so many that a part's signals come to about PART_BYTES."""
    parts: list[list[Item]] = [[]]
    size = 0
    for item in items:
        if parts[-1] and size + item.n_rows * row_bytes > PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += item.n_rows * row_bytes
    return parts


def prepare_items(
    items: Sequence[Item], recipe: dict[str, Any], raw: Path, n_threads: int
) -> Iterator[tuple[Sequence[Item], pqrst.Prepared]]:
    """A few recordings at a time through the native chain."""
    step = 8 * n_threads
    for start in range(0, len(items), step):
        some = items[start : start + step]
        inputs = [readers.native(raw / item.recording.locator) for item in some]
        centers = [item.centers for item in some if item.centers is not None] or None  # of beats, each has them
        yield some, pqrst.prepare(inputs, recipe, centers, n_threads=n_threads, skip_errors=True)


def write_part(
    path: Path, items: list[Item], recipe: dict[str, Any], raw: Path, n_threads: int, stamp: str, bar: tqdm[Any]
) -> None:
    """Prepare the recordings of one part and write it, under a temporary name until it is whole."""
    columns: dict[str, list[NDArray[Any]]] = {}
    failures: list[Failure] = []
    warnings: list[Failure] = []
    for some, prepared in prepare_items(items, recipe, raw, n_threads):
        index = np.asarray(prepared.index)
        for name, values in (
            ("signals", prepared.rows),
            ("valid", prepared.valid),
            ("lead_mask", prepared.lead_mask),
            ("start", prepared.start),
        ):
            columns.setdefault(name, []).append(values)
        for number, item in enumerate(some):
            kept = index[prepared.record == number]
            for name, values in _columns_of(item, kept, recipe).items():
                columns.setdefault(name, []).append(values)
        for target, entries in ((failures, prepared.errors), (warnings, prepared.warnings)):
            target += [Failure(some[number].recording.locator, stage, text) for number, stage, text in entries]
        bar.update(len(some))
    temporary = path.with_suffix(".tmp")
    with h5py.File(temporary, "w") as file:
        for name, arrays in columns.items():
            file.create_dataset(name, data=np.concatenate(arrays), track_times=False)
        file.attrs["stamp"] = stamp
        file.attrs["failures"] = json.dumps(failures)
        file.attrs["warnings"] = json.dumps(warnings)
    temporary.replace(path)


def _columns_of(item: Item, kept: NDArray[np.int64], recipe: dict[str, Any]) -> dict[str, NDArray[Any]]:
    n = len(kept)
    columns: dict[str, NDArray[Any]] = {
        "record": np.full(n, item.recording.locator.encode(), "S128"),
        "patient": np.full(n, item.recording.patient.encode(), "S64"),
        "fold": item.folds[kept].astype("S16"),
    }
    if item.centers is None or item.symbols is None or item.beat_index is None or item.context is None:
        return {
            **columns,
            "labels": np.repeat(item.labels, n, axis=0),
            "context": np.zeros((n, 0), np.float32),
        }
    return {
        **columns,
        "labels": item.labels[kept],
        "sample": item.centers[kept],
        "symbol": item.symbols[kept],
        "beat_index": item.beat_index[kept],
        "context": item.context[kept],
    }


def dataset_scale(items: list[Item], recipe: dict[str, Any], raw: Path, settings: Settings) -> dict[str, Any]:
    """The recipe with center and spread of each slot taken from the training rows."""
    training = {fold.encode() for fold in settings.data.train}
    unscaled = {**recipe, "dtype": "float32", "scale": {**recipe["scale"], "kind": "none"}}
    n_slots = len(recipe["leads"])
    count, total, square = np.zeros(n_slots), np.zeros(n_slots), np.zeros(n_slots)
    low, high = np.full(n_slots, np.inf), np.full(n_slots, -np.inf)
    for some, prepared in prepare_items(items, unscaled, raw, n_threads(settings)):
        for row, number, index, (first, last), mask in zip(
            prepared.rows, prepared.record, prepared.index, prepared.valid, prepared.lead_mask, strict=True
        ):
            if some[number].folds[index] in training:
                x = row[:, first:last].astype(np.float64)
                use = mask.astype(bool)
                count += use * x.shape[1]
                total += np.where(use, x.sum(axis=1), 0)
                square += np.where(use, (x**2).sum(axis=1), 0)
                low = np.where(use, np.minimum(low, x.min(axis=1)), low)
                high = np.where(use, np.maximum(high, x.max(axis=1)), high)
    if not count.all():
        raise Stop("recipe.scale.over = dataset: a slot has no training rows to take its numbers from")
    if recipe["scale"]["kind"] == "zscore":
        center, spread = total / count, np.sqrt(np.maximum(square / count - (total / count) ** 2, 0))
    else:
        center, spread = low, high - low
    spread = np.where(spread > 0, spread, 1.0)
    return {**recipe, "scale": {**recipe["scale"], "center": center.tolist(), "spread": spread.tolist()}}


def n_threads(settings: Settings) -> int:
    return settings.data.workers or os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------ the whole


def identity(items: list[Item], failures: list[Failure], settings: Settings) -> dict[str, Any]:
    """What makes a prepared dataset what it is: with the same, nothing has to be done again."""
    lines = [f"{i.recording} {i.bytes} {i.n_rows}" for i in items] + [str(f) for f in failures]
    how = settings.data
    tree: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "data": {"name": how.name, "split": how.split, "folds": how.folds, "seed": how.seed},
        "recipe": config.plain(settings.recipe),
        "sources": {
            "records": len(items),
            "bytes": sum(i.bytes for i in items),
            "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        },
    }
    if settings.recipe.scale.over == "dataset":
        tree["data"]["train"] = list(how.train)  # the numbers of the scale come from these folds
    return tree


def up_to_date(folder: Path, wanted: dict[str, Any], overwrite: bool) -> bool:
    """Whether the folder holds this dataset; one that differs stops the program unless it may be overwritten."""
    try:
        found = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["identity"]
    except FileNotFoundError:
        return False
    except (ValueError, KeyError) as error:
        if overwrite:
            return False
        raise Stop(f"{folder / 'dataset.json'}: not readable; --overwrite makes the dataset anew") from error
    changes = config.differences(found, wanted)
    if not changes:
        return True
    if not overwrite:
        raise Stop(
            f"{folder} holds another dataset ({'; '.join(changes)}): "
            "choose another folder with --data.dir FOLDER, or replace it with --overwrite"
        )
    return False


def summary_of(dataset: dict[str, Any]) -> str:
    """The counts of dataset.json as a table for people."""
    classes, folds = dataset["classes"], dataset["counts"]
    width = max(len(name) for name in [*folds, "recordings"]) + 2
    lines = [f"{'fold':{width}}{'rows':>10}{'patients':>10}" + "".join(f"{name:>9}" for name in classes)]
    for fold, row in folds.items():
        counts = "".join(f"{row['classes'][name]:>9,}" for name in classes)
        lines.append(f"{fold:{width}}{row['rows']:>10,}{row['patients']:>10,}{counts}")
    before, after = dataset["classes_before"], dataset["classes_after"]
    lines.append(
        f"{'recordings':{width}}{dataset['rows_before']:>10,}{'':>10}" + "".join(f"{before[c]:>9,}" for c in classes)
    )
    lines.append(
        f"{'prepared':{width}}{dataset['rows']:>10,}{dataset['patients']:>10,}"
        + "".join(f"{after[c]:>9,}" for c in classes)
    )
    return "\n".join(lines)


def collect(
    folder: Path, names: list[str], items: list[Item], index_failures: list[Failure], source: Source
) -> tuple[dict[str, Any], list[Failure], list[Failure]]:
    """Counts, failures and warnings of a whole dataset, read back from its parts."""
    failures, warnings = list(index_failures), []
    parts: list[dict[str, Any]] = []
    labels, folds, patients, row_samples, records = [], [], [], 0, 0
    for name in names:
        with h5py.File(folder / name, "r") as file:
            parts.append({"file": name, "rows": len(file["signals"])})
            row_samples = file["signals"].shape[2]
            labels.append(file["labels"][()])
            folds.append(file["fold"][()])
            patients.append(file["patient"][()])
            records += len(np.unique(file["record"][()]))
            failures += [Failure(*entry) for entry in json.loads(file.attrs["failures"])]
            warnings += [Failure(*entry) for entry in json.loads(file.attrs["warnings"])]
    y, fold, patient = np.concatenate(labels), np.concatenate(folds), np.concatenate(patients)

    def by_class(rows: NDArray[np.uint8]) -> dict[str, int]:
        return dict(zip(source.classes, map(int, rows.sum(axis=0, dtype=np.int64)), strict=True))

    before = np.concatenate([np.broadcast_to(i.labels, (i.n_rows, len(source.classes))) for i in items])
    counts = {
        name.decode(): {
            "rows": int((fold == name).sum()),
            "patients": len(np.unique(patient[fold == name])),
            "classes": by_class(y[fold == name]),
        }
        for name in sorted(np.unique(fold), key=lambda f: (len(f), f))
    }
    numbers = {
        "row_samples": row_samples,
        "rows_before": len(before),
        "rows": len(y),
        "records": records,
        "patients": len(np.unique(patient)),
        "classes_before": by_class(before),
        "classes_after": by_class(y),
        "counts": counts,
        "failures": dict(sorted(Counter(f.stage for f in failures).items())),
        "warnings": dict(sorted(Counter(w.stage for w in warnings).items())),
        "parts": parts,
    }
    return numbers, failures, warnings


def prepare(settings: Settings, overwrite: bool = False) -> Path:
    """Make the prepared dataset of these settings, or find that it is there; returns its folder."""
    started = time.perf_counter()
    folder, name = settings.data_dir, settings.data.name
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Stop(f"data.name = {name!r}: no such dataset ({', '.join(SOURCES)}){hint}")
    source = SOURCES[name]
    raw = settings.data.raw or (_demo(Path("demo")) if name == "demo" else None)
    if raw is None:
        raise Stop(f"data.raw: where are the recordings of {name}? Give --data.raw FOLDER")
    items, index_failures = build_index(source, settings, raw)
    wanted = identity(items, index_failures, settings)
    if up_to_date(folder, wanted, overwrite):
        print(f"{folder} is up to date: nothing to do", file=sys.stderr)
        return folder
    if not items:
        raise Stop(f"{raw}: none of {len(index_failures)} recordings can be read; first: {index_failures[0].reason}")
    leak = draw_folds(items, settings)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").unlink(missing_ok=True)  # first, so that what is half done never looks whole
    recipe = config.plain(settings.recipe)
    if recipe["scale"]["over"] == "dataset" and recipe["scale"]["kind"] != "none":
        recipe = dataset_scale(items, recipe, raw, settings)
    row_bytes = pqrst.row_samples(recipe) * len(recipe["leads"]) * np.dtype(recipe["dtype"]).itemsize
    parts = cut_parts(items, row_bytes)
    names = [f"part-{number:05d}.h5" for number in range(len(parts))]
    for stale in {*folder.glob("part-*")} - {folder / part for part in names}:
        stale.unlink()
    print(
        f"{name}: {len(items):,} recordings of {len({i.recording.patient for i in items}):,} patients -> about "
        f"{sum(i.n_rows for i in items):,} rows in {len(parts)} parts at {folder}, {n_threads(settings)} threads",
        file=sys.stderr,
    )
    with tqdm(total=len(items), unit=" records", disable=None) as bar:
        for part, members in zip(names, parts, strict=True):
            stamp = _stamp(wanted, recipe, members)
            if _has_stamp(folder / part, stamp):
                bar.update(len(members))
            else:
                write_part(folder / part, members, recipe, raw, n_threads(settings), stamp, bar)

    numbers, failures, warnings = collect(folder, names, items, index_failures, source)
    if not numbers["rows"]:
        raise Stop(f"{raw}: no rows could be prepared; first failure: {failures[0].record}: {failures[0].reason}")
    dataset = {
        "name": name,
        "task": source.task,
        "classes": list(source.classes),
        "recipe": recipe,
        "data": wanted["data"],
        "leak": leak,
        **numbers,
        "identity": wanted,
    }
    _write(folder / "failures.csv", lambda f: csv.writer(f).writerows([Failure._fields, *failures]))
    duration_s = time.perf_counter() - started
    log = {
        "command": sys.argv,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "duration_s": round(duration_s, 2),
        "records_per_s": round(len(items) / duration_s, 1),
        "workers": n_threads(settings),
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "h5py": h5py.__version__},
        "warnings": warnings,
    }
    _write(folder / "prepare.log.json", lambda f: json.dump(log, f, indent=1))
    _write(folder / "dataset.json", lambda f: json.dump(dataset, f, indent=1))
    print(summary_of(dataset))
    for what, entries in (("failures", failures), ("warnings", warnings)):
        for entry in entries[:5]:
            print(f"{what[:-1]}: {entry.record}: {entry.reason}", file=sys.stderr)
    if leak:
        print(f"LEAK: {leak}")
    print(
        f"{numbers['rows']:,} rows of {numbers['records']:,} recordings in {duration_s:.1f} s "
        f"({len(items) / duration_s:,.0f} recordings/s); {len(failures)} failures in failures.csv, "
        f"{len(warnings)} warnings in prepare.log.json"
    )
    return folder


def _demo(folder: Path) -> Path:
    if not (folder / "records.csv").exists():
        import simulate

        simulate.write_demo(folder)
    return folder


def _stamp(wanted: dict[str, Any], recipe: dict[str, Any], members: list[Item]) -> str:
    lines = [f"{i.recording} {i.bytes} {i.n_rows} {hashlib.sha256(i.folds.tobytes()).hexdigest()}" for i in members]
    text = json.dumps([wanted["version"], wanted["data"], recipe, lines])
    return hashlib.sha256(text.encode()).hexdigest()


def _has_stamp(path: Path, stamp: str) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs["stamp"] == stamp)
    except (OSError, KeyError):
        return False


def _write(path: Path, write: Any) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        write(file)
    temporary.replace(path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="preprocess.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--overwrite", action="store_true", help="replace a prepared dataset that differs")
    settings, arguments = config.load(parser, argv)
    config.print_overrides(settings)
    prepare(settings, arguments.overwrite)


if __name__ == "__main__":
    config.script(main)
