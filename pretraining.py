"""Learning without labels, beside the loop of train.py: what is trained then, how it is scored, what begins with it.

task = learner_of(trained, training)             # of objective masked or contrastive: a task around the network
loss = loss_of(task, trained, dataset, rows, batch_size)
take_over(trained, Path("runs/pretrained"), dataset, rows)      # the weights of that run, but for the last layer
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import batches
import bundle
import checks
import models
import processes
import runs
import script
from batches import Batches
from bundle import Bundle
from config import Settings, Training
from data import SUMMARY, Dataset
from folds import Rows
from networks.pretext import MaskedPieces
from recipe import differences
from script import Stop

N_DRAWN = 4  # rows
IN_TRAINING_ALONE = ("dropout", "shape_dropout", "number_dropout", "blur")  # arguments of networks


def take_over(trained: Bundle, pretrained: Path, dataset: Dataset, rows: dict[str, Rows]) -> None:
    """Begin with the weights of another run, of its last layer too where it has learnt the labels of the same classes.

    Raises
    ------
    Stop
        It is of another recipe or another network, or has learnt the labels of patients that are held out here.
    """
    path = runs.checkpoint_of(pretrained)
    source = bundle.load(path, needs_labels=False)
    if changes := source.recipe.differences(trained.recipe):
        raise Stop(f"{path}: has learnt from rows of another recipe than this dataset's ({'; '.join(changes)})")
    if changes := differences(_identity_of(source), _identity_of(trained)):
        raise Stop(f"{path}: is of another network ({'; '.join(changes)})")
    if source.objective == "labels":
        _check_held_out(path, source, dataset, rows)
    whole = source.objective == "labels" and source.classes == trained.classes
    weights = source.network.state_dict()
    weights = {key: value for key, value in weights.items() if whole or not models.is_of_last_layer(key)}
    trained.network.load_state_dict(weights, strict=False)


def _check_held_out(path: Path, source: Bundle, dataset: Dataset, rows: dict[str, Rows]) -> None:
    """Stop where a checkpoint has learnt from what is held out; nobody knows of one whose run or dataset is not there.

    Of datasets of other names nothing is compared: a patient of the same name is another one.
    """
    if not (path.parent / runs.CONFIG).exists():
        return
    own = runs.settings_of(path.parent)
    if all((folder / SUMMARY).exists() for folder in own.data_dirs):
        of_source = Dataset(*own.data_dirs)
        if of_source.summary.name == dataset.summary.name:
            if not source.origin.had_folds(of_source.digest_of_folds):
                raise Stop(
                    f"{path}: has learnt from other folds than {of_source.folder} has now, perhaps those held out here"
                )
            checks.check_leak(f"model.pretrained: {path}", of_source, own, dataset, rows)


def _identity_of(of: Bundle) -> dict[str, Any]:
    """Return what makes a network what it is, as JSON holds it: not what happens while it is trained alone."""
    tree = {"model": of.name, **models.arguments_of(of.name), **of.arguments}
    kept = {key: value for key, value in tree.items() if key not in IN_TRAINING_ALONE}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def learner_of(trained: Bundle, training: Training) -> nn.Module:
    """Return what is trained: the network, or a task around it that needs no labels; ValueError where it has none.

    With training.freeze all but the last layer is made to stay as it is.
    """
    if training.objective != "labels":
        device = next(trained.network.parameters()).device
        return models.without_labels(trained.name, training.objective, trained.network).to(device)
    if training.freeze:
        for name, parameter in trained.network.named_parameters():
            parameter.requires_grad_(models.is_of_last_layer(name))
    return trained.network


def loss_of(task: nn.Module, trained: Bundle, dataset: Dataset, rows: Rows, batch_size: int) -> float:
    """Return the mean loss of the rows over all processes: each time of the same pieces, and of the same random draws.

    Parameters
    ----------
    task : see networks/pretext.py
    trained : whose network and crops the task is about
    dataset, rows : (N,) rows of it
    batch_size : rows that are compared or filled in at a time
    """
    rank, world_size = script.rank()
    processes.share_buffers(task)
    pieces = pieces_of(trained, dataset)
    task.eval()
    total = torch.zeros((), device=next(task.parameters()).device)
    with torch.inference_mode(), torch.random.fork_rng():
        for share in batches.scoring_batches(rows, batch_size, rank, world_size):
            torch.manual_seed(int(share[0]))
            total += task(*bundle.inputs_of(trained.network, pieces[share])).sum()
    if world_size > 1:
        dist.all_reduce(total)
    return float(total) / len(rows)


def pieces_of(trained: Bundle, dataset: Dataset) -> Batches:
    """Return the rows as a task is scored on them: whole, or a piece of each, the same every time."""
    return Batches(dataset, crop=trained.crops.samples if trained.crops else None)


def report(folder: Path, settings: Settings) -> None:
    """Say how to go on, and draw what was hidden in some rows and what the network has put there."""
    if settings.training.objective == "masked":
        draw_filled(folder, settings)
    print(f"learnt without labels; train on from it with --model.pretrained {folder}")


def draw_filled(folder: Path, settings: Settings) -> None:
    """Draw some validation rows, or else training rows: what was hidden, and what the network puts in its place."""
    import plots  # loads matplotlib, which listing the networks does without

    trained = bundle.load(folder / runs.LAST, needs_labels=False)
    task = learner_of(trained, settings.training)
    assert isinstance(task, MaskedPieces)
    task.load(trained.network.state_dict(), bundle.head_of(folder / runs.LAST))
    dataset = Dataset(*settings.data_dirs)
    rows = dataset.splits(settings.data.train, settings.data.validation, settings.data.test)
    batch = pieces_of(trained, dataset)[(rows["validation"] if len(rows["validation"]) else rows["train"])[:N_DRAWN]]
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(0)
        x, *valid = bundle.inputs_of(trained.network, batch)
        pieces, hidden, filled = task.eval().fill(x, *valid)
        parts = (pieces, hidden.unsqueeze(3).expand_as(pieces), filled)
        signal, covered, put = (task.signals(part)[..., : x.shape[2]].cpu().numpy() for part in parts)
    plots.save_filled(signal, covered, put, trained.recipe, folder / runs.FILLED)
