"""The scores of the validation rows, after an epoch of train.py, and what is chosen on them.

logits = score_rows(trained, dataset, rows, batch_size)     # (N, K), on every process
scores = validate(logits, dataset, rows, settings, weights)
trained = calibrated(trained, logits, dataset, rows, sensitivity)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

import batches
import bundle
import processes
import script
from batches import Batches
from bundle import Bundle
from config import Settings
from data import Dataset
from folds import Rows
from objectives import row_losses


class Validation(NamedTuple):
    """Scores of the validation rows, in the order of the columns of metrics.csv; without labels the loss alone."""

    loss: float
    accuracy: float | None = None
    macro_f1: float | None = None
    macro_auroc: float | None = None  # None also where no scored class has both sides


def score_rows(trained: Bundle, dataset: Dataset, rows: Rows, batch_size: int) -> NDArray[np.float32]:
    """Return logits of the rows in their order, (N, K), on every process; each row is computed on exactly one."""
    rank, world_size = script.rank()
    processes.share_buffers(trained.network)
    whole, mine = Batches(dataset), batches.scoring_batches(rows, batch_size, rank, world_size)
    gathered: list[Any] = [bundle.score(trained, (whole[share] for share in mine))]
    if world_size > 1:
        own, gathered = gathered[0], [None] * world_size
        dist.all_gather_object(gathered, own)
    seen = np.concatenate([part for part, _ in gathered])
    logits = np.concatenate([part.reshape(-1, len(dataset.classes)) for _, part in gathered])
    assert len(seen) == len(rows), "every row is scored exactly once"
    order = np.argsort(seen)
    return np.asarray(logits[order][np.searchsorted(seen[order], rows)])


def validate(
    logits: NDArray[np.float32], dataset: Dataset, rows: Rows, settings: Settings, weights: Tensor
) -> Validation:
    """Return the scores of the validation rows; windows of one record count as one, thresholds are a half."""
    import metrics  # loads scikit-learn, which listing the networks does without

    target = torch.from_numpy(dataset.labels[rows])
    loss = row_losses(torch.from_numpy(logits), target, dataset.task, weights.cpu()).mean()
    first, scores = bundle.pool(logits, dataset.units(rows), dataset.inside(rows), dataset.task)
    labels, scored = dataset.labels[rows[first]], settings.data.scored_classes
    report = metrics.scores_of(labels, scores, dataset.classes, dataset.task, scored=scored)
    return Validation(float(loss), report.accuracy, report.macro_f1, report.macro_auroc)


def calibrated(
    trained: Bundle, logits: NDArray[np.float32], dataset: Dataset, rows: Rows, sensitivity: float | None
) -> Bundle:
    """Return the bundle with the temperature and the thresholds that suit the validation rows."""
    import calibration  # loads SciPy

    if not len(rows):
        return trained
    temperature = calibration.temperature_of(logits, dataset.labels[rows], dataset.task)
    if dataset.task == "multiclass":
        return replace(trained, temperature=temperature)
    first, scores = bundle.pool(logits / temperature, dataset.units(rows), dataset.inside(rows), dataset.task)
    limits = calibration.best_thresholds(dataset.labels[rows[first]], scores, sensitivity)
    return replace(trained, temperature=temperature, thresholds=limits)
