"""Compare runs of ectopic beats, episodes of a rhythm, and heart rates, as ANSI/AAMI EC57 and its WFDB tools do.

    runs = compare_runs(reference, ventricular, r_peaks, decided_ventricular, fs=360, start=round(LEARNING_S * 360))
    runs.sensitivity, runs.precision                     # (3,) of couplets, short runs, long runs
    fibrillation = rhythm_intervals(samples, aux, n_samples, ["AFIB"])
    compare_episodes(fibrillation, found, n_samples, start=round(LEARNING_S * 360)).duration_sensitivity
    compare_rates(reference, r_peaks, fs=360).rms_bpm

`compare_runs` stands for `rxr`, `compare_episodes` for `epicmp`, `compare_rates` for `mxm`; ec57.py is `bxb`. EC57
leaves out the first LEARNING_S of each recording. Here each function takes the sample from which it counts, 0 by
default. The gross statistic of several recordings is that of their `pooled` counts, the average is the mean over
recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

import script
from beats import WINDOW_S

Array = npt.NDArray[Any]
Interval = tuple[float, float]  # samples

LEARNING_S = 300.0  # in which a device may learn, at the start of each recording: not scored (EC57)
RUN_CLASSES = {"VEB": ("V", "F"), "SVEB": ("S",)}  # rxr counts a fusion beat as a ventricular one
CATEGORIES = ("0", "1", "2", "3-5", ">5")  # beats of a run, the rows and columns of rxr's summary matrices
LONGER_THAN = np.array([1, 2, 3, 6])  # the first length of each category but the first
RUNS = {"couplets": 2, "short runs": 3, "long runs": 4}  # the categories that are scored
RATE_INTERVALS = 8  # RR intervals of one measurement of the rate


def ratio(part: float, whole: float) -> float:
    """Return part / whole, NaN of nothing."""
    return part / whole if whole else np.nan


# ------------------------------------------------------------------------------------------------ runs


@dataclass(frozen=True)
class RunCounts:
    """Runs of one recording or of several, by length: (5, 5) int64 [category in the reference][category in the test].

    Attributes
    ----------
    of_reference : runs of the reference series, each beside the longest run of the test series in its window. Row 0 is
        empty, as a reference run has one beat at least.
    of_test : runs of the test series, each beside the longest run of the reference in its window. Column 0 is empty.
    """

    of_reference: Array
    of_test: Array

    @property
    def sensitivity(self) -> Array:
        """Return the share of reference couplets, short and long runs found in their category or a longer one, (3,)."""
        counts = self.of_reference
        return np.array([ratio(counts[k, k:].sum(), counts[k].sum()) for k in RUNS.values()])

    @property
    def precision(self) -> Array:
        """Return the share of test couplets, short and long runs that are as long in the reference (+P), (3,)."""
        counts = self.of_test
        return np.array([ratio(counts[k:, k].sum(), counts[:, k].sum()) for k in RUNS.values()])


def compare_runs(
    reference: Array,
    reference_ectopic: Array,
    test: Array,
    test_ectopic: Array,
    fs: float,
    start: int = 0,
    window_s: float = WINDOW_S,
    left_out: Sequence[Interval] = (),
) -> RunCounts:
    """Count runs of ectopic beats that two series have in common, as WFDB's `rxr` does.

    A run is a stretch of ectopic beats without another beat between; one beat is a run of length 1. Its window reaches
    from 150 ms before its first beat to 150 ms after its last. Of the other series the longest run among its beats in
    the window is taken, so a long run is cut to the window: six test beats over a reference couplet count as 2 there.
    For the sensitivity the reference defines the runs, for +P the test series.

    Departures from rxr:

    - Ventricular flutter and atrial fibrillation are no runs. rxr takes an episode of either as a run of more than five
      beats, and each normal beat within atrial fibrillation as supraventricular. Here flutter belongs in `left_out`.
    - Every window is searched on its own. rxr reads forward only, so a beat in two windows counts in the first.
    - A run that ends with the recording counts. rxr counts a run when the beat after it is read.

    Parameters
    ----------
    reference, test : (N,), (M,) samples, ascending, of all beats of either series
    reference_ectopic, test_ectopic : (N,), (M,) bool, the beats that make runs
    fs : Hz
    start : sample from which runs count. The beats of a run that lie before it are cut off. The other series keeps its
        beats before it, so that they are found in a window that begins there.
    window_s : s
    left_out : stretches in samples, both ends included; a run that touches one is not counted
    """
    beats = [np.asarray(reference, np.int64), np.asarray(test, np.int64)]
    ectopic = [np.asarray(reference_ectopic, bool), np.asarray(test_ectopic, bool)]
    for name, samples, flags in zip(("reference", "test"), beats, ectopic, strict=True):
        if len(samples) != len(flags):
            raise ValueError(f"{name}: {len(flags)} flags for {len(samples)} beats")
    window = window_s * fs + 1e-6  # far less than a sample: what a product of seconds and rate may lose
    counts = np.zeros((2, len(CATEGORIES), len(CATEGORIES)), np.int64)
    for a, b in ((0, 1), (1, 0)):  # the series that defines runs, the one that is searched
        here = beats[a] >= start
        samples, flags = beats[a][here], ectopic[a][here]
        for first, behind in _stretches(flags):
            begin, end = samples[first], samples[behind - 1]
            if any(begin <= until and end >= since for since, until in left_out):
                continue
            lengths = [0, 0]
            lengths[a] = behind - first
            lengths[b] = _longest(beats[b], ectopic[b], begin - window, end + window)
            counts[a][tuple(np.searchsorted(LONGER_THAN, lengths, "right"))] += 1
    return RunCounts(counts[0], counts[1])


def _stretches(flags: Array) -> list[tuple[int, int]]:
    """Return [first, behind) of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(first), int(behind)) for first, behind in edges.reshape(-1, 2)]


