"""R peaks found by pqrst.rpeaks and by what a user would pick instead, on public recordings: one run, one thread.

    python benchmarks/rpeaks.py FOLDER                     # mitdb/, svdb/, ludb/, ... as their owners publish them
    python benchmarks/rpeaks.py --sets mitdb --detectors pqrst sleepecg --csv beats.csv
    python benchmarks/rpeaks.py --noise --plot noise.png    # also noise stress; needs nstdb/ beside mitdb/

Without FOLDER it takes the variable ECG_TEST_DATA. The others are optional: pip install sleepecg neurokit2. XQRS and
gqrs, in Python, take minutes. Of the detectors here only pqrst takes several leads at once.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before NumPy is loaded

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pqrst
from beats import WINDOW_S, BeatScore, Interval, flutter, pooled, score_beats
from benchmarks import machine
from sources import BEAT_SYMBOLS

Array = npt.NDArray[Any]
NARROW_S = (0.075, 0.05, 0.025)  # further windows for F1


# ------------------------------------------------------------------------------------------------ detectors

Detect = Callable[[Array, float], Array]  # (L, T) float64 in mV, fs in Hz -> samples


def load_pqrst() -> Detect:
    return pqrst.rpeaks


def load_sleepecg() -> Detect:
    """A Pan-Tompkins detector in C."""
    from sleepecg import detect_heartbeats

    return lambda x, fs: detect_heartbeats(x[0], fs)


def load_neurokit() -> Detect:
    """Its default cleaning, then its default method, both called `neurokit`."""
    import neurokit2

    def detect(x: Array, fs: float) -> Array:
        clean = neurokit2.ecg_clean(x[0], sampling_rate=fs)
        return np.asarray(neurokit2.ecg_peaks(clean, sampling_rate=fs)[1]["ECG_R_Peaks"])

    return detect


def load_xqrs() -> Detect:
    from wfdb import processing

    return lambda x, fs: processing.xqrs_detect(sig=x[0], fs=fs, verbose=False)


def load_gqrs() -> Detect:
    """On integers of 1 uV: its thresholds are amplitudes, and the port's documentation asks for a digital signal."""
    from wfdb import processing

    return lambda x, fs: processing.gqrs_detect(
        d_sig=np.round(1000 * x[0]).astype(np.int64), fs=fs, adc_gain=1000, adc_zero=0
    )


class Detector(NamedTuple):
    load: Callable[[], Detect]
    package: str
    several_leads: bool = False


DETECTORS = {
    "pqrst": Detector(load_pqrst, "pqrst", several_leads=True),
    "sleepecg": Detector(load_sleepecg, "sleepecg"),
    "neurokit2": Detector(load_neurokit, "neurokit2"),
    "xqrs": Detector(load_xqrs, "wfdb"),
    "gqrs": Detector(load_gqrs, "wfdb"),
}


def load(names: Iterable[str]) -> dict[str, Detect]:
    """The detectors that are installed, each called once: what an import or a first call costs is not timed."""
    loaded: dict[str, Detect] = {}
    start = np.random.default_rng(0).standard_normal((1, 10_000))
    for name in names:
        package = DETECTORS[name].package
        try:
            loaded[name] = DETECTORS[name].load()
        except ImportError:
            print(f"{name}: left out, pip install {package}")
            continue
        search(loaded[name], start, 250.0)
    return loaded


def search(detect: Detect, signal: Array, fs: float) -> tuple[Array, float, str]:
    """Samples of the beats, CPU time in s, and what went wrong: a detector that refuses a signal found nothing."""
    problem, peaks = "", np.empty(0)
    started = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peaks = np.asarray(detect(signal, fs))
    except Exception as error:  # any: it is the other package's
        problem = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    return np.sort(peaks[np.isfinite(peaks)].astype(np.int64)), seconds, problem


# ------------------------------------------------------------------------------------------------ recordings


class Case(NamedTuple):
    """One search for beats."""

    group: str  # cases that are counted together
    record: str
    lead: str
    signal: Array  # (L, T) float64, mV
    fs: float
    beats: Array  # (N,) samples
    left_out: list[Interval]  # samples


class Rule(NamedTuple):
    """Which beats of a recording count."""

    name: str
    window_s: float = WINDOW_S
    begin_s: float = 0.0  # not counted
    end_s: float = 0.0


WHOLE = Rule("whole records")
FROM_5_MIN = Rule("from minute 5", begin_s=300.0)  # as bxb and EC57: the beginning is for learning
CHALLENGE = Rule("75 ms, without 0.5 s at either end", window_s=0.075, begin_s=0.5, end_s=0.5)


class DataSet(NamedTuple):
    folder: str
    title: str
    cases: Callable[[Path], Iterator[Case]]  # of one record
    rules: tuple[Rule, ...] = (WHOLE,)
    per_record: bool = False


