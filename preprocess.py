"""Raw recordings -> prepared dataset.

    python preprocess.py                                                     # the demo set, simulated on the spot
    python preprocess.py --config configs/mitdb.yaml --data.raw ~/data/mitdb
    python preprocess.py --dataset ptbxl --download                          # into raw/ptbxl, then the same
    python preprocess.py --inspect prepared/ptbxl                            # its counts again, and pictures

Writes prepared/<name>/: parts (HDF5), dataset.json, records.csv, failures.csv, prepare.log.json. A recording that
cannot be prepared is listed in failures.csv and counted, and the run goes on. What is whole is never made twice.
records.csv holds what the source knows of each recording (age, sex, device, site), for reports and never for training.

    torchrun --nproc_per_node 4 preprocess.py --dataset code15 --data.raw ~/data/code15

shares the parts among processes, on one machine or on several that see the same folders; the bytes are the same.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import config
import script
from config import Data, Settings
from data import RECORDS, SUMMARY, Counts, Identity, PartFile, Sources, SplitCounts, Summary, open_part
from folds import Fold, leak_of
from index import Index, Item, build_index, common_reason, draw_folds, first_reason, total_rows, with_variants
from parts import Job, Part, cut_parts, has_stamp, item_line, make_part, rooms_for, stamp_of, with_scale
from recipe import differences
from script import Stop
from sources import SOURCES, About, Problem, source_of

FORMAT_VERSION = 2  # of the prepared dataset
SHOWN = 20  # kinds of recordings and problems that --dry_run lists


def prepare(settings: Settings, overwrite: bool = False, dry_run: bool = False) -> Path:
    """Make the prepared dataset of these settings, or find that it exists; returns its folder."""
    started, began = time.perf_counter(), {"index": _now()}
    rank, _ = script.rank()
    data = settings.data
    folder, *others = settings.data_dirs
    if others:
        raise Stop(f"data.dir: {folder} and {others[0]}: one dataset is prepared at a time")
    raw = open_raw(settings)
    index = build_index(SOURCES[data.name], data, settings.recipe, raw)
    if not index.items:
        raise Stop(f"{raw}: {first_reason(index)}")
    index, folds = with_variants(index, draw_folds(index, settings.recipe, data), data.variants)
    job = Job(index, settings.recipe, identity_of(index, settings), n_threads(settings))
    parts = cut_parts(index.items, folds, job.row_bytes)
    if rank == 0:
        announce(job, parts, folder)
        if dry_run:
            print("\n".join(kinds_of(index)), file=sys.stderr)
            for kind, problems in (("failure", index.problems), ("warning", index.warnings)):
                for problem in problems[:SHOWN]:
                    print(f"{kind}: {problem}", file=sys.stderr)
            print(f"{len(index.problems)} failures so far; nothing was written", file=sys.stderr)
    if dry_run:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with script.hold(folder):
        if not up_to_date(folder, job.identity, overwrite):
            make_dataset(folder, job, parts, data, began, started)
        elif rank == 0:
            if not (folder / RECORDS).exists():  # prepared before there was this file; the parts stay as they are
                save_records(folder, index.items, folds)
            print(f"{folder} is up to date: nothing to do", file=sys.stderr)
    return folder


def kinds_of(index: Index) -> list[str]:
    """Return a line for each kind of recording: how many there are, format, rate, leads and unit."""
    lines = []
    for (name, fs, leads, units), n in index.kinds.most_common(SHOWN):
        of_leads = f"{len(leads)} leads {' '.join(leads)}" if leads else "leads told by the signal"
        lines.append(f"{n:9,} {name}, {fs:g} Hz, {of_leads}, {', '.join(dict.fromkeys(units))}")
    others = index.kinds.most_common()[SHOWN:]
    if others:
        lines.append(f"{sum(n for _, n in others):9,} of {len(others):,} other kinds")
    return lines


def make_dataset(folder: Path, job: Job, parts: list[Part], data: Data, began: dict[str, str], started: float) -> None:
    """Make this process's share of the parts and, on rank 0, all that goes with them; `began` gets times of stages."""
    if script.rank()[0] == 0:
        (folder / SUMMARY).unlink(missing_ok=True)  # first, so that what is half done never looks whole
    if job.recipe.scale.over == "dataset" and job.recipe.scale.kind != "none":
        job = replace(job, recipe=with_scale(job, parts, data.train))
    began["rows"] = _now()
    files = [File(folder / f"part-{n:05d}.h5", part, stamp_of(part, job)) for n, part in enumerate(parts)]
    make_parts(files, job)
    if script.rank()[0] > 0:
        return
    began["summary"] = _now()
    for stale in set(folder.glob("part-*")) - {file.path for file in files}:  # of other settings, or killed
        stale.unlink(missing_ok=True)
    summary, failures, warnings = summarise(files, job, data)
    if not summary.rows:
        raise Stop(f"{job.index.raw}: no rows could be prepared; {common_reason(failures)}")
    duration_s = time.perf_counter() - started
    log = {"began": began, "finished": _now(), **log_of(job, duration_s), "warnings": warnings}
    cells = ([script.cell(text) for text in problem] for problem in failures)
    _write(folder / "failures.csv", lambda file: csv.writer(file).writerows([Problem._fields, *cells]))
    items, folds = [i for part in parts for i in part.items], [fold for part in parts for fold in part.folds]
    save_records(folder, items, folds)
    _write(folder / "prepare.log.json", lambda file: json.dump(log, file, indent=1))
    summary.save(folder)
    conclude(summary, failures, warnings, len(job.index.items), duration_s)


