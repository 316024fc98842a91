"""The one rule from scores to classes, for training, evaluation and prediction alike. NumPy only.

decided = decide(scores, "multilabel", thresholds)      # (N, K) 0..1 -> (N, K) of 0 and 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TASKS = ("multiclass", "multilabel")
THRESHOLD = 0.5  # of a class, where none was chosen


def decide(scores: Array, task: str, thresholds: float | Sequence[float] | Array | None = None) -> Array:
    """Decide classes from scores.

    Parameters
    ----------
    scores : (N, K) float, finite
    task : "multiclass" (one class per row: the highest score, the first of equals) or "multilabel" (any number of
        classes: every score at or above its threshold)
    thresholds : one for all classes or (K,), THRESHOLD if None; multilabel only

    Returns
    -------
    (N, K) uint8, 1 where the class is decided

    Raises
    ------
    ValueError
        another task or shape, scores that are not finite, thresholds for multiclass.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if task not in TASKS:
        raise ValueError(f"task {task!r}: must be one of {', '.join(TASKS)}")
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores {scores.shape}: must be (N, K), rows by classes")
    broken = ~np.isfinite(scores).all(axis=1)  # (N,)
    if broken.any():
        raise ValueError(
            f"scores: NaN or infinity in {broken.sum()} of {len(scores)} rows, first row {broken.argmax()}"
        )
    limits = thresholds_of(task, scores.shape[1], thresholds)
    if limits is None:
        decided: Array = np.eye(scores.shape[1], dtype=np.uint8)[scores.argmax(axis=1)]  # (N, K), one 1 per row
        return decided
    return (scores >= limits).astype(np.uint8)


def thresholds_of(
    task: str, n_classes: int, thresholds: float | Sequence[float] | Array | None = None
) -> tuple[float, ...] | None:
    """Return the threshold of each class, (K,), or None where the highest score decides.

    Raises
    ------
    ValueError
        thresholds for multiclass, or neither one number nor one per class.
    """
    if task == "multiclass":
        if thresholds is not None:
            raise ValueError("thresholds: multiclass decides for the highest score and has none; leave them out")
        return None
    values = np.asarray(THRESHOLD if thresholds is None else thresholds, dtype=np.float64)
    if values.shape not in ((), (n_classes,)) or np.isnan(values).any():
        raise ValueError(f"thresholds {values.tolist()}: must be one number or {n_classes}, one per class")
    return tuple(np.broadcast_to(values, (n_classes,)).tolist())
