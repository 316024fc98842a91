"""Compare pqrst.rpeaks with other R-peak detectors on public recordings: one run, one thread.

    python benchmarks/rpeaks.py FOLDER                     # holds mitdb/, svdb/, ludb/, ... as published
    python benchmarks/rpeaks.py --sets mitdb --detectors pqrst sleepecg --csv beats.csv
    python benchmarks/rpeaks.py --noise --plot noise.png    # also noise stress; needs nstdb/ beside mitdb/

Without FOLDER it takes the folder in the variable ECG_TEST_DATA. Two other detectors are optional: pip install sleepecg
neurokit2. XQRS and gqrs are written in Python and take minutes. Only pqrst takes several leads at once.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # read when NumPy loads

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
import script
from beats import WINDOW_S
from benchmarks import machine
from ec57 import BeatScore, Interval, flutter, pooled, score_beats
from sources import AAMI, BEAT_SYMBOLS

Array = npt.NDArray[Any]
NARROW_S = (0.075, 0.05, 0.025)  # narrower windows, for F1 only


# ------------------------------------------------------------------------------------------------ detectors

Detect = Callable[[Array, float], Array]  # (L, T) float64 in mV, fs in Hz -> samples of the beats


def load_pqrst() -> Detect:
    return pqrst.rpeaks


def load_sleepecg() -> Detect:
    """Return sleepecg's detector: Pan-Tompkins in C."""
    from sleepecg import detect_heartbeats

    return lambda x, fs: detect_heartbeats(x[0], fs)


def load_neurokit() -> Detect:
    """Return neurokit2's detector: its default cleaning, then its default method, both called `neurokit`."""
    import neurokit2

    def detect(x: Array, fs: float) -> Array:
        clean = neurokit2.ecg_clean(x[0], sampling_rate=fs)
        return np.asarray(neurokit2.ecg_peaks(clean, sampling_rate=fs)[1]["ECG_R_Peaks"])

    return detect


def load_xqrs() -> Detect:
    from wfdb import processing

    return lambda x, fs: processing.xqrs_detect(sig=x[0], fs=fs, verbose=False)


def load_gqrs() -> Detect:
    """Return wfdb's gqrs, fed with integers of 1 uV.

    Its thresholds are amplitudes, and the documentation of wfdb asks for a digital signal. It marks beats some 35 ms
    before the peak, so its F1 in the narrow windows says little.
    """
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
    """Return the detectors that are installed, each called once so that imports and first calls are not timed."""
    loaded: dict[str, Detect] = {}
    start = np.random.default_rng(0).standard_normal((1, 10_000))
    for name in names:
        package = DETECTORS[name].package
        try:
            loaded[name] = DETECTORS[name].load()
        except ImportError:
            print(f"{name}: left out, not installed; pip install {package}")
            continue
        search(loaded[name], start, 250.0)
    return loaded


def search(detect: Detect, signal: Array, fs: float) -> tuple[Array, float, str]:
    """Return the samples of the beats, the CPU time in s, and the error message, if any.

    A detector that raises an error counts as one that found no beat.
    """
    problem, peaks = "", np.empty(0)
    started = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peaks = np.asarray(detect(signal, fs))
    except Exception as error:  # any kind: other packages raise what they like
        problem = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    return np.sort(peaks[np.isfinite(peaks)].astype(np.int64)), seconds, problem


# ------------------------------------------------------------------------------------------------ recordings


class Case(NamedTuple):
    """One signal to search, with its true beats."""

    group: str  # cases of one group are counted together
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
    begin_s: float = 0.0  # length at the beginning that does not count
    end_s: float = 0.0  # likewise at the end


WHOLE = Rule("whole records")
FROM_5_MIN = Rule("from minute 5", begin_s=300.0)  # as in bxb and EC57: a detector may adapt before that
CHALLENGE = Rule("75 ms, without 0.5 s at either end", window_s=0.075, begin_s=0.5, end_s=0.5)


class DataSet(NamedTuple):
    folder: str
    title: str
    cases: Callable[[Path], Iterator[Case]]  # of one record
    rules: tuple[Rule, ...] = (WHOLE,)
    per_record: bool = False


