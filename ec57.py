"""Compare detected with annotated beats, beat by beat, as WFDB's `bxb` and ANSI/AAMI EC57 count.

    score = score_beats(reference, detected, fs=360, left_out=flutter(samples, symbols))
    score.sensitivity, score.precision, score.f1, score.median_error_s
    gross = pooled([score_of_one_record, score_of_another])

A beat is found if a detection lies within the window, 150 ms by default. No detection counts for two beats, and no beat
for two detections. Among all such pairings one with the most pairs is taken, so a score cannot depend on where the
comparison starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beats import WINDOW_S, match_beats

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
        return _ratio(self.found, self.found + self.missed)

    @property
    def precision(self) -> float:
        """Return the share of detections that are beats (+P), 0..1."""
        return _ratio(self.found, self.found + self.false)

    @property
    def f1(self) -> float:
        """Return the harmonic mean of sensitivity and precision, 0..1."""
        return _ratio(2 * self.found, 2 * self.found + self.missed + self.false)

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
