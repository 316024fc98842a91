"""Many runs and one table of them: the folds of a dataset in turn, or a grid of settings.

    python study.py --config configs/mitdb.yaml --folds 10    # runs/mitdb-10-folds/: fold-0, fold-1, ..., folds.csv
    python study.py --config grid.yaml                        # runs/grid/: a folder for each run, grid.csv

A grid is a file of settings with one section more, which names settings by their dots and lists their values:

    data: {name: cinc2017}
    grid:
      training.learning_rate: [0.001, 0.003]
      model.name: [cnn1d, resnet1d, s4]

A whole experiment is one command. Where data.raw names the recordings, a grid first prepares what is not prepared, as
preprocess.py does, and each value of data.target into a folder of its own (prepared/ptbxl-form, or below data.dir):

    python study.py --config configs/experiments/ptbxl.yaml --data.raw ~/data/ptb-xl

Each run is what train.py makes of the same settings. Of the folds each is tested once, the next one chooses the epoch,
and the rest are learnt from. The same command again leaves finished runs as they are and goes on with the others; in
several processes at a time it shares the datasets and the runs. SIGTERM and Ctrl-C end the current training as they end
train.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import bundle
import challenge
import checks
import config
import distill
import models
import preprocess
import pretraining
import runs
import script
import train
from compare import SCORES
from config import Settings
from data import SUMMARY, Dataset
from plans import FINISHED, TARGET, UNFINISHED, Run, check_grid, fold_runs, grid_runs
from recipe import differences
from script import Stop, markdown_table

GRID = "grid"  # the section of the YAML
IN_USE = "in use"

# ------------------------------------------------------------------------------------------------ before the first run


def check_settings(plan: Sequence[Run]) -> None:
    """Stop where the settings of a run are wrong by themselves, before any recording is read."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for run in plan:
        model, table, objective = run.settings.model, run.settings.evaluation.challenge, run.settings.training.objective
        try:
            if objective != "labels":
                raise Stop(f"training.objective = {objective}: has no scores to make a table of")
            checks.check_training(run.settings.training, 1, device)
            with torch.device("meta"):  # shapes without memory
                models.build(model.name, len(run.settings.recipe.leads), 2, **model.arguments)
            if table is not None:
                challenge.read_weights(table, ())
        except (Stop, ValueError) as error:
            raise Stop(f"{run.folder}: {error}") from error


def unprepared(plan: Sequence[Run], shared: Settings) -> dict[Path, Settings]:
    """Return what preprocess.py needs to know of each dataset of a grid, by its folder.

    None is prepared where no recordings are named, nor where data.dir chooses among datasets that exist.

    Raises
    ------
    Stop
        No recordings are named, or their folder does not exist, and a dataset is not prepared.
    """
    of_grid = {name for run in plan for name in run.values}
    if shared.data.raw is None:
        for run in plan:
            for folder in run.settings.data_dirs:
                if not (folder / SUMMARY).exists():
                    raise Stop(f"{folder}: no prepared dataset; with --data.raw FOLDER it is prepared first")
        return {}
    if "data.dir" in of_grid or len(shared.data_dirs) > 1:
        return {}
    preprocess.open_raw(shared)
    wanted = {}
    for run in plan:  # the folds to learn from are those that the runs share: a scale over the dataset is theirs
        own = {"target": run.settings.data.target, "dir": run.settings.data.dir}
        wanted[run.settings.data_dirs[0]] = shared.model_copy(update={"data": shared.data.model_copy(update=own)})
    return wanted


def prepare(wanted: Mapping[Path, Settings]) -> None:
    """Prepare the datasets that are not prepared; one that another process is at work on is looked at again."""
    waiting, told = list(wanted), False
    while waiting:
        held = []
        for folder in waiting:
            try:
                with script.hold(folder):  # the index of a large dataset takes time: nobody else makes it meanwhile
                    pass
                preprocess.prepare(wanted[folder])
            except script.InUse as error:
                held.append(folder)
                message = str(error)
        if held == waiting:
            if not told:
                print(f"waiting: {message}", file=sys.stderr, flush=True)
            told = True
            time.sleep(1)
        waiting = held


