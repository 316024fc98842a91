"""Compare detected with annotated beats, beat by beat, as WFDB's `bxb` and ANSI/AAMI EC57 count.

    python ec57.py 119.hea 200.hea --reference atr --test qrs    # two annotation files of each

    score = score_beats(reference, detected, fs=360, left_out=flutter(samples, symbols))
    score.sensitivity, score.precision, score.f1, score.median_error_s
    gross = pooled([score_of_one_record, score_of_another])

A beat is found if a detection lies within the window, 150 ms by default. No detection counts for two beats, and no beat
for two detections. Among all such pairings one with the most pairs is taken, so a score cannot depend on where the
comparison starts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import episodes
import pqrst
import script
from beats import WINDOW_S, match_beats
from episodes import ratio
from sources import BEAT_SYMBOLS, BEATS

Array = npt.NDArray[Any]
Interval = tuple[float, float]  # samples, both ends included


@dataclass(frozen=True)
class BeatScore:
    """Counts of one recording or of several. A ratio is NaN where nothing could be counted."""

    found: int
    missed: int
    false: int
    errors_s: Array  # (found,) detected minus annotated time of each pair, s

    @property
    def sensitivity(self) -> float:
        """Return the share of annotated beats that are found (Se), 0..1."""
        return ratio(self.found, self.found + self.missed)

    @property
    def precision(self) -> float:
        """Return the share of detections that are beats (+P), 0..1."""
        return ratio(self.found, self.found + self.false)

    @property
    def f1(self) -> float:
        """Return the harmonic mean of sensitivity and precision, 0..1."""
        return ratio(2 * self.found, 2 * self.found + self.missed + self.false)

    @property
    def median_error_s(self) -> float:
        """Return the median of detected minus annotated time, s; positive if detections come late."""
        return float(np.median(self.errors_s)) if self.found else np.nan

    @property
    def median_distance_s(self) -> float:
        """Return the median distance between a detection and its mark, s."""
        return float(np.median(np.abs(self.errors_s))) if self.found else np.nan

    def __str__(self) -> str:
        return (
            f"Se {100 * self.sensitivity:.2f} %, +P {100 * self.precision:.2f} %, {self.missed} missed and "
            f"{self.false} false of {self.found + self.missed}, median distance {1000 * self.median_distance_s:.1f} ms"
        )


def score_beats(
    reference: Array,
    detected: Array,
    fs: float,
    window_s: float = WINDOW_S,
    left_out: Sequence[Interval] = (),
) -> BeatScore:
    """Count the beats found and missed and the false detections of one recording.

    Parameters
    ----------
    reference, detected : (N,), (M,) samples, ascending
    fs : Hz
    window_s : largest distance of a detection from its beat, s
    left_out : stretches in samples, both ends included. A pair counts unless its beat lies in one; a beat or detection
        without a partner counts unless it lies in one itself. Beats are paired first, so an edge between a beat and its
        detection causes no error.
    """
    reference, detected = np.asarray(reference, np.int64), np.asarray(detected, np.int64)
    pairs = match_beats(reference, detected, window_s * fs)
    alone = np.delete(reference, pairs[:, 0]), np.delete(detected, pairs[:, 1])
    missed, false = (int((~inside(beats, left_out)).sum()) for beats in alone)
    pairs = pairs[~inside(reference[pairs[:, 0]], left_out)]
    return BeatScore(len(pairs), missed, false, (detected[pairs[:, 1]] - reference[pairs[:, 0]]) / fs)


def inside(samples: Array, intervals: Sequence[Interval]) -> Array:
    """Tell which samples lie in one of the intervals, both ends included: (N,) bool."""
    within = np.zeros(len(samples), bool)
    for first, last in intervals:
        within |= (samples >= first) & (samples <= last)
    return within


def pooled(scores: Iterable[BeatScore]) -> BeatScore:
    """Return one score of all beats together, the `gross` statistics of EC57: long recordings weigh more."""
    scores = list(scores)
    found, missed, false = (sum(getattr(score, name) for score in scores) for name in ("found", "missed", "false"))
    return BeatScore(found, missed, false, np.concatenate([np.empty(0), *(score.errors_s for score in scores)]))


def flutter(samples: Array, symbols: Sequence[str]) -> list[Interval]:
    """Return the episodes of ventricular flutter or fibrillation, from `[` to `]` of WFDB annotations.

    No beats are marked in them. An episode without an end runs to the end of the recording.
    """
    episodes: list[Interval] = []
    start = None
    for sample, symbol in zip(samples, symbols, strict=True):
        if symbol == "[" and start is None:
            start = float(sample)
        elif symbol == "]" and start is not None:
            episodes.append((start, float(sample)))
            start = None
    return episodes if start is None else [*episodes, (start, np.inf)]


# ------------------------------------------------------------------------------------------------ annotation files


class Agreement(NamedTuple):
    """What two annotation files of a recording have in common."""

    beats: Array  # (K + 1, K + 1) int64 [class in the reference][class in the test], the last of each: no beat there
    runs_and_rate: episodes.RecordCounts
    fibrillation: episodes.EpisodeCounts


def compare_files(header: Path, reference: str, test: str, first_s: float) -> Agreement:
    """Compare two annotation files of a recording from first_s on, beats by the classes of AAMI.

    Raises
    ------
    OSError, ValueError
        The header or one of the files cannot be read.
    """
    head, place = pqrst.header(header), header.with_suffix("")
    files = [pqrst.read_annotations(place, suffix) for suffix in (reference, test)]
    start, unmarked = round(first_s * head.fs), flutter(files[0].sample, files[0].symbol)
    samples, names = [], []
    for file in files:
        is_beat = np.isin(file.symbol, list(BEAT_SYMBOLS))
        samples.append(file.sample[is_beat])
        names.append(np.array([(BEATS.of or {}).get(symbol, "") for symbol in file.symbol], "U1")[is_beat])
    counts = beat_matrix(samples, names, head.fs, start, unmarked)
    runs = episodes.score_record(samples[0], names[0], samples[1], names[1], head.fs, start, unmarked)
    n_samples = head.n_samples or max(int(file.sample.max(initial=-1)) + 1 for file in files)  # a header may not tell
    truth, found = (episodes.rhythm_intervals(file.sample, file.aux, n_samples) for file in files)
    return Agreement(counts, runs, episodes.compare_episodes(truth, found, n_samples, start))


def beat_matrix(
    samples: Sequence[Array], names: Sequence[Array], fs: float, start: int, left_out: Sequence[Interval]
) -> Array:
    """Count pairs of beats by their classes, and beats without a partner, as Agreement.beats has them.

    Parameters
    ----------
    samples, names : of the reference and of the test, (N,) and (M,) samples, ascending, and their classes. A beat
        without a class is paired and not counted
    fs : Hz
    start : sample from which beats count, a pair by that of the reference
    left_out : stretches in samples, both ends included
    """
    none = len(BEATS.classes)
    number = {name: k for k, name in enumerate(BEATS.classes)}
    # one more entry, at -1: no beat
    classes = [np.array([*(number.get(name, -1) for name in each.tolist()), none]) for each in names]
    pairs = match_beats(samples[0], samples[1], WINDOW_S * fs)
    missed, extra = (np.delete(np.arange(len(each)), pairs[:, side]) for side, each in enumerate(samples))
    of_missed = np.stack([missed, np.full(len(missed), -1)], axis=1)
    of_extra = np.stack([np.full(len(extra), -1), extra], axis=1)
    both = np.concatenate([pairs, of_missed, of_extra])  # (P, 2) place in each series, -1 for none
    times = [np.append(each, -1)[both[:, side]] for side, each in enumerate(samples)]
    at = np.where(times[0] >= 0, times[0], times[1])
    both = both[(at >= start) & ~inside(at, left_out)]
    rows, columns = classes[0][both[:, 0]], classes[1][both[:, 1]]
    known = (rows >= 0) & (columns >= 0)
    counts = np.zeros((none + 1, none + 1), np.int64)
    np.add.at(counts, (rows[known], columns[known]), 1)
    return counts


def tables(agreements: Sequence[Agreement], first_s: float) -> str:
    """Return the gross tables of recordings as Markdown."""
    counts = np.sum([each.beats for each in agreements], axis=0)
    columns = [*BEATS.classes, "no beat"]
    rows = []
    for k, name in enumerate(columns):
        ratios = [ratio(counts[k, k], counts[k].sum()), ratio(counts[k, k], counts[:, k].sum())]
        shares = ["-" if np.isnan(share) or name == "no beat" else f"{100 * share:.2f} %" for share in ratios]
        rows.append([name, *(f"{n:,}" for n in counts[k]), *shares])
    beats = script.markdown_table([r"reference \ test", *columns, "Se", "+P"], rows)
    runs = episodes.report_text(episodes.report_tree([each.runs_and_rate for each in agreements], first_s))
    found = episodes.pooled([each.fibrillation for each in agreements])
    ratios = [found.sensitivity, found.precision, found.duration_sensitivity, found.duration_precision]
    shares = ["-" if np.isnan(share) else f"{100 * share:.2f} %" for share in ratios]
    header = ["episodes Se", "episodes +P", "duration Se", "duration +P"]
    return (
        f"## Beats\n\n{beats}\n\n{runs}\n## Atrial fibrillation\n\n{found.reference:,} episodes in the reference, "
        f"{found.test:,} in the test.\n\n{script.markdown_table(header, [shares])}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="ec57.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD.hea", help="recordings with both files")
    parser.add_argument("--reference", default="atr", metavar="EXT", help="extension of the reference annotations")
    parser.add_argument("--test", default="qrs", metavar="EXT", help="extension of the annotations that are tested")
    parser.add_argument("--first_s", type=float, default=episodes.LEARNING_S, help="where counting begins, s")
    given = parser.parse_args(argv)
    agreements = [compare_files(path, given.reference, given.test, given.first_s) for path in given.records]
    print(tables(agreements, given.first_s))


if __name__ == "__main__":
    script.run(main)
