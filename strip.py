"""Numbers about a strip of seconds to a minute as a whole: its rhythm, its average beat, what lies between the beats.

    numbers = strip_numbers(lead, 300, r_peaks)       # lead (T,) mV -> (F,) float32, columns STRIP_NUMBERS

A network that reads a piece of a strip, or averages over it, sees waves; whether the intervals between beats follow a
pattern, and whether a P wave returns before each of them, is told by few numbers about the whole. They go beside the
signal (`recipe.context: [strip]`).

Irregularity: RMSSD and turning points after Dash et al. 2009, sample entropy after Richman and Moorman 2000 (with the
tolerances of Lake and Moorman 2011 for short strips), the occupied cells of the map of successive changes after Sarkar,
Ritscher and Mehra 2008, doi 10.1109/TBME.2007.903707. What the beats are beside each other is told by view.py.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from view import RATE, VIEW_NUMBERS, Numbers, bridged, filtered, view_beats

BANDS_HZ = (0.3, 1, 3, 6, 10, 15, 25, 40, 70, 100)  # edges, of the whole strip
ATRIAL_HZ = (1, 3, 5, 7, 10, 15, 40)  # edges, of what lies between T wave and next P wave
BEFORE, AFTER = round(0.3 * RATE), round(0.55 * RATE)  # samples of a beat around its R peak
QRS = slice(BEFORE - 10, BEFORE + 12)  # 50 ms before to 60 ms after the R peak
P_WAVE = slice(5, BEFORE - 12)  # 275 to 60 ms before
LEAST_BEATS = 3

RHYTHM = (
    "rr_median", "rr_least", "rr_most", "rr_variation", "rmssd", "rmssd_ratio", "change_median", "change_ratio",
    "share_50ms", "share_20ms", "turning_points", "rr_q05", "rr_q25", "rr_q75", "rr_q95", "bpm", "bpm_fastest",
    "bpm_slowest", "entropy_1", "entropy_1_wide", "entropy_2", "echo_1", "echo_2", "echo_3", "poincare_short",
    "poincare_long", "poincare_ratio", "histogram_entropy", "map_cells", "map_origin", "share_early", "share_late",
    "share_early_then_late",
)  # fmt: skip
WHOLE = (
    "beats", "duration_s", *(f"power_{low:g}hz" for low in BANDS_HZ[:-1]), "deviation", "kurtosis", "skewness", "range",
    "range_ratio", "quietest", "loudest", "loudness_variation",
)  # fmt: skip
BEAT = (
    *(f"wave_{k}" for k in range(0, BEFORE + AFTER, 5)), *(f"spread_{k}" for k in range(0, BEFORE + AFTER, 17)),
    "height", "upright", "likeness_mean", "likeness_least", "likeness_q25", "likeness_median", "height_variation",
    "p_most", "p_least", "p_place", "p_rise", "t_most", "t_least", "t_place", "t_lowest_place", "width_50", "width_20",
    "qrs_least", "st", "qrs_area", "qrs_slope", "qrs_turns", "p_likeness_median", "p_likeness_mean", "p_likeness_q25",
    "p_residual",
)  # fmt: skip
BETWEEN = (*(f"between_{low:g}hz" for low in ATRIAL_HZ[:-1]), "between_power")
STRIP_NUMBERS = (
    *RHYTHM, *WHOLE, *BEAT, *BETWEEN,
    *(f"mean_{name}" for name in VIEW_NUMBERS), *(f"deviation_{name}" for name in VIEW_NUMBERS),
)  # fmt: skip


def strip_numbers(lead: NDArray[np.floating], fs: float, r_peaks: NDArray[np.int64]) -> NDArray[np.float32]:
    """Describe a strip of one lead.

    Parameters
    ----------
    lead : (T,) mV, NaN where invalid
    fs : Hz
    r_peaks : (N,) samples, ascending

    Returns
    -------
    (F,) float32 in the order of STRIP_NUMBERS, NaN where unknown: of a strip with fewer than three beats all but
    those of WHOLE, of one shorter than a second all.
    """
    if len(lead) < fs:
        return np.full(len(STRIP_NUMBERS), np.nan, np.float32)
    whole = bridged(np.atleast_2d(lead))
    peaks = np.asarray(r_peaks, np.int64)
    numbers = _rhythm(np.diff(peaks) / fs) if len(peaks) > LEAST_BEATS else {}
    x = filtered(whole, fs)[0].astype(np.float64)
    at = np.round(peaks * (RATE / fs)).astype(np.int64)
    numbers |= {"beats": float(len(peaks)), "duration_s": whole.shape[1] / fs}
    numbers |= _spectrum(whole[0], fs) | _whole(x)
    inner = at[(at >= BEFORE) & (at < len(x) - AFTER)]
    if len(inner) >= LEAST_BEATS:
        beat, height = _beat(x, inner)
        numbers |= beat | _between(x, at, height)
    own = [numbers.get(name, np.nan) for name in (*RHYTHM, *WHOLE, *BEAT, *BETWEEN)]
    view = view_beats(whole, fs, peaks).numbers.astype(np.float64)  # (N, V)
    known = np.isfinite(view)
    n = np.where(known.any(axis=0), known.sum(axis=0), np.nan)  # (V,) NaN where no beat has the number
    mean = np.where(known, view, 0).sum(axis=0) / n
    deviation = np.sqrt((np.where(known, view - mean, 0) ** 2).sum(axis=0) / n)
    values = np.concatenate([own, mean, deviation])
    return np.where(np.isfinite(values), values, np.nan).astype(np.float32)


# ------------------------------------------------------------------------------------------------ rhythm


def _rhythm(rr: Numbers) -> dict[str, float]:
    """Describe RR intervals (N,) s, at least three."""
    logs, changes = np.log(rr), np.diff(rr)
    median, mean = float(np.median(rr)), float(rr.mean())
    rmssd, usual_change = float(np.sqrt((changes**2).mean())), float(np.median(np.abs(changes)))
    of_three = np.convolve(rr, np.full(3, 1 / 3), "valid")
    relative, steps = logs - np.log(median), np.diff(logs)
    short, long = np.std(steps) / 2**0.5, np.std(logs[1:] + logs[:-1]) / 2**0.5
    share = np.histogram(relative, np.linspace(-0.5, 0.5, 21))[0] / len(logs)
    share = share[share > 0]
    edges = np.linspace(-0.61, 0.61, 25)
    bounded = np.clip(steps, -0.6, 0.6)
    cells = np.histogram2d(bounded[1:], bounded[:-1], bins=[edges, edges])[0]
    n_pairs = max(len(steps) - 1, 1)
    premature = (changes[:-1] < -0.1 * median) & (changes[1:] > 0.1 * median)
    numbers = {
        "rr_median": median,
        "rr_least": rr.min(),
        "rr_most": rr.max(),
        "rr_variation": rr.std() / mean,
        "rmssd": rmssd,
        "rmssd_ratio": rmssd / mean,
        "change_median": usual_change,
        "change_ratio": usual_change / median,
        "share_50ms": (np.abs(changes) > 0.05).mean(),
        "share_20ms": (np.abs(changes) > 0.02).mean(),
        "turning_points": (changes[1:] * changes[:-1] < 0).mean(),
        "bpm": 60 / mean,
        "bpm_fastest": 60 / of_three.min(),
        "bpm_slowest": 60 / of_three.max(),
        "entropy_1": _sample_entropy(logs, 1, 0.05),
        "entropy_1_wide": _sample_entropy(logs, 1, 0.1),
        "entropy_2": _sample_entropy(logs, 2, 0.1),
        "poincare_short": short,
        "poincare_long": long,
        "poincare_ratio": short / (long + 1e-6),
        "histogram_entropy": -(share * np.log(share)).sum(),
        "map_cells": (cells > 0).sum() / n_pairs,
        "map_origin": cells[11:13, 11:13].sum() / n_pairs,
        "share_early": (relative < -0.15).mean(),
        "share_late": (relative > 0.15).mean(),
        "share_early_then_late": premature.mean(),
    }
    numbers |= {f"rr_q{q:02d}": np.quantile(rr, q / 100) / median for q in (5, 25, 75, 95)}
    centred = logs - logs.mean()
    for lag in (1, 2, 3):
        if len(centred) > lag + 1:
            numbers[f"echo_{lag}"] = (centred[lag:] * centred[:-lag]).sum() / ((centred**2).sum() + 1e-9)
    return numbers


def _sample_entropy(x: Numbers, length: int, tolerance: float) -> float:
    """Return -log of how often stretches of `length` that agree also agree in the next value; NaN of a short series."""
    if len(x) < length + 3:
        return float("nan")
    pairs = []
    for size in (length + 1, length):
        stretches = sliding_window_view(x, size)[: len(x) - length]
        apart = np.abs(stretches[:, None] - stretches[None]).max(axis=2)
        pairs.append(((apart <= tolerance).sum() - len(stretches)) / 2)
    return float(-np.log((pairs[0] + 0.5) / (pairs[1] + 0.5)))


# ------------------------------------------------------------------------------------------------ the whole signal


def _spectrum(x: Numbers, fs: float) -> dict[str, float]:
    """Return the log share of the power in each band below half the rate; of a signal as it is."""
    power, hz = np.abs(np.fft.rfft(x - x.mean())) ** 2, np.fft.rfftfreq(len(x), 1 / fs)
    total = power[(hz > BANDS_HZ[0]) & (hz < BANDS_HZ[-1])].sum() + 1e-9
    bands = {low: power[(hz >= low) & (hz < high)].sum() for low, high in pairwise(BANDS_HZ) if high <= fs / 2}
    return {f"power_{low:g}hz": np.log(of_band / total + 1e-6) for low, of_band in bands.items()}


def _whole(x: Numbers) -> dict[str, float]:
    """Describe the filtered signal (T,) at RATE: sizes, skewness, and how loud its stretches of two seconds are."""
    centred, deviation = x - x.mean(), float(x.std())
    q01, q05, q95, q99 = np.quantile(x, [0.01, 0.05, 0.95, 0.99])
    numbers = {
        "deviation": np.log(deviation + 1e-4),
        "kurtosis": (centred**4).mean() / (x.var() ** 2 + 1e-9),
        "skewness": abs((centred**3).mean() / (deviation**3 + 1e-9)),
        "range": np.log(max(q99 - q01, 1e-4)),
        "range_ratio": (q95 - q05) / (q99 - q01 + 1e-6),
    }
    if len(x) >= 2 * RATE:
        loudness = sliding_window_view(x, 2 * RATE)[::RATE].std(axis=1)
        numbers |= {
            "quietest": np.log(loudness.min() / (deviation + 1e-9) + 1e-3),
            "loudest": np.log(loudness.max() / (deviation + 1e-9) + 1e-3),
            "loudness_variation": loudness.std() / (loudness.mean() + 1e-9),
        }
    return numbers


# ------------------------------------------------------------------------------------------------ beats


def _correlations(waves: Numbers, template: Numbers) -> Numbers:
    """Return the correlation of each wave (N, W) with a template (W,), (N,)."""
    waves, template = waves - waves.mean(axis=1, keepdims=True), template - template.mean()
    size = np.linalg.norm(waves, axis=1) * np.linalg.norm(template)
    return np.asarray(waves @ template / (size + 1e-12))


def _beat(x: Numbers, peaks: NDArray[np.int64]) -> tuple[dict[str, float], float]:
    """Describe the average beat, with its QRS upright and 1 high, and how alike the beats are; also its height, mV."""
    beats = x[peaks[:, None] + np.arange(-BEFORE, AFTER)]  # (N, W)
    beats = beats - beats[:, BEFORE - 28 : BEFORE - 22].mean(axis=1, keepdims=True)
    likeness = _correlations(beats, np.median(beats, axis=0))
    alike = beats[np.argsort(likeness, kind="stable")[len(beats) // 3 :]]
    average = np.median(alike, axis=0)  # (W,)
    height = float(np.abs(average[QRS]).max() + 1e-6)
    upright = 1.0 if average[QRS].max() > -average[QRS].min() else -1.0
    wave, spread = upright * average / height, np.median(np.abs(alike - average), axis=0) / height
    p, qrs, t = wave[P_WAVE], wave[BEFORE - 20 : BEFORE + 25], wave[BEFORE + 25 :]
    p_likeness = _correlations(beats[:, P_WAVE], average[P_WAVE])
    numbers = {
        "height": np.log(height),
        "upright": upright,
        "likeness_mean": likeness.mean(),
        "likeness_least": likeness.min(),
        "likeness_q25": np.quantile(likeness, 0.25),
        "likeness_median": np.median(likeness),
        "height_variation": np.log(np.ptp(beats[:, QRS], axis=1) + 1e-3).std(),
        "p_most": p.max(),
        "p_least": p.min(),
        "p_place": p.argmax(),
        "p_rise": p.max() - np.median(p),
        "t_most": t.max(),
        "t_least": t.min(),
        "t_place": t.argmax(),
        "t_lowest_place": t.argmin(),
        "width_50": (np.abs(qrs) > 0.5).sum(),
        "width_20": (np.abs(qrs) > 0.2).sum(),
        "qrs_least": qrs.min(),
        "st": wave[BEFORE + 15 : BEFORE + 25].mean(),
        "qrs_area": np.abs(qrs).mean(),
        "qrs_slope": np.abs(np.diff(qrs)).max(),
        "qrs_turns": (np.diff(np.sign(np.diff(qrs))) != 0).sum(),
        "p_likeness_median": np.median(p_likeness),
        "p_likeness_mean": p_likeness.mean(),
        "p_likeness_q25": np.quantile(p_likeness, 0.25),
        "p_residual": np.log((beats - average)[:, 5 : BEFORE - 15].std() / height + 1e-3),
    }
    numbers |= {f"wave_{k}": wave[k : k + 5].mean() for k in range(0, len(wave), 5)}
    numbers |= {f"spread_{k}": spread[k : k + 17].mean() for k in range(0, len(wave), 17)}
    return numbers, height


def _between(x: Numbers, peaks: NDArray[np.int64], height: float) -> dict[str, float]:
    """Return where the power lies between a T wave and the next QRS, as the median over the beats: P or f waves."""
    spectra = []
    for first, following in pairwise(peaks.tolist()):
        stretch = x[first + round(0.45 * RATE) : following - round(0.075 * RATE)]
        if following - first > 0.75 * RATE:
            level = np.linspace(-1, 1, len(stretch))
            stretch = stretch - stretch.mean() - level * (stretch @ level) / (level @ level)
            spectra.append(np.abs(np.fft.rfft(stretch * np.hanning(len(stretch)), 256)) ** 2 / len(stretch))
    if not spectra:
        return {}
    power, hz = np.median(spectra, axis=0), np.fft.rfftfreq(256, 1 / RATE)
    total = power[(hz > ATRIAL_HZ[0]) & (hz < ATRIAL_HZ[-1])].sum() + 1e-12
    bands = {low: power[(hz >= low) & (hz < high)].sum() for low, high in pairwise(ATRIAL_HZ)}
    return {f"between_{low:g}hz": of_band / total for low, of_band in bands.items()} | {
        "between_power": np.log(total / height**2 + 1e-6)
    }
