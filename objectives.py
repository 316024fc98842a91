"""What a training minimises: the loss of each row, and the weight of each class in it."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def row_losses(logits: Tensor, labels: Tensor, task: str, class_weights: Tensor) -> Tensor:
    """Return the loss of each row, (B,); logits, labels (B, K), class_weights (K,).

    Cross-entropy (multiclass), or the mean over the classes of the binary one (multilabel).
    """
    if task == "multiclass":
        return F.cross_entropy(logits.float(), labels.argmax(dim=1), class_weights, reduction="none")
    return F.binary_cross_entropy_with_logits(
        logits.float(), labels.float(), pos_weight=class_weights, reduction="none"
    ).mean(dim=1)


def class_weights(
    labels: NDArray[np.uint8], task: str, kind: str, scored: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Return the weight of each class in the loss, (K,).

    `inverse`: N / (K * n_k) for multiclass, negatives / positives for multilabel (the weight of a positive);
    `sqrt`: its square root; `none`: 1. A class without rows gets 1. One that is not scored, (K,), weighs no more than
    any that is: what a few patients show of a rare class would draw in the beats of others.
    """
    counts = labels.sum(axis=0, dtype=np.float64)
    seen = np.maximum(counts, 1)
    inverse = len(labels) / (len(counts) * seen) if task == "multiclass" else (len(labels) - counts) / seen
    weights = {"none": np.ones_like(seen), "inverse": inverse, "sqrt": np.sqrt(inverse)}[kind]
    weights = np.where(counts > 0, weights, 1.0)
    if scored is not None and scored.any():
        weights = np.where(scored, weights, np.minimum(weights, weights[scored].min()))
    return weights.astype(np.float32)
