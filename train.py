"""Prepared dataset -> run folder.

    python train.py                                              # the demo: simulate, prepare, train, report (CPU)
    python train.py --config configs/mitdb.yaml                  # one process: a GPU if there is one
    torchrun --nproc_per_node 2 train.py --config configs/mitdb.yaml
    python train.py --config configs/mitdb.yaml --resume         # go on where a run was cut off

Writes runs/<name>/: config.yaml, best.pt, best-loss.pt, last.pt, metrics.csv, log.jsonl, curves.png, report/.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

import bundle
import config
import data
import models
import runs
import script
from bundle import Bundle, Origin, State
from config import Settings, Training
from data import Batches, Dataset
from decide import thresholds_of
from folds import Rows
from objectives import class_weights, row_losses
from recipe import flatten
from script import Stop

# ------------------------------------------------------------------------------------------------ the pieces


def start_processes(threads: int) -> tuple[int, int, torch.device]:
    """Return rank, number of processes and device; a lone process needs no torchrun. threads: 0 shares the cores."""
    rank, world_size = script.rank()
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // local_size))
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return rank, world_size, device


def wait_for_all() -> None:
    """Wait until all processes are here; a lone process goes on."""
    if dist.is_initialized():
        dist.barrier()


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Return the type of mixed precision, None for none."""
    if amp == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[amp]