def save_records(folder: Path, items: Sequence[Item], folds: Sequence[Fold]) -> None:
    """Write a line per recording of the index, also of one without rows: who, which fold, and what the source knows.

    The age is in years. What is not known is empty, and so is the fold where the rows of a recording are in several.
    """

    def line(item: Item, fold: Fold) -> list[str]:
        patient, about = item.recording.patient, item.recording.about
        age = "" if about.age is None else f"{about.age:g}"
        whole = fold.decode() if isinstance(fold, bytes) else ""
        return [item.name, patient, whole, age, about.sex, about.device, about.site]

    head = ["record", "patient", "fold", *About._fields]
    cells = ([script.cell(text) for text in line(*each)] for each in zip(items, folds, strict=True))
    _write(folder / RECORDS, lambda file: csv.writer(file).writerows([head, *cells]))


class File(NamedTuple):
    """Where a part stands, and the stamp that says that it is the one that is wanted."""

    path: Path
    part: Part
    stamp: str


def open_raw(settings: Settings) -> Path:
    """Return the folder of the recordings; those of the demo are simulated where they are missing."""
    name, raw = settings.data.name, raw_folder(settings)
    source_of(name)
    if name == "demo" and not settings.data.raw:
        if script.rank()[0] == 0 and not (raw / "records.csv").exists():
            import simulate

            simulate.write_demo(raw)
        while not (raw / "records.csv").exists():  # torchrun ends all processes if the one that writes it fails
            time.sleep(0.1)
    elif not raw.is_dir():
        raise Stop(f"{raw}: no such folder; where are the recordings of {name}? Give --data.raw FOLDER, or --download")
    return raw


def raw_folder(settings: Settings) -> Path:
    """Return where the recordings are, or are downloaded to."""
    name = settings.data.name
    return settings.data.raw or (Path("demo") if name == "demo" else Path("raw") / name)


