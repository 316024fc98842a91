"""What is looked at before a training begins: that settings, dataset and machine go together.

dataset = open_dataset(settings)
check_training(settings.training, world_size, device)
check_rows(dataset, rows, settings)
check_leak("training.teachers: runs/a", of_teacher, own, dataset, rows)
"""

from __future__ import annotations

import numpy as np
import torch

from config import Settings, Training
from data import Dataset
from folds import LEAKS, Rows
from recipe import flatten
from script import Stop


def open_dataset(settings: Settings) -> Dataset:
    """Open the prepared dataset; a recipe or scored classes in the settings that it does not have stop the program."""
    dataset = Dataset(*settings.data_dirs)
    wanted = flatten(settings.recipe.model_dump(mode="json", exclude_unset=True))
    have = flatten(dataset.recipe.tree())
    differ = [f"recipe.{key}: {have.get(key)} -> {value}" for key, value in wanted.items() if have.get(key) != value]
    if differ:
        raise Stop(f"{dataset.folder} has another recipe ({'; '.join(differ)}); run preprocess.py again")
    scored, classes = settings.data.scored_classes, dataset.classes
    if set(scored) - set(classes) or len(set(scored)) < len(scored):
        raise Stop(f"data.scored_classes = {', '.join(scored)}: must be some of {', '.join(classes)}, each once")
    return dataset


def metric_of(training: Training) -> str:
    """Return what decides the best epoch: without labels there is only the loss."""
    return training.metric if training.objective == "labels" else "loss"


def check_metric(dataset: Dataset, rows: Rows, settings: Settings) -> None:
    """Stop where the validation rows define no score that could choose the best epoch."""
    if metric_of(settings.training) == "macro_auroc" and len(rows):
        scored = np.isin(dataset.classes, settings.data.scored_classes or dataset.classes)
        support = dataset.labels[rows][:, scored].sum(axis=0, dtype=np.int64)
        if not ((support > 0) & (support < len(rows))).any():
            raise Stop(
                "training.metric = macro_auroc: no scored class has validation rows with and without it; "
                "choose macro_f1, accuracy or loss"
            )


def check_training(training: Training, world_size: int, device: torch.device) -> None:
    """Stop where the settings contradict each other or the machine, before any data is read."""
    if training.batch_size % (world_size * training.accumulation):
        shares = f"{world_size} processes x {training.accumulation} accumulation steps"
        raise Stop(f"training.batch_size = {training.batch_size}: must be a multiple of {shares}")
    if training.objective != "labels":
        for setting, needs in (
            (training.sampler == "weighted", "sampler = weighted"),
            (training.freeze, "freeze"),
            (training.layer_decay < 1, "layer_decay"),
            (bool(training.teachers), "teachers"),
        ):
            if setting:
                raise Stop(f"training.{needs}: is for learning by labels, and not for {training.objective}")
    if training.amp == "float16" and device.type == "cpu":
        raise Stop("training.amp = float16: a CPU has no mixed precision of float16; choose bfloat16 or off")


def check_rows(dataset: Dataset, rows: dict[str, Rows], settings: Settings) -> None:
    """Stop where the settings do not fit the dataset."""
    training, recipe = settings.training, dataset.recipe
    if len(rows["train"]) < training.batch_size:
        raise Stop(f"training.batch_size = {training.batch_size}: there are only {len(rows['train'])} training rows")
    if training.objective == "labels" and not dataset.classes:
        raise Stop(f"{dataset.folder} has no labels; choose training.objective masked or contrastive")
    if training.loss == "asymmetric" and dataset.task != "multilabel":
        raise Stop(f"training.loss = asymmetric: {dataset.folder} has one class for each row; choose focal")
    if training.mixup and recipe.context_columns:
        raise Stop(f"training.mixup = {training.mixup}: the numbers of recipe.context cannot be mixed")
    if training.crops.length_s and recipe.of_beats:
        raise Stop(f"training.crops.length_s = {training.crops.length_s}: rows are beats; crops are for longer rows")
    check_metric(dataset, rows["validation"], settings)


def check_leak(named: str, of_other: Dataset, own: Settings, dataset: Dataset, rows: dict[str, Rows]) -> None:
    """Stop where another run has learnt from a patient of this one's validation rows, or has seen one of the test rows.

    What it knows of them would be carried into this run, whose own scores would then be too good. Where a patient may
    be in two splits of this run, rows are looked at instead. The runs that the other one has learnt from are not.

    Parameters
    ----------
    named : the other run, for the message
    of_other, own : its dataset and its settings
    dataset, rows : of this run
    """
    learnt, chosen = list(own.data.train), list(own.data.validation)
    may_leak = dataset.summary.data["split"] in LEAKS
    for split, folds in (("validation", learnt), ("test", learnt + chosen)):
        known, mine = np.flatnonzero(np.isin(of_other.fold, np.array(folds, dtype=bytes))), rows[split]
        if may_leak:
            shared = np.intersect1d(of_other.names(known), dataset.names(mine))
            what, such = f"of this run's {split} rows", "record and start "
        else:
            shared = np.intersect1d(of_other.patient[known], dataset.patient[mine])
            what, such = f"patients of this run's {split} rows", ""
        if len(shared):
            raise Stop(
                f"{named} was trained with {len(shared):,} {what}, such as {such}{shared[0].decode()}; choose a run of "
                "the same folds, or train it again"
            )