def learning_rate(step: int, n_steps: int, peak: float, warmup: float) -> float:
    """Return the rate of a step: a linear rise over the share `warmup`, then a cosine down to 1 % of the peak."""
    n_warmup = max(1, round(warmup * n_steps))
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Give weight decay to matrices and kernels, none to biases, normalisation and what a network marks."""
    decayed: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for p in network.parameters():
        decayed[p.ndim >= 2 and getattr(p, "decays", True)].append(p)
    return [{"params": decayed[True], "weight_decay": weight_decay}, {"params": decayed[False], "weight_decay": 0.0}]


# ------------------------------------------------------------------------------------------------ before the loop


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


def check_metric(dataset: Dataset, rows: Rows, settings: Settings) -> None:
    """Stop where the validation rows define no score that could choose the best epoch."""
    if settings.training.metric == "macro_auroc":
        scored = np.isin(dataset.classes, settings.data.scored_classes or dataset.classes)
        support = dataset.labels[rows][:, scored].sum(axis=0, dtype=np.int64)
        if not ((support > 0) & (support < len(rows))).any():
            raise Stop(
                "training.metric = macro_auroc: no scored class has validation rows with and without it; "
                "choose macro_f1, accuracy or loss"
            )


def count_steps(n_rows: int, world_size: int, training: Training) -> int:
    """Return the optimiser steps of an epoch; a batch that cannot be shared evenly stops the program."""
    if training.batch_size % (world_size * training.accumulation):
        shares = f"{world_size} processes x {training.accumulation} accumulation steps"
        raise Stop(f"training.batch_size = {training.batch_size}: must be a multiple of {shares}")
    if n_rows < training.batch_size:
        raise Stop(f"training.batch_size = {training.batch_size}: there are only {n_rows} training rows")
    return n_rows // training.batch_size


def new_bundle(settings: Settings, dataset: Dataset, device: torch.device) -> Bundle:
    """Make the network with fresh weights, and all that goes with it into a checkpoint."""
    name, arguments = settings.model.name, dict(settings.model.arguments)
    if "context_features" in models.arguments_of(name):
        arguments.setdefault("context_features", list(dataset.recipe.context_columns))
    torch.manual_seed(settings.training.seed)  # the same weights on every process
    network = models.build(name, len(dataset.recipe.leads), len(dataset.classes), **arguments).to(device)
    limits = thresholds_of(dataset.task, len(dataset.classes))
    origin = Origin(runs.commit(), dataset.summary.leak, dataset.summary.name, time.strftime("%Y-%m-%d"))
    return Bundle(network, name, arguments, dataset.recipe, dataset.classes, dataset.task, limits, origin)


def new_state(network: nn.Module, training: Training, dtype: torch.dtype | None) -> State:
    """Make what a training carries, before its first step."""
    ema = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay)) if training.ema_decay else None
    optimizer = torch.optim.AdamW(parameter_groups(network, training.weight_decay), lr=training.learning_rate)
    scaler = torch.amp.GradScaler(next(network.parameters()).device.type, enabled=dtype == torch.float16)
    return State(network, ema, optimizer, scaler)


def announce(
    settings: Settings, dataset: Dataset, rows: dict[str, Rows], network: nn.Module, dtype: torch.dtype | None
) -> None:
    """Say what is about to be trained."""
    training, (_, world_size) = settings.training, script.rank()
    device = next(network.parameters()).device
    norm_rows = training.batch_size // training.accumulation // (1 if device.type == "cuda" else world_size)
    n_rows = dataset.labels[rows["train"]].sum(axis=0, dtype=np.int64)
    counts = ", ".join(f"{name} {n:,}" for name, n in zip(dataset.classes, n_rows, strict=True))
    print(
        f"{settings.model.name}, {sum(p.numel() for p in network.parameters()):,} parameters, on "
        f"{len(rows['train']):,} rows ({counts}); validation {len(rows['validation']):,} rows\n"
        f"{training.epochs} epochs of {len(rows['train']) // training.batch_size} steps of {training.batch_size} rows "
        f"({world_size} processes x {training.accumulation} micro-batches; batch normalisation sees {norm_rows} rows) "
        f"on {device}, mixed precision {str(dtype).removeprefix('torch.') if dtype else 'off'}, "
        f"{torch.get_num_threads()} threads"
    )
    if dataset.summary.leak:
        print(f"LEAK: {dataset.summary.leak}")


# ------------------------------------------------------------------------------------------------ validation


class Validation(NamedTuple):
    """Scores of the validation rows, in the order of the columns of metrics.csv."""

    loss: float
    accuracy: float
    macro_f1: float
    macro_auroc: float | None  # None where no scored class has both sides


def score_rows(network: nn.Module, dataset: Dataset, rows: Rows, batch_size: int) -> NDArray[np.float32]:
    """Return logits of the rows in their order, (N, K), on every process; each row is computed on exactly one."""
    rank, world_size = script.rank()
    if world_size > 1:  # each process has its own running statistics: all use those of rank 0
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)
    batches, mine = Batches(dataset), data.scoring_batches(rows, batch_size, rank, world_size)
    gathered: list[Any] = [bundle.score(network, (batches[share] for share in mine))]
    if world_size > 1:
        own, gathered = gathered[0], [None] * world_size
        dist.all_gather_object(gathered, own)
    seen = np.concatenate([part for part, _ in gathered])
    logits = np.concatenate([part.reshape(-1, len(dataset.classes)) for _, part in gathered])
    assert len(seen) == len(rows), "every row is scored exactly once"
    order = np.argsort(seen)
    return np.asarray(logits[order][np.searchsorted(seen[order], rows)])


def validate(network: nn.Module, dataset: Dataset, rows: Rows, settings: Settings, weights: Tensor) -> Validation:
    """Score the validation rows; windows of one record count as one."""
    import metrics  # loads scikit-learn, which listing the networks does without

    logits = score_rows(network, dataset, rows, settings.evaluation.batch_size)
    target = torch.from_numpy(dataset.labels[rows])
    loss = row_losses(torch.from_numpy(logits), target, dataset.task, weights.cpu()).mean()
    first, scores = bundle.pool(logits, dataset.units(rows), dataset.inside(rows), dataset.task)
    labels, scored = dataset.labels[rows[first]], settings.data.scored_classes
    report = metrics.scores_of(labels, scores, dataset.classes, dataset.task, scored=scored)
    return Validation(float(loss), report.accuracy, report.macro_f1, report.macro_auroc)


# ------------------------------------------------------------------------------------------------ the loop


def train(settings: Settings, resume: bool = False, overwrite: bool = False) -> Path:
    """Train one network as the settings say; returns the run folder."""
    training, folder = settings.training, settings.run_folder
    rank, world_size, device = start_processes(training.threads)
    main_process = rank == 0
    dataset = open_dataset(settings)
    settings = settings.model_copy(update={"recipe": dataset.recipe})
    rows = dataset.splits(settings.data.train, settings.data.validation, settings.data.test)
    check_metric(dataset, rows["validation"], settings)
    steps_per_epoch = count_steps(len(rows["train"]), world_size, training)
    n_steps = steps_per_epoch * training.epochs
    last = folder / runs.LAST
    runs.check_run(folder, settings, not overwrite and bundle.is_finished(last), resume, overwrite)

    dtype = amp_dtype(training.amp, device)
    trained = new_bundle(settings, dataset, device)
    network = trained.network
    state = new_state(network, training, dtype)
    if resume and not overwrite and last.exists():
        state.restore(last)
    labels = dataset.labels[rows["train"]]
    scored = np.isin(dataset.classes, settings.data.scored_classes or dataset.classes)  # (K,)
    weights = torch.from_numpy(class_weights(labels, dataset.task, training.class_weights, scored)).to(device)
    chances = data.row_weights(labels) if training.sampler == "weighted" else None
    parallel: nn.Module = network
    if world_size > 1:
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        parallel = DistributedDataParallel(network)
    wait_for_all()  # every process has looked at the folder before the first one writes to it
    if main_process:
        runs.begin(folder, settings, state.epoch)
        versions = {"commit": trained.origin.commit, "torch": torch.__version__, "python": platform.python_version()}
        runs.log_events(folder, [{"event": "start", "epoch": state.epoch, **versions}])
        announce(settings, dataset, rows, network, dtype)

    for epoch in range(state.epoch, training.epochs):
        # dropout differs by epoch and process, and needs no stored state to be resumed
        torch.manual_seed(int(np.random.SeedSequence((training.seed, epoch, rank)).generate_state(1)[0]))
        order = data.epoch_order(rows["train"], training.seed, epoch, chances)
        batches = Batches(dataset, training.augmentation.model_dump(), training.seed, epoch)
        loader: DataLoader[Any] = DataLoader(
            batches,  # type: ignore[arg-type]  # indexed by whole batches
            batch_size=None,
            sampler=data.training_batches(order, training.batch_size, training.accumulation, rank, world_size),
            num_workers=training.workers,
            pin_memory=device.type == "cuda",
        )
        step_losses = torch.zeros(steps_per_epoch, device=device)
        started = time.perf_counter()
        network.train()
        bar = tqdm(loader, f"epoch {epoch + 1}/{training.epochs}", disable=None if main_process else True, leave=False)
        for micro, batch in enumerate(bar):
            step, complete = micro // training.accumulation, (micro + 1) % training.accumulation == 0
            target = batch.labels.to(device, non_blocking=True)  # (B, K)
            sync = nullcontext() if complete or world_size == 1 else parallel.no_sync()  # type: ignore[operator]
            with sync, torch.autocast(device.type, dtype, enabled=dtype is not None):
                logits = parallel(*bundle.inputs_of(network, batch))  # (B, K)
                # DDP averages gradients over the processes; times their number, by the rows of all of them and of all
                # micro-batches, it is the mean over the global batch, whatever the number of processes
                loss = row_losses(logits, target, dataset.task, weights).sum() * world_size / training.batch_size
                state.scaler.scale(loss).backward()
            step_losses[step] += loss.detach() / world_size
            if not complete:
                continue
            rate = learning_rate(epoch * steps_per_epoch + step, n_steps, training.learning_rate, training.warmup)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            if training.clip_norm:
                state.scaler.unscale_(state.optimizer)
                nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm)
            state.scaler.step(state.optimizer)
            state.scaler.update()
            state.optimizer.zero_grad(set_to_none=True)
            if state.ema:
                state.ema.update_parameters(network)
        if world_size > 1:
            dist.all_reduce(step_losses)
        losses = step_losses.tolist()
        if not math.isfinite(sum(losses)):
            raise Stop(f"epoch {epoch + 1}: the training loss is not finite; lower training.learning_rate")
        rows_per_s = round(steps_per_epoch * training.batch_size / (time.perf_counter() - started), 1)
        due = (epoch + 1) % training.validate_every == 0 or epoch + 1 == training.epochs
        scores = validate(state.scored, dataset, rows["validation"], settings, weights) if due else None
        earned = end_epoch(state, scores, training)
        if main_process:
            line = runs.Epoch(epoch + 1, rate, sum(losses) / len(losses), rows_per_s, *(scores or ()))
            write_epoch(folder, line, losses, trained, state, earned)
            print_epoch(line, scores, training, runs.BEST in earned, time.perf_counter() - started)
        if state.finished:
            break
    if main_process and state.epoch < training.epochs:
        print(f"stopped: no better {training.metric} in {training.patience} validations")
    return folder


def end_epoch(state: State, scores: Validation | None, training: Training) -> list[str]:
    """Count the epoch and take in its scores; returns the names of the checkpoints that they have earned."""
    state.epoch += 1
    earned = []
    out_of_patience = False
    if scores:
        score = -scores.loss if training.metric == "loss" else getattr(scores, training.metric)
        if score is not None and score > state.best_score:
            state.best_score, state.best_epoch = score, state.epoch
            earned.append(runs.BEST)
        if scores.loss < state.best_loss:
            state.best_loss = scores.loss
            earned.append(runs.BEST_LOSS)
        waited = state.epoch - state.best_epoch
        out_of_patience = bool(training.patience) and waited >= training.patience * training.validate_every
    state.finished = out_of_patience or state.epoch == training.epochs
    return earned


def write_epoch(
    folder: Path, line: runs.Epoch, losses: list[float], trained: Bundle, state: State, earned: list[str]
) -> None:
    """Write the logs and the checkpoints of an epoch."""
    runs.log_epoch(folder, line)
    first_step = (line.epoch - 1) * len(losses) + 1
    steps = [{"epoch": line.epoch, "step": first_step + k, "loss": loss} for k, loss in enumerate(losses)]
    runs.log_events(folder, [{"event": "step", **step} for step in steps])
    trained = replace(trained, network=state.scored, origin=replace(trained.origin, epoch=state.epoch))
    for name in earned:
        trained.save(folder / name)
    state.save(folder / runs.LAST, trained)  # written last, so it never claims an unsaved epoch


def print_epoch(line: runs.Epoch, scores: Validation | None, training: Training, best: bool, epoch_s: float) -> None:
    """Print the scores of an epoch, its rate and the time left."""
    values = scores._asdict() if scores else {}
    shown = "".join(f"  {name.replace('_', ' ')} {value:.3f}" for name, value in values.items() if value is not None)
    print(
        f"epoch {line.epoch}/{training.epochs}  loss {line.train_loss:.4f}{'  validation:' if scores else ''}{shown}"
        f"{' *' if best else ''}  {line.rows_per_s:,.0f} rows/s  "
        f"ETA {(training.epochs - line.epoch) * epoch_s / 60:.1f} min",
        flush=True,
    )


# ------------------------------------------------------------------------------------------------ the script


def prepare_demo(settings: Settings) -> None:
    """Simulate and prepare the demo where it is missing; processes of torchrun share the parts."""
    import preprocess

    rank, _, _ = start_processes(settings.training.threads)
    if rank == 0:
        preprocess.open_raw(settings)
    wait_for_all()
    preprocess.prepare(settings)
    wait_for_all()


def report(folder: Path, settings: Settings) -> None:
    """Draw the curves of a run and score its test rows; without a test part those of validation."""
    import evaluate
    import plots

    plots.save_curves(folder / runs.METRICS, folder / runs.CURVES)
    split = settings.evaluation.split if settings.data.test else "validation"
    evaluation = settings.evaluation.model_copy(update={"split": split})
    evaluate.evaluate_run(folder, settings.model_copy(update={"evaluation": evaluation}))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="train.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that exists")
    parser.add_argument("--list_models", action="store_true", help="list the networks and stop")
    settings, arguments = config.load(parser, argv)
    if arguments.list_models:
        print(models.listing())
        return
    main_process = script.rank()[0] == 0
    if main_process:
        config.print_overrides(settings)
    try:
        if settings.data.name == "demo" and settings.data.raw is None:
            prepare_demo(settings)
        with script.hold(settings.run_folder):
            folder = train(settings, arguments.resume, arguments.overwrite)
            if main_process:
                report(folder, settings)
        wait_for_all()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    script.run(main)
