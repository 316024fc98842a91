"""Prepared dataset -> run folder.

    python train.py                                              # the demo: simulate, prepare, train, report (CPU)
    python train.py --config configs/mitdb.yaml                  # one process: a GPU if there is one
    torchrun --nproc_per_node 2 train.py --config configs/mitdb.yaml
    python train.py --resume runs/mitdb                          # go on where a run was cut off

SIGTERM and Ctrl-C end a training after its current step, from where --resume goes on to the same bits.

Writes runs/<name>/: config.yaml, best.pt, best-loss.pt, last.pt, metrics.csv, log.jsonl, curves.png, report/.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

import batches
import bundle
import checks
import config
import models
import pretraining
import processes
import runs
import schedules
import script
import trackers
import validation
from batches import Batches
from bundle import Bundle, Origin, State
from config import Settings, Training
from crops import Crops
from data import Dataset
from decide import thresholds_of
from folds import Rows
from networks.pretext import network_of
from objectives import class_weights, row_losses
from script import Stop
from validation import Validation

CHECK_EVERY = 50  # steps: a look at the losses waits for a GPU

# ------------------------------------------------------------------------------------------------ the pieces


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Return the type of mixed precision, None for none."""
    if amp == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[amp]


def set_rate(state: State, step: int, n_steps: int, training: Training) -> float:
    """Give the optimiser the learning rate of a step of the whole training, and return it."""
    part = schedules.learning_rate(training.schedule, step, n_steps, training.warmup)
    rate = training.learning_rate * part * state.rate_factor
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["part"]
        if training.schedule == "one_cycle":
            group["betas"] = (schedules.first_beta(step, n_steps, training.warmup), group["betas"][1])
    return rate


