"""What the beats of a recording add up to: rates, runs, pauses, irregular stretches. On arrays, without a signal.

found = summarise(r_peaks, classes, fs=360)      # (N,) samples, N letters of N S V F Q
found.runs, found.pauses, found.irregular
print("\\n".join(found.to_text()))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PAUSE_S = 2.0  # an RR interval as long is a pause
FAST_BPM = 100.0  # three beats or more in a row as fast are a tachycardia
LONGEST_RUNS = 3  # that are shown
SEGMENT = 64  # beats that are irregular or not together
# Dash et al. 2009, Automatic Real Time Detection of Atrial Fibrillation: limits found on MIT-BIH AF.
LEAST_RMSSD, LEAST_ENTROPY, TURNING_DOUBT = 0.1, 0.7, 2.0
OUTLIERS = 8  # shortest and longest intervals of a segment that count for no entropy
BINS = 16
TREND_BINS = 12
AVERAGED = 10  # beats of the slowest and fastest rate


class Run(NamedTuple):
    """Beats in a row that belong together."""

    kind: str  # V couplet | V run | VT | S couplet | S run | SVT | bigeminy | trigeminy
    start: int  # sample of the first beat
    n_beats: int
    bpm: float  # within the run


class Pause(NamedTuple):
    """An RR interval of PAUSE_S or longer."""

    start: int  # sample of the beat before
    seconds: float


@dataclass(frozen=True)
class Rhythm:
    """What the beats of a recording add up to."""

    fs: float
    counts: dict[str, int]
    mean_bpm: float | None  # over all beats
    slowest_bpm: float | None  # over AVERAGED beats
    fastest_bpm: float | None
    trend: list[tuple[float, float | None]] = field(default_factory=list)  # begin of a stretch, s; its rate
    runs: list[Run] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    irregular: float | None = None  # share of the segments of SEGMENT beats; None where there is none

    def tree(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "beats": sum(self.counts.values()),
            "counts": self.counts,
            "mean_hr_bpm": _rounded(self.mean_bpm),
            "slowest_hr_bpm": _rounded(self.slowest_bpm),
            "fastest_hr_bpm": _rounded(self.fastest_bpm),
            "trend": [{"start_s": round(start, 1), "hr_bpm": _rounded(bpm)} for start, bpm in self.trend],
            "runs": [
                {"kind": run.kind, "start_s": run.start / self.fs, "beats": run.n_beats, "hr_bpm": _rounded(run.bpm)}
                for run in self.runs
            ],
            "pauses": [{"start_s": pause.start / self.fs, "seconds": pause.seconds} for pause in self.pauses],
            "irregular_share": self.irregular,
        }

    def to_text(self) -> list[str]:
        """Return lines for people."""
        counts = ", ".join(f"{name} {n:,}" for name, n in self.counts.items())
        lines = [f"{sum(self.counts.values()):,} beats: {counts}"]
        if self.mean_bpm is None:
            return [*lines, "rate unknown"]
        rate = f"mean {self.mean_bpm:.0f} beats per minute"
        if self.slowest_bpm and self.fastest_bpm:
            rate += f", {self.slowest_bpm:.0f} to {self.fastest_bpm:.0f} over {AVERAGED} beats"
        lines.append(rate)
        if len(self.trend) > 1:
            steps = (f"{clock(start)} {bpm:.0f}" if bpm else f"{clock(start)} -" for start, bpm in self.trend)
            lines.append(f"trend: {', '.join(steps)}")
        for kind, n in Counter(run.kind for run in self.runs).items():
            longest = sorted((run for run in self.runs if run.kind == kind), key=lambda run: -run.n_beats)
            shown = "; ".join(
                f"{run.n_beats} beats at {clock(run.start / self.fs)}, {run.bpm:.0f} per minute"
                for run in longest[:LONGEST_RUNS]
            )
            lines.append(f"{kind}: {n:,}; longest {shown}")
        if self.pauses:
            longest_pause = max(self.pauses, key=lambda pause: pause.seconds)
            shown = f"longest {longest_pause.seconds:.1f} s at {clock(longest_pause.start / self.fs)}"
            lines.append(f"pauses of {PAUSE_S:g} s or more: {len(self.pauses):,}; {shown}")
        if self.irregular:
            share = f"{100 * self.irregular:.0f} % of the time"
            lines.append(f"irregularly irregular, as in atrial fibrillation, {share}; this is no diagnosis")
        return lines


def clock(seconds: float) -> str:
    """Return seconds as 1:02:03, or 2:03 within the first hour."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def summarise(
    r_peaks: NDArray[np.int64], classes: Sequence[str], fs: float, gaps: Sequence[tuple[int, int]] = ()
) -> Rhythm:
    """Add up the beats of a recording.

    Parameters
    ----------
    r_peaks : (N,) ascending samples
    classes : N names of classes, N S V F Q
    fs : rate of r_peaks, Hz
    gaps : stretches [first, last) of samples without a signal: an RR interval across one is none

    Returns
    -------
    Rhythm
    """
    names = list(classes)
    if len(names) != len(r_peaks):
        raise ValueError(f"classes: {len(names)} names for {len(r_peaks)} beats")
    counts = dict(Counter(names))
    rr = np.diff(r_peaks) / fs  # (N - 1,) s
    for first, last in gaps:
        rr[(r_peaks[:-1] < last) & (r_peaks[1:] > first)] = np.nan
    known = np.isfinite(rr)
    if not known.any():
        return Rhythm(fs, counts, None, None, None)
    over = np.convolve(rr, np.ones(AVERAGED), "valid") if len(rr) >= AVERAGED else np.empty(0)
    over = over[np.isfinite(over) & (over > 0)]
    return Rhythm(
        fs,
        counts,
        60 * int(known.sum()) / float(rr[known].sum()),
        60 * AVERAGED / float(over.max()) if len(over) else None,
        60 * AVERAGED / float(over.min()) if len(over) else None,
        _trend(r_peaks, rr, fs),
        runs_of(r_peaks, names, rr),
        [Pause(int(r_peaks[k]), float(rr[k])) for k in np.flatnonzero(rr >= PAUSE_S)],
        irregular_share(rr, names),
    )