def marked_beats(path: Path, extension: str) -> tuple[Array, list[Interval]]:
    """Return the beats of an annotation file and its episodes of flutter, both in samples."""
    marks = pqrst.read_annotations(path, extension)
    is_beat = np.array([symbol in BEAT_SYMBOLS for symbol in marks.symbol], bool)
    return marks.sample[is_beat], flutter(marks.sample, marks.symbol)


def each_and_both(path: Path, groups: dict[str, slice]) -> Iterator[Case]:
    """Yield a case for each group of leads, all with the beats of the record."""
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
    """Yield a case for each lead of a LUDB record.

    Each lead has marks of its own. The first and the last cycle have none, so the ends are left out.
    """
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
    """The scores of one detector on one case under one rule."""

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
    """Run every detector on every case that it can take, and score it by every rule."""
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
    """Return the scores in the rule's window, then in each of NARROW_S."""
    left_out = list(case.left_out)
    if rule.begin_s:
        left_out.append((-np.inf, rule.begin_s * case.fs - 1))
    if rule.end_s:
        left_out.append((case.signal.shape[1] - rule.end_s * case.fs, np.inf))
    return tuple(score_beats(case.beats, peaks, case.fs, window_s, left_out) for window_s in (rule.window_s, *NARROW_S))


def grouped(results: Iterable[Outcome], *names: str) -> dict[tuple[Any, ...], list[Outcome]]:
    """Group outcomes by the values of the named fields, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for result in results:
        groups.setdefault(tuple(getattr(result, name) for name in names), []).append(result)
    return groups


# ------------------------------------------------------------------------------------------------ tables


def print_scores(title: str, results: list[Outcome]) -> None:
    """Print a table for each group and rule, with one line per detector."""
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
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of a ratio that is NaN in every record
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
    """Print missed and false beats of every whole record: a column for each detector and group of leads."""
    columns = grouped((result for result in results if result.rule == WHOLE.name), "detector", "group")
    names = [name if group == "first lead" else f"{name} {group[:4]}" for name, group in columns]
    print("\nmissed + false per record, on the first lead unless the column says both")
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
    """Write one line per detector, case and rule. Ratios are 0..1; the header names the unit of each time."""
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


# ------------------------------------------------------------------------------------------------ noise stress
# As WFDB's `nst` makes the records of NSTDB: the same two clean records, five quiet minutes for the detector to adapt,
# then two minutes with noise and two without in turn.

NOISE_RECORDS = ("118", "119")
SNR_DB = (np.inf, 24.0, 18.0, 12.0, 6.0, 0.0, -6.0)
NOISES = {"bw": "baseline wander", "ma": "muscle", "em": "electrode motion"}
QUIET_S, NOISY_S = 300.0, 120.0


def noisy_minutes(n_samples: int, fs: float) -> Array:
    """Return (T,) bool, true where noise is on: minutes 5-7, 9-11, 13-15, ..."""
    since = np.arange(n_samples) / fs - QUIET_S
    noisy: Array = (since >= 0) & (since % (2 * NOISY_S) < NOISY_S)
    return noisy


def trimmed_mean(values: Array) -> float:
    """Return the mean without the largest and the smallest 5 %, as WFDB's `sigamp` takes it."""
    n_trimmed = round(0.05 * len(values))
    return float(np.mean(np.sort(values)[n_trimmed : len(values) - n_trimmed]))


def qrs_power(lead: Array, beats: Array, fs: float) -> float:
    """Return the power of a sine as high as the QRS complex, mV^2: the square of its peak-to-peak amplitude over 8.

    The amplitude is taken within 50 ms of a beat. As in `nst`, it is the trimmed mean of the first 300 beats.
    """
    reach = round(0.05 * fs)
    near = beats[(beats >= reach) & (beats < len(lead) - reach)][:300]
    return trimmed_mean(np.ptp(lead[near[:, None] + np.arange(-reach, reach + 1)], axis=1)) ** 2 / 8


def noise_power(noise: Array, fs: float) -> float:
    """Return the power of the noise, its unit squared, from the first 300 s.

    As in `nst`, it is the square of the trimmed mean of each second's standard deviation.
    """
    n = round(fs)
    seconds = noise[: 300 * n].reshape(-1, n)
    return trimmed_mean(seconds.std(axis=1)) ** 2


