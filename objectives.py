"""What a training minimises: the loss of each row, and the weight of each class in it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

FOCUS = 2.0  # exponent of the focal loss
POSITIVE_FOCUS, NEGATIVE_FOCUS, MARGIN = 1.0, 4.0, 0.05  # of the asymmetric loss


def row_losses(
    logits: Tensor,
    labels: Tensor,
    task: str,
    class_weights: Tensor,
    loss: str = "cross_entropy",
    smoothing: float = 0.0,
) -> Tensor:
    """Return the loss of each row, (B,): a sum over its classes (multiclass), or the mean over all (multilabel).

    Parameters
    ----------
    logits : (B, K)
    labels : (B, K), 0 or 1, or between where rows are mixed
    task : multiclass (softmax) | multilabel (a sigmoid for each class)
    class_weights : (K,), of a class where it is present
    loss : `cross_entropy`; `focal`, where a score p of what is true weighs (1 - p)^2 (Lin et al. 2017,
        arXiv:1708.02002); `asymmetric`, multilabel only, which forgets the easy negatives (Ridnik et al. 2021,
        arXiv:2009.14119)
    smoothing : 0..1, share of each label that is spread evenly over the classes, or over present and absent
    """
    logits, target = logits.float(), labels.float()
    if task == "multiclass":
        target = target * (1 - smoothing) + smoothing / target.shape[1]
        log_p = logits.log_softmax(dim=1)
        focus = (1 - log_p.exp()) ** FOCUS if loss == "focal" else 1.0
        return -(class_weights * target * focus * log_p).sum(dim=1)
    target = target * (1 - smoothing) + smoothing / 2
    log_present, log_absent = F.logsigmoid(logits), F.logsigmoid(-logits)
    if loss == "focal":
        log_present = log_present * log_absent.exp() ** FOCUS
        log_absent = log_absent * (1 - log_absent.exp()) ** FOCUS
    elif loss == "asymmetric":
        p = (logits.sigmoid() - MARGIN).clamp(min=0)
        log_present = log_present * log_absent.exp() ** POSITIVE_FOCUS
        log_absent = torch.log1p(-p) * p**NEGATIVE_FOCUS
    return -(class_weights * target * log_present + (1 - target) * log_absent).mean(dim=1)


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
