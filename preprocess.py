"""Raw recordings -> prepared dataset.

    python preprocess.py                                                     # the demo set, simulated on the spot
    python preprocess.py --config configs/mitdb.yaml --data.raw ~/data/mitdb
    python preprocess.py --dataset ptbxl --download                          # into raw/ptbxl, then the same
    python preprocess.py --inspect prepared/ptbxl                            # its counts again, and pictures

Writes prepared/<name>/: parts (HDF5), dataset.json, failures.csv, prepare.log.json. A recording that cannot be
prepared is listed in failures.csv and counted, and the run goes on. What is whole is never made twice.

    torchrun --nproc_per_node 4 preprocess.py --dataset code15 --data.raw ~/data/code15

shares the parts among processes, on one machine or on several that see the same folders; the bytes are the same.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import config
import pqrst
import readers
from config import Data, Settings, Stop
from index import (
    Beats,
    Failure,
    Fold,
    Index,
    Item,
    Known,
    build_index,
    draw_folds,
    known,
    n_rows,
    nothing,
    reason_below,
    unscaled,
)
from sources import SOURCES

PART_BYTES = 64 * 2**20  # about one part's signals
BATCH = 8  # recordings per thread and call of the native chain: few, so that their rows stay in the cache
MANY = 12  # classes, more than a table has columns for
FORMAT_VERSION = 1  # of the prepared dataset

# ------------------------------------------------------------------------------------------------ parts


class Part(NamedTuple):
    """Consecutive recordings whose rows go into one file."""

    items: list[Item]
    folds: list[Fold]


def cut_parts(items: list[Item], folds: list[Fold], row_bytes: int) -> list[Part]:
    """Consecutive recordings, so many that a part's signals come to about PART_BYTES."""
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


Trouble = tuple[int, str, str]  # number of a recording within its part, stage, reason


def known_rows(part: Part, index: Index, recipe: dict[str, Any]) -> tuple[list[Known], list[Trouble]]:
    """What is known of each recording's rows before its signal is prepared; of one that cannot be read, of no rows."""
    rows: list[Known] = []
    failures: list[Trouble] = []
    for number, item in enumerate(part.items):
        try:
            rows.append(known(item, index, recipe))
        except (OSError, ValueError) as error:
            rows.append(nothing(index.target, recipe))
            failures.append((number, "read", config.one_line(error)))
        if rows[-1].undetected:
            failures.append((number, "rpeaks", f"{rows[-1].undetected} annotated beats were not detected"))
    return rows, failures


