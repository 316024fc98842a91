"""The run folder: its settings, its checkpoints, and the network in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

import config
import models
from config import Stop
from data import Batch


def settings_tree(folder: Path) -> dict[str, Any]:
    """config.yaml of a run, as train.py wrote it."""
    try:
        tree: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Stop(f"{folder}: no run there (config.yaml is missing)") from error
    return tree


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """A kill never leaves half a file."""
    with config.aside(path) as temporary:
        torch.save(checkpoint, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of train.py, without running any code that it may hold.

    Raises
    ------
    Stop
        The file is not there, or is not a checkpoint of this project.
    """
    if not path.is_file():
        raise Stop(f"{path}: no such checkpoint")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["recipe"], checkpoint["model_name"], checkpoint["classes"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError, OSError) as error:
        raise Stop(f"{path}: not a checkpoint of train.py") from error
    return checkpoint


def network_of(checkpoint: dict[str, Any]) -> nn.Module:
    """The network of a best.pt or best-loss.pt, in eval mode, on a GPU where there is one."""
    network = models.build(
        checkpoint["model_name"], checkpoint["n_leads"], len(checkpoint["classes"]), **checkpoint["model_arguments"]
    )
    network.load_state_dict(checkpoint["model"])
    return network.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def logits_of(network: nn.Module, batch: Batch) -> NDArray[np.float32]:
    """Logits of a batch, (B, K), in float32 whatever the training used."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        signal = torch.from_numpy(batch.signal).to(device).float()
        extra = {
            "context": torch.from_numpy(batch.context).to(device),
            "valid": torch.from_numpy(batch.valid).to(device),
        }
        logits = network(signal, *(extra[name] for name in models.extra_inputs(network)))
    network.train(was_training)
    out: NDArray[np.float32] = logits.float().cpu().numpy()
    return out


def scores_from(logits: NDArray[np.float32], task: str) -> NDArray[np.float32]:
    """Softmax (multiclass) or sigmoid (multilabel) of (N, K) logits."""
    tensor = torch.from_numpy(logits)
    out: NDArray[np.float32] = (tensor.softmax(dim=1) if task == "multiclass" else tensor.sigmoid()).numpy()
    return out


def newest(root: Path = Path("runs")) -> list[Path]:
    """Run folders with a best.pt, the newest first."""
    return sorted((p.parent for p in root.glob("*/best.pt")), key=lambda p: -(p / "best.pt").stat().st_mtime_ns)
