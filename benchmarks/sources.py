"""Run preprocess.py on every dataset, for benchmarks/preprocess.py --datasets.

Two datasets are simulated: CODE-15% (gzip HDF5 parts of 2,000 exams) and MIMIC-IV-ECG (headers share 500 signal files).
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

import pqrst
import simulate
from benchmarks import machine
from benchmarks.machine import REPOSITORY, peak_memory, reason
from recipe import TWELVE_LEADS

Array = npt.NDArray[Any]
FOLDERS = {  # (folder below DATA, number of folds): the small samples allow only 2
    "mitdb": ("mitdb", 5),
    "svdb": ("svdb", 5),
    "ptbxl": ("ptb-xl-2k", 10),
    "cinc2017": ("cinc2017/training2017", 10),
    "cinc2020": ("cinc2020", 2),
    "cinc2021": ("cinc2021", 2),
    "cpsc2018": ("cpsc2018", 2),
    "code15": ("code-15/hdf5", 2),
}
N_SHAPES = 500  # distinct simulated signals
PART = 2_000  # exams in an HDF5 part


class Run(NamedTuple):
    """One run of preprocess.py, and the two files that describe what it wrote."""

    seconds: float  # of the whole process
    peak: float  # bytes of resident memory, at most
    log: dict[str, Any]
    dataset: dict[str, Any]


def run(name: str, raw: Path, out: Path, *arguments: str) -> Run | str:
    """Run preprocess.py in a process of its own; return its figures, or the line that says why it failed."""
    command = [sys.executable, str(REPOSITORY / "preprocess.py"), "--dataset", name]
    command += ["--data.raw", str(raw), "--data.dir", str(out), *arguments]
    started, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        if process.returncode:
            errors.seek(0)
            return reason(errors.read(), process.returncode)
    log, dataset = (json.loads((out / f"{file}.json").read_text()) for file in ("prepare.log", "dataset"))
    return Run(seconds, peak, log, dataset)


def print_run(name: str, found: Run | str) -> None:
    if isinstance(found, str):
        print(f"{name:14} {found}")
        return
    numbers, classes = found.dataset, found.dataset["classes_after"]
    shown = ", ".join(f"{key} {count:,}" for key, count in classes.items() if count)
    problems = ", ".join(f"{count:,} {stage}" for stage, count in numbers["failures"].items()) or "none"
    rate = numbers["records"] / found.seconds
    print(
        f"{name:14}{numbers['records']:>9,}{numbers['rows']:>10,}{found.seconds:>8.1f}{rate:>10,.0f}"
        f"{found.peak / 1e6:>9.0f}  failures: {problems}\n{'':14} {shown}",
        flush=True,
    )


def shapes(n: int) -> list[Array]:
    """Return n simulated signals, each (12, 4096) float32, mV, at 400 Hz."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        patient = simulate.simulate_patient(rng)
        found.append(simulate.simulate_record(rng, patient, (), 4096 / 400, 400.0)[0].astype(np.float32))
    return found


