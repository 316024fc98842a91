"""Pieces of a row: those that cover it are scored one by one, and their scores are pooled.

A network that learns from random pieces of 2.5 s (batches.py) is asked about a recording of 10 s by five of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Crops(NamedTuple):
    """How a row is covered; what a checkpoint holds of it."""

    samples: int  # of each piece
    stride: int  # samples from one to the next
    pool: str  # mean | max


def starts(n_samples: int, crops: Crops) -> list[int]:
    """Return the first sample of each piece; the last piece ends where the row does."""
    last = max(0, n_samples - crops.samples)
    return sorted({*range(0, last, crops.stride), last})


def cut(x: Tensor, valid: Tensor, crops: Crops) -> tuple[Tensor, Tensor]:
    """Cut rows (B, L, T) with their valid ranges (B, 2) into C pieces each: (B * C, L, samples) and (B * C, 2)."""
    first = torch.tensor(starts(x.shape[2], crops), device=x.device)  # (C,)
    length = min(crops.samples, x.shape[2])
    pieces = torch.stack([x[..., start : start + length] for start in first.tolist()], dim=1)  # (B, C, L, samples)
    inside = (valid.unsqueeze(1) - first[:, None]).clamp(0, length)  # (B, C, 2)
    return pieces.flatten(0, 1), inside.flatten(0, 1)


def pooled(logits: Tensor, inside: Tensor, task: str, pool: str) -> Tensor:
    """Return the logits of rows from those of their pieces, so that sigmoid or softmax give the pooled scores.

    Parameters
    ----------
    logits : (B, C, K), of each piece
    inside : (B, C), valid samples of each piece: a piece counts as much as it holds of the record, an empty one not
    task : multiclass | multilabel
    pool : `mean` of the scores, or `max` of each class (which softmax then brings to a sum of 1)
    """
    logits = logits.double()
    empty = inside == 0
    empty = (empty & ~empty.all(dim=1, keepdim=True)).unsqueeze(2)  # of a row without any valid sample all pieces count
    present = logits.log_softmax(dim=2) if task == "multiclass" else F.logsigmoid(logits)  # log of the scores
    if pool == "max":
        of_each = present if task == "multiclass" else logits
        return of_each.masked_fill(empty, -torch.inf).amax(dim=1).float()
    counted = inside.double().clamp(min=1).unsqueeze(2).masked_fill(empty, 0)  # (B, C, 1)
    weight = (counted / counted.sum(dim=1, keepdim=True)).log()
    positive = torch.logsumexp(present + weight, dim=1)
    if task == "multiclass":
        return positive.float()
    absent = F.logsigmoid(-logits)
    return (positive - torch.logsumexp(absent + weight, dim=1)).float()
