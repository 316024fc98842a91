"""Other patients made of real beats: changed forms of annotated recordings, to train on and never to score.

signal, fs, r_peaks, classes = vary(signal, fs, r_peaks, classes, rng)

A few dozen patients do not show what the next one may have: most beats premature, fibrillation, one lead where there
were two. `vary` recuts a recording to the stretches that are rich in premature beats, or gives it fibrillation by
stretching and squeezing the time between its beats, then changes leads, polarity, gain, noise, tempo and marks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

QRS_START_S = 0.1  # before the R peak: from here to the end of T a beat keeps its pace
T_END_S = 0.36  # after it, or a little more than half of a short interval
P_START_S, P_END_S = 0.26, 0.08  # before it
MIN_BEATS = 40  # of a recording that is recut or fibrillates
FIBRILLATED, RECUT = 0.5, 0.15  # chances


class Annotated(NamedTuple):
    """A recording with its beats; classes by their AAMI letters."""

    signal: Numbers  # (L, T) mV
    fs: float
    r_peaks: NDArray[np.int64]  # (N,) samples, ascending
    classes: NDArray[np.str_]  # (N,) N S V F Q


def vary(
    signal: NDArray[np.floating], fs: float, r_peaks: NDArray[np.int64], classes: NDArray[Any], rng: np.random.Generator
) -> Annotated:
    """Return a changed form of a recording, with no more beats than it has.

    Parameters
    ----------
    signal : (L, T) mV; NaN becomes 0
    fs : Hz; of the result it is another one, which changes the tempo
    r_peaks : (N,) samples, ascending
    classes : (N,) AAMI letters
    rng : where all random numbers come from
    """
    record = Annotated(np.nan_to_num(np.array(signal, np.float64)), fs, r_peaks, np.array(classes, dtype="U1"))
    if len(r_peaks) > MIN_BEATS:
        if rng.random() < FIBRILLATED:
            record = _fibrillated(record, rng)
        if rng.random() < RECUT:
            record = _recut(record, rng)
    return _remarked(_remeasured(record, rng), rng)


# ------------------------------------------------------------------------------------------------ beats


def _recut(record: Annotated, rng: np.random.Generator) -> Annotated:
    """Keep 40 to 90 % of a recording, in pieces of 20 to 90 s; those with many S beats are kept first."""
    fs, peaks = record.fs, record.r_peaks
    cuts = [0]
    while cuts[-1] < len(peaks) - 1:
        later = np.searchsorted(peaks, peaks[cuts[-1]] + rng.uniform(20, 90) * fs)
        cuts.append(min(max(int(later), cuts[-1] + 8), len(peaks) - 1))
    pieces = list(pairwise(cuts))
    is_s = record.classes == "S"
    weight = np.array([is_s[a:b].mean() ** 1.5 + 0.02 for a, b in pieces])
    order = rng.choice(len(pieces), len(pieces), replace=False, p=weight / weight.sum())
    wanted = rng.uniform(0.4, 0.9) * len(peaks)
    before = np.cumsum([0, *(pieces[i][1] - pieces[i][0] for i in order[:-1])])
    signals, marks, classes, position = [], [], [], 0
    for i in sorted(order[before < wanted]):
        a, b = pieces[i]
        first, last = max(0, int(peaks[a] - 0.3 * fs)), int(peaks[b] - 0.3 * fs)  # between two beats
        signals.append(record.signal[:, first:last])
        marks.append(peaks[a:b] - first + position)
        classes.append(record.classes[a:b])
        position += last - first
    return Annotated(np.concatenate(signals, axis=1), fs, np.concatenate(marks), np.concatenate(classes))


def _retimed(record: Annotated, rr_s: Numbers, without_p: NDArray[np.bool_]) -> Annotated:
    """Give the beats other intervals, by the time between T and QRS, and some a line instead of the P wave.

    Parameters
    ----------
    record : N beats
    rr_s : (N - 1,) s, intervals of the result
    without_p : (N,) which beats lose their P wave
    """
    fs, peaks = record.fs, record.r_peaks
    x = record.signal.copy()
    length, lead = round((P_START_S - P_END_S) * fs), round(P_START_S * fs)
    ramp = np.linspace(0, 1, length)
    for peak in peaks[without_p & (peaks >= lead)]:
        p = x[:, peak - lead : peak - lead + length]
        p[:] = p[:, :1] * (1 - ramp) + p[:, -1:] * ramp
    old_rr = np.diff(peaks) / fs
    rr_s = np.maximum(rr_s, 0.25)
    t_end = np.minimum(T_END_S, 0.55 * np.minimum(old_rr, rr_s))
    before = np.minimum(QRS_START_S, 0.3 * np.minimum(old_rr, rr_s))
    moved = peaks[0] / fs + np.concatenate([[0.0], np.cumsum(rr_s)])  # s
    tail = x.shape[1] / fs - peaks[-1] / fs

    def nodes(r: Numbers) -> Numbers:  # of each interval: the end of its T, the start of the QRS after it
        between = np.stack([r[:-1] + t_end, r[1:] - before], axis=1).reshape(-1)
        return np.concatenate([[0.0], between, [r[-1] + tail]])

    new_t = np.arange(int(nodes(moved)[-1] * fs)) / fs
    old_t = np.interp(new_t, nodes(moved), nodes(peaks / fs)) * fs
    steps = np.arange(x.shape[1])
    signal = np.stack([np.interp(old_t, steps, lead_x) for lead_x in x])
    return Annotated(signal, fs, np.round(moved * fs).astype(np.int64), record.classes)


def _fibrillated(record: Annotated, rng: np.random.Generator) -> Annotated:
    """Give a stretch of a recording, or all of it, atrial fibrillation.

    No P waves, waves of 4 to 8 Hz in their place, intervals that are log-normal and independent of each other; what was
    premature is so no more, but for V beats, which stay early.
    """
    n, fs = len(record.r_peaks), record.fs
    first, last = (0, n) if rng.random() < 0.5 else np.sort(rng.choice(n, 2, replace=False))
    inside = np.zeros(n, bool)
    inside[first : max(last, first + MIN_BEATS)] = True
    rr = np.diff(record.r_peaks) / fs
    mean = np.clip(np.median(rr) * rng.uniform(0.7, 1.1), 0.42, 1.1)
    drawn = np.maximum(mean * np.exp(rng.uniform(0.15, 0.28) * rng.normal(size=n - 1)), 0.3)
    early = np.minimum(rr, mean * rng.uniform(0.5, 0.8, size=n - 1))
    drawn = np.where(record.classes[1:] == "V", early, drawn)
    classes = np.where(inside & (record.classes == "S"), "N", record.classes)
    changed = _retimed(record, np.where(inside[1:], drawn, rr), inside)
    time = np.arange(changed.signal.shape[1]) / fs
    steps = np.arange(0, time[-1] + 1, 0.5)
    rate = rng.uniform(4, 8) * (1 + 0.15 * np.interp(time, steps, rng.normal(size=len(steps))))
    phase = 2 * np.pi * np.cumsum(rate) / fs
    here = np.searchsorted(changed.r_peaks, np.arange(changed.signal.shape[1])).clip(0, n - 1)
    size = rng.uniform(0, 0.12) * _qrs_size(record)
    waves = size[:, None] * np.where(inside[here], np.sin(phase) + 0.4 * np.sin(2 * phase), 0)
    return changed._replace(signal=changed.signal + waves, classes=classes)


def _qrs_size(record: Annotated) -> Numbers:
    """Return the median height of the QRS in each lead, (L,)."""
    reach = round(0.05 * record.fs)
    some = record.r_peaks[:: max(1, len(record.r_peaks) // 50)]
    return np.asarray(
        np.median([np.ptp(record.signal[:, max(0, r - reach) : r + reach], axis=1) for r in some], axis=0)
    )


# ------------------------------------------------------------------------------------------------ measurement


def _remeasured(record: Annotated, rng: np.random.Generator) -> Annotated:
    """Swap or leave out leads, turn them over, change gain and tempo, add noise whose power falls with frequency."""
    x = record.signal
    if len(x) == 2:
        order = rng.random()
        if order < 0.2 or order > 0.82:
            x = x[::-1]
        if order > 0.64:
            x = x * np.array([[1.0], [0.0]])
    x = x * np.where(rng.random((len(x), 1)) < 0.3, -1, 1) * np.exp(0.4 * rng.normal(size=(len(x), 1)))
    if rng.random() < 0.5:
        white = rng.normal(size=(len(x), x.shape[1] + 8))
        soft = sum(0.8**k * white[:, k : k + x.shape[1]] for k in range(9))
        x = x + rng.uniform(0.01, 0.06) * _qrs_size(record._replace(signal=x))[:, None] * soft
    return record._replace(signal=x, fs=round(record.fs * float(np.exp(0.08 * rng.normal())), 2))


def _remarked(record: Annotated, rng: np.random.Generator) -> Annotated:
    """Move the marks by up to some milliseconds, as detectors and people do."""
    moved = record.r_peaks + rng.normal(size=len(record.r_peaks)) * rng.uniform(0, 0.006) * record.fs
    moved = np.clip(np.round(np.maximum.accumulate(moved)), 0, record.signal.shape[1] - 1).astype(np.int64)
    kept = np.concatenate([[True], np.diff(moved) > 0.1 * record.fs])[: len(moved)]
    return record._replace(r_peaks=moved[kept], classes=record.classes[kept])
