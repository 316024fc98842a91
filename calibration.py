"""What the validation rows teach about the scores of a trained network: a temperature, and a threshold for each class.

    temperature = temperature_of(logits, targets, "multilabel")         # logits / temperature are calibrated
    limits = best_thresholds(targets, scores)                            # the best F1 of each class

Both are part of a checkpoint: evaluate.py and infer.py use them, and never choose them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax

from decide import THRESHOLD

LEAST_POSITIVES = 5  # rows of a class, on fewer of which no threshold is chosen
LIMITS = (0.5, 5.0)  # of the temperature: rows that are told apart without an error would have it go to 0


def temperature_of(logits: NDArray[np.float32], targets: NDArray[np.uint8], task: str) -> float:
    """Return the temperature by which logits (N, K) have the least cross-entropy on targets (N, K).

    One number for all classes: the order of scores stays (Guo et al. 2017, arXiv:1706.04599). 1 without rows.
    """
    if not len(logits):
        return 1.0
    z, present = logits.astype(np.float64), targets.astype(bool)

    def entropy(temperature: float) -> float:
        scaled = z / temperature
        if task == "multiclass":
            return float(-log_softmax(scaled, axis=1)[present].mean())
        return float(-np.where(present, log_expit(scaled), log_expit(-scaled)).mean())

    return float(minimize_scalar(entropy, bounds=LIMITS, method="bounded").x)


def best_thresholds(
    targets: NDArray[np.uint8], scores: NDArray[np.float32], sensitivity: float | None = None
) -> tuple[float, ...]:
    """Return the threshold of each class, (K,), half-way between two scores.

    Parameters
    ----------
    targets : (N, K) of 0 and 1
    scores : (N, K), 0 to 1
    sensitivity : None for the best F1, but for one row: of all thresholds with at most one more error that nearest to
        a half, so that no single row moves it; otherwise the highest threshold by which at least this share of the
        rows of the class is found

    A class with fewer than LEAST_POSITIVES rows keeps THRESHOLD.
    """
    return tuple(_best(target > 0, score, sensitivity) for target, score in zip(targets.T, scores.T, strict=True))


def _best(present: NDArray[np.bool_], score: NDArray[np.float32], sensitivity: float | None) -> float:
    n_present = int(present.sum())
    if n_present < LEAST_POSITIVES:
        return THRESHOLD
    order = np.argsort(-score, kind="stable")
    sorted_scores = score[order].astype(np.float64)
    last = np.flatnonzero(np.append(np.diff(sorted_scores) < 0, True))  # of each group of equal scores
    found = np.cumsum(present[order])[last]  # by deciding down to this score
    limits = (sorted_scores[last] + np.append(sorted_scores[last[:-1] + 1], 0.0)) / 2  # below each group
    if sensitivity is not None:
        return float(limits[np.argmax(found >= sensitivity * n_present)])
    wrong = last + 1 - found + n_present - found
    best = np.argmax(2 * found / (last + 1 + n_present))
    near = np.flatnonzero(wrong <= wrong[best] + 1)
    return float(limits[near[np.argmin(np.abs(limits[near] - THRESHOLD))]])
