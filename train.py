"""Prepared dataset -> run folder.

    python train.py                                              # the demo: simulate, prepare, train, report (CPU)
    python train.py --config configs/mitdb.yaml                  # one process: a GPU if there is one
    torchrun --nproc_per_node 2 train.py --config configs/mitdb.yaml
    python train.py --config configs/mitdb.yaml --resume         # go on where a run was cut off

Writes runs/<name>/: config.yaml, best.pt, best-loss.pt, last.pt, metrics.csv, log.jsonl, curves.png, report/.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

import config
import data
import evaluate
import metrics
import models
import plots
import preprocess
import runs
from config import Settings, Stop
from data import Batches, Prepared, Rows

SCORES = ("loss", "accuracy", "macro_f1", "macro_auroc")  # of the validation rows, in metrics.csv

# ------------------------------------------------------------------------------------------------ the parts


def start_processes(settings: Settings) -> tuple[int, int, torch.device]:
    """Rank, number of processes, device; a lone process needs no torchrun."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    torch.set_num_threads(settings.training.threads or max(1, (os.cpu_count() or 1) // local_size))
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return rank, world_size, device


def amp_dtype(settings: Settings, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision, None for none."""
    how = settings.training.amp
    if how == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[how]


def learning_rate(step: int, n_steps: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine down to 1 % of the peak."""
    peak, warmup = settings.training.learning_rate, max(1, round(settings.training.warmup * n_steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, n_steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def row_losses(logits: Tensor, labels: Tensor, task: str, class_weights: Tensor) -> Tensor:
    """Loss of each row, (B,): cross-entropy, or the mean of binary ones for several labels; logits, labels (B, K)."""
    if task == "multiclass":
        return F.cross_entropy(logits.float(), labels.argmax(dim=1), class_weights, reduction="none")
    return F.binary_cross_entropy_with_logits(
        logits.float(), labels.float(), pos_weight=class_weights, reduction="none"
    ).mean(dim=1)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels; none for biases and normalisation."""
    named = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in named if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in named if p.ndim < 2], "weight_decay": 0.0},
    ]


def score_rows(
    network: nn.Module, dataset: Prepared, rows: Rows, settings: Settings, rank: int, world_size: int
) -> NDArray[np.float32]:
    """Logits of the rows in their order, (N, K), the same on every process; each row is computed on exactly one."""
    if world_size > 1:  # each process has its own running statistics: all use those of rank 0
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)
    mine = list(data.scoring_batches(rows, settings.evaluation.batch_size, rank, world_size))
    pieces = [(np.zeros(0, np.int64), np.zeros((0, len(dataset.classes)), np.float32))]
    pieces += [(batch, runs.logits_of(network, Batches(dataset)[batch])) for batch in mine]
    gathered: list[Any] = [(np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces]))]
    if world_size > 1:
        own, gathered = gathered[0], [None] * world_size
        dist.all_gather_object(gathered, own)
    seen, logits = (np.concatenate([g[i] for g in gathered]) for i in (0, 1))
    assert len(seen) == len(rows), "every row is scored exactly once"
    order = np.argsort(seen)
    out: NDArray[np.float32] = logits[order][np.searchsorted(seen[order], rows)]
    return out


def commit() -> str:
    """The git commit of these scripts, `unknown` outside a repository."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


# ------------------------------------------------------------------------------------------------ before the loop


def open_dataset(settings: Settings, rank: int, world_size: int) -> Prepared:
    """The prepared dataset; that of the demo is made if it is not there."""
    if settings.data.name == "demo" and settings.data.raw is None and rank == 0:
        preprocess.prepare(settings)
    if world_size > 1:
        dist.barrier()
    dataset = Prepared(settings.data_dir)
    wanted = config.flatten(settings.recipe.model_dump(mode="json", exclude_unset=True))
    have = config.flatten(dataset.recipe)
    differ = [f"recipe.{key}: {have.get(key)} -> {value}" for key, value in wanted.items() if have.get(key) != value]
    if differ:
        raise Stop(
            f"{settings.data_dir} was prepared with another recipe ({'; '.join(differ)}); run preprocess.py again"
        )
    return dataset


def open_run(settings: Settings, resume: bool, overwrite: bool, main_process: bool) -> dict[str, Any] | None:
    """Make the run folder ready; returns the checkpoint to go on from.

    Raises
    ------
    Stop
        A run is there that may not be overwritten or cannot be resumed; the message says what differs and what to do.
    """
    folder = settings.run_dir
    last = folder / "last.pt"
    if not (folder / "config.yaml").exists():
        if resume:
            raise Stop(f"{folder}: no run to resume")
        return None
    if overwrite:
        if main_process:
            for name in ("best.pt", "best-loss.pt", "last.pt", "metrics.csv", "log.jsonl", "curves.png", "config.yaml"):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "report", ignore_errors=True)
        return None
    changes = config.differences(_comparable(runs.settings_tree(folder)), _comparable(config.plain(settings)))
    checkpoint = runs.load_checkpoint(last) if last.exists() else None
    finished = checkpoint is not None and checkpoint["finished"]
    if not resume or finished:
        state = "a finished run" if finished else "an unfinished run"
        differ = f" with other settings ({'; '.join(changes)})" if changes else ""
        ways = "train under another name with --run runs/NAME, or replace it with --overwrite"
        raise Stop(f"{folder} holds {state}{differ}: " + (ways if finished else f"go on with --resume, {ways}"))
    if changes:
        raise Stop(f"{folder} was trained with other settings ({'; '.join(changes)}); --resume needs the same")
    return checkpoint


def _comparable(tree: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run without what may change between its sessions."""
    tree = {key: value for key, value in tree.items() if key not in ("run", "evaluation", "inference")}
    tree["data"] = {key: value for key, value in tree["data"].items() if key not in ("raw", "workers")}
    return tree


def rewind_logs(folder: Path, epochs: int) -> None:
    """Drop what metrics.csv and log.jsonl hold beyond so many epochs: a resumed run writes it again."""

    def keep(path: Path, epoch_of: Callable[[str], int]) -> None:
        kept = []
        for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
            try:
                if epoch_of(line) > epochs:
                    break
            except ValueError:  # cut off by the end of the process
                break
            kept.append(line)
        if kept:
            path.write_text("".join(kept))

    keep(folder / "metrics.csv", lambda line: 0 if line.startswith("epoch,") else int(line.split(",")[0]))
    keep(folder / "log.jsonl", lambda line: int(json.loads(line)["epoch"]))


def log_metrics(folder: Path, row: dict[str, Any]) -> None:
    """One more line in metrics.csv, whose first column is the epoch."""
    path = folder / "metrics.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def log_events(folder: Path, events: list[dict[str, Any]]) -> None:
    """More lines in log.jsonl."""
    with (folder / "log.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


# ------------------------------------------------------------------------------------------------ the loop


def train(settings: Settings, resume: bool = False, overwrite: bool = False) -> Path:
    """Train one network as the settings say; returns the run folder."""
    how = settings.training
    rank, world_size, device = start_processes(settings)
    main_process = rank == 0
    dataset = open_dataset(settings, rank, world_size)
    settings = settings.model_copy(update={"recipe": config.Recipe(**dataset.recipe)})
    split = data.splits(dataset, settings.data)
    folder = settings.run_dir
    checkpoint = open_run(settings, resume, overwrite, main_process)
    if world_size > 1:
        dist.barrier()

    if how.batch_size % (world_size * how.accumulation):
        raise Stop(
            f"training.batch_size = {how.batch_size}: must be a multiple of {world_size} processes "
            f"x {how.accumulation} accumulation steps"
        )
    steps_per_epoch = len(split["train"]) // how.batch_size
    if steps_per_epoch == 0:
        raise Stop(f"training.batch_size = {how.batch_size}: there are only {len(split['train'])} training rows")
    n_steps = steps_per_epoch * how.epochs

    torch.manual_seed(how.seed)  # the same weights on every process
    arguments = dict(settings.model.arguments)
    if "context_features" in models.arguments_of(settings.model.name):
        arguments.setdefault("context_features", dataset.recipe["context"])
    network = models.build(settings.model.name, len(dataset.recipe["leads"]), len(dataset.classes), **arguments)
    network.to(device)
    ema = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(how.ema_decay)) if how.ema_decay else None
    optimizer = torch.optim.AdamW(parameter_groups(network, how.weight_decay), lr=how.learning_rate)
    dtype = amp_dtype(settings, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    labels = dataset.labels[split["train"]]
    class_weights = torch.from_numpy(data.class_weights(labels, dataset.task, how.class_weights)).to(device)
    sampling = data.row_weights(labels) if how.sampler == "weighted" else None

    first_epoch, best_score, best_loss, best_epoch = 0, -math.inf, math.inf, -1
    if checkpoint:
        network.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scaler.load_state_dict(checkpoint["scaler"])
        if ema:
            ema.load_state_dict(checkpoint["ema"])
        first_epoch, best_epoch = checkpoint["epoch"] + 1, checkpoint["best_epoch"]
        best_score, best_loss = checkpoint["best_score"], checkpoint["best_loss"]
    parallel: nn.Module = network
    if world_size > 1:
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        parallel = DistributedDataParallel(network)
    if main_process:
        folder.mkdir(parents=True, exist_ok=True)
        if not checkpoint:
            (folder / "config.yaml").write_text(yaml.safe_dump(config.plain(settings), sort_keys=False))
        rewind_logs(folder, first_epoch)
        versions = {"commit": commit(), "torch": torch.__version__, "python": platform.python_version()}
        log_events(folder, [{"event": "start", "epoch": first_epoch, **versions}])
        norm_rows = how.batch_size // how.accumulation // (1 if device.type == "cuda" else world_size)
        counts = ", ".join(f"{k} {n:,}" for k, n in zip(dataset.classes, data.class_counts(labels), strict=True))
        print(
            f"{settings.model.name}, {sum(p.numel() for p in network.parameters()):,} parameters, on "
            f"{len(split['train']):,} rows ({counts}); validation {len(split['validation']):,} rows\n"
            f"{how.epochs} epochs of {steps_per_epoch} steps of {how.batch_size} rows ({world_size} processes x "
            f"{how.accumulation} micro-batches; batch normalisation sees {norm_rows} rows) on {device}, "
            f"mixed precision {str(dtype).removeprefix('torch.') if dtype else 'off'}, "
            f"{torch.get_num_threads()} threads"
        )
        if dataset.meta["leak"]:
            print(f"LEAK: {dataset.meta['leak']}")
    about = {
        "model_name": settings.model.name,
        "model_arguments": arguments,
        "n_leads": len(dataset.recipe["leads"]),
        "classes": dataset.classes,
        "task": dataset.task,
        "thresholds": [0.5] * len(dataset.classes),
        "recipe": dataset.recipe,
        "leak": dataset.meta["leak"],
        "commit": commit(),
    }

    for epoch in range(first_epoch, how.epochs):
        # dropout differs by epoch and process, and needs no stored state to be resumed
        torch.manual_seed(int(np.random.SeedSequence((how.seed, epoch, rank)).generate_state(1)[0]))
        order = data.epoch_order(split["train"], how.seed, epoch, sampling)
        batches = Batches(dataset, how.augmentation, how.seed, epoch)
        loader: DataLoader[Any] = DataLoader(
            batches,  # type: ignore[arg-type]  # indexed by whole batches
            batch_size=None,
            sampler=data.training_batches(order, how.batch_size, how.accumulation, rank, world_size),
            num_workers=how.workers,
            pin_memory=device.type == "cuda",
        )
        step_losses = torch.zeros(steps_per_epoch, device=device)
        started = time.perf_counter()
        network.train()
        bar = tqdm(loader, f"epoch {epoch + 1}/{how.epochs}", disable=None if main_process else True, leave=False)
        for micro, batch in enumerate(bar):
            step, last = epoch * steps_per_epoch + micro // how.accumulation, (micro + 1) % how.accumulation == 0
            signal = batch.signal.to(device, non_blocking=True).float()  # (B, L, T), stored narrower, computed wider
            target = batch.labels.to(device, non_blocking=True)  # (B, K)
            extra = {"context": batch.context.to(device), "valid": batch.valid.to(device)}
            inputs = (signal, *(extra[name] for name in models.extra_inputs(network)))
            sync = nullcontext() if last or world_size == 1 else parallel.no_sync()  # type: ignore[operator]
            with sync, torch.autocast(device.type, dtype, enabled=dtype is not None):
                logits = parallel(*inputs)  # (B, K)
                # DDP averages gradients over the processes; times their number, by the rows of all of them and of all
                # micro-batches, it is the mean over the global batch, whatever the number of processes
                loss = row_losses(logits, target, dataset.task, class_weights).sum() * world_size / how.batch_size
                scaler.scale(loss).backward()
            step_losses[micro // how.accumulation] += loss.detach() / world_size
            if not last:
                continue
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, n_steps, settings)
            if how.clip_norm:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(network.parameters(), how.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if ema:
                ema.update_parameters(network)
        if world_size > 1:
            dist.all_reduce(step_losses)
        losses = step_losses.tolist()
        train_s = time.perf_counter() - started
        if not math.isfinite(sum(losses)):
            raise Stop(f"epoch {epoch + 1}: the training loss is not finite; lower training.learning_rate")

        validated = (epoch + 1) % how.validate_every == 0 or epoch + 1 == how.epochs
        scored = ema.module if ema else network
        scores: dict[str, Any] = {}
        improved = lowest = False
        if validated:
            scored_logits = score_rows(scored, dataset, split["validation"], settings, rank, world_size)
            scores = validation_scores(scored_logits, dataset, split["validation"], settings, class_weights)
            score = -scores["loss"] if how.metric == "loss" else scores[how.metric]
            improved, lowest = score is not None and score > best_score, scores["loss"] < best_loss
            best_score, best_epoch = (score, epoch) if improved else (best_score, best_epoch)
            best_loss = min(best_loss, scores["loss"])
        stop = bool(how.patience) and validated and epoch - best_epoch >= how.patience * how.validate_every
        if main_process:
            row = {
                "epoch": epoch + 1,
                "learning_rate": learning_rate((epoch + 1) * steps_per_epoch - 1, n_steps, settings),
                "train_loss": sum(losses) / len(losses),
                "rows_per_s": round(len(losses) * how.batch_size / train_s, 1),
                **{f"validation_{key}": scores.get(key) for key in SCORES},
            }
            log_metrics(folder, row)
            first_step = epoch * steps_per_epoch + 1
            log_events(
                folder,
                [
                    {"event": "step", "epoch": epoch + 1, "step": first_step + k, "loss": x}
                    for k, x in enumerate(losses)
                ],
            )
            progress = {
                "epoch": epoch,
                "finished": stop or epoch + 1 == how.epochs,
                "best_score": best_score,
                "best_loss": best_loss,
                "best_epoch": best_epoch,
            }
            if improved:
                runs.save_checkpoint(folder / "best.pt", {**about, **progress, "model": scored.state_dict()})
            if lowest:
                runs.save_checkpoint(folder / "best-loss.pt", {**about, **progress, "model": scored.state_dict()})
            state = {
                "model": network.state_dict(),
                "ema": ema.state_dict() if ema else None,
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
            }
            runs.save_checkpoint(folder / "last.pt", {**about, **progress, **state})  # last: what it says is done, is
            shown = "".join(f"  {key.replace('_', ' ')} {scores[key]:.3f}" for key in scores if scores[key] is not None)
            eta_min = (how.epochs - epoch - 1) * (time.perf_counter() - started) / 60
            print(
                f"epoch {epoch + 1}/{how.epochs}  loss {row['train_loss']:.4f}"
                f"{'  validation:' if scores else ''}{shown}{' *' if improved else ''}  "
                f"{row['rows_per_s']:,.0f} rows/s  ETA {eta_min:.1f} min",
                flush=True,
            )
        if stop:
            if main_process:
                print(f"stopped: no better {how.metric} in {how.patience} validations")
            break

    if main_process:
        plots.save_curves(folder / "metrics.csv", folder / "curves.png")
        evaluate.evaluate_run(folder, settings)
    if world_size > 1:
        dist.barrier()
    return folder


def validation_scores(
    logits: NDArray[np.float32], dataset: Prepared, rows: Rows, settings: Settings, class_weights: Tensor
) -> dict[str, Any]:
    """Loss and scores of the validation rows; macro AUROC is None where no class has both sides."""
    target = dataset.labels[rows]
    loss = row_losses(torch.from_numpy(logits), torch.from_numpy(target), dataset.task, class_weights.cpu()).mean()
    scores = metrics.scores_of(
        target,
        runs.scores_from(logits, dataset.task),
        dataset.classes,
        dataset.task,
        macro_classes=settings.training.macro_classes or None,
    )
    if scores["macro_classes"]:
        scores["macro_f1"] = scores["macro_classes_f1"]
    scores["loss"] = float(loss)
    return {key: scores[key] for key in SCORES}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="train.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    parser.add_argument("--list_models", action="store_true", help="list the networks and stop")
    settings, arguments = config.load(parser, argv)
    if arguments.list_models:
        print(models.listing())
        return
    if int(os.environ.get("RANK", 0)) == 0:
        config.print_overrides(settings)
    try:
        train(settings, arguments.resume, arguments.overwrite)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    config.script(main)
