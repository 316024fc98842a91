"""Time stamps -> a rate, and the place of each sample on an even grid."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import pqrst

LONGEST = 10  # gaps may make a recording so many times as long
MOST_GAPS = 0.1  # of the steps; with more they are no gaps, but the stamps uneven


class Grid(NamedTuple):
    """An even grid: sample i of the file is sample `place[i]` of the recording."""

    fs: float
    place: NDArray[np.int64]

    @property
    def n_samples(self) -> int:
        return int(self.place[-1]) + 1

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put values (N,) at their places, NaN where a gap is."""
        if self.n_samples == len(values):
            return values
        whole = np.full(self.n_samples, np.nan)
        whole[self.place] = values
        return whole


def nearest_rate(low: float, high: float, estimate: float) -> float:
    """Return the rate nearest to the estimate with the smallest denominator, up to 1,000, that lies in [low, high]."""
    for denominator in range(1, 1001):
        rate = round(estimate * denominator) / denominator
        if low <= rate <= high:
            return rate
    return estimate


def resolution_of(cells: list[str]) -> float:
    """Return the finest step that stamps as written can tell apart: 0.001 of `0.004`, 1 of `4`."""
    exponents = [0]
    for cell in cells:
        try:
            exponent = Decimal(cell).as_tuple().exponent
        except InvalidOperation:
            continue
        if isinstance(exponent, int):
            exponents.append(exponent)
    return float(10.0 ** min(exponents))


def grid(t: NDArray[np.float64], resolution: float, what: str) -> Grid:
    """Find the rate that time stamps have, and where gaps are.

    Parameters
    ----------
    t : (N,) stamps, s
    resolution : to which they are rounded, s
    what : names file and column, for messages

    Returns
    -------
    Grid, with the simplest rate that the stamps do not contradict: a rate is never rounded beyond their resolution

    Raises
    ------
    pqrst.FormatError
        Stamps that do not rise, repeat, are more than a quarter of a sample off an even grid, or have gaps much longer
        than all that is recorded.
    """
    steps = np.diff(t)
    if len(t) < 2 or not np.isfinite(t).all() or (steps < 0).any():
        at = int(np.argmax(~(steps >= 0))) + 2 if len(t) > 1 else 1
        raise pqrst.FormatError(f"{what} does not rise (row {at}), or has fewer than 2 values")
    if (steps == 0).any():
        repeats = int(np.argmax(steps == 0)) + 2
        raise pqrst.FormatError(f"{what} does not rise (row {repeats} repeats a time): the rate must be given")
    usual = step = float(np.median(steps))
    for _ in range(3):
        step = float(steps[steps <= 1.5 * step + resolution].mean())
    ticks = usual / resolution
    exact = abs(ticks - round(ticks)) < 1e-6 * ticks and abs(step / usual - 1) < 1e-3  # stamps that need no rounding
    blur = 0.0 if exact else resolution
    starts = np.concatenate([[0], np.flatnonzero(steps > 1.5 * step + blur) + 1, [len(t)]])
    rate, off = _rate_of(t, starts, resolution, step)
    if off > 0.25 / rate + resolution or len(starts) - 2 > MOST_GAPS * len(t):
        worst = 1000 * float(np.abs(steps - step).max())
        raise pqrst.FormatError(
            f"{what} is uneven: steps are up to {worst:.3g} ms off {1000 * step:.3g} ms; the rate must be given"
        )
    place = np.empty(len(t), np.int64)
    for first, last in pairwise(starts.tolist()):
        begin = round((t[first] - t[0]) * rate)
        begin = max(begin, place[first - 1] + 2) if first else 0
        place[first:last] = begin + np.arange(last - first)
    if place[-1] + 1 > LONGEST * len(t):
        raise pqrst.FormatError(f"{what} has gaps that are {place[-1] / len(t):.0f} times as long as what is recorded")
    return Grid(rate, place)


def _rate_of(t: NDArray[np.float64], starts: NDArray[np.int64], resolution: float, step: float) -> tuple[float, float]:
    """Return the rate of the longest stretch without a gap, and how far its stamps are off it, s."""
    longest = int(np.argmax(np.diff(starts)))
    stretch = t[starts[longest] : starts[longest + 1]]
    n = len(stretch) - 1
    if n < 1:
        return 1 / step, 0.0
    i = np.arange(n + 1, dtype=np.float64)
    slope, offset = np.polyfit(i - n / 2, stretch - stretch[0], 1)
    off = float(np.abs(stretch - stretch[0] - (offset + slope * (i - n / 2))).max())
    span, doubt = slope * n, max(resolution, 2 * off if off > resolution else 0.0)
    most = n / (span - doubt) if span > doubt else np.inf
    return nearest_rate(n / (span + doubt), most, n / span), off
