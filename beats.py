"""How well detected beats agree with annotated ones, beat by beat, as WFDB's `bxb` and ANSI/AAMI EC57 count.

    score = score_beats(reference, detected, fs=360, left_out=flutter(samples, symbols))
    score.sensitivity, score.precision, score.f1, score.median_error_s
    gross = pooled([score_of_one_record, score_of_another])

A beat is found if a detection lies within the window, 150 ms unless told otherwise; no detection counts for two beats
and no beat for two detections. Of all such pairings one with the most pairs is taken, so a score cannot depend on where
a comparison starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
WINDOW_S = 0.15  # EC57 and bxb
Interval = tuple[float, float]  # samples, both ends included


def match_beats(reference: Array, detected: Array, window: float) -> Array:
    """Pair two ascending series of samples one to one, as many pairs as can be, none further apart than `window`.

    The sweep gives the earliest beat still open the earliest detection that can reach it; whoever waits for a later one
    gains nothing, as all tolerances are equal. Then a pair takes an unpaired neighbour that is nearer: an error in time
    is that of the best of two detections, not of the first.

    Parameters
    ----------
    reference : (N,) samples, ascending
    detected : (M,) samples, ascending
    window : samples, 0 or more; a distance of exactly this still pairs

    Returns
    -------
    (P, 2) int64, ascending in both columns: index into reference, index into detected
    """
    beats, peaks = np.asarray(reference).tolist(), np.asarray(detected).tolist()
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(beats) and j < len(peaks):
        if peaks[j] < beats[i] - window:
            j += 1
        elif peaks[j] > beats[i] + window:
            i += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    while (exchanged := _nearer(beats, peaks, pairs)) != pairs:
        pairs = exchanged
    return np.array(pairs, np.int64).reshape(-1, 2)


def _nearer(beats: list[float], peaks: list[float], pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same number of pairs in the same order; each takes the nearest of what lies between its neighbours."""
    before, exchanged = (-1, -1), []
    for (i, _), after in pairwise([*pairs, (len(beats), len(peaks))]):
        j = _nearest(peaks, range(before[1] + 1, after[1]), beats[i])
        before = (_nearest(beats, range(before[0] + 1, after[0]), peaks[j]), j)
        exchanged.append(before)
    return exchanged


def _nearest(values: list[float], places: range, target: float) -> int:
    return min(places, key=lambda place: abs(values[place] - target))


@dataclass(frozen=True)
class BeatScore:
    """Counts of one recording or of several; ratios of nothing are NaN."""

    found: int
    missed: int
    false: int
    errors_s: Array  # (found,) detected minus annotated time of each pair, s

    @property
    def sensitivity(self) -> float:
        """Se: found of all annotated beats, 0..1."""
        return _ratio(self.found, self.found + self.missed)

    @property
    def precision(self) -> float:
        """+P: found of all detections, 0..1."""
        return _ratio(self.found, self.found + self.false)

    @property
    def f1(self) -> float:
        """The harmonic mean of the two, 0..1."""
        return _ratio(2 * self.found, 2 * self.found + self.missed + self.false)

    @property
    def median_error_s(self) -> float:
        """Where detections lie on the whole; later than the marks is positive."""
        return float(np.median(self.errors_s)) if self.found else np.nan

    @property
    def median_distance_s(self) -> float:
        """How far a detection lies from its mark."""
        return float(np.median(np.abs(self.errors_s))) if self.found else np.nan

    def __str__(self) -> str:
        return (
            f"Se {100 * self.sensitivity:.2f} %, +P {100 * self.precision:.2f} %, {self.missed} missed and "
            f"{self.false} false of {self.found + self.missed}, median distance {1000 * self.median_distance_s:.1f} ms"
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


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
    window_s : s
    left_out : stretches in samples, both ends included. A pair counts unless its beat lies in one; what is left over
        counts unless it lies in one itself. Pairs are sought before, so an edge between a beat and its detection costs
        neither.
    """
    reference, detected = np.asarray(reference, np.int64), np.asarray(detected, np.int64)
    pairs = match_beats(reference, detected, window_s * fs + 1e-6)  # far less than a sample: what a product may lose
    alone = np.delete(reference, pairs[:, 0]), np.delete(detected, pairs[:, 1])
    missed, false = (int((~inside(beats, left_out)).sum()) for beats in alone)
    pairs = pairs[~inside(reference[pairs[:, 0]], left_out)]
    return BeatScore(len(pairs), missed, false, (detected[pairs[:, 1]] - reference[pairs[:, 0]]) / fs)


def inside(samples: Array, intervals: Sequence[Interval]) -> Array:
    """(N,) bool: which samples lie in one of the intervals, both ends included."""
    within = np.zeros(len(samples), bool)
    for first, last in intervals:
        within |= (samples >= first) & (samples <= last)
    return within


def pooled(scores: Iterable[BeatScore]) -> BeatScore:
    """One score of all beats together, the `gross` statistics of EC57: long recordings weigh more."""
    scores = list(scores)
    found, missed, false = (sum(getattr(score, name) for score in scores) for name in ("found", "missed", "false"))
    return BeatScore(found, missed, false, np.concatenate([np.empty(0), *(score.errors_s for score in scores)]))


def flutter(samples: Array, symbols: Sequence[str]) -> list[Interval]:
    """Episodes of ventricular flutter or fibrillation, from `[` to `]` of WFDB annotations: no beats are marked there.

    One that never ends runs to the end of the recording.
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