def add_noise(signal: Array, noise: Array, beats: Array, fs: float, snr_db: float) -> Array:
    """Return the signal, (L, T) mV, with noise in the noisy minutes.

    The noise is (L, T) in any unit and is scaled lead by lead to the ratio `snr_db`. It begins and ends without a step:
    where it stops, the level stays, as with the offsets that `nst` sets.
    """
    gate = noisy_minutes(signal.shape[1], fs)
    mixed = signal.copy()
    for lead, other in zip(mixed, noise, strict=True):
        gain = np.sqrt(qrs_power(lead, beats, fs) / noise_power(other, fs) / 10 ** (snr_db / 10))
        lead += gain * np.cumsum(gate * np.diff(other, prepend=other[0]))
    return mixed


def noisy_cases(folder: Path, name: str, noise: Array, snr_db: float) -> Iterator[Case]:
    """Yield the cases of one record with one noise. Only the noisy minutes count, also in the clean signal."""
    for case in holter(folder / "mitdb" / name):
        n_leads, n_samples = case.signal.shape
        # normal QRS complexes as `sigamp` takes them: bundle branch block included, paced beats not
        marks = pqrst.read_annotations(folder / "mitdb" / name, "atr")
        normal = marks.sample[np.array([AAMI.get(symbol) == "N" for symbol in marks.symbol])]
        mixed = add_noise(case.signal, noise[:n_leads, :n_samples], normal, case.fs, snr_db)
        edges = np.flatnonzero(np.diff(noisy_minutes(n_samples, case.fs), prepend=False, append=False))
        ends, begins = np.append(0, edges[1::2]), np.append(edges[::2], n_samples)
        quiet = [(float(end), begin - 1.0) for end, begin in zip(ends, begins, strict=True)]
        yield case._replace(signal=mixed, left_out=case.left_out + quiet)


def run_noise(folder: Path, detectors: dict[str, Detect]) -> list[Outcome]:
    """Run the detectors on the two clean records with every noise of NSTDB in the folder, at every SNR."""
    names = [name for name in NOISES if (folder / "nstdb" / f"{name}.hea").exists()]
    if not names or not all((folder / "mitdb" / f"{name}.hea").exists() for name in NOISE_RECORDS):
        print(f"\nnoise stress: left out, needs mitdb/{' and '.join(NOISE_RECORDS)} and nstdb/ in {folder}")
        return []
    results = []
    runs = [(name, snr_db, record) for name in names for snr_db in SNR_DB for record in NOISE_RECORDS]
    for name, snr_db, record in tqdm(runs, desc="noise", unit="record", leave=False, disable=None):
        noise = pqrst.read(folder / "nstdb" / name).signal.astype(np.float64)
        rule = Rule("clean" if snr_db == np.inf else f"{snr_db:.0f} dB")
        results += outcomes(f"noise {name}", noisy_cases(folder, record, noise, snr_db), [rule], detectors)
    return results


def curves(results: list[Outcome]) -> dict[str, dict[str, list[BeatScore]]]:
    """Return, by noise and detector, one score per SNR, of both records together."""
    found: dict[str, dict[str, list[BeatScore]]] = {}
    for (data, group, detector, _), part in grouped(results, "data", "group", "detector", "rule").items():
        label = detector if group == "first lead" else f"{detector} {group[:4]}"
        score = pooled(result.scores[0] for result in part)
        found.setdefault(data, {}).setdefault(label, []).append(score)
    return found


def print_noise(results: list[Outcome]) -> None:
    columns = "".join(f"{rule:>15}" for (rule,) in grouped(results, "rule"))
    for data, lines in curves(results).items():
        print(f"\n{data} ({NOISES[data.split()[1]]}) on {' and '.join(NOISE_RECORDS)}, noisy minutes: Se / +P in %")
        print(f"{'':14}{columns}")
        for label, scores in lines.items():
            cells = "".join(f"{100 * score.sensitivity:8.2f} /{100 * score.precision:5.1f}" for score in scores)
            print(f"{label:14}{cells}")