def n_threads(settings: Settings) -> int:
    """Return how many threads this process uses."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return settings.data.workers or max(1, (os.cpu_count() or 1) // processes)


def identity_of(index: Index, settings: Settings) -> Identity:
    """Return what makes the dataset of these settings what it is."""
    lost = [f"{problem.record} {problem.stage}" for problem in index.problems]
    sources = Sources(
        records=len(index.items),
        bytes=sum(item.n_bytes for item in index.items),
        sha256=hashlib.sha256("\n".join([*map(item_line, index.items), *lost]).encode()).hexdigest(),
    )
    tree = settings.data.tree()
    names = ("name", "target", "arguments", "limit", "fraction", "split", "folds", "seed")  # in the order of the stamps
    data = {name: tree[name] for name in names}
    if settings.data.variants:
        data["variants"] = settings.data.variants
    if settings.recipe.scale.over == "dataset":
        data["train"] = list(settings.data.train)  # the numbers of the scale come from these folds
    return Identity(version=FORMAT_VERSION, data=data, recipe=settings.recipe, sources=sources)


def announce(job: Job, parts: list[Part], folder: Path) -> None:
    """Say on standard error what is about to be made."""
    items = job.index.items
    n_rows = total_rows(items)
    n_patients = len({item.recording.patient for item in items})
    patients = f"{n_patients:,} patients" if job.index.patients_known else "unknown patients"
    print(
        f"{job.identity.data['name']}: {len(items):,} recordings of {patients}, "
        f"{sum(item.n_bytes for item in items) / 1e6:,.0f} MB -> about {n_rows:,} rows, "
        f"{n_rows * job.row_bytes / 1e6:,.0f} MB in {len(parts)} parts at {folder}, {job.n_threads} threads",
        file=sys.stderr,
    )


def up_to_date(folder: Path, wanted: Identity, overwrite: bool) -> bool:
    """Tell whether the folder holds this dataset, whole; another one stops the program unless it may be replaced."""
    path = folder / SUMMARY
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        older = tree["identity"]["version"] != wanted.version
        changes = ["of an older version"] if older else differences(tree["identity"], wanted.tree())
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if overwrite:
            return False
        raise Stop(f"{path}: not readable; --overwrite makes the dataset anew") from error
    if changes and not overwrite:
        raise Stop(
            f"{folder} holds another dataset ({'; '.join(changes)}): "
            "choose another folder with --data.dir FOLDER, or replace it with --overwrite"
        )
    # a summary with other fields is of an older version: it is written anew, and the parts are kept
    if changes or set(tree) != set(Summary.model_fields):
        return False
    try:
        summary = Summary.load(folder)
        for part in summary.parts:
            with open_part(folder, summary, part):
                pass
    except Stop as error:
        print(f"{error}: it is made again", file=sys.stderr)
        return False
    return True


def make_parts(files: list[File], job: Job) -> None:
    """Make this process's share of the parts; rank 0 then waits for those of the others."""
    rank, n_ranks = script.rank()
    quiet = None if rank == 0 else True  # one bar for all: this process's own parts, then those it waits for
    rooms = rooms_for([file.part for file in files], job)
    with tqdm(total=len(job.index.items), unit=" records", disable=quiet) as bar:
        for path, part, stamp in files[rank::n_ranks]:
            if has_stamp(path, stamp):
                bar.update(len(part.items))
            else:
                make_part(path, part, stamp, job, rooms, bar)
        if rank > 0:
            return
        for number, (path, part, stamp) in enumerate(files):
            if number % n_ranks != 0:
                while not has_stamp(path, stamp):  # torchrun ends all if one fails
                    time.sleep(0.1)
                bar.update(len(part.items))


# ------------------------------------------------------------------------------------------------ the summary


def summarise(files: list[File], job: Job, data: Data) -> tuple[Summary, list[Problem], list[Problem]]:
    """Return counts, failures and warnings of a whole dataset, read back from its parts."""
    target, items = job.index.target, job.index.items
    failures, warnings = list(job.index.problems), list(job.index.warnings)
    parts: list[PartFile] = []
    tally = Tally(target.classes)
    records = 0
    for path, _, stamp in files:
        with h5py.File(path, "r") as file:
            if file.attrs["stamp"] != stamp:
                raise Stop(f"{path}: another process has replaced it; run preprocess.py again")
            parts.append(PartFile(file=path.name, rows=len(file["signals"])))
            tally.add(file["labels"][()], file["fold"][()], file["patient"][()])
            records += len(np.unique(file["record"][()]))
            failures += [Problem(*entry) for entry in json.loads(file.attrs["failures"])]
            warnings += [Problem(*entry) for entry in json.loads(file.attrs["warnings"])]
    whole = tally.counts(tally.folds)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    expected = sum((item.counts[:-1] for item in items), np.zeros(len(target.classes), np.int64))
    summary = Summary(
        name=data.name,
        task=target.task,
        classes=target.classes,
        labelled=target.rows,
        recipe=job.recipe,
        data=job.identity.data,
        leak=leak_of(data.split, (Path(item.recording.locator).stem for item in items)),
        patients_known=job.index.patients_known,
        row_samples=job.row_shape[1],
        rows_before=total_rows(items),
        rows=whole.rows,
        records=records,
        patients=whole.patients,
        classes_before=dict(zip(target.classes, map(int, expected), strict=True)),
        classes_after=whole.classes,
        counts={fold.decode(): tally.counts([fold]) for fold in tally.folds},
        splits={
            name: SplitCounts(of=folds, **dict(tally.counts([fold.encode() for fold in folds])))
            for name, folds in splits.items()
        },
        failures=dict(sorted(Counter(problem.stage for problem in failures).items())),
        warnings=dict(sorted(Counter(problem.stage for problem in warnings).items())),
        parts=tuple(parts),
        identity=job.identity,
    )
    return summary, failures, warnings