def _longest(samples: Array, ectopic: Array, begin: float, end: float) -> int:
    """Return the length of the longest run among the beats from begin to end, both included."""
    inside = ectopic[np.searchsorted(samples, begin, "left") : np.searchsorted(samples, end, "right")]
    return max((behind - first for first, behind in _stretches(inside)), default=0)


# ------------------------------------------------------------------------------------------------ episodes


@dataclass(frozen=True)
class EpisodeCounts:
    """Episodes and their durations in samples, of one recording or of several of the same rate; NaN without any."""

    reference: int
    reference_found: int  # that a test episode overlaps
    test: int
    test_true: int  # that a reference episode overlaps
    reference_duration: float
    reference_overlap: float
    test_duration: float
    test_overlap: float

    @property
    def sensitivity(self) -> float:
        """Return the share of reference episodes that a test episode overlaps."""
        return ratio(self.reference_found, self.reference)

    @property
    def precision(self) -> float:
        """Return the share of test episodes that a reference episode overlaps (+P)."""
        return ratio(self.test_true, self.test)

    @property
    def duration_sensitivity(self) -> float:
        """Return the share of the time of reference episodes that test episodes cover."""
        return ratio(self.reference_overlap, self.reference_duration)

    @property
    def duration_precision(self) -> float:
        """Return the share of the time of test episodes that reference episodes cover (+P)."""
        return ratio(self.test_overlap, self.test_duration)


def compare_episodes(
    reference: Sequence[Interval],
    test: Sequence[Interval],
    n_samples: int,
    start: int = 0,
    not_counted: Sequence[Interval] = (),
) -> EpisodeCounts:
    """Count episodes that two lists have in common, and their time, as WFDB's `epicmp` does for AF and VF.

    Episodes are cut to start..n_samples, and those that touch or overlap become one. An episode is found if any time of
    it is covered; a common edge is no time.

    Parameters
    ----------
    reference, test : episodes [begin, end) in samples, in any order
    n_samples : length of the recording
    start : sample from which time counts
    not_counted : stretches that are taken out of the test episodes before +P is counted. epicmp takes out atrial
        flutter of the reference where atrial fibrillation is scored. A test episode within one is not counted.

    Raises
    ------
    ValueError
        An episode ends before it begins.
    """
    truth, found, without = (_cut(episodes, start, n_samples) for episodes in (reference, test, not_counted))
    of_truth = np.array([(end - begin, _covered(begin, end, found)) for begin, end in truth]).reshape(-1, 2)
    outside = _cut([(a, b) for a, b in _between(without, start, n_samples)], start, n_samples)
    counted = [_cut(outside, begin, end) for begin, end in found]  # the parts of each test episode
    times = [(sum(b - a for a, b in parts), sum(_covered(a, b, truth) for a, b in parts)) for parts in counted if parts]
    of_test = np.array(times).reshape(-1, 2)
    return EpisodeCounts(
        len(of_truth),
        int((of_truth[:, 1] > 0).sum()),
        len(of_test),
        int((of_test[:, 1] > 0).sum()),
        *(float(value) for value in (*of_truth.sum(axis=0), *of_test.sum(axis=0))),
    )


