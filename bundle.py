"""A trained network with all that it needs to predict: loaded, saved and asked for scores in this one place.

bundle = load(Path("runs/mitdb/best.pt"))
rows, logits = score(bundle, batches)
first, scores = pool(logits, units, inside, bundle.task)
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import crops
import models
import script
from batches import Batch
from crops import Crops
from folds import Rows
from networks.pretext import Task, network_of
from recipe import Recipe, differences, read_recipe
from script import Stop

FORMAT = 2  # of a checkpoint


@dataclass(frozen=True)
class Origin:
    """Where a trained network comes from."""

    commit: str  # of these scripts
    leak: str | None  # what leaked in the split that it was trained on
    data: str = ""  # name of the dataset; "" and no date in checkpoints of before 2026-11-27
    date: str = ""  # of the training
    epoch: int = 0  # after which these are its weights, counted from 1
    folds: str = ""  # `Dataset.digest_of_folds` of that time; "" in checkpoints of before 2026-11-29

    def had_folds(self, digest: str) -> bool:
        """Tell whether it has learnt from these folds; an older checkpoint, of which nobody knows, is taken to have."""
        return self.folds in ("", digest)


@dataclass(frozen=True)
class Bundle:
    """A trained network with all that it needs to predict."""

    network: nn.Module
    name: str  # of the network, as `models.build` takes it
    arguments: dict[str, Any]  # of the network
    recipe: Recipe
    classes: tuple[str, ...]
    task: str  # multiclass | multilabel
    thresholds: tuple[float, ...] | None  # (K,); None where the highest score decides
    origin: Origin
    crops: Crops | None = None  # pieces of a row that are scored one by one; None: the row as it is
    temperature: float = 1.0  # divides the logits of a row
    objective: str = "labels"  # otherwise it has learnt without them, and nothing has taught its last layer

    def save(self, path: Path, training: dict[str, Any] | None = None) -> None:
        """Write a checkpoint, whole or not at all; `training`: what State adds to it."""
        checkpoint = {
            "format": FORMAT,
            "name": self.name,
            "arguments": self.arguments,
            "recipe": self.recipe.tree(),
            "classes": list(self.classes),
            "task": self.task,
            "thresholds": None if self.thresholds is None else list(self.thresholds),
            "origin": vars(self.origin),
            "crops": None if self.crops is None else list(self.crops),
            "temperature": self.temperature,
            "objective": self.objective,
            "weights": self.network.state_dict(),
            "training": training,
        }
        with script.aside(path) as temporary:
            torch.save(checkpoint, temporary)


def n_outputs(classes: Sequence[str]) -> int:
    """Return the outputs of a network: one that learns without labels from rows without classes needs one too."""
    return max(1, len(classes))


def load(path: Path, needs_labels: bool = True) -> Bundle:
    """Read a trained network in eval mode, on a GPU where there is one.

    Raises
    ------
    Stop
        The file does not exist, is no checkpoint of train.py, or one of an older format; bytes that differ from the
        file's own checksums; weights that are not finite, or of another network than the file says; a network that
        has learnt without labels, where it needs some to answer.
    """
    checkpoint = _read(path)
    try:
        recipe, classes = read_recipe(checkpoint["recipe"], str(path)), tuple(checkpoint["classes"])
        name, arguments, thresholds = (checkpoint[key] for key in ("name", "arguments", "thresholds"))
        weights = checkpoint["weights"]
        with torch.device("meta"):  # no memory for a network that the weights do not fill
            models.build(name, len(recipe.leads), n_outputs(classes), **arguments).load_state_dict(weights, assign=True)
        network = models.build(name, len(recipe.leads), n_outputs(classes), **arguments)
        network.load_state_dict(weights)
        if not all(weight.isfinite().all() for weight in weights.values()):
            raise ValueError("weights are NaN or infinite")
        origin, task = Origin(**checkpoint["origin"]), checkpoint["task"]
        pieces = checkpoint.get("crops")  # not in checkpoints of before 2026-11-28
        pieces = None if pieces is None else Crops(*pieces)
        temperature = float(checkpoint.get("temperature", 1.0))
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature}: must be above 0")
        objective = str(checkpoint.get("objective", "labels"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise Stop(f"{path}: is damaged, or not of these networks: {script.one_line(error)}") from error
    if needs_labels and objective != "labels":
        raise Stop(
            f"{path}: has learnt without labels ({objective}) and cannot answer; "
            f"train on from it with train.py --model.pretrained {path}"
        )
    network = network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    limits = None if thresholds is None else tuple(thresholds)
    return Bundle(network, name, arguments, recipe, classes, task, limits, origin, pieces, temperature, objective)


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code that it may hold."""
    if not path.is_file():
        raise Stop(f"{path}: no such checkpoint")
    try:
        _check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Stop:
        raise
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise Stop(f"{path}: not a checkpoint of train.py") from error
    if not isinstance(checkpoint, dict) or not {"format", "model_name"} & set(checkpoint):
        raise Stop(f"{path}: not a checkpoint of train.py")
    if checkpoint.get("format") != FORMAT:
        formats = f"of format {checkpoint.get('format', 1)}, and these scripts read format {FORMAT}"
        raise Stop(f"{path}: a checkpoint {formats}; train it again with --overwrite")
    return checkpoint