class Tally:
    """Rows, patients and classes of each fold, added up part by part."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.rows: Counter[bytes] = Counter()
        self.patients: dict[bytes, set[bytes]] = {}
        self.labels: dict[bytes, NDArray[np.int64]] = {}

    def add(self, labels: NDArray[np.uint8], fold: NDArray[np.bytes_], patient: NDArray[np.bytes_]) -> None:
        for name in np.unique(fold):
            here = fold == name
            self.rows[name] += int(here.sum())
            self.patients.setdefault(name, set()).update(np.unique(patient[here]))
            self.labels[name] = self.labels.get(name, 0) + labels[here].sum(axis=0, dtype=np.int64)

    @property
    def folds(self) -> list[bytes]:
        """All folds that have a row; numbers in their order."""
        return sorted(self.rows, key=lambda fold: (len(fold), fold))

    def counts(self, folds: Iterable[bytes]) -> Counts:
        """Return the counts of some folds together."""
        here = [fold for fold in folds if fold in self.rows]
        n_labels = sum((self.labels[fold] for fold in here), np.zeros(len(self.classes), np.int64))
        return Counts(
            rows=sum(self.rows[fold] for fold in here),
            patients=len(set().union(*(self.patients[fold] for fold in here))),
            classes=dict(zip(self.classes, map(int, n_labels), strict=True)),
        )


def log_of(job: Job, duration_s: float) -> dict[str, Any]:
    """Return what differs from run to run, for prepare.log.json."""
    return {
        "command": sys.argv,
        "duration_s": round(duration_s, 2),
        "records_per_s": round(len(job.index.items) / duration_s, 1),
        "workers": job.n_threads,
        "processes": script.rank()[1],
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "h5py": h5py.__version__},
    }


def conclude(
    summary: Summary, failures: list[Problem], warnings: list[Problem], n_recordings: int, duration_s: float
) -> None:
    """Print the counts, the first problems and the rate."""
    print(summary.to_text())
    for kind, problems in (("failure", failures), ("warning", warnings)):
        for problem in problems[:5]:
            print(f"{kind}: {problem}", file=sys.stderr)
    if summary.leak:
        print(f"LEAK: {summary.leak}")
    print(
        f"{summary.rows:,} rows of {summary.records:,} recordings in {duration_s:.1f} s "
        f"({n_recordings / duration_s:,.0f} recordings/s); {len(failures)} failures in failures.csv, "
        f"{len(warnings)} warnings in prepare.log.json"
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _write(path: Path, write: Any) -> None:
    with script.aside(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write(file)


# ------------------------------------------------------------------------------------------------ the actions


def inspect(folder: Path) -> None:
    """Print what a prepared dataset holds, and draw it: class balance and a page of sample signals."""
    import plots
    from data import Dataset

    dataset = Dataset(folder)
    print(dataset.summary.to_text())
    plots.save_class_balance(dataset, folder / "classes.png")
    plots.save_samples(dataset, folder / "samples.png")
    print(f"drawn: {folder / 'classes.png'}, {folder / 'samples.png'}")


def check_leaks(folder: Path) -> None:
    """Name the recordings of a prepared dataset that are copies of another patient's, or of one in another fold."""
    import duplicates
    from data import Dataset

    print(duplicates.report(duplicates.find(Dataset(folder))))


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
    rank, n_ranks = script.rank()
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
    script.run(main)