def rhythm_intervals(
    samples: Array, aux: Sequence[str], n_samples: int, names: Sequence[str] = ("AFIB",)
) -> list[Interval]:
    """Return episodes of a rhythm, [begin, end) in samples, from the rhythm changes of WFDB annotations.

    Parameters
    ----------
    samples : (N,) ascending
    aux : N texts; a rhythm change is "(" and a name, as in "(AFIB". Other texts, empty ones among them, are ignored.
    n_samples : length of the recording, the end of a rhythm that is the last one
    names : the rhythms that make an episode, together: a change from one to another of them does not end it
    """
    episodes: list[Interval] = []
    begin = None
    for sample, text in zip(samples, aux, strict=True):
        if not text.startswith("("):
            continue
        is_it = text[1:].rstrip("\0 ") in names
        if is_it and begin is None:
            begin = float(sample)
        elif not is_it and begin is not None:
            episodes.append((begin, float(sample)))
            begin = None
    return episodes if begin is None else [*episodes, (begin, float(n_samples))]


def _cut(episodes: Sequence[Interval], start: float, stop: float) -> list[Interval]:
    """Return what lies within start..stop, in order; episodes that touch or overlap become one, empty ones none."""
    whole: list[Interval] = []
    for begin, end in sorted(episodes):
        if end < begin:
            raise ValueError(f"episode ({begin}, {end}): must not end before it begins")
        begin, end = max(begin, start), min(end, stop)
        if whole and begin <= whole[-1][1] and begin < end:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        elif begin < end:
            whole.append((begin, end))
    return whole


