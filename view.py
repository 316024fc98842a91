"""The record's view of a beat: its rhythm, shape, P and T wave, each beside those of the record's own normal beats.

view = view_beats(signal, 360, r_peaks)      # signal (L, T) mV
view.numbers                                 # (N, F) float32, columns VIEW_NUMBERS: what networks/beats.py takes
view.cluster, view.normal, view.role         # (N,) group by QRS shape, whether it is the normal one, ROLES by rhythm

What a beat is, is not said by its own window: a premature beat is early for this patient, a ventricular one wide beside
this patient's others. Beats are grouped by the shape of their QRS, without labels, and one group is taken for the
normal one: that of many beats with a steady P wave and a narrow QRS that are not early (the idea of Teijeiro, Felix,
Presedo and Castro 2018, doi 10.1109/JBHI.2016.2631247, whose rules are not used here). Widths at fractions of the
height, and intervals against several averages, follow Saenz-Cogollo and Agelli (2020, doi 10.3390/electronics9111745)
and de Chazal, O'Dwyer and Reilly (2004).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import pqrst

Numbers = NDArray[np.float64]

RATE = 200  # Hz, at which shapes are compared; 128 to 1000 Hz come to the same
JOINS, MERGES = 0.9, 0.92  # correlations of QRS shapes, see pqrst.cluster_shapes
ROLES = ("regular", "early", "late", "irregular")
EARLY, LATE = np.log(0.88), np.log(1.16)  # an interval against the median of the 33 around it
IRREGULAR = 0.035  # median over 33 intervals of the least change to one of the next three: more in AF alone
SHORTEST_S = 0.15  # an interval is taken for no shorter than that
LIMIT = 0.5  # of a change of log intervals: a missed beat is not more irregular than a pause

RR_AROUND = tuple(k for k in range(-8, 9) if k not in (0, 1))  # interval before the beat is 0, after it 1
SPANS = (9, 33, 121)  # intervals over which irregularity is told
RHYTHM_NUMBERS = (
    "rr_previous", "rr_next", "rr_next_previous", "rr_previous_mean", "rr_next_mean", "rr_previous_q50",
    "rr_previous_q75", "rr_previous_q90", "rr_previous_median11", "rr_previous_median33", "rr_previous_upper33",
    "rr_next_median33", "rr_previous_median61", "rr_previous_upper61", "rr_next_upper61",
    *(f"rr{k:+d}" for k in RR_AROUND),
    *(f"irregular_{kind}{span}" for span in SPANS for kind in ("mean", "median", "share")), "irregular_nearest33",
    "rr_mean", "rr_spread", "rr_skew", "early_share", "early_share61",
)  # fmt: skip
SHAPE_NUMBERS = (
    "correlation", "is_normal", "log_share", "amplitude", "residual", "width50", "width25", "active", "slope",
    "width50_ratio", "width25_ratio", "active_ratio", "slope_ratio", "normal_width50", "normal_active",
    "normal_share33", "p_projection", "p_correlation", "p_size", "normal_p_size", "normal_p_steady",
    "p_correlation33", "t_correlation", "t_size",
)  # fmt: skip
OF_CLUSTER = (
    "rr_previous_mean", "rr_next_mean", "rr_previous_median33", "rr_previous_upper61", "rr_previous_q90",
    "rr_next_previous", "width50_ratio", "active_ratio", "correlation", "p_projection", "p_correlation",
    "t_correlation", "irregular_median33", "slope_ratio", "width50", "active",
)  # fmt: skip
SPREAD_IN_CLUSTER = ("rr_previous_median33", "rr_previous_upper61", "p_correlation")
OF_NEIGHBOURS = {"correlation": 4, "width50_ratio": 2, "p_correlation": 2, "cluster_width50_ratio": 2}  # how far
VIEW_NUMBERS = (
    *RHYTHM_NUMBERS,
    *SHAPE_NUMBERS,
    *(f"cluster_{name}" for name in OF_CLUSTER),
    *(f"cluster_spread_{name}" for name in SPREAD_IN_CLUSTER),
    *(f"{name}{sign}{k}" for name, far in OF_NEIGHBOURS.items() for k in range(1, far + 1) for sign in "-+"),
)


class View(NamedTuple):
    """What a record says of each of its N beats."""

    numbers: NDArray[np.float32]  # (N, F) in the order of VIEW_NUMBERS, NaN where unknown; logs and ratios, no units
    cluster: NDArray[np.int32]  # (N,) group by QRS shape, 0 the largest; -1 without a signal
    normal: NDArray[np.bool_]  # (N,) in the group that is taken for the normal one
    role: NDArray[np.int64]  # (N,) index in ROLES


def view_beats(signal: NDArray[np.floating], fs: float, r_peaks: NDArray[np.int64]) -> View:
    """Describe all beats of a record.

    Parameters
    ----------
    signal : (L, T) leads in one unit; NaN where invalid, zeros for a lead that is missing
    fs : Hz
    r_peaks : (N,) samples, ascending; of those outside of the signal the rhythm is told, and the shape at its end

    Raises
    ------
    ValueError
        r_peaks are not ascending.
    """
    peaks = np.asarray(r_peaks, np.int64)
    if np.any(np.diff(peaks) < 0):
        raise ValueError("r_peaks: expected ascending samples")
    if not len(peaks):
        empty = np.zeros(0, np.int32)
        return View(np.zeros((0, len(VIEW_NUMBERS)), np.float32), empty, empty.astype(bool), empty.astype(np.int64))
    numbers = _rhythm(peaks / fs)
    role = _roles(numbers)
    x = filtered(bridged(signal), fs)
    shape, cluster, normal = _shapes(x, np.round(peaks * (RATE / fs)).astype(np.int64), role == ROLES.index("early"))
    numbers |= shape
    group = np.where(cluster < 0, cluster.max() + 1, cluster)
    size = np.bincount(group)
    for name in OF_CLUSTER:
        numbers[f"cluster_{name}"] = (np.bincount(group, np.nan_to_num(numbers[name])) / np.maximum(size, 1))[group]
    for name in SPREAD_IN_CLUSTER:
        value = np.nan_to_num(numbers[name])
        mean, square = (np.bincount(group, v) / np.maximum(size, 1) for v in (value, value**2))
        numbers[f"cluster_spread_{name}"] = np.sqrt(np.maximum(square - mean**2, 0))[group]
    for name, far in OF_NEIGHBOURS.items():
        for k in range(1, far + 1):
            numbers[f"{name}-{k}"], numbers[f"{name}+{k}"] = _moved(numbers[name], -k), _moved(numbers[name], k)
    columns = np.stack([numbers[name] for name in VIEW_NUMBERS], axis=1).astype(np.float32)
    return View(columns, cluster, normal, role)


# ------------------------------------------------------------------------------------------------ helpers


def bridged(signal: NDArray[np.floating]) -> Numbers:
    """Return the leads with a line over each gap; zeros where nothing is valid."""
    x = np.array(signal, np.float64)
    for lead in x:
        valid = np.isfinite(lead)
        if not valid.all():
            known = np.flatnonzero(valid)
            lead[~valid] = np.interp(np.flatnonzero(~valid), known, lead[known]) if len(known) else 0
    return x


def filtered(signal: Numbers, fs: float) -> Numbers:
    """Return leads (L, T) without gaps, band-passed, at RATE: what shapes are measured on."""
    return np.asarray(pqrst.resample(pqrst.bandpass(signal, fs, 0.5, min(40.0, 0.45 * fs), 3), fs, RATE))


def _around(x: Numbers, span: int) -> Numbers:
    """Return (N, span) views of the values around each, mirrored at the ends."""
    return np.asarray(sliding_window_view(np.pad(x, span // 2, mode="symmetric"), span))


def _sum_around(x: Numbers, span: int) -> Numbers:
    total = np.cumsum(np.concatenate([np.zeros(1), np.pad(x, span // 2, mode="symmetric")]))
    return np.asarray(total[span:] - total[:-span])


def _moved(x: Numbers, by: int) -> Numbers:
    """Return x[i + by] at i, NaN beyond the ends."""
    moved = np.full(len(x), np.nan)
    if abs(by) < len(x):
        moved[max(0, -by) : len(x) - max(0, by)] = x[max(0, by) : len(x) - max(0, -by)]
    return moved


# ------------------------------------------------------------------------------------------------ rhythm


def _rhythm(time_s: Numbers) -> dict[str, Numbers]:
    """Return the rhythm around each beat; all NaN where a record has fewer than three beats."""
    n = len(time_s)
    if n < 3:
        return {name: np.full(n, np.nan) for name in RHYTHM_NUMBERS}
    rr = np.log(np.maximum(np.diff(time_s), SHORTEST_S))  # (N - 1,)
    before, after = np.concatenate([[np.nan], rr]), np.concatenate([rr, [np.nan]])

    def about(level: Numbers) -> tuple[Numbers, Numbers]:
        """Return a level of the intervals at the one before and at the one after each beat."""
        return np.concatenate([level[:1], level]), np.concatenate([level, level[-1:]])

    q10, q50, q75, q90 = np.quantile(rr, [0.1, 0.5, 0.75, 0.9])
    mean = np.log(np.minimum(np.exp(rr), 3).mean())
    median11, median33, median61 = (about(np.median(_around(rr, span), axis=1)) for span in (11, 33, 61))
    upper33 = about(np.quantile(_around(rr, 33), 0.8, axis=1))
    upper61 = about(np.quantile(_around(rr, 61), 0.85, axis=1))
    numbers = {
        "rr_previous": before,
        "rr_next": after,
        "rr_next_previous": after - before,
        "rr_previous_mean": before - mean,
        "rr_next_mean": after - mean,
        "rr_previous_q50": before - q50,
        "rr_previous_q75": before - q75,
        "rr_previous_q90": before - q90,
        "rr_previous_median11": before - median11[0],
        "rr_previous_median33": before - median33[0],
        "rr_previous_upper33": before - upper33[0],
        "rr_next_median33": after - median33[1],
        "rr_previous_median61": before - median61[0],
        "rr_previous_upper61": before - upper61[0],
        "rr_next_upper61": after - upper61[1],
    }
    numbers |= {f"rr{k:+d}": _moved(before, k) - median61[0] for k in RR_AROUND}
    change = np.abs(np.diff(rr))
    change = np.minimum(np.concatenate([change[:1], change, change[-1:]]), LIMIT)  # (N,) at the beat between two
    for span in SPANS:
        around = _around(change, span)
        numbers[f"irregular_mean{span}"] = np.log(0.005 + around.mean(axis=1))
        numbers[f"irregular_median{span}"] = np.log(0.005 + np.median(around, axis=1))
        numbers[f"irregular_share{span}"] = (around > 0.08).mean(axis=1)
    steps = [np.minimum(np.abs(_moved(before, k) - before), LIMIT) for k in (1, 2, 3)]
    nearest = np.nan_to_num(np.fmin(np.fmin(steps[0], steps[1]), steps[2]))  # small where a pattern returns
    early = (np.nan_to_num(numbers["rr_previous_median33"]) < EARLY).astype(np.float64)
    numbers |= {
        "irregular_nearest33": np.log(0.005 + np.median(_around(nearest, 33), axis=1)),
        "rr_mean": np.full(n, mean),
        "rr_spread": np.full(n, q90 - q10),
        "rr_skew": np.full(n, q90 + q10 - 2 * q50),
        "early_share": np.full(n, early.mean()),
        "early_share61": _sum_around(early, 61) / 61,
    }
    return numbers


def _roles(numbers: dict[str, Numbers]) -> NDArray[np.int64]:
    """Return what each beat is in the rhythm: an index in ROLES.

    Early is an interval shorter than the upper part of the minute around it and than what follows; so is every second
    beat of bigeminy, where half of the intervals are short and the median says nothing.
    """
    against = np.nan_to_num(np.fmin(numbers["rr_previous_median33"], numbers["rr_previous_upper61"]))
    follows = np.nan_to_num(numbers["rr_next_previous"])
    runs_on = np.nan_to_num(numbers["rr_previous_median33"]) < EARLY
    early = (against < EARLY) & (runs_on | (follows > -EARLY))
    late = np.nan_to_num(numbers["rr_previous_median33"]) > LATE
    irregular = np.nan_to_num(numbers["irregular_nearest33"], nan=-9) > np.log(0.005 + IRREGULAR)
    return np.select([irregular, early, late], [3, 1, 2], 0).astype(np.int64)


# ------------------------------------------------------------------------------------------------ shape


def _ms(duration: float) -> int:
    return round(duration * RATE / 1000)


def _windows(x: Numbers, centers: NDArray[np.int64], from_ms: float, to_ms: float) -> Numbers:
    """Return (N, L, W) windows about each center, the ends of the record repeated."""
    places = np.clip(centers[:, None] + np.arange(_ms(from_ms), _ms(to_ms)), 0, x.shape[1] - 1)
    return np.asarray(np.moveaxis(x[:, places], 0, 1))


def _centred(x: Numbers, peaks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the centre of each QRS by the energy of its slopes, which does not depend on where a mark was set."""
    steps = np.arange(_ms(-100), _ms(120) - 1)
    energy = (np.diff(_windows(x, peaks, -100, 120), axis=2) ** 2).sum(axis=1)  # (N, W - 1)
    offset = np.zeros(len(peaks))
    for _ in range(2):
        offset = (energy * steps).sum(axis=1) / (energy.sum(axis=1) + 1e-12)
        energy = energy * (np.abs(steps - offset[:, None]) <= _ms(90))
    return np.clip(peaks + np.round(offset).astype(np.int64), 0, x.shape[1] - 1)