def save_noise(results: list[Outcome], path: Path) -> None:
    """Draw sensitivity and precision against SNR, with a column of panels for each noise."""
    from matplotlib.figure import Figure

    sets = curves(results)
    figure = Figure(figsize=(4 * len(sets), 6), layout="constrained")
    panels = figure.subplots(2, len(sets), sharex=True, sharey=True, squeeze=False)
    for (data, lines), column in zip(sets.items(), panels.T, strict=True):
        column[0].set_title(NOISES[data.split()[1]])
        for label, scores in lines.items():
            values = [(score.sensitivity, score.precision) for score in scores[1:]]
            for axes, ratio in zip(column, 100 * np.transpose(values), strict=True):
                axes.plot(SNR_DB[1:], ratio, marker="o", markersize=3, label=label)
        column[1].set_xlabel("SNR, dB")
        column[1].set_xlim(max(SNR_DB[1:]) + 1, min(SNR_DB) - 1)  # more noise to the right
    for axes, name in zip(panels[:, 0], ("sensitivity, %", "precision (+P), %"), strict=True):
        axes.set_ylabel(name)
    panels[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=150)


def no_heart(fs: float, seconds: float) -> dict[str, Array]:
    """Return signals without a beat, each (1, T) mV."""
    n = round(fs * seconds)
    rng = np.random.default_rng(0)
    return {
        "flat line": np.zeros((1, n)),
        "white noise, 0.1 mV": 0.1 * rng.standard_normal((1, n)),
        "50 Hz hum, 0.5 mV": 0.5 * np.sin(2 * np.pi * 50 * np.arange(n) / fs)[None],
        "0.3 Hz wander, 1 mV": np.sin(2 * np.pi * 0.3 * np.arange(n) / fs)[None] + 1e-3 * rng.standard_normal((1, n)),
    }


def print_false_beats(detectors: dict[str, Detect]) -> None:
    fs, minutes = 360.0, 10
    signals = no_heart(fs, 60 * minutes)
    print(f"\nfalse beats per minute without a heart, {minutes} min at {fs:.0f} Hz")
    print(f"{'':14}" + "".join(f"{name:>22}" for name in signals))
    for name, detect in detectors.items():
        found = [search(detect, signal, fs) for signal in signals.values()]
        cells = (problem.split(":")[0] or f"{len(peaks) / minutes:.1f}" for peaks, _, problem in found)
        print(f"{name:14}" + "".join(f"{cell:>22}" for cell in cells))


# ------------------------------------------------------------------------------------------------ the run


def records(folder: Path) -> list[Path]:
    """Return the records below a folder, sorted, without the suffix of their headers."""
    return sorted(path.with_suffix("") for path in folder.rglob("*.hea"))


def run_set(name: str, root: Path, detectors: dict[str, Detect]) -> list[Outcome]:
    """Run the detectors on one set under a progress bar, and print its tables."""
    data = SETS[name]
    paths = records(root / data.folder)
    if not paths:
        print(f"\n{name}: left out, no recordings in {root / data.folder}")
        return []
    results = []
    for path in tqdm(paths, desc=name, unit="record", leave=False, disable=None):
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
    parser.add_argument("--noise", action="store_true", help="also run noise stress, and signals without a heartbeat")
    parser.add_argument("--plot", type=Path, help="file for the curves of --noise, e.g. noise.png")
    parser.add_argument("--csv", type=Path, help="file for the results of every record")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("no folder: name one or set ECG_TEST_DATA")
    if options.plot and not options.noise:
        parser.error("--plot draws the curves of --noise: add --noise")
    machine.check_folder(options.folder, f"give the one that holds {', '.join(data.folder for data in SETS.values())}")
    for path in (options.plot, options.csv):
        if path:
            machine.check_folder(path.parent, f"make it before the run, for {path.name}")
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
    if options.noise:
        noisy = run_noise(options.folder, detectors)
        print_noise(noisy)
        print_false_beats(detectors)
        if options.plot and noisy:
            save_noise(noisy, options.plot)
        results += noisy
    print_problems(results)
    if options.csv:
        write_csv(options.csv, results)


if __name__ == "__main__":
    script.run(main)