def seed_of(*parts: int) -> int:
    """Return a seed that hangs on all of these numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def parameter_groups(
    network: nn.Module, weight_decay: float, parts: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Give weight decay to matrices and kernels, none to biases, normalisation and what a network marks.

    Only what learns is in a group, and of each `part` of the learning rate (by name, otherwise 1) there are two groups.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, p in network.named_parameters():
        if p.requires_grad:
            decays = p.ndim >= 2 and getattr(p, "decays", True)
            groups.setdefault(((parts or {}).get(name, 1.0), decays), []).append(p)
    return [
        {"params": groups[part, decays], "weight_decay": weight_decay if decays else 0.0, "part": part}
        for part, decays in sorted(groups, reverse=True)
    ]


# ------------------------------------------------------------------------------------------------ before the loop


def new_bundle(settings: Settings, dataset: Dataset, device: torch.device) -> Bundle:
    """Make the network with fresh weights, and all that goes with it into a checkpoint."""
    name, arguments = settings.model.name, dict(settings.model.arguments)
    if "context_features" in models.arguments_of(name):
        arguments.setdefault("context_features", list(dataset.recipe.context_columns))
    torch.manual_seed(settings.training.seed)  # the same weights on every process
    n_outputs = bundle.n_outputs(dataset.classes)
    network = models.build(name, len(dataset.recipe.leads), n_outputs, **arguments).to(device)
    limits = thresholds_of(dataset.task, len(dataset.classes))
    date, folds = time.strftime("%Y-%m-%d"), dataset.digest_of_folds
    origin = Origin(runs.commit(), dataset.summary.leak, dataset.summary.name, date, folds=folds)
    crops = crops_of(settings.training, dataset)
    return Bundle(
        network, name, arguments, dataset.recipe, dataset.classes, dataset.task, limits, origin, crops,
        objective=settings.training.objective,
    )  # fmt: skip


def crops_of(training: Training, dataset: Dataset) -> Crops | None:
    """Return the pieces that rows are scored in, in samples."""
    asked, fs = training.crops, dataset.recipe.fs
    if asked.length_s is None:
        return None
    samples = max(1, round(asked.length_s * fs))
    return Crops(samples, max(1, round(asked.stride_s * fs)) if asked.stride_s else samples, asked.pool)


def new_state(learner: nn.Module, name: str, training: Training, dtype: torch.dtype | None) -> State:
    """Make what a training of a network of this name carries, before its first step."""
    ema = AveragedModel(learner, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay)) if training.ema_decay else None
    parts = {}
    if training.layer_decay < 1:
        depths = models.layer_depths(name, learner)
        parts = {parameter: training.layer_decay**depth for parameter, depth in depths.items()}
    groups = parameter_groups(learner, training.weight_decay, parts)
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate)
    scaler = torch.amp.GradScaler(next(learner.parameters()).device.type, enabled=dtype == torch.float16)
    return State(learner, ema, optimizer, scaler)


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


# ------------------------------------------------------------------------------------------------ the loop


def train(settings: Settings, resume: bool = False, overwrite: bool = False) -> Path:
    """Train one network as the settings say; returns the run folder."""
    training, folder = settings.training, settings.run_folder
    rank, world_size, device = processes.start(training.threads)
    main_process = rank == 0
    checks.check_training(training, world_size, device)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic products on a GPU ask for
    torch.use_deterministic_algorithms(training.deterministic)
    dataset = checks.open_dataset(settings)
    settings = settings.model_copy(update={"recipe": dataset.recipe})
    rows = dataset.splits(settings.data.train, settings.data.validation, settings.data.test)
    checks.check_rows(dataset, rows, settings)
    steps_per_epoch = len(rows["train"]) // training.batch_size
    n_steps = steps_per_epoch * training.epochs
    held_out = len(rows["validation"]) > 0
    last = folder / runs.LAST
    runs.check_run(folder, settings, not overwrite and bundle.is_finished(last), resume, overwrite)

    dtype = amp_dtype(training.amp, device)
    trained = new_bundle(settings, dataset, device)
    goes_on = resume and not overwrite and last.exists()
    if settings.model.pretrained and not goes_on:
        pretraining.take_over(trained, settings.model.pretrained, dataset, rows)
    network, learner = trained.network, pretraining.learner_of(trained, training)
    state = new_state(learner, trained.name, training, dtype)
    learnt = dataset  # what the steps learn; all else has the true labels
    if training.teachers:
        import distill  # loads what evaluate.py loads

        learnt = distill.taught(dataset, rows, settings)
    labels = dataset.labels[rows["train"]]
    scored = np.isin(dataset.classes, settings.data.scored_classes or dataset.classes)  # (K,)
    of_classes = class_weights(labels, dataset.task, training.class_weights, scored)
    grow = getattr(network, "grow", None)
    if grow and not goes_on:
        if main_process:
            print(
                f"{settings.model.name} learns from the numbers of {len(labels):,} rows before its first step",
                flush=True,
            )
        grow(dataset.context[rows["train"]], labels, of_classes)
    if goes_on:
        state.restore(last, trained)
    weights = torch.from_numpy(of_classes).to(device)
    chances = batches.row_weights(labels) if training.sampler == "weighted" else None
    parallel: nn.Module = learner
    if world_size > 1:
        if device.type == "cuda":
            learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner)
        parallel = DistributedDataParallel(learner)
    if training.compile:
        parallel = torch.compile(parallel)  # type: ignore[assignment]  # a module of the same call
    processes.wait()  # every process has looked at the folder before the first one writes to it
    if main_process:
        runs.begin(folder, settings, state.epoch, anew=not (state.epoch or state.losses))
        versions = {"commit": trained.origin.commit, "torch": torch.__version__, "python": platform.python_version()}
        runs.log_events(folder, [{"event": "start", "epoch": state.epoch, **versions}])
        announce(settings, dataset, rows, network, dtype)

    with processes.StopSignal() as stop, trackers.opened(folder, settings, trained.origin.commit) as track:
        for epoch in range(state.epoch, training.epochs):
            order = batches.epoch_order(rows["train"], training.seed, epoch, chances)
            done = len(state.losses)  # steps of this epoch that a training which was cut off has done
            ahead = feed(trained, learnt, order, training, epoch, done)
            step_losses = torch.zeros(steps_per_epoch, device=device)
            if main_process:  # the sum over the processes is theirs already
                step_losses[:done] = torch.tensor(state.losses)
            started = time.perf_counter()
            learner.train(not training.freeze)
            bar = tqdm(
                total=steps_per_epoch, initial=done, desc=f"epoch {epoch + 1}/{training.epochs}", unit=" steps",
                disable=None if main_process else True, leave=False,
            )  # fmt: skip
            for micro, batch in enumerate(ahead, done * training.accumulation):
                step, complete = micro // training.accumulation, (micro + 1) % training.accumulation == 0
                # dropout differs by step and process, and needs no stored state to be resumed
                torch.manual_seed(seed_of(training.seed, epoch, rank, micro))
                sync = nullcontext() if complete or world_size == 1 else parallel.no_sync()  # type: ignore[operator]
                with sync, torch.autocast(device.type, dtype, enabled=dtype is not None):
                    of_rows = parallel(*bundle.inputs_of(network, batch))  # (B, K), or (B,) without labels
                    if training.objective == "labels":
                        target = torch.as_tensor(batch.labels).to(device, non_blocking=True)  # (B, K)
                        of_rows = row_losses(
                            of_rows, target, dataset.task, weights, training.loss, training.label_smoothing
                        )
                    # DDP averages gradients over the processes; times their number, by the rows of all of them and of
                    # all micro-batches, it is the mean over the global batch, whatever the number of processes
                    loss = of_rows.sum() * world_size / training.batch_size
                    state.scaler.scale(loss).backward()
                step_losses[step] += loss.detach() / world_size
                if not complete:
                    continue
                rate = set_rate(state, epoch * steps_per_epoch + step, n_steps, training)
                if training.clip_norm:
                    state.scaler.unscale_(state.optimizer)
                    norm = nn.utils.clip_grad_norm_(learner.parameters(), training.clip_norm)
                    if not state.scaler.is_enabled():  # a scaler leaves out such a step, and scales less
                        step_losses[step] += 0 * norm  # NaN where a gradient is not finite
                state.scaler.step(state.optimizer)
                state.scaler.update()
                state.optimizer.zero_grad(set_to_none=True)
                if state.ema:
                    state.ema.update_parameters(learner)
                bar.update()
                if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps_per_epoch:
                    losses = checked(step_losses[: step + 1], order, dataset, training)
                    bar.set_postfix_str(f"loss {sum(losses) / len(losses):.4f}")
                elif stop.came():
                    state.losses = checked(step_losses[: step + 1], order, dataset, training)
                    bar.close()
                    leave(
                        folder, trained, state, stop.number, f"epoch {epoch + 1}, step {step + 1} of {steps_per_epoch}"
                    )
            bar.close()
            rows_per_s = round((steps_per_epoch - done) * training.batch_size / (time.perf_counter() - started), 1)
            due = held_out and ((epoch + 1) % training.validate_every == 0 or epoch + 1 == training.epochs)
            kept, scores = replace(trained, network=network_of(state.scored)), None
            if due and training.objective != "labels":
                batch_size = settings.evaluation.batch_size
                scores = Validation(pretraining.loss_of(state.scored, kept, dataset, rows["validation"], batch_size))
            elif due:
                of_validation = validation.score_rows(kept, dataset, rows["validation"], settings.evaluation.batch_size)
                scores = validation.validate(of_validation, dataset, rows["validation"], settings, weights)
                kept = validation.calibrated(kept, of_validation, dataset, rows["validation"], training.sensitivity)
            earned = end_epoch(state, scores, training)
            if not held_out:
                earned = [runs.BEST]  # nothing chooses an epoch: the last is kept
            if main_process:
                line = runs.Epoch(epoch + 1, rate, sum(losses) / len(losses), rows_per_s, *(scores or ()))
                write_epoch(folder, line, losses, kept, state, earned)
                track()
                print_epoch(line, scores, training, runs.BEST in earned, time.perf_counter() - started)
            if state.finished:
                break
    if main_process and state.epoch < training.epochs:
        print(f"stopped: no better {checks.metric_of(training)} in {training.patience} validations")
    return folder


def feed(
    trained: Bundle, dataset: Dataset, order: Rows, training: Training, epoch: int, done: int
) -> Iterator[batches.Batch]:
    """Give this process's micro-batches of an epoch after the steps that are done, fetched ahead."""
    rank, world_size = script.rank()
    if training.mixup:
        order = batches.with_partners(order, training.batch_size)
    requests = batches.training_batches(order, training.batch_size, training.accumulation, rank, world_size)
    crop = trained.crops.samples if trained.crops else None
    pieces = Batches(dataset, training.augmentation.model_dump(), training.seed, epoch, crop, training.mixup)
    return batches.fetched(
        pieces, requests[done * training.accumulation :], training.workers, pinned=torch.cuda.is_available()
    )