def marked_beats(path: Path, extension: str) -> tuple[Array, list[Interval]]:
    """Beats of an annotation file and episodes of flutter, samples."""
    marks = pqrst.read_annotations(path, extension)
    is_beat = np.array([symbol in BEAT_SYMBOLS for symbol in marks.symbol], bool)
    return marks.sample[is_beat], flutter(marks.sample, marks.symbol)


def each_and_both(path: Path, groups: dict[str, slice]) -> Iterator[Case]:
    record = pqrst.read(path)
    beats, left_out = marked_beats(path, "atr")
    for group, leads in groups.items():
        signal = record.signal[leads].astype(np.float64)
        yield Case(group, path.name, "+".join(record.leads[leads]), signal, record.fs, beats, left_out)


def holter(path: Path) -> Iterator[Case]:
    return each_and_both(path, {"first lead": slice(0, 1), "both leads": slice(0, 2)})


def limb_leads(path: Path) -> Iterator[Case]:
    return each_and_both(path, {"lead I": slice(0, 1), "lead II": slice(1, 2), "both leads": slice(0, 2)})


def strip(path: Path) -> Iterator[Case]:
    return each_and_both(path, {"one lead": slice(0, 1)})


def every_lead(path: Path) -> Iterator[Case]:
    """LUDB: each lead has marks of its own, none in the first and the last cycle."""
    record = pqrst.read(path)
    for number, lead in enumerate(record.leads):
        marks = pqrst.read_annotations(path, lead.lower())
        beats = marks.sample[np.array(marks.symbol) == "N"]
        if not len(beats):
            continue
        left_out = [(-np.inf, beats[0] - 1.0), (beats[-1] + 1.0, np.inf)]
        signal = record.signal[number : number + 1].astype(np.float64)
        yield Case("12 leads, each alone", path.name, lead, signal, record.fs, beats, left_out)


SETS = {
    "mitdb": DataSet("mitdb", "MIT-BIH Arrhythmia", holter, (WHOLE, FROM_5_MIN), per_record=True),
    "svdb": DataSet("svdb", "MIT-BIH Supraventricular Arrhythmia; its marks lie some 16 ms off the peak", holter),
    "ludb": DataSet("ludb", "LUDB, between the first and the last annotated beat", every_lead),
    "cpsc2019": DataSet("cpsc2019-wfdb", "CPSC 2019, strips of 10 s", strip, (WHOLE, CHALLENGE)),
    "cpsc2021": DataSet("cpsc2021", "CPSC 2021, atrial fibrillation", limb_leads),
}


# ------------------------------------------------------------------------------------------------ scoring


class Outcome(NamedTuple):
    """What one detector did with one case under one rule."""

    detector: str
    data: str
    group: str
    rule: str
    record: str
    lead: str
    scores: tuple[BeatScore, ...]  # in the rule's window, then in NARROW_S
    seconds: float  # CPU
    lead_hours: float
    problem: str


def outcomes(data: str, cases: Iterable[Case], rules: Iterable[Rule], detectors: dict[str, Detect]) -> list[Outcome]:
    """Every detector on every case that it can take."""
    results = []
    for case in cases:
        n_leads, n_samples = case.signal.shape
        hours = n_leads * n_samples / case.fs / 3600
        for name, detect in detectors.items():
            if n_leads > 1 and not DETECTORS[name].several_leads:
                continue
            peaks, seconds, problem = search(detect, case.signal, case.fs)
            for rule in rules:
                scores = scores_by_window(case, peaks, rule)
                where = (data, case.group, rule.name, case.record, case.lead)
                results.append(Outcome(name, *where, scores, seconds, hours, problem))
    return results


def scores_by_window(case: Case, peaks: Array, rule: Rule) -> tuple[BeatScore, ...]:
    left_out = list(case.left_out)
    if rule.begin_s:
        left_out.append((-np.inf, rule.begin_s * case.fs - 1))
    if rule.end_s:
        left_out.append((case.signal.shape[1] - rule.end_s * case.fs, np.inf))
    return tuple(score_beats(case.beats, peaks, case.fs, window_s, left_out) for window_s in (rule.window_s, *NARROW_S))