def _shapes(
    x: Numbers, peaks: NDArray[np.int64], early: NDArray[np.bool_]
) -> tuple[dict[str, Numbers], NDArray[np.int32], NDArray[np.bool_]]:
    """Return numbers about shape, the cluster of each beat, and which are of the normal one."""
    n = len(peaks)
    centers = _centred(x, peaks)
    qrs = _windows(x, centers, -100, 100)
    qrs = qrs - (qrs[:, :, :3].mean(axis=2) + qrs[:, :, -3:].mean(axis=2))[:, :, None] / 2
    height = np.sqrt((qrs**2).sum(axis=1))  # (N, W) over all leads
    steep = np.sqrt((np.diff(qrs, axis=2) ** 2).sum(axis=1))
    top, steepest = height.max(axis=1) + 1e-6, steep.max(axis=1) + 1e-6
    step_ms = 1000 / RATE
    width50 = (height > 0.5 * top[:, None]).sum(axis=1) * step_ms
    width25 = (height > 0.25 * top[:, None]).sum(axis=1) * step_ms
    active = (steep > 0.2 * steepest[:, None]).sum(axis=1) * step_ms
    slope = np.log(steepest / top + 1e-3)

    p = _windows(x, centers, -270, -80)
    line = np.linspace(0, 1, p.shape[2])
    p = p - p[:, :, :3].mean(axis=2)[:, :, None] * (1 - line) - p[:, :, -3:].mean(axis=2)[:, :, None] * line
    t = _windows(x, centers, 140, 400)
    t = t - t.mean(axis=2, keepdims=True)
    flat, p, t = qrs.reshape(n, -1), p.reshape(n, -1), t.reshape(n, -1)

    cluster = pqrst.cluster_shapes(flat.astype(np.float32), JOINS, MERGES)
    normal = cluster == _normal_cluster(cluster, p, width50, active, early)
    template, p_normal, t_normal = (np.median(waves[normal], axis=0) for waves in (flat, p, t))
    size, p_size = np.linalg.norm(template) + 1e-9, np.linalg.norm(p_normal)
    length, p_length = np.linalg.norm(flat, axis=1) + 1e-9, np.linalg.norm(p, axis=1)
    along = flat @ template / size  # (N,) part of the QRS that is the normal one
    p_along = p @ p_normal / (p_size + 1e-9)
    p_correlation = p_along / (p_length + 0.02 * size)
    steady = p_size / (np.sqrt(np.median(((p[normal] - p_normal) ** 2).sum(axis=1))) + 1e-9)
    t_length, t_size = np.linalg.norm(t, axis=1), np.linalg.norm(t_normal) + 1e-9
    usual = [float(np.median(values[normal])) for values in (width50, width25, active, slope)]
    share = np.bincount(np.maximum(cluster, 0)) / n
    weight = normal.astype(np.float64)
    numbers = {
        "correlation": along / length,
        "is_normal": weight,
        "log_share": np.log(np.maximum(share[np.maximum(cluster, 0)], 1 / n)),
        "amplitude": np.clip(np.log(length / size), -1.5, 1.5),
        "residual": np.log(np.sqrt(np.maximum(length**2 - along**2, 0)) / size + 0.02),
        "width50": width50 / 50,
        "width25": width25 / 100,
        "active": active / 100,
        "slope": slope,
        "width50_ratio": np.log((width50 + 10) / (usual[0] + 10)),
        "width25_ratio": np.log((width25 + 10) / (usual[1] + 10)),
        "active_ratio": np.log((active + 10) / (usual[2] + 10)),
        "slope_ratio": slope - usual[3],
        "normal_width50": np.full(n, usual[0] / 50),
        "normal_active": np.full(n, usual[2] / 100),
        "normal_share33": _sum_around(weight, 33) / 33,
        "p_projection": np.clip(p_along / (p_size + 0.03 * size), -2, 3),
        "p_correlation": p_correlation,
        "p_size": np.log(p_length / size + 0.01),
        "normal_p_size": np.full(n, np.log(p_size / size + 0.01)),
        "normal_p_steady": np.full(n, min(3.0, steady)),
        "p_correlation33": (_sum_around(weight * p_correlation, 33) + 0.3) / (_sum_around(weight, 33) + 1),
        "t_correlation": t @ t_normal / (t_length * t_size + 1e-9),
        "t_size": np.clip(np.log(t_length / t_size + 0.05), -2, 2),
    }
    return numbers, cluster, normal


def _normal_cluster(
    cluster: NDArray[np.int32], p: Numbers, width50: Numbers, active: Numbers, early: NDArray[np.bool_]
) -> int:
    """Return the cluster of the normal beats: many, with a steady P wave, narrow, not early.

    Only clusters with 3 % of the beats are asked; where there are none, it is the largest.
    """
    best, best_score = 0, -np.inf
    for group in range(cluster.max() + 1):
        here = cluster == group
        if here.sum() < max(4, 0.03 * len(cluster)):
            continue
        p_normal = np.median(p[here], axis=0)
        spread = np.sqrt(np.median(((p[here] - p_normal) ** 2).sum(axis=1)))
        score = (
            np.log(here.mean())
            + 0.8 * min(np.linalg.norm(p_normal) / (spread + 1e-9), 2)
            - 0.012 * max(0, np.median(width50[here]) - 60)
            - 0.008 * max(0, np.median(active[here]) - 80)
            - 1.5 * early[here].mean()
        )
        if score > best_score:
            best, best_score = group, float(score)
    return best if cluster.max() >= 0 else -1