def checked(step_losses: Tensor, order: Rows, dataset: Dataset, training: Training) -> list[float]:
    """Return the losses of the steps of an epoch over all processes; Stop where one or its gradient is not finite."""
    losses = step_losses.clone()
    if script.rank()[1] > 1:
        dist.all_reduce(losses)
    values: list[float] = losses.tolist()
    bad = next((step for step, value in enumerate(values) if not math.isfinite(value)), None)
    if bad is not None:
        rows = order[bad * training.batch_size : (bad + 1) * training.batch_size]
        records = np.unique(dataset.record[rows]).astype(str)
        named = ", ".join(records[:8]) + (f" and {len(records) - 8} more" if len(records) > 8 else "")
        raise Stop(
            f"step {bad + 1} of the epoch: loss or gradient is not finite; its rows are of {named}; "
            "look at these, or lower training.learning_rate"
        )
    return values


def leave(folder: Path, trained: Bundle, state: State, number: int, where: str) -> NoReturn:
    """End a training that is asked to stop: with a checkpoint of its last step, and a line that says how to go on."""
    if script.rank()[0] == 0:
        state.save(folder / runs.LAST, trained)
        print(f"stopped after {where}; go on with: python train.py --resume {folder}")
    processes.wait()
    sys.exit(128 + number)


