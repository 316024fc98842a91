"""Fit the weights by which `pqrst.rpeaks` judges a possible beat, and score them on unseen patients.

    python benchmarks/fit_rpeaks.py FOLDER                  # each patient scored by weights fitted to the others
    python benchmarks/fit_rpeaks.py FOLDER --write csrc/rpeaks_weights.hpp

FOLDER (or the variable ECG_TEST_DATA) holds mitdb/, svdb/, ludb/, cpsc2019-wfdb/, cpsc2021/ and nstdb/ as their owners
publish them. A possible beat counts as a beat if it is the highest within 100 ms of a mark. Three more sets are made
here. MIT-BIH gets muscle noise. Signals without a heartbeat teach what is no beat. Synthetic beats, some without any
noise, teach that a very clean signal can hold beats. WEIGHT says how much each set counts, whatever its length.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # the matrices are small, and sums keep one order

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pqrst
import script
from benchmarks import machine
from benchmarks.rpeaks import SETS, Case, add_noise, no_heart, records
from ec57 import BeatScore, inside, pooled, score_beats
from sources import SAME_PERSON

Array = npt.NDArray[Any]
N_FOLDS = 4
N_STARTS = 2  # networks from different random starts; their mean depends less on chance, and is one wider network
N_UNITS = 16  # hidden units of each network
N_DRAWN = 600_000  # possible beats drawn for each fit, by WEIGHT
MARK_S = 0.1  # largest distance of a beat from its mark
WEIGHT = {
    "mitdb": 1.0,
    "svdb": 0.6,
    "cpsc2019": 1.0,
    "ludb": 0.2,
    "cpsc2021": 0.1,
    "noisy": 0.5,
    "no heart": 0.25,
    "drawn": 0.3,
}
NOISE_DB = (18.0, 12.0, 6.0)  # signal-to-noise ratios of MIT-BIH with muscle noise


class Example(NamedTuple):
    """The possible beats of one signal."""

    data: str  # a key of WEIGHT
    fold: int
    features: Array  # (N, V, F) float32; V = 1 + L views if L > 1: the sum of the leads, then each lead
    is_beat: Array  # (N,) bool
    counts: Array  # (N,) bool, false in stretches that are left out
    case: Case


class Weights(NamedTuple):
    """A network with one hidden layer, as pqrst.rpeaks holds it."""

    hidden: Array  # (F, units)
    hidden_bias: Array  # (units,)
    output: Array  # (units,)
    bias: float


# ------------------------------------------------------------------------------------------------ examples


def example(data: str, patient: str, case: Case, folds: dict[str, int]) -> Example:
    """Return the possible beats of a case. A new patient gets the next fold in `folds`."""
    time_s, log_height, features = pqrst._rpeak_candidates(case.signal, case.fs)
    marks = case.beats / case.fs
    is_beat = np.zeros(len(time_s), bool)
    for first, end in zip(
        np.searchsorted(time_s, marks - MARK_S), np.searchsorted(time_s, marks + MARK_S), strict=True
    ):
        if first < end:
            is_beat[first + np.argmax(log_height[first:end])] = True
    counts = ~inside(time_s, [(first / case.fs, last / case.fs) for first, last in case.left_out])
    fold = folds.setdefault(patient, len(folds) % N_FOLDS)
    return Example(data, fold, features.astype(np.float32), is_beat, counts, case)


def patient_of(data: str, case: Case) -> str:
    """Return a name that recordings of one person share, so that they fall into one fold.

    CPSC 2019 names no patients: there, strips with the same first R peaks share one.
    """
    if data == "cpsc2019":
        return f"{data} {np.round(case.beats[:6] / case.fs, 2)}"
    if data == "cpsc2021":
        return f"{data} {case.record.split('_')[1]}"
    return f"{data} {SAME_PERSON.get(case.record, case.record)}"


def noisy(case: Case, muscle: Array) -> Iterator[Case]:
    """Yield a recording of MIT-BIH with muscle noise at each ratio of NOISE_DB."""
    for number, snr_db in enumerate(NOISE_DB):
        lead = case.signal[0]
        noise = np.roll(muscle[number % len(muscle)], 60_000 * number)[: len(lead)]
        yield case._replace(signal=add_noise(lead[None], noise[None], case.beats, case.fs, snr_db))


def drawn(rng: np.random.Generator, fs: float) -> Case:
    """Return a minute of synthetic beats.

    Width, shape and rate of the QRS are random. Some have P and T waves, wander or noise; some have no noise at all.
    """
    n = round(60 * fs)
    rr = rng.uniform(0.3, 1.8) * (1 + rng.choice([0, 0.02, 0.2]) * rng.uniform(-1, 1, 300))
    times = 0.5 + np.cumsum(np.maximum(rr, 0.27))
    beats = np.round(times[times < 59.5] * fs).astype(np.int64)
    i = np.arange(round(-0.6 * fs), round(0.6 * fs) + 1)

    def wave(width_s: float, delay_s: float) -> Array:
        return np.exp(-0.5 * ((i / fs - delay_s) / width_s) ** 2)

    width = rng.uniform(0.007, 0.045)
    beat = rng.choice([-1.0, 1.0]) * (wave(width, 0) - rng.uniform(0, 0.8) * wave(width, 2 * width))
    if rng.random() < 0.6:
        beat += rng.uniform(-0.5, 0.5) * wave(rng.uniform(0.03, 0.06), min(0.3, 0.55 * float(np.median(rr))))
        beat += rng.uniform(0, 0.2) * wave(0.02, -0.16)
    impulses = np.zeros(n)
    impulses[beats] = 1
    x = np.convolve(impulses, beat, "same") + rng.choice([0, 0.003, 0.03, 0.1]) * rng.standard_normal(n)
    x += rng.choice([0.0, 1.0, 5.0]) * np.sin(2 * np.pi * (rng.uniform(0.1, 0.6) * np.arange(n) / fs + rng.random()))
    return Case("drawn beats", "", "", x[None], fs, beats, [])


def lead_off(fs: float, seconds: float) -> dict[str, Array]:
    """Return signals of a lead without an electrode, each (1, T) mV: wander, some with the noise of electronics."""
    t = np.arange(round(fs * seconds)) / fs
    noise = np.random.default_rng(0).standard_normal(len(t))
    return {
        f"{hz} Hz, {part}": (np.sin(2 * np.pi * hz * t) + part * noise)[None]
        for hz in (0.3, 1.0, 2.0)
        for part in (0.0, 1e-3, 1e-2)
    }


def examples(root: Path) -> list[Example]:
    """Return the examples of every set of WEIGHT: read from `root`, or made here."""
    folds: dict[str, int] = {}
    result = []
    muscle = pqrst.read(root / "nstdb" / "ma").signal.astype(np.float64)
    for data in SETS:
        for path in tqdm(records(root / SETS[data].folder), data, unit=" records", disable=None, leave=False):
            for case in SETS[data].cases(path):
                patient = patient_of(data, case)
                result.append(example(data, patient, case, folds))
                if data == "mitdb" and case.group == "first lead":
                    result += [example("noisy", patient, other, folds) for other in noisy(case, muscle)]
    for fs in (125.0, 250.0, 360.0, 500.0):
        for name, x in {**no_heart(fs, 300.0), **lead_off(fs, 300.0), "muscle": muscle[:1, : round(300 * fs)]}.items():
            case = Case("no heart", f"{name} {fs}", name, x, fs, np.zeros(0, np.int64), [])
            result.append(example("no heart", f"{name} {fs}", case, folds))
    rng = np.random.default_rng(0)
    for number in range(200):
        result.append(
            example("drawn", f"drawn {number}", drawn(rng, float(rng.choice([128, 200, 250, 360, 500]))), folds)
        )
    return result


# ------------------------------------------------------------------------------------------------ fitting


def fit(training: list[Example]) -> Weights:
    """Fit N_STARTS networks to possible beats drawn by WEIGHT. Return their mean as one network."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    features = np.concatenate([e.features[e.counts].reshape(-1, e.features.shape[-1]) for e in training])
    is_beat = np.concatenate([np.repeat(e.is_beat[e.counts], e.features.shape[1]) for e in training])
    n_rows = [int(e.counts.sum()) * e.features.shape[1] for e in training]
    total = {name: sum(n for n, e in zip(n_rows, training, strict=True) if e.data == name) for name in WEIGHT}
    chance = np.concatenate([np.full(n, WEIGHT[e.data] / total[e.data]) for n, e in zip(n_rows, training, strict=True)])
    networks = []
    for start in range(N_STARTS):
        rows = np.random.default_rng(start).choice(len(features), N_DRAWN, p=chance / chance.sum())
        center, spread = features[rows].mean(axis=0), features[rows].std(axis=0)
        model = MLPClassifier(
            (N_UNITS,), max_iter=8, batch_size=500, learning_rate_init=3e-3, alpha=0.1, random_state=start
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter ends the fit on purpose
            model.fit((features[rows] - center) / spread, is_beat[rows])
        hidden = model.coefs_[0] / spread[:, None]  # takes features that are not scaled
        networks.append(
            (hidden, model.intercepts_[0] - center @ hidden, model.coefs_[1][:, 0], model.intercepts_[1][0])
        )
    hidden, hidden_bias, output, bias = zip(*networks, strict=True)
    return Weights(
        np.concatenate(hidden, axis=1).astype(float),
        np.concatenate(hidden_bias).astype(float),
        np.concatenate(output) / N_STARTS,
        float(np.mean(bias)),
    )


def score(e: Example, weights: Weights) -> BeatScore:
    found = pqrst._rpeaks_with(e.case.signal, e.case.fs, *weights)
    return score_beats(e.case.beats, found, e.case.fs, left_out=e.case.left_out)


def cross_fit(everything: list[Example]) -> None:
    """Print the scores of each set, every patient scored by weights fitted to the patients of the other folds."""
    scores: dict[tuple[str, str], list[BeatScore]] = {}
    for fold in tqdm(range(N_FOLDS), "cross-fit", disable=None, leave=False):
        weights = fit([e for e in everything if e.fold != fold])
        for e in everything:
            if e.fold == fold:
                scores.setdefault((e.data, e.case.group), []).append(score(e, weights))
    for (data, group), of_records in sorted(scores.items()):
        print(f"{data:10} {group:22} {pooled(of_records)}")


def write(path: Path, weights: Weights) -> None:
    """Write the weights as a C++ header."""

    def row(values: Array) -> str:
        return "{" + ", ".join(f"{value:.9g}" for value in values) + "}"

    hidden = ",\n".join(f"    {{{row(feature)}}}" for feature in weights.hidden)
    path.write_text(
        f"""// Written by benchmarks/fit_rpeaks.py: see there.
#pragma once

#include "rpeaks.hpp"

namespace pqrst {{

// clang-format off
constexpr RPeakWeights fitted = {{
  {{{{
{hidden}
  }}}},
  {{{row(weights.hidden_bias)}}},
  {{{row(weights.output)}}},
  {weights.bias:.9g}
}};
// clang-format on

}}  // namespace pqrst
"""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=os.environ.get("ECG_TEST_DATA"))
    parser.add_argument("--write", type=Path, help="fit to every patient and write this header; build again afterwards")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("no folder: name one or set ECG_TEST_DATA")
    machine.check_folder(options.folder, "give the one that holds mitdb/, svdb/, ludb/, ... and nstdb/")
    if options.write:
        machine.check_folder(options.write.parent, f"make it before the run, for {options.write.name}")
    everything = examples(options.folder)
    if options.write:
        write(options.write, fit(everything))
    else:
        cross_fit(everything)


if __name__ == "__main__":
    script.run(main)
