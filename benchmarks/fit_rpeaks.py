"""Fits the weights by which `pqrst.rpeaks` judges a possible beat, and shows what they are worth on unseen patients.

    python benchmarks/fit_rpeaks.py FOLDER                  # cross-fitted: each patient by the weights of the others
    python benchmarks/fit_rpeaks.py FOLDER --write csrc/rpeaks_weights.hpp

FOLDER (or the variable ECG_TEST_DATA) holds mitdb/, svdb/, ludb/, cpsc2019-wfdb/, cpsc2021/ and nstdb/ as their owners
publish them. A possible beat is one if it is the highest within 100 ms of a mark. MIT-BIH is also learned with muscle
noise on it; signals without a heart teach what is none, and drawn beats that a signal without any noise can hold beats.
How much each set counts stands in WEIGHT, however long it is.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # small matrices, and the same sums everywhere

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
from benchmarks.rpeaks import SETS, Case, add_noise, no_heart, records
from ec57 import BeatScore, inside, pooled, score_beats
from sources import SAME_PERSON

Array = npt.NDArray[Any]
N_FOLDS = 4
N_STARTS = 2  # networks whose mean is taken: it depends less on chance, and is one network of all their units
N_UNITS = 16  # of each
N_DRAWN = 600_000  # possible beats, by weight
MARK_S = 0.1
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
NOISE_DB = (18.0, 12.0, 6.0)  # of the muscle noise on MIT-BIH


class Example(NamedTuple):
    """The possible beats of one signal."""

    data: str  # a key of WEIGHT
    fold: int
    features: Array  # (N, V, F): in the sum of the leads and, of several, in each
    is_beat: Array  # (N,) bool
    counts: Array  # (N,) bool, not in a stretch that is left out
    case: Case


class Weights(NamedTuple):
    hidden: Array  # (F, units)
    hidden_bias: Array
    output: Array
    bias: float


# ------------------------------------------------------------------------------------------------ examples


def example(data: str, patient: str, case: Case, folds: dict[str, int]) -> Example:
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
    """Recordings that must stay together: of one person, and strips of CPSC 2019 with the same R peaks."""
    if data == "cpsc2019":
        return f"{data} {np.round(case.beats[:6] / case.fs, 2)}"
    if data == "cpsc2021":
        return f"{data} {case.record.split('_')[1]}"
    return f"{data} {SAME_PERSON.get(case.record, case.record)}"


def noisy(case: Case, muscle: Array) -> Iterator[Case]:
    """A recording of MIT-BIH under muscle noise, louder and louder."""
    for number, snr_db in enumerate(NOISE_DB):
        lead = case.signal[0]
        noise = np.roll(muscle[number % len(muscle)], 60_000 * number)[: len(lead)]
        yield case._replace(signal=add_noise(lead[None], noise[None], case.beats, case.fs, snr_db))


def drawn(rng: np.random.Generator, fs: float) -> Case:
    """A minute of waves: QRS of any width, shape and rate, some with T waves, with wander, some without any noise."""
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
    """A lead without an electrode: wander, and what electronics add, (1, T) mV."""
    t = np.arange(round(fs * seconds)) / fs
    noise = np.random.default_rng(0).standard_normal(len(t))
    return {
        f"{hz} Hz, {part}": (np.sin(2 * np.pi * hz * t) + part * noise)[None]
        for hz in (0.3, 1.0, 2.0)
        for part in (0.0, 1e-3, 1e-2)
    }


def examples(root: Path) -> list[Example]:
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


def fit(some: list[Example]) -> Weights:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    features = np.concatenate([e.features[e.counts].reshape(-1, e.features.shape[-1]) for e in some])
    is_beat = np.concatenate([np.repeat(e.is_beat[e.counts], e.features.shape[1]) for e in some])
    n_rows = [int(e.counts.sum()) * e.features.shape[1] for e in some]
    total = {name: sum(n for n, e in zip(n_rows, some, strict=True) if e.data == name) for name in WEIGHT}
    chance = np.concatenate([np.full(n, WEIGHT[e.data] / total[e.data]) for n, e in zip(n_rows, some, strict=True)])
    networks = []
    for start in range(N_STARTS):
        drawn = np.random.default_rng(start).choice(len(features), N_DRAWN, p=chance / chance.sum())
        center, spread = features[drawn].mean(axis=0), features[drawn].std(axis=0)
        model = MLPClassifier(
            (N_UNITS,), max_iter=8, batch_size=500, learning_rate_init=3e-3, alpha=0.1, random_state=start
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of rounds is given
            model.fit((features[drawn] - center) / spread, is_beat[drawn])
        hidden = model.coefs_[0] / spread[:, None]  # for features as they are
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


def cross_fit(some: list[Example]) -> None:
    """Print what each patient's beats look like to the weights of the others."""
    scores: dict[tuple[str, str], list[BeatScore]] = {}
    for fold in tqdm(range(N_FOLDS), "cross-fit", disable=None, leave=False):
        weights = fit([e for e in some if e.fold != fold])
        for e in some:
            if e.fold == fold:
                scores.setdefault((e.data, e.case.group), []).append(score(e, weights))
    for (data, group), of_records in sorted(scores.items()):
        print(f"{data:10} {group:22} {pooled(of_records)}")


def write(path: Path, weights: Weights) -> None:
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
    parser.add_argument("--write", type=Path, help="fit to everything and write the header; then build again")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("no folder: name one or set ECG_TEST_DATA")
    some = examples(Path(options.folder))
    if options.write:
        write(options.write, fit(some))
    else:
        cross_fit(some)


if __name__ == "__main__":
    main()