def end_epoch(state: State, scores: Validation | None, training: Training) -> list[str]:
    """Count the epoch and take in its scores; returns the names of the checkpoints that they have earned."""
    state.epoch, state.losses = state.epoch + 1, []
    earned = []
    out_of_patience = False
    if scores:
        metric = checks.metric_of(training)
        score = -scores.loss if metric == "loss" else getattr(scores, metric)
        if score is not None and score > state.best_score:
            state.best_score, state.best_epoch = score, state.epoch
            earned.append(runs.BEST)
        if scores.loss < state.best_loss:
            state.best_loss = scores.loss
            earned.append(runs.BEST_LOSS)
        waited = state.epoch - state.best_epoch
        still = state.epoch - max(state.best_epoch, state.lowered_epoch)
        if training.schedule == "plateau" and still >= training.plateau_patience * training.validate_every:
            state.rate_factor, state.lowered_epoch = state.rate_factor / 10, state.epoch
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
    trained = replace(trained, origin=replace(trained.origin, epoch=state.epoch))
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

    rank, _, _ = processes.start(settings.training.threads)
    if rank == 0:
        preprocess.open_raw(settings)
    processes.wait()
    preprocess.prepare(settings)
    processes.wait()


def report(folder: Path, settings: Settings) -> None:
    """Draw the curves of a run and score its test rows; without a test part those of validation."""
    import evaluate
    import plots

    plots.save_curves(folder / runs.METRICS, folder / runs.CURVES)
    if settings.training.objective != "labels":
        pretraining.report(folder, settings)
        return
    if not settings.data.test and not settings.data.validation:
        print("no fold is held out, so there is no report")
        return
    split = settings.evaluation.split if settings.data.test else "validation"
    evaluation = settings.evaluation.model_copy(update={"split": split})
    evaluate.evaluate_run(folder, settings.model_copy(update={"evaluation": evaluation}))


def train_and_report(settings: Settings, resume: bool = False, overwrite: bool = False) -> None:
    """Train one network and score it, in a run folder that this process holds; Stop where memory does not suffice."""
    try:
        folder = train(settings, resume, overwrite)
        if script.rank()[0] == 0:
            report(folder, settings)
    except RuntimeError as error:  # that of a CPU has no type of its own
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        training = settings.training
        raise Stop(
            f"training.batch_size = {training.batch_size}: out of memory; a larger training.accumulation "
            f"({training.accumulation} now) takes fewer rows at a time for the same step"
        ) from error


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="train.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="RUN",
        help="go on with an unfinished run: with the one that is named, or with that of these settings",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a run that exists")
    parser.add_argument("--list_models", action="store_true", help="list the networks and stop")
    settings, arguments = config.load(
        parser, argv, lambda given: Path(given.resume) / runs.CONFIG if given.resume else None
    )
    if arguments.resume:
        settings = settings.model_copy(update={"run_dir": arguments.resume})
    again = processes.restarts() > 0 and (settings.run_folder / runs.CONFIG).exists()
    if arguments.list_models:
        print(models.listing())
        return
    trackers.check(settings.training.track)
    if script.rank()[0] == 0:
        config.print_overrides(settings)
    try:
        if settings.data.name == "demo" and settings.data.raw is None:
            prepare_demo(settings)
        with script.hold(settings.run_folder):
            train_and_report(settings, again or arguments.resume is not None, arguments.overwrite and not again)
        processes.wait()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    script.run(main)
