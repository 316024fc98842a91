"""Beats of a record, on arrays: where their R peaks are, the numbers about their rhythm, which of two series agree.

r_peaks = detect(record)                                        # (N,) samples
context = context_of(recipe, r_peaks, record.fs, lambda: record)  # (N, F)
pairs = match_beats(annotated, r_peaks, WINDOW_S * record.fs)   # (P, 2) index of each
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pqrst
from recipe import RR_NUMBERS, STRIP, VIEW, Recipe, RRNumber, ecg_leads
from strip import strip_numbers
from view import view_beats

FEW_BEATS = 10
LEAST_SHARE, MOST_ALONE = 0.02, 0.4  # of beats: in a cluster of their own; more of these are noise
WINDOW_S = 0.15  # within which a detected beat is an annotated one (ANSI/AAMI EC57, WFDB's bxb)


def voltages(record: pqrst.Record) -> list[int]:
    """Return which signals hold a voltage; others are respiration, pressures and the like."""
    return [index for index, unit in enumerate(record.units) if unit == "mV"]


def leads_of(record: pqrst.Record) -> list[int]:
    """Return which signals are ECG leads in mV.

    Raises
    ------
    ValueError
        No signal holds a voltage, or none of those is an ECG by its name.
    """
    places = voltages(record)
    if not places:
        raise ValueError(f"{record.name}: no lead holds a voltage; units are {', '.join(record.units)}")
    names = [record.leads[index] for index in places]
    leads = [index for index, is_lead in zip(places, ecg_leads(names), strict=True) if is_lead]
    if not leads:
        raise ValueError(f"{record.name}: no signal is an ECG lead: {', '.join(names)}")
    return leads


def detect(record: pqrst.Record) -> NDArray[np.int64]:
    """Find the R peaks in all ECG leads in mV, for training and prediction alike: (N,) samples, ascending.

    Raises
    ------
    ValueError
        As leads_of.
    """
    return pqrst.rpeaks(record.signal[leads_of(record)], record.fs)


def context_of(
    recipe: Recipe, r_peaks: NDArray[np.int64], fs: float, record: Callable[[], pqrst.Record]
) -> NDArray[np.float32]:
    """Compute the numbers about each beat that the recipe wants beside its signal: (N, F), recipe.context_columns.

    Parameters
    ----------
    recipe : which numbers, and which leads are the slots
    r_peaks : (N,) ascending sample indices of all beats of a record
    fs : rate of r_peaks, Hz
    record : gives the recording, and is asked only where the numbers need its signal
    """
    columns = [beat_context(r_peaks, fs, recipe.intervals)]
    if VIEW in recipe.context:
        columns.append(view_beats(np.stack(_slots(recipe, record())), fs, r_peaks).numbers)
    return np.concatenate(columns, axis=1)


def context_of_record(recipe: Recipe, record: Callable[[], pqrst.Record]) -> NDArray[np.float32]:
    """Compute the numbers about a whole record that the recipe wants beside each of its rows, (F,).

    Parameters
    ----------
    recipe : whether it wants any, and which lead is the first slot: that is described
    record : gives the recording, and is asked only where numbers are wanted

    Raises
    ------
    ValueError
        As leads_of.
    """
    if STRIP not in recipe.context:
        return np.zeros(0, np.float32)
    opened = record()
    return strip_numbers(_slots(recipe, opened)[0], opened.fs, detect(opened))


def _slots(recipe: Recipe, record: pqrst.Record) -> list[NDArray[Any]]:
    """Return the lead (T,) of each slot, zeros where there is none."""
    places = pqrst.match_leads(recipe.leads, list(record.leads))
    return [record.signal[place] if place >= 0 else np.zeros(record.signal.shape[1]) for place in places]


def doubts(recipe: Recipe, context: NDArray[np.float32]) -> list[str]:
    """Say why beats may not be told apart, by the record's view of them: (N, F) as context_of gives it, or nothing."""
    if VIEW not in recipe.context:
        return []
    n = len(context)
    if n < FEW_BEATS:
        return [f"too few beats ({n}) to tell which of them are normal: their classes are a guess"]
    share = np.exp(context[:, recipe.context_columns.index("log_share")].astype(np.float64))  # of each beat's cluster
    alone = float((share < max(LEAST_SHARE, 2.5 / n)).mean())
    if alone > MOST_ALONE:
        return [f"{alone:.0%} of the beats look like no others: noise, or no ECG; their classes are a guess"]
    return []


def beat_context(r_peaks: NDArray[np.int64], fs: float, names: Sequence[RRNumber]) -> NDArray[np.float32]:
    """Compute the numbers about each beat that its own window does not show.

    Parameters
    ----------
    r_peaks : (N,) ascending sample indices of all beats of a record
    fs : rate of r_peaks, Hz
    names : some of RR_NUMBERS, in order: the RR intervals before and after the beat, the mean of the ten around it
        (five before, five after, fewer at the ends), the mean over the record (de Chazal, O'Dwyer and Reilly 2004)

    Returns
    -------
    (N, F) float32, s; NaN where there is no neighbour.
    """
    n = len(r_peaks)
    rr = np.diff(np.asarray(r_peaks, dtype=np.float64)) / fs  # (N - 1,)
    missing = np.full(1, np.nan)
    first, last = np.maximum(np.arange(n) - 5, 0), np.minimum(np.arange(n) + 5, n - 1)
    total = np.concatenate([np.zeros(1), np.cumsum(rr)])
    with np.errstate(invalid="ignore"):  # 0 / 0 of a lone beat is its NaN
        previous, following = np.concatenate([missing, rr])[:n], np.concatenate([rr, missing])[:n]
        mean10 = (total[last] - total[first]) / (last - first) if n else np.zeros(0)
    record = np.full(n, rr.mean() if n > 1 else np.nan)
    columns = dict(zip(RR_NUMBERS, (previous, following, mean10, record), strict=True))
    if not names:
        return np.zeros((n, 0), np.float32)
    return np.stack([columns[name] for name in names], axis=1).astype(np.float32)


def match_beats(reference: NDArray[Any], detected: NDArray[Any], window: float) -> NDArray[Any]:
    """Pair two ascending series of samples one to one, as many pairs as can be, none further apart than `window`.

    The sweep pairs the earliest open beat with the earliest detection within reach. Waiting for a later detection would
    gain nothing, as all tolerances are equal. Then each pair exchanges a side for an unpaired neighbour that is nearer,
    so that the error in time is the least possible.

    Parameters
    ----------
    reference : (N,) samples, ascending
    detected : (M,) samples, ascending
    window : largest distance of a pair, samples, 0 or more

    Returns
    -------
    (P, 2) int64, ascending in both columns: index into reference, index into detected
    """
    window += 1e-6  # far less than a sample: what a product of seconds and rate may lose
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
    """Return as many pairs in the same order; each takes the nearest of what lies between its neighbours."""
    before, exchanged = (-1, -1), []
    for (i, _), after in pairwise([*pairs, (len(beats), len(peaks))]):
        j = _nearest(peaks, range(before[1] + 1, after[1]), beats[i])
        before = (_nearest(beats, range(before[0] + 1, after[0]), peaks[j]), j)
        exchanged.append(before)
    return exchanged


def _nearest(values: list[float], places: range, target: float) -> int:
    return min(places, key=lambda place: abs(values[place] - target))