def check(plan: Sequence[Run]) -> None:
    """Stop where a training of the plan could not begin, or would meet another one in its folder."""
    opened: dict[tuple[Any, ...], Dataset] = {}
    for run in plan:
        settings = run.settings
        try:
            key = (*settings.data_dirs, settings.data.scored_classes)
            dataset = opened[key] if key in opened else opened.setdefault(key, checks.open_dataset(settings))
            rows = dataset.splits(settings.data.train, settings.data.validation, settings.data.test)
            checks.check_rows(dataset, rows, settings)
            trained = train.new_bundle(settings, dataset, torch.device("cpu"))
            if settings.model.pretrained:
                pretraining.take_over(trained, settings.model.pretrained, dataset, rows)
            train.new_state(pretraining.learner_of(trained, settings.training), trained.name, settings.training, None)
            distill.open_teachers(dataset, rows, settings)
            check_target(run, dataset)
            nothing = np.zeros((1, len(dataset.classes)), np.uint8)
            challenge.challenge_scores(nothing, nothing, dataset.classes, settings.evaluation.challenge)
        except (Stop, ValueError) as error:
            raise Stop(f"{run.folder}: {error}") from error
        if (run.folder / runs.CONFIG).exists():
            asked = settings.model_copy(update={"recipe": dataset.recipe})
            old, new = (config.of_the_work(each) for each in (runs.settings_of(run.folder), asked))
            if changes := differences(old, new):
                raise Stop(f"{run.folder} has other settings ({'; '.join(changes)}); choose another --run_dir")


def check_target(run: Run, dataset: Dataset) -> None:
    """Stop where the folder of a target holds the rows of another one."""
    wanted, found = run.settings.data.target, dataset.summary.data.get("target")
    if TARGET in run.values and found != wanted:
        raise Stop(f"{dataset.folder} was prepared with {TARGET} = {found}, not {wanted}; choose another --data.dir")


# ------------------------------------------------------------------------------------------------ the runs


def carry_out(plan: Sequence[Run], summarise: Callable[[Sequence[str]], None]) -> list[str]:
    """Train each run that is not finished; one that another process holds is looked at again at the end.

    Returns the state of each run: finished, in use, or `failed:` and why.
    """
    states = [run.state() for run in plan]
    seconds: list[float] = []
    print(f"{len(plan)} runs, {states.count(FINISHED)} finished", flush=True)
    waiting = [place for place, state in enumerate(states) if state != FINISHED]
    while waiting:
        for place in waiting:
            run = plan[place]
            try:
                with script.hold(run.folder):
                    states[place] = run.state()  # another process may have finished it
                    if states[place] != FINISHED:
                        print(f"run {place + 1}/{len(plan)}: {run.folder}, {time_left(states, seconds)}", flush=True)
                        started = time.perf_counter()
                        train_run(run)
                        states[place] = FINISHED
                        seconds.append(time.perf_counter() - started)
            except script.InUse:
                states[place] = IN_USE
            except (Stop, ValueError, OSError) as error:
                states[place] = f"failed: {script.one_line(error)}"
                print(f"{run.folder} {states[place]}", file=sys.stderr)
            summarise(states)
        held = [place for place in waiting if states[place] == IN_USE]
        waiting = held if len(held) < len(waiting) else []  # others are at work on all that is left
    return states


def time_left(states: Sequence[str], seconds: Sequence[float]) -> str:
    """Say how long the runs that nobody has begun will take this process."""
    if not seconds:
        return "time left is known after the first run"
    return f"about {states.count(UNFINISHED) * sum(seconds) / len(seconds) / 60:.1f} min left"


def train_run(run: Run) -> None:
    """Train a run from its beginning, or on from where it was cut off; one that lacks only its report gets that."""
    if bundle.is_finished(run.folder / runs.LAST):
        train.report(run.folder, run.settings)
    else:
        train.train_and_report(run.settings, resume=(run.folder / runs.CONFIG).exists())


# ------------------------------------------------------------------------------------------------ the tables


def scores_of(run: Run, state: str) -> dict[str, Any]:
    """Return what metrics.json and metrics.csv tell of the checkpoint that is scored; nothing of an unfinished run."""
    if state != FINISHED:
        return {}
    report = json.loads(run.metrics.read_text())
    epoch = next((line for line in runs.epochs_of(run.folder) if line["epoch"] == report["epoch"]), {})
    validation = ("validation_loss", *runs.PANELS["validation score"])
    return {
        "rows": report["n_rows"],
        "epoch": report["epoch"],
        **{name: epoch[name] for name in validation if name in epoch},
        **{name: report[name] for name in SCORES},
        **report.get("challenge", {}),
        **{f"f1_{each['class']}": each["f1"] if each["support"] else None for each in report["per_class"]},
    }