def _check_archive(path: Path) -> None:
    """Compare the bytes of a checkpoint with its checksums; torch.load does not, and unpacks whatever it is told to."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise Stop(f"{path}: not a checkpoint of train.py: it unpacks to more than it is")
        try:
            damaged = archive.testzip()
        except zipfile.BadZipFile:
            damaged = "its structure"
        if damaged:
            raise Stop(f"{path}: is damaged: {damaged} differs from its checksum")


# ------------------------------------------------------------------------------------------------ scores


def inputs_of(network: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
    """Return what a network takes of a batch, on its device; the signal (B, L, T) is stored narrower than float32."""
    device = next(network.parameters()).device
    extra = {"context": batch.context, "valid": batch.valid}
    others = (torch.as_tensor(extra[name]).to(device, non_blocking=True) for name in models.extra_inputs(network))
    return torch.as_tensor(batch.signal).to(device, non_blocking=True).float(), *others


def score(trained: Bundle, batches: Iterable[Batch]) -> tuple[Rows, NDArray[np.float32]]:
    """Return the rows of the batches, (N,), and their logits, (N, K) float32 whatever the training used."""
    network = trained.network
    was_training = network.training
    network.eval()
    rows, pieces = [], []
    with torch.inference_mode():
        for batch in batches:
            rows.append(batch.rows)
            pieces.append((logits_of_batch(trained, batch) / trained.temperature).cpu().numpy())  # (B, K)
    network.train(was_training)
    if not rows:
        return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    return np.concatenate(rows), np.concatenate(pieces)


def logits_of_batch(trained: Bundle, batch: Batch) -> Tensor:
    """Return the logits of a batch, (B, K) float32, of rows that are scored in pieces the pooled ones."""
    network, asked = trained.network, trained.crops
    if asked is None:
        logits: Tensor = network(*inputs_of(network, batch)).float()
        return logits
    whole, valid = torch.as_tensor(batch.signal), torch.as_tensor(batch.valid)
    signal, inside = crops.cut(whole, valid, asked)  # (B * C, L, samples)
    n_pieces = len(signal) // max(1, len(whole))
    context = torch.as_tensor(batch.context).repeat_interleave(n_pieces, dim=0)
    of_pieces = network(*inputs_of(network, batch._replace(signal=signal, valid=inside, context=context)))
    n_inside = (inside[:, 1] - inside[:, 0]).reshape(-1, n_pieces)
    return crops.pooled(of_pieces.unflatten(0, (-1, n_pieces)).float().cpu(), n_inside, trained.task, asked.pool)


def pool(
    logits: NDArray[np.float32], units: NDArray[np.int64], inside: NDArray[np.int64], task: str
) -> tuple[Rows, NDArray[np.float32]]:
    """Turn logits of rows into scores of units: softmax (multiclass) or sigmoid, then the mean over a unit's rows.

    A row weighs what it holds of the record: the last window of a record may be mostly padding.

    Parameters
    ----------
    logits : (N, K)
    units : (N,) number of what each row is a piece of, e.g. the record of a window
    inside : (N,) samples of each row that lie inside the record
    task : multiclass | multilabel

    Returns
    -------
    (U,) place of each unit's first row, and (U, K) scores 0..1, in the order of the units.
    """
    tensor = torch.from_numpy(logits)
    scores = (tensor.softmax(dim=1) if task == "multiclass" else tensor.sigmoid()).numpy()  # (N, K)
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    if len(first) == len(units):
        return first, scores[first]
    total = np.zeros((len(first), scores.shape[1]))
    np.add.at(total, unit, scores * inside[:, None])
    return first, (total / np.bincount(unit, inside)[:, None]).astype(np.float32)


# ------------------------------------------------------------------------------------------------ a training


@dataclass
class State:
    """What a training carries from epoch to epoch; last.pt holds it beside the bundle."""

    network: nn.Module  # or the task around it, of a training without labels
    ema: AveragedModel | None  # averaged weights, which are validated and kept as best where there are any
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0  # epochs done
    losses: list[float] = field(default_factory=list)  # of the steps that are done of the next epoch
    best_epoch: int = 0  # epochs done when the score was best
    best_score: float = -float("inf")
    best_loss: float = float("inf")
    rate_factor: float = 1.0  # of the learning rate, on a plateau
    lowered_epoch: int = 0  # epochs done when the rate was lowered
    finished: bool = False

    @property
    def scored(self) -> nn.Module:
        """The network, or the task around it, that is validated and kept."""
        return self.ema.module if self.ema else self.network

    def save(self, path: Path, bundle: Bundle) -> None:
        """Write last.pt; the bundle's network is replaced by the one in training."""
        training = {
            "head": self.network.head() if isinstance(self.network, Task) else None,
            "ema": self.ema.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in PROGRESS},
        }
        replace(bundle, network=network_of(self.network)).save(path, training)

    def restore(self, path: Path, bundle: Bundle) -> None:
        """Take over what `save` has written; Stop where its network or classes are not the bundle's."""
        checkpoint = _read(path)
        have, want = (
            {"model": of["name"], "arguments": of["arguments"], "classes": ", ".join(of["classes"])}
            for of in (checkpoint, vars(bundle))
        )
        if changes := differences(have, want):
            raise Stop(f"{path}: is of another network or other classes ({'; '.join(changes)})")
        if not Origin(**checkpoint["origin"]).had_folds(bundle.origin.folds):
            raise Stop(
                f"{path}: has learnt from other folds than the dataset has now; prepare it as before, or train anew"
            )
        try:
            training = checkpoint["training"]
            if isinstance(self.network, Task):
                self.network.load(checkpoint["weights"], training["head"])
            else:
                self.network.load_state_dict(checkpoint["weights"])
            if self.ema:
                self.ema.load_state_dict(training["ema"])
            self.optimizer.load_state_dict(training["optimizer"])
            self.scaler.load_state_dict(training["scaler"])
            for name in PROGRESS:
                setattr(self, name, training[name])
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise Stop(f"{path}: holds no training to go on with: {script.one_line(error)}") from error


def head_of(path: Path) -> dict[str, Tensor]:
    """Return the weights of the task around a network that last.pt holds of a training without labels."""
    head: dict[str, Tensor] = _read(path)["training"]["head"]
    return head


PROGRESS = (
    "epoch", "losses", "best_epoch", "best_score", "best_loss", "rate_factor", "lowered_epoch", "finished"
)  # fmt: skip


def is_finished(path: Path) -> bool:
    """Tell whether a last.pt exists that says that its training is finished."""
    return path.exists() and bool((_read(path)["training"] or {}).get("finished"))