def _trend(r_peaks: NDArray[np.int64], rr: NDArray[np.float64], fs: float) -> list[tuple[float, float | None]]:
    """Return the rate in stretches of whole minutes, TREND_BINS of them at most."""
    last = float(r_peaks[-1]) / fs
    length = 60.0 * max(1, int(np.ceil(last / 60 / TREND_BINS)))
    stretch = (r_peaks[:-1] / fs // length).astype(int)
    trend: list[tuple[float, float | None]] = []
    for number in range(int(last // length) + 1):
        here = rr[(stretch == number) & np.isfinite(rr)]
        trend.append((number * length, 60 * len(here) / float(here.sum()) if len(here) else None))
    return trend


def runs_of(r_peaks: NDArray[np.int64], classes: Sequence[str], rr: NDArray[np.float64]) -> list[Run]:
    """Find couplets, runs and tachycardias of V and of S beats, bigeminy and trigeminy, in order of time."""
    found: list[tuple[int, int, str]] = []  # first beat, one behind the last, kind
    text = "".join(name if len(name) == 1 else "?" for name in classes)
    for letter, fast in (("V", "VT"), ("S", "SVT")):
        for first, last in _stretches(text, letter):
            if last - first == 2:
                found.append((first, last, f"{letter} couplet"))
            elif last - first > 2:
                found.append((first, last, fast if _bpm(rr, first, last) >= FAST_BPM else f"{letter} run"))
    for period, kind in ((2, "bigeminy"), (3, "trigeminy")):
        found += [(first, last, kind) for first, last in _every(text, "V", period)]
    return [Run(kind, int(r_peaks[a]), b - a, _bpm(rr, a, b)) for a, b, kind in sorted(found)]


def _bpm(rr: NDArray[np.float64], first: int, last: int) -> float:
    here = rr[first : last - 1]
    here = here[np.isfinite(here) & (here > 0)]
    return 60 / float(here.mean()) if len(here) else 0.0


def _stretches(text: str, letter: str) -> list[tuple[int, int]]:
    """Return [first, last) of each stretch of a letter."""
    is_it = np.array([each == letter for each in text], dtype=np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_it, [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _every(text: str, letter: str, period: int) -> list[tuple[int, int]]:
    """Return [first, last) where a letter is every second or third beat, three times at least."""
    places = [k for k, each in enumerate(text) if each == letter]
    found: list[tuple[int, int]] = []
    begin = 0
    for k in range(1, len(places) + 1):
        if k < len(places) and places[k] - places[k - 1] == period:
            continue
        if k - begin >= 3:
            found.append((places[begin], places[k - 1] + 1))
        begin = k
    return found


def irregular_share(rr: NDArray[np.float64], classes: Sequence[str]) -> float | None:
    """Return the share of segments of SEGMENT beats that are irregularly irregular; None with fewer beats.

    Dash et al. 2009 call a segment so where the root mean square of successive differences is above a tenth of the
    mean, the turning points are as many as in a random series (within TURNING_DOUBT deviations), and the Shannon
    entropy of a histogram of the intervals is above 0.7. Intervals beside ectopic beats are left out, as they do.
    """
    normal = np.array([name == "N" for name in classes])
    use = rr[normal[:-1] & normal[1:] & np.isfinite(rr)]
    n_segments = len(use) // SEGMENT
    if n_segments == 0:
        return None
    segments = use[: n_segments * SEGMENT].reshape(n_segments, SEGMENT)
    return float(np.mean([_is_irregular(segment) for segment in segments]))


def _is_irregular(rr: NDArray[np.float64]) -> bool:
    n = len(rr)
    if np.sqrt(np.mean(np.diff(rr) ** 2)) < LEAST_RMSSD * rr.mean():
        return False
    turns = int(((rr[1:-1] - rr[:-2]) * (rr[1:-1] - rr[2:]) > 0).sum())
    expected, deviation = 2 * (n - 2) / 3, np.sqrt((16 * n - 29) / 90)  # Bienaymé 1874
    if abs(turns - expected) > TURNING_DOUBT * deviation:
        return False
    middle = np.sort(rr)[OUTLIERS:-OUTLIERS]
    if middle[-1] <= middle[0]:
        return False
    share = np.histogram(middle, BINS)[0] / len(middle)
    share = share[share > 0]
    return bool(-(share * np.log(share)).sum() / np.log(BINS) > LEAST_ENTROPY)


def _rounded(bpm: float | None) -> float | None:
    return None if bpm is None else round(bpm, 1)