def write_code15(folder: Path, n_exams: int, signals: list[Array]) -> None:
    """Write exams.csv and HDF5 parts as CODE-15% does. Every fourth exam lasts 7 s and has zeros on either side."""
    rng = np.random.default_rng(1)
    classes = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
    folder.mkdir()
    with (folder / "exams.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["exam_id", "age", "is_male", *classes, "patient_id", "normal_ecg", "trace_file"])
        for number in range(n_exams):
            flags = rng.random(6) < 0.05
            table.writerow(
                [number + 1, 50, True, *flags, number // 2, not flags.any(), f"exams_part{number // PART}.hdf5"]
            )
    for start in range(0, n_exams, PART):
        ids = np.arange(start, min(start + PART, n_exams)) + 1
        with h5py.File(folder / f"exams_part{start // PART}.hdf5", "w") as out:
            out["exam_id"] = np.append(ids, 0)
            shape = (len(ids) + 1, 4096, 12)
            tracings = out.create_dataset("tracings", shape, "f4", chunks=(1, 4096, 12), compression=1)
            for row, exam in enumerate(ids):
                x = signals[exam % len(signals)].T.copy()
                if exam % 4 == 0:
                    x[:648] = x[-648:] = 0
                tracings[row] = x


def write_mimic(folder: Path, n_records: int, signals: list[Array]) -> None:
    """Write tables, headers and signal files as MIMIC-IV-ECG does. Records share signal files by hard links."""
    folder.mkdir()
    order = [TWELVE_LEADS.index(lead) for lead in ("I", "II", "III", "aVR", "aVF", "aVL", *TWELVE_LEADS[6:])]
    records = [["subject_id", "study_id", "file_name", "ecg_time", "path"]]
    measured = [["subject_id", "study_id", *(f"report_{i}" for i in range(18))]]
    for number in range(n_records):
        subject, study = 10_000_000 + number // 2, 40_000_000 + number
        place = f"files/p{subject // 10_000}/p{subject}/s{study}"
        records.append([str(subject), str(study), str(study), "", f"{place}/{study}"])
        measured.append([str(subject), str(study), ("Sinus rhythm", "Atrial fibrillation")[number % 2], *[""] * 17])
        (folder / place).mkdir(parents=True)
        lines = [f"{study} 12 500 5000"]
        lines += [f"{study}.dat 16 200/mV 16 0 0 0 0 {TWELVE_LEADS[lead]}" for lead in order]
        (folder / place / f"{study}.hea").write_text("\n".join(lines) + "\n")
        data = folder / f"{number % len(signals)}.dat"
        if not data.exists():
            x = signals[number % len(signals)][order]
            x = np.stack([np.interp(np.arange(5000) * 0.8, np.arange(4096), lead) for lead in x])
            np.round(200 * x.T).astype("<i2").tofile(data)
        (folder / place / f"{study}.dat").hardlink_to(data)
    for name, rows in (("record_list.csv", records), ("machine_measurements.csv", measured)):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def print_rates(folder: Path) -> None:
    """Print how far PTB-XL resampled by pqrst, 500 -> 100 Hz, is from its owner's own version at 100 Hz."""
    distances, correlations = [], []
    for path in sorted((folder / "records500").rglob("*.hea")):
        twin = Path(str(path).replace("records500", "records100").replace("_hr", "_lr"))
        if twin.exists():
            ours = pqrst.resample(pqrst.read(path).signal.astype(float), 500, 100)
            theirs = pqrst.read(twin).signal  # (L, T) mV, like ours
            distances.append(float(np.sqrt(((ours - theirs) ** 2).mean())))
            correlations += [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(ours, theirs, strict=True)]
    if distances:
        print(
            f"PTB-XL at 100 Hz, pqrst.resample of 500 Hz against the owner's, {len(distances)} records: RMS difference "
            f"{1000 * np.median(distances):.1f} uV (median), correlation of a lead {np.median(correlations):.4f} "
            f"(median), {min(correlations):.3f} (least)"
        )


def print_table(data: Path, n_simulated: int, scratch: Path | None) -> None:
    """Print a line for every dataset below `data`, and for two large simulated ones."""
    print(machine.describe())
    print(f"{'':14}{'records':>9}{'rows':>10}{'s':>8}{'records/s':>10}{'peak MB':>9}")
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        for dataset, (below, folds) in FOLDERS.items():
            if (data / below).exists():
                print_run(dataset, run(dataset, data / below, Path(name, dataset), "--data.folds", str(folds)))
        signals = shapes(min(N_SHAPES, n_simulated))
        for dataset, write in (("code15", write_code15), ("mimic_iv_ecg", write_mimic)):
            raw = Path(name, f"{dataset}-raw")
            write(raw, n_simulated, signals)
            print_run(dataset, run(dataset, raw, Path(name, f"{dataset}-out")))
    print_rates(data / "ptb-xl")