def _between(episodes: Sequence[Interval], start: float, stop: float) -> list[Interval]:
    """Return the time of start..stop that ordered, separate episodes leave."""
    edges = [start, *(edge for episode in episodes for edge in episode), max(start, stop)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _covered(begin: float, end: float, episodes: Sequence[Interval]) -> float:
    """Return how much of begin..end separate episodes cover."""
    return sum(max(0.0, min(end, b) - max(begin, a)) for a, b in episodes)


# ------------------------------------------------------------------------------------------------ heart rate


@dataclass(frozen=True)
class RateCounts:
    """Pairs of measured heart rates, of one recording or of several; errors are NaN without a pair."""

    n: int
    squares: float  # sum of squared differences, bpm^2
    rates: float  # sum of the reference rates, bpm

    @property
    def rms_bpm(self) -> float:
        """Return the root mean square of the error, beats per minute."""
        return float(np.sqrt(ratio(self.squares, self.n)))

    @property
    def rms_percent(self) -> float:
        """Return the same in percent of the mean reference rate."""
        return 100 * ratio(self.rms_bpm * self.n, self.rates)


def compare_rates(
    reference: Array,
    test: Array,
    fs: float,
    start: int = 0,
    n_intervals: int = RATE_INTERVALS,
    left_out: Sequence[Interval] = (),
) -> RateCounts:
    """Compare the heart rates of two series of beats, measurement by measurement as WFDB's `mxm` does.

    EC57 leaves the averaging to whoever measures, and asks for the same in both series. Here each beat that has
    `n_intervals` RR intervals before it gives a measurement: the mean rate over them. Each test measurement is paired
    with the nearest in time of the reference, of two equally near with the later one. While no beat is detected there
    is no test measurement. Such a stretch enters only through the first `n_intervals` measurements after it, however
    long it is.

    Parameters
    ----------
    reference, test : (N,), (M,) samples, ascending
    fs : Hz
    start : sample from which test measurements count; the intervals of one may lie before
    left_out : stretches in samples, both ends included; a measurement over one is not made
    """
    times, rates = _rates(np.asarray(reference, np.int64), fs, n_intervals, left_out)
    test_times, test_rates = _rates(np.asarray(test, np.int64), fs, n_intervals, left_out)
    here = test_times >= start
    test_times, test_rates = test_times[here], test_rates[here]
    if not len(times) or not len(test_times):
        return RateCounts(0, 0.0, 0.0)
    after = np.searchsorted(times, test_times, "left").clip(max=len(times) - 1)
    before = (after - 1).clip(min=0)
    nearest = np.where(test_times - times[before] < np.abs(times[after] - test_times), before, after)
    error = test_rates - rates[nearest]
    return RateCounts(len(error), float((error**2).sum()), float(rates[nearest].sum()))


def _rates(samples: Array, fs: float, n_intervals: int, left_out: Sequence[Interval]) -> tuple[Array, Array]:
    """Return the time of each measurement, in samples, and its rate, bpm."""
    begin, end = samples[:-n_intervals], samples[n_intervals:]
    use = end > begin
    for since, until in left_out:
        use &= (end < since) | (begin > until)
    return end[use], 60 * fs * n_intervals / (end[use] - begin[use])


# ------------------------------------------------------------------------------------------------ the report


class RecordCounts(NamedTuple):
    """The runs and rates of one recording."""

    runs: dict[str, RunCounts]  # by the names of RUN_CLASSES
    rate: RateCounts


Counts = TypeVar("Counts", RunCounts, EpisodeCounts, RateCounts)


def pooled(counts: Sequence[Counts]) -> Counts:
    """Return the sum of the counts of one recording or more, the `gross` statistics of EC57."""
    kind = type(counts[0])
    return kind(*(sum(getattr(each, field.name) for each in counts) for field in fields(kind)))


def score_record(
    reference: Array,
    reference_classes: Array,
    test: Array,
    test_classes: Array,
    fs: float,
    start: int = 0,
    left_out: Sequence[Interval] = (),
) -> RecordCounts:
    """Compare runs and rates of all beats of a recording; classes are (N,) and (M,) names, N S V F Q or others."""
    runs = {}
    for name, members in RUN_CLASSES.items():
        ectopic = np.isin(reference_classes, members), np.isin(test_classes, members)
        runs[name] = compare_runs(reference, ectopic[0], test, ectopic[1], fs, start, left_out=left_out)
    return RecordCounts(runs, compare_rates(reference, test, fs, start, left_out=left_out))


def report_tree(records: Sequence[RecordCounts], first_s: float) -> dict[str, Any]:
    """Return gross and average statistics of recordings as JSON holds them; None where nothing could be counted."""
    tree: dict[str, Any] = {"first_s": first_s, "recordings": len(records)}
    for name in RUN_CLASSES:
        alone = [record.runs[name] for record in records]
        gross = pooled(alone)
        average = {key: _means([getattr(each, key) for each in alone]) for key in ("sensitivity", "precision")}
        tree[name] = {
            run: {
                "annotated": int(gross.of_reference[category].sum()),
                "se_gross": number(gross.sensitivity[k]),
                "se_average": number(average["sensitivity"][k]),
                "predicted": int(gross.of_test[:, category].sum()),
                "precision_gross": number(gross.precision[k]),
                "precision_average": number(average["precision"][k]),
            }
            for k, (run, category) in enumerate(RUNS.items())
        }
        tree[name] |= {"of_reference": gross.of_reference.tolist(), "of_test": gross.of_test.tolist()}
    rate = pooled([record.rate for record in records])
    tree["rate"] = {"measurements": rate.n}
    for key in ("rms_bpm", "rms_percent"):
        tree["rate"][f"{key}_gross"] = number(getattr(rate, key))
        tree["rate"][f"{key}_average"] = number(_means([[getattr(each.rate, key)] for each in records])[0])
    return tree


def report_text(tree: dict[str, Any]) -> str:
    """Return what `report_tree` made as a section of Markdown."""
    rows = []
    for name in RUN_CLASSES:
        for run, category in RUNS.items():
            row = tree[name][run]
            se = [_cell(row[f"se_{kind}"]) for kind in ("gross", "average")]
            precision = [_cell(row[f"precision_{kind}"]) for kind in ("gross", "average")]
            cells = [f"{row['annotated']:,}", *se, f"{row['predicted']:,}", *precision]
            rows.append([f"{name} {run} ({CATEGORIES[category]} beats)", *cells])
    rate = tree["rate"]
    errors = [
        f"{_cell(rate[f'rms_bpm_{kind}'], 2)} bpm ({_cell(rate[f'rms_percent_{kind}'], 2)} % of the mean rate) {kind}"
        for kind in ("gross", "average")
    ]
    measured = f"{rate['measurements']:,} measurements over {RATE_INTERVALS} intervals each"
    header = ["runs", "annotated", "Se gross", "Se average", "predicted", "+P gross", "+P average"]
    return (
        f"## Runs and rate (ANSI/AAMI EC57)\n\n{tree['recordings']:,} recordings, each from {tree['first_s']:g} s on "
        "(`evaluation.first_s`). Gross: all recordings pooled; average: the mean over recordings that have such runs."
        f"\n\n{script.markdown_table(header, rows)}\n\nHeart rate, RMS error: {', '.join(errors)}; {measured}.\n"
    )


def _means(rows: Sequence[Any]) -> Array:
    """Return the mean of each column over the rows where it is finite, NaN without one."""
    values = np.asarray(rows, np.float64)
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(finite, values, 0).sum(axis=0) / finite.sum(axis=0))


def number(value: Any) -> float | None:
    """Return a number as JSON holds it: None for NaN."""
    return float(value) if np.isfinite(value) else None


def _cell(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