def fold_table(plan: Sequence[Run], states: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each fold, and the mean and the sample deviation of the finished ones."""
    table = [{**run.values, "state": state, **scores_of(run, state)} for run, state in zip(plan, states, strict=True)]
    no_scores = ("fold", "state", "rows", "epoch", "validation_")  # of the rows that are tested
    names = [name for row in table for name in row if not name.startswith(no_scores)]
    values = {name: [row[name] for row in table if row.get(name) is not None] for name in names}
    means = {name: float(np.mean(each)) for name, each in values.items() if each}
    deviations = {name: float(np.std(each, ddof=1)) for name, each in values.items() if len(each) > 1}
    n = f"{states.count(FINISHED)} of {len(plan)} folds"
    return [*table, {"fold": "mean", "state": n, **means}, {"fold": "deviation", "state": n, **deviations}]


def grid_table(plan: Sequence[Run], states: Sequence[str], metric: str) -> list[dict[str, Any]]:
    """Return a row for each run, the best by its validation rows first; each target by itself, as the grid has them."""
    table = []
    for run, state in zip(plan, states, strict=True):
        scores = {f"{run.split}_{key}" if key in SCORES else key: value for key, value in scores_of(run, state).items()}
        table.append({"run": run.folder.name, **run.values, "state": state, **scores})
    sign, column = (1 if metric == "loss" else -1), f"validation_{metric}"
    targets = list(dict.fromkeys(row.get(TARGET) for row in table))

    def place(row: Mapping[str, Any]) -> tuple[int, float]:
        return targets.index(row.get(TARGET)), sign * row[column] if column in row else float("inf")

    return sorted(table, key=place)


def write_table(table: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV, whole or not at all."""
    with script.aside(path) as temporary:
        pd.DataFrame(table, dtype=object).to_csv(temporary, index=False)


def as_markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """Return the table for people: without the scores of single classes."""
    names = dict.fromkeys(name for row in table for name in row)
    columns = [name for name in names if name != "run" and not name.startswith("f1_")]

    def texts(row: Mapping[str, Any]) -> list[str]:
        cells = (row.get(name) for name in columns)
        return ["" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells]

    return markdown_table([name.replace("_", " ") for name in columns], [texts(row) for row in table])


# ------------------------------------------------------------------------------------------------ the script


def plan_of(words: Sequence[str] | None) -> tuple[list[Run], Path, Settings]:
    """Read the command line; returns the runs, the table to write, and the settings that the runs share."""
    parser = argparse.ArgumentParser(prog="study.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folds", type=int, metavar="N", help="test each of so many folds in turn")
    trees, arguments = config.read(parser, words)
    file, from_file = next(iter(trees.items()))  # of the environment where no file is named
    is_grid, grid = GRID in from_file, from_file.pop(GRID, None)
    settings, n = config.validated(trees), arguments.folds
    if is_grid and n is not None:
        raise Stop(f"--folds {n}: {file} has a section {GRID}, and a study has folds or a grid")
    if not is_grid and n is None:
        raise Stop(f"give --folds N, or --config with a file that has a section {GRID}:")
    for place in ("environment", "command line"):
        if not is_grid and {"validation", "test"} & set(trees[place].get("data", {})):
            raise Stop(f"--folds {n}: chooses data.validation and data.test, which the {place} sets too")
    stem = settings.data.name if file == "environment" else Path(file).stem
    study = Path(settings.run_dir or (f"runs/{stem}" if is_grid else f"runs/{stem}-{n}-folds"))
    if (study / runs.CONFIG).exists():
        raise Stop(f"{study}: is a run; choose another --run_dir")
    trees["study"] = {"run_dir": str(study)}
    settings = config.validated(trees)
    if not is_grid:
        return fold_runs(settings, n), study / "folds.csv", settings
    origin = f"{file}: {GRID}"
    plan = grid_runs(trees, check_grid(grid, origin, trees), origin)
    if not all(run.settings.data.validation for run in plan):
        raise Stop(f"{origin}: data.validation is empty, and its rows are what ranks the runs")
    return plan, study / "grid.csv", settings


def main(argv: Sequence[str] | None = None) -> None:
    if script.rank()[1] > 1:
        raise Stop("study.py is not for torchrun: start it several times, and the processes share the runs")
    plan, path, settings = plan_of(argv)
    by_fold = path.name == "folds.csv"
    check_settings(plan)
    wanted = {} if by_fold else unprepared(plan, settings)
    config.print_overrides(settings)
    prepare(wanted)
    check(plan)

    def table_of(states: Sequence[str]) -> list[dict[str, Any]]:
        return fold_table(plan, states) if by_fold else grid_table(plan, states, settings.training.metric)

    try:
        states = carry_out(plan, lambda states: write_table(table_of(states), path))
    except SystemExit:
        print("the same command again goes on with this run and those after it")
        raise
    table = table_of(states)
    write_table(table, path)
    print(f"{as_markdown(table)}\n\ntable in {path}")
    if held := states.count(IN_USE):
        print(f"other processes are at work on {held} of {len(plan)} runs; the last one writes the whole table")
    if failed := sum(state.startswith("failed") for state in states):
        raise Stop(f"{failed} of {len(plan)} runs failed; {path} says why")


if __name__ == "__main__":
    script.run(main)