def columns_of(part: Part, rows: list[Known], index: Index, recipe: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """What is stored of each known row, and whether it is `wanted`: not one without a class, unless those are kept."""
    each = [len(known.labels) for known in rows]
    folds = [np.full(n, f) if isinstance(f, bytes) else f[:n] for f, n in zip(part.folds, each, strict=True)]
    empty = nothing(index.target, recipe)
    labels = np.concatenate([empty.labels, *(known.labels for known in rows)])
    columns: dict[str, NDArray[Any]] = {
        "record": np.repeat(np.array([item.recording.locator.encode() for item in part.items]), each),
        "patient": np.repeat(np.array([item.recording.patient.encode() for item in part.items]), each),
        "fold": np.concatenate(folds),
        "labels": labels,
        "context": np.zeros((len(labels), 0), np.float32),
        "wanted": np.logical_or(labels.any(axis=1), index.target.without == "kept"),
    }
    if empty.beats:
        beats = zip(empty.beats, *(known.beats for known in rows if known.beats), strict=True)
        columns |= {name: np.concatenate(values) for name, values in zip(Beats._fields, beats, strict=True)}
    return columns


class Batch(NamedTuple):
    """Prepared rows of some recordings of a part."""

    place: NDArray[np.int64]  # (N,) of each among all known rows
    prepared: pqrst.Prepared
    failures: list[Trouble]
    warnings: list[Trouble]


def prepare_part(
    part: Part,
    rows: list[Known],
    raw: Path,
    recipe: dict[str, Any],
    n_threads: int,
    bar: tqdm[Any],
    out: NDArray[Any] | None = None,
) -> Iterator[Batch]:
    """Some recordings at a time through the native chain, their rows one behind the other in `out`, if given."""
    first = np.cumsum([0, *(len(known.labels) for known in rows)])
    done, step = 0, BATCH * n_threads
    for start in range(0, len(part.items), step):
        some = range(start, min(start + step, len(part.items)))
        numbers: list[int] = []
        inputs: list[Path | pqrst.Record] = []
        failures: list[Trouble] = []
        for number in some:
            item = part.items[number]
            recording, path = item.recording, raw / item.recording.locator
            if not len(rows[number].labels):
                continue
            try:
                inputs.append(path if item.native else readers.read(path, recording.units_per_mv, recording.fs))
                numbers.append(number)
            except (OSError, ValueError) as error:
                failures.append((number, "read", config.one_line(error)))
        beats = [rows[number].beats for number in numbers]
        centers = [each.sample for each in beats if each] or None  # of beats, each has them
        room = None if out is None else out[done:]
        prepared = pqrst.prepare(inputs, recipe, centers, out=room, n_threads=n_threads, skip_errors=True)
        failures += [(numbers[i], stage, reason) for i, stage, reason in prepared.errors]
        warnings = [(numbers[i], stage, reason) for i, stage, reason in prepared.warnings]
        place = first[np.array(numbers, np.int64)][prepared.record] + prepared.index
        yield Batch(place, prepared, failures, warnings)
        done += len(prepared.rows)
        bar.update(len(some))


def make_part(
    path: Path,
    part: Part,
    index: Index,
    recipe: dict[str, Any],
    n_threads: int,
    bar: tqdm[Any],
    signals: NDArray[Any],
    stamp: str,
) -> None:
    """Prepare the rows of a part and write them; `signals` has room for them all."""
    rows, failures = known_rows(part, index, recipe)
    warnings: list[Trouble] = []
    place: list[NDArray[np.int64]] = []
    added: dict[str, list[NDArray[Any]]] = {"valid": [], "lead_mask": [], "start": []}
    for batch in prepare_part(part, rows, index.raw, recipe, n_threads, bar, signals):
        place.append(batch.place)
        for name, arrays in added.items():
            arrays.append(getattr(batch.prepared, name))
        failures += batch.failures
        warnings += batch.warnings
    columns = {name: values[np.concatenate(place)] for name, values in columns_of(part, rows, index, recipe).items()}
    columns |= {name: np.concatenate(arrays) for name, arrays in added.items()}
    wanted = columns.pop("wanted")
    signals = signals[: len(wanted)]
    with config.aside(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("signals", data=signals if wanted.all() else signals[wanted], track_times=False)
        for name, values in columns.items():
            file.create_dataset(name, data=values[wanted], track_times=False)
        file.attrs["stamp"] = stamp
        for what, troubles in (("failures", failures), ("warnings", warnings)):
            in_order = sorted(troubles, key=itemgetter(0))  # however they were batched
            names = [part.items[number].recording.locator for number, _, _ in in_order]
            told = zip(names, in_order, strict=True)
            entries = [(name, stage, reason_below(index.raw, name, reason)) for name, (_, stage, reason) in told]
            file.attrs[what] = json.dumps(entries)


def dataset_scale(parts: list[Part], index: Index, recipe: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The recipe with center and spread of each slot taken from the training rows."""
    training = np.array(settings.data.train, "S")
    n_slots = len(recipe["leads"])
    count, total, square = np.zeros(n_slots), np.zeros(n_slots), np.zeros(n_slots)
    low, high = np.full(n_slots, np.inf), np.full(n_slots, -np.inf)
    with tqdm(total=sum(len(p.items) for p in parts), desc="scale", unit=" records", disable=None, leave=False) as bar:
        for part in parts:
            rows, _ = known_rows(part, index, recipe)
            columns = columns_of(part, rows, index, recipe)
            counts_in = np.isin(columns["fold"], training) & columns["wanted"]
            for place, prepared, _, _ in prepare_part(
                part, rows, index.raw, unscaled(recipe), n_threads(settings), bar
            ):
                for i in np.flatnonzero(counts_in[place]):
                    x = prepared.rows[i][:, slice(*prepared.valid[i])].astype(np.float64)
                    use = prepared.lead_mask[i].astype(bool)
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
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return settings.data.workers or max(1, (os.cpu_count() or 1) // processes)


def rank_of() -> tuple[int, int]:
    """This process's number and how many share the work, as torchrun says."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


# ------------------------------------------------------------------------------------------------ the whole


def identity(items: list[Item], failures: list[Failure], settings: Settings) -> dict[str, Any]:
    """What makes a prepared dataset what it is: with the same, nothing has to be done again."""
    lines = [*map(_line, items), *map(repr, failures)]
    how = settings.data
    tree: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "data": {
            "name": how.name,
            "target": how.target,
            "arguments": how.arguments,
            "limit": how.limit,
            "fraction": how.fraction,
            "split": how.split,
            "folds": how.folds,
            "seed": how.seed,
        },
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
    before = {"rows": dataset["rows_before"], "classes": dataset["classes_before"]}
    after = {"rows": dataset["rows"], "patients": dataset["patients"], "classes": dataset["classes_after"]}
    folds, totals = dataset["counts"].items(), [*dataset["splits"].items(), ("recordings", before), ("prepared", after)]
    many = len(dataset["classes"]) > MANY  # a line for each, then, not a column
    table = [["fold", "rows", "patients", *([] if many else dataset["classes"])]]
    for name, row in [*folds, *totals]:
        patients = f"{row['patients']:,}" if "patients" in row else ""
        counts = [] if many else [f"{n:,}" for n in row["classes"].values()]
        table.append([name, f"{row['rows']:,}", patients, *counts])
    if many:
        table += [[], ["class", *(name for name, _ in totals)]]
        table += [[c, *(f"{row['classes'][c]:,}" for _, row in totals)] for c in dataset["classes"]]
    width = max(len(line[0]) for line in table if line) + 2
    lines = ["".join([line[0].ljust(width), *(cell.rjust(11) for cell in line[1:])]) if line else "" for line in table]
    for what in ("failures", "warnings"):
        if dataset[what]:
            lines.append(
                f"{what} by stage: " + ", ".join(f"{count:,} {stage}" for stage, count in dataset[what].items())
            )
    return "\n".join(lines)


def collect(
    folder: Path, names: list[str], index: Index, how: Data
) -> tuple[dict[str, Any], list[Failure], list[Failure]]:
    """Counts, failures and warnings of a whole dataset, read back from its parts."""
    failures, warnings = list(index.failures), list(index.warnings)
    parts: list[dict[str, Any]] = []
    rows: Counter[bytes] = Counter()  # by fold
    patients: dict[bytes, set[bytes]] = {}
    counts: dict[bytes, NDArray[np.int64]] = {}
    row_samples = records = 0
    for name in names:
        with h5py.File(folder / name, "r") as file:
            parts.append({"file": name, "rows": len(file["signals"])})
            row_samples = file["signals"].shape[2]
            labels, folds, patient = (file[column][()] for column in ("labels", "fold", "patient"))
            records += len(np.unique(file["record"][()]))
            failures += [Failure(*entry) for entry in json.loads(file.attrs["failures"])]
            warnings += [Failure(*entry) for entry in json.loads(file.attrs["warnings"])]
        for fold in np.unique(folds):
            here = folds == fold
            rows[fold] += int(here.sum())
            patients.setdefault(fold, set()).update(np.unique(patient[here]))
            counts[fold] = counts.get(fold, 0) + labels[here].sum(axis=0, dtype=np.int64)

    def by_class(n: NDArray[np.int64]) -> dict[str, int]:
        return dict(zip(index.target.classes, map(int, n), strict=True))

    none = np.zeros(len(index.target.classes), np.int64)

    def of_folds(some: Iterable[bytes]) -> dict[str, Any]:
        here = [fold for fold in some if fold in rows]
        return {
            "rows": sum(rows[fold] for fold in here),
            "patients": len(set().union(*(patients[fold] for fold in here))),
            "classes": by_class(sum((counts[fold] for fold in here), none)),
        }

    whole, in_order = of_folds(rows), sorted(rows, key=lambda fold: (len(fold), fold))
    splits = {"train": how.train, "validation": how.validation, "test": how.test}
    numbers = {
        "row_samples": row_samples,
        "rows_before": n_rows(index.items),
        "rows": whole["rows"],
        "records": records,
        "patients": whole["patients"],
        "classes_before": by_class(sum((item.counts[:-1] for item in index.items), none)),
        "classes_after": whole["classes"],
        "counts": {fold.decode(): of_folds([fold]) for fold in in_order},
        "splits": {name: {"of": folds, **of_folds(f.encode() for f in folds)} for name, folds in splits.items()},
        "failures": dict(sorted(Counter(f.stage for f in failures).items())),
        "warnings": dict(sorted(Counter(w.stage for w in warnings).items())),
        "parts": parts,
    }
    return numbers, failures, warnings


def prepare(settings: Settings, overwrite: bool = False, dry_run: bool = False) -> Path:
    """Make the prepared dataset of these settings, or find that it is there; returns its folder."""
    started = time.perf_counter()
    rank, n_ranks = rank_of()
    folder, name = settings.data_dir, settings.data.name
    if name not in SOURCES:
        raise Stop(f"data.name = {name!r}: no such dataset ({', '.join(SOURCES)}){config.nearest(name, SOURCES)}")
    raw = raw_folder(settings)
    if name == "demo" and not settings.data.raw:
        _demo(raw)
    elif not raw.is_dir():
        raise Stop(f"{raw}: no such folder; where are the recordings of {name}? Give --data.raw FOLDER, or --download")
    began = {"index": _now()}
    index = build_index(SOURCES[name], settings, raw)
    items, target = index.items, index.target
    if not items:
        raise Stop(f"{raw}: none of {len(index.failures)} recordings can be read; first: {index.failures[0]}")
    recipe = config.plain(settings.recipe)
    shape = (len(recipe["leads"]), pqrst.row_samples(unscaled(recipe)))
    dtype = np.dtype(recipe["dtype"])
    folds, leak = draw_folds(index, settings)
    parts = cut_parts(items, folds, math.prod(shape) * dtype.itemsize)

    def say(line: str) -> None:
        if rank == 0:
            print(line, file=sys.stderr)

    size = n_rows(items) * math.prod(shape) * dtype.itemsize
    say(
        f"{name}: {len(items):,} recordings of {len({i.recording.patient for i in items}):,} patients, "
        f"{sum(item.bytes for item in items) / 1e6:,.0f} MB -> about {n_rows(items):,} rows, {size / 1e6:,.0f} MB in "
        f"{len(parts)} parts at {folder}, {n_threads(settings)} threads"
    )
    if dry_run:
        for failure in index.failures[:20]:
            say(f"failure: {failure}")
        say(f"{len(index.failures)} failures so far; nothing was written")
        return folder
    wanted = identity(items, index.failures, settings)
    if up_to_date(folder, wanted, overwrite):
        say(f"{folder} is up to date: nothing to do")
        return folder

    folder.mkdir(parents=True, exist_ok=True)
    names = [f"part-{number:05d}.h5" for number in range(len(parts))]
    if rank == 0:
        (folder / "dataset.json").unlink(missing_ok=True)  # first, so that what is half done never looks whole
        for stale in {path for path in folder.glob("part-*") if path.name.removesuffix(".tmp") not in names}:
            stale.unlink(missing_ok=True)
    if recipe["scale"]["over"] == "dataset" and recipe["scale"]["kind"] != "none":
        recipe = dataset_scale(parts, index, recipe, settings)
    began["rows"] = _now()
    signals = np.empty((max(n_rows(part.items) for part in parts), *shape), dtype)  # of one part after the other
    quiet = None if rank == 0 else True  # one bar for all: this process's own parts, then those it waits for
    with tqdm(total=len(items), unit=" records", disable=quiet) as bar:
        for number in range(rank, len(parts), n_ranks):
            part, file = parts[number], folder / names[number]
            stamp = _stamp(wanted, recipe, part)
            if _has_stamp(file, stamp):
                bar.update(len(part.items))
            else:
                make_part(file, part, index, recipe, n_threads(settings), bar, signals, stamp)
        if rank > 0:
            return folder
        for number, part in enumerate(parts):
            if number % n_ranks != 0:
                stamp = _stamp(wanted, recipe, part)
                while not _has_stamp(folder / names[number], stamp):  # torchrun ends all if one fails
                    time.sleep(0.1)
                bar.update(len(part.items))
    del signals

    began["summary"] = _now()
    numbers, failures, warnings = collect(folder, names, index, settings.data)
    if not numbers["rows"]:
        raise Stop(f"{raw}: no rows could be prepared; first failure: {failures[0]}")
    dataset = {
        "name": name,
        "task": target.task,
        "classes": list(target.classes),
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
        "began": began,
        "finished": _now(),
        "duration_s": round(duration_s, 2),
        "records_per_s": round(len(items) / duration_s, 1),
        "workers": n_threads(settings),
        "processes": n_ranks,
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "h5py": h5py.__version__},
        "warnings": warnings,
    }
    _write(folder / "prepare.log.json", lambda f: json.dump(log, f, indent=1))
    _write(folder / "dataset.json", lambda f: json.dump(dataset, f, indent=1))
    print(summary_of(dataset))
    for what, entries in (("failures", failures), ("warnings", warnings)):
        for entry in entries[:5]:
            print(f"{what[:-1]}: {entry}", file=sys.stderr)
    if leak:
        print(f"LEAK: {leak}")
    print(
        f"{numbers['rows']:,} rows of {numbers['records']:,} recordings in {duration_s:.1f} s "
        f"({len(items) / duration_s:,.0f} recordings/s); {len(failures)} failures in failures.csv, "
        f"{len(warnings)} warnings in prepare.log.json"
    )
    return folder


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def raw_folder(settings: Settings) -> Path:
    """Where the recordings are, or are downloaded to."""
    name = settings.data.name
    return settings.data.raw or (Path("demo") if name == "demo" else Path("raw") / name)


def _demo(folder: Path) -> None:
    if not (folder / "records.csv").exists():
        import simulate

        simulate.write_demo(folder)


def _line(item: Item) -> str:
    recording = item.recording._replace(table="", row=0)  # the rows around it do not matter
    return f"{recording} {item.bytes} {item.n_rows}"


def _stamp(wanted: dict[str, Any], recipe: dict[str, Any], part: Part) -> str:
    folds = hashlib.sha256(b"\n".join(map(bytes, part.folds))).hexdigest()
    text = json.dumps([wanted["version"], wanted["data"], recipe, *map(_line, part.items), folds])
    return hashlib.sha256(text.encode()).hexdigest()


def _has_stamp(path: Path, stamp: str) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs["stamp"] == stamp)
    except (OSError, KeyError):
        return False


def _write(path: Path, write: Any) -> None:
    with config.aside(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write(file)


def inspect(folder: Path) -> None:
    """Print what a prepared dataset holds, and draw it: class balance and a page of sample signals."""
    import plots
    from data import Prepared

    dataset = Prepared(folder)
    print(summary_of(dataset.meta))
    plots.save_class_balance(dataset, folder / "classes.png")
    plots.save_samples(dataset, folder / "samples.png")
    print(f"drawn: {folder / 'classes.png'}, {folder / 'samples.png'}")


def check_leaks(folder: Path) -> None:
    """Name the recordings of a prepared dataset that are copies of another patient's, or of one in another fold."""
    import leaks
    from data import Prepared

    print(leaks.report(leaks.duplicates(Prepared(folder))))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="preprocess.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--overwrite", action="store_true", help="replace a prepared dataset that differs")
    parser.add_argument("--dry_run", action="store_true", help="say what would be read and written, and write nothing")
    parser.add_argument("--download", action="store_true", help="first fetch what is missing into data.raw")
    parser.add_argument("--check_leaks", action="store_true", help="then look for copies of signals across the folds")
    parser.add_argument("--inspect", type=Path, metavar="DIR", help="only print and draw a prepared dataset")
    settings, arguments = config.load(parser, argv)
    if arguments.inspect:
        inspect(arguments.inspect)
        return
    rank, n_ranks = rank_of()
    if arguments.download:
        if n_ranks > 1:
            raise Stop("--download: is for one process; share the parts among several when all is there")
        from download import download  # what it needs is slow to import

        download(settings.data.name, raw_folder(settings))
    if rank == 0:
        config.print_overrides(settings)
    folder = prepare(settings, arguments.overwrite, arguments.dry_run)
    if arguments.check_leaks and rank == 0 and not arguments.dry_run:
        check_leaks(folder)


if __name__ == "__main__":
    config.script(main)