def grouped(results: Iterable[Outcome], *names: str) -> dict[tuple[Any, ...], list[Outcome]]:
    """Outcomes by the values of some of their fields, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for result in results:
        groups.setdefault(tuple(getattr(result, name) for name in names), []).append(result)
    return groups


# ------------------------------------------------------------------------------------------------ tables


def print_scores(title: str, results: list[Outcome]) -> None:
    """A table per group and rule, one line per detector."""
    for (group, rule), part in grouped(results, "group", "rule").items():
        print(f"\n{title}\n{group}, {rule}")
        print(
            f"{'':10}{'records':>8}{'beats':>8}{'missed':>8}{'false':>8}{'Se':>8}{'+P':>8}{'F1':>8}"
            f"{'mean Se':>9}{'+P':>8}{'F1':>8}{'F1 75':>8}{'50':>7}{'25 ms':>7}{'|dt|':>7}{'dt ms':>7}"
            f"{'CPU s':>8}{'s/lead-h':>9}"
        )
        for (detector,), mine in grouped(part, "detector").items():
            print(f"{detector:10}{score_line(mine)}")


def score_line(mine: list[Outcome]) -> str:
    gross, *narrow = (pooled(scores) for scores in zip(*(result.scores for result in mine), strict=True))
    ratios = [(score.sensitivity, score.precision, score.f1) for score in (result.scores[0] for result in mine)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a ratio that no record has
        mean_se, mean_precision, mean_f1 = 100 * np.nanmean(ratios, axis=0)
    seconds, hours = sum(result.seconds for result in mine), sum(result.lead_hours for result in mine)
    return (
        f"{len({result.record for result in mine}):8d}{gross.found + gross.missed:8d}{gross.missed:8d}{gross.false:8d}"
        f"{100 * gross.sensitivity:8.2f}{100 * gross.precision:8.2f}{100 * gross.f1:8.2f}"
        f"{mean_se:9.2f}{mean_precision:8.2f}{mean_f1:8.2f}"
        f"{100 * narrow[0].f1:8.2f}{100 * narrow[1].f1:7.2f}{100 * narrow[2].f1:7.2f}"
        f"{1000 * gross.median_distance_s:7.1f}{1000 * gross.median_error_s:7.1f}{seconds:8.2f}{seconds / hours:9.3f}"
    )


def print_records(results: list[Outcome]) -> None:
    """Missed and false beats of every record, whole: one column per detector, one more for each on several leads."""
    columns = grouped((result for result in results if result.rule == WHOLE.name), "detector", "group")
    names = [name if group == "first lead" else f"{name} {group[:4]}" for name, group in columns]
    print("\nmissed + false per record, on the first lead unless it says both")
    print(f"{'':10}{'beats':>8}", end="")
    print("".join(f"{name:>16}" for name in names))
    for lines in zip(*columns.values(), strict=True):
        gross = lines[0].scores[0]
        cells = "".join(f"{line.scores[0].missed:9d} +{line.scores[0].false:5d}" for line in lines)
        print(f"{lines[0].record:10}{gross.found + gross.missed:8d}{cells}")


def print_problems(results: list[Outcome]) -> None:
    for (detector, problem), part in grouped(results, "detector", "problem").items():
        if problem:
            searches = {(result.data, result.group, result.record, result.lead) for result in part}
            print(f"{detector}: {len(searches)} searches failed and count as nothing found: {problem}")


def write_csv(path: Path, results: list[Outcome]) -> None:
    """One line per detector, case and rule; ratios 0..1, times in ms."""
    header = ["detector", "set", "group", "rule", "record", "lead", "beats", "found", "missed", "false"]
    header += ["sensitivity", "precision", "f1", *(f"f1_{1000 * window_s:.0f}ms" for window_s in NARROW_S)]
    header += ["median_distance_ms", "median_error_ms", "cpu_s", "lead_hours", "problem"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        for result in results:
            score, *narrow = result.scores
            counts = [score.found + score.missed, score.found, score.missed, score.false]
            ratios = [score.sensitivity, score.precision, score.f1, *(other.f1 for other in narrow)]
            times = [1000 * score.median_distance_s, 1000 * score.median_error_s, result.seconds, result.lead_hours]
            numbers = [f"{value:.6g}" if np.isfinite(value) else "" for value in (*ratios, *times)]
            table.writerow([*result[:6], *counts, *numbers, result.problem])


# ------------------------------------------------------------------------------------------------ the run


def records(folder: Path) -> list[Path]:
    return sorted(path.with_suffix("") for path in folder.rglob("*.hea"))


def run_set(name: str, root: Path, detectors: dict[str, Detect]) -> list[Outcome]:
    """One set: a progress bar, then its tables."""
    data = SETS[name]
    paths = records(root / data.folder)
    if not paths:
        print(f"\n{name}: left out, no recordings in {root / data.folder}")
        return []
    results = []
    for path in tqdm(paths, desc=name, unit="record", leave=False):
        results += outcomes(name, data.cases(path), data.rules, detectors)
    print_scores(data.title, results)
    if data.per_record:
        print_records(results)
    return results


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=os.environ.get("ECG_TEST_DATA"))
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS), metavar="SET", help=", ".join(SETS))
    parser.add_argument(
        "--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS), metavar="NAME", help=", ".join(DETECTORS)
    )
    parser.add_argument("--csv", type=Path, help="results of every record")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("no folder: name one or set ECG_TEST_DATA")
    options.folder = Path(options.folder)
    return options


def main() -> None:
    options = parse()
    detectors = load(options.detectors)
    print(machine.describe())
    print(", ".join(f"{name} {version(name)}" for name in detectors if name == DETECTORS[name].package != "pqrst"))
    print("window 150 ms, one to one; Se, +P, F1 in %: of all beats together, then means over records; one thread")
    results = []
    for name in options.sets:
        results += run_set(name, options.folder, detectors)
    print_problems(results)
    if options.csv:
        write_csv(options.csv, results)


if __name__ == "__main__":
    main()
