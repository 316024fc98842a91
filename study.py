"""Many runs and one table of them: the folds of a dataset in turn, or a grid of settings.

    python study.py --config configs/mitdb.yaml --folds 10    # runs/mitdb-10-folds/: fold-0, fold-1, ..., folds.csv
    python study.py --config grid.yaml                        # runs/grid/: a folder for each run, grid.csv

A grid is a file of settings with one section more, which names settings by their dots and lists their values:

    data: {name: cinc2017}
    grid:
      training.learning_rate: [0.001, 0.003]
      model.name: [cnn1d, resnet1d, s4]

Each run is what train.py makes of the same settings. Of the folds each is tested once, the next one chooses the epoch,
and the rest are learnt from. The same command again leaves finished runs as they are and goes on with the others; in
several processes at a time it shares the runs. SIGTERM and Ctrl-C end the current training as they end train.py.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

import bundle
import config
import runs
import script
import train
from compare import SCORES
from config import Settings
from data import Dataset
from metrics import markdown_table
from recipe import differences, flatten
from script import Stop

GRID = "grid"  # the section of the YAML
# What changes a training of a dataset that is prepared; all else is for preprocess.py or for later.
VARIED = ("model.", "training.", "data.dir", "data.train", "data.validation", "data.test", "data.scored_classes")
FINISHED, UNFINISHED, IN_USE = "finished", "unfinished", "in use"


class Run(NamedTuple):
    """One training of a study."""

    values: dict[str, Any]  # what sets it apart from the other runs, e.g. {"training.learning_rate": 0.001}
    settings: Settings

    @property
    def folder(self) -> Path:
        return self.settings.run_folder

    @property
    def split(self) -> str:
        """The rows that the report of train.py is about."""
        return self.settings.evaluation.split if self.settings.data.test else "validation"

    @property
    def metrics(self) -> Path:
        """The scores that the report of train.py holds."""
        return self.folder / (runs.REPORT if self.split == "test" else f"{runs.REPORT}-{self.split}") / "metrics.json"

    def state(self) -> str:
        """Tell whether it is trained to its end and scored."""
        done = self.metrics.exists() and bundle.is_finished(self.folder / runs.LAST)
        return FINISHED if done else UNFINISHED


# ------------------------------------------------------------------------------------------------ folds


def fold_groups(dataset: Dataset, n: int) -> list[tuple[str, ...]]:
    """Return the numbered folds of a dataset in n groups of neighbours, all of the same size.

    Raises
    ------
    Stop
        They cannot be grouped so, or there are fewer than three: one to test, one to choose the epoch, one to learn.
    """
    names = [name.decode() for name in np.unique(dataset.fold)]
    numbered = sorted((name for name in names if name.isdigit()), key=int)
    possible = [str(m) for m in range(3, len(numbered) + 1) if len(numbered) % m == 0]
    if str(n) not in possible:
        ways = f"possible are {', '.join(possible)}" if possible else "three or more that are numbers are needed"
        again = "; or prepare it with another --data.folds" if dataset.summary.data["split"] != "official" else ""
        raise Stop(f"--folds {n}: {dataset.folder} has folds {', '.join(names)}: {ways}{again}")
    size = len(numbered) // n
    return [tuple(numbered[first : first + size]) for first in range(0, len(numbered), size)]


def fold_runs(settings: Settings, n: int) -> list[Run]:
    """Return a run for each group of folds: that group is tested, the next one chooses the epoch, the rest are learnt.

    The variants of a fold are learnt with it. Any other fold, e.g. `paced`, is learnt where data.train names it.
    """
    dataset = train.open_dataset(settings)
    groups, present = fold_groups(dataset, n), set(np.unique(dataset.fold).astype(str))
    always = [name for name in settings.data.train if not name.removesuffix("+").isdigit()]
    plan = []
    for k, test in enumerate(groups):
        validation = groups[(k + 1) % n]
        learnt = [name for group in groups for name in group if group not in (test, validation)]
        learnt += [f"{name}+" for name in learnt if f"{name}+" in present] + always
        name = "-".join(test)
        parts = {"train": tuple(learnt), "validation": validation, "test": test}
        run_dir = str(settings.run_folder / f"fold-{name}")
        chosen = settings.model_copy(update={"run_dir": run_dir, "data": settings.data.model_copy(update=parts)})
        plan.append(Run({"fold": name}, chosen))
        check_classes(plan[-1], dataset)
    return plan


def check_classes(run: Run, dataset: Dataset) -> None:
    """Stop where a class has rows and none to learn from; warn of one that has none to test."""
    data, name = run.settings.data, run.values["fold"]
    splits = dataset.splits(data.train, data.validation, data.test)
    counts = {split: dataset.labels[rows].sum(axis=0, dtype=np.int64) for split, rows in splits.items()}
    scored = np.isin(dataset.classes, data.scored_classes or dataset.classes)
    there = scored & (sum(counts.values()) > 0)
    for k in np.flatnonzero(there & (counts["train"] == 0)):
        where = np.unique(dataset.fold[dataset.labels[:, k] > 0]).astype(str)
        raise Stop(
            f"fold {name}: no row of class {dataset.classes[k]} is left to learn from; all are in folds "
            f"{', '.join(where)}: prepare it with another --data.seed, or leave the class out of --data.scored_classes"
        )
    missing = np.array(dataset.classes)[there & (counts["test"] == 0)]
    if len(missing):
        print(f"warning: fold {name} has no row of {', '.join(missing)}: 0 in its macro F1", file=sys.stderr)


# ------------------------------------------------------------------------------------------------ grids


def check_grid(grid: Any, origin: str, trees: Mapping[str, dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the grid; Stop where it is not a list of values for each of some settings that a training depends on."""
    if not isinstance(grid, dict) or not grid:
        raise Stop(f"{origin}: must name settings and list their values, e.g. training.learning_rate: [0.001, 0.003]")
    valid = flatten(Settings().tree())
    for key, values in grid.items():
        if str(key) not in valid and not str(key).startswith("model.arguments."):
            inside = [name for name in valid if name.startswith(f"{key}.")]
            hint = f"; name its settings, e.g. {inside[0]}" if inside else script.nearest(str(key), valid)
            raise Stop(f"{origin}: unknown setting {key}{hint}")
        if not key.startswith(VARIED):
            raise Stop(f"{origin}: {key} does not change a training of prepared data; data.dir takes several datasets")
        if not isinstance(values, list) or not values:
            raise Stop(f"{origin}: {key} = {values!r}: must be a list of one or more values")
        for place in ("environment", "command line"):
            if key in flatten(trees[place]):
                raise Stop(f"{origin}: {key} is set in the {place} too")
    if "model.arguments" in grid and any(key.startswith("model.arguments.") for key in grid):
        raise Stop(f"{origin}: model.arguments and one of its names; give one or the other")
    return grid


def grid_runs(trees: Mapping[str, dict[str, Any]], grid: Mapping[str, list[Any]], origin: str) -> list[Run]:
    """Return a run for each combination of the values, each in a folder that they name."""
    base = config.validated(trees)
    tails = [key.rpartition(".")[2] for key in grid]
    labels = [key if tails.count(tail) > 1 else tail for key, tail in zip(grid, tails, strict=True)]
    plan: dict[str, Run] = {}
    for combination in product(*grid.values()):
        settings = config.validated({**trees, origin: tree_of(dict(zip(grid, combination, strict=True)), base)})
        values = {key: value_of(settings.tree(), key) for key in grid}
        name = ",".join(f"{label}={plain(value)}" for label, value in zip(labels, values.values(), strict=True))
        if name in plan:
            raise Stop(f"{origin}: two runs are {name}; each value once")
        plan[name] = Run(values, settings.model_copy(update={"run_dir": str(settings.run_folder / name)}))
    return list(plan.values())


def tree_of(values: Mapping[str, Any], base: Settings) -> dict[str, Any]:
    """Return values by dotted names as a tree of settings; arguments of the network are beside those of the base."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, dict(base.model.arguments) if part == "arguments" else {})
        node[last] = value
    return tree


def value_of(tree: Any, key: str) -> Any:
    """Return what a tree of settings holds under a dotted name."""
    for part in key.split("."):
        tree = tree[part]
    return tree


def plain(value: Any) -> str:
    """Return a value as a part of the name of a folder."""
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")


# ------------------------------------------------------------------------------------------------ before the first run


def check(plan: Sequence[Run]) -> None:
    """Stop where a training of the plan could not begin, or would meet another one in its folder."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    opened: dict[tuple[Any, ...], Dataset] = {}
    for run in plan:
        settings = run.settings
        try:
            if settings.training.objective != "labels":
                raise Stop(f"training.objective = {settings.training.objective}: has no scores to make a table of")
            train.check_training(settings.training, 1, device)
            key = (*settings.data_dirs, settings.data.scored_classes)
            dataset = opened[key] if key in opened else opened.setdefault(key, train.open_dataset(settings))
            rows = dataset.splits(settings.data.train, settings.data.validation, settings.data.test)
            train.check_rows(dataset, rows, settings)
            trained = train.new_bundle(settings, dataset, torch.device("cpu"))
            if settings.model.pretrained:
                train.take_over(trained, settings.model.pretrained)
            train.new_state(train.learner_of(trained, settings.training), trained.name, settings.training, None)
        except (Stop, ValueError) as error:
            raise Stop(f"{run.folder}: {error}") from error
        if (run.folder / runs.CONFIG).exists():
            asked = settings.model_copy(update={"recipe": dataset.recipe})
            old, new = (config.of_the_work(each) for each in (runs.settings_of(run.folder), asked))
            if changes := differences(old, new):
                raise Stop(f"{run.folder} has other settings ({'; '.join(changes)}); choose another --run_dir")


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
    with (run.folder / runs.METRICS).open(newline="") as file:
        epoch = next((line for line in csv.DictReader(file) if int(line["epoch"]) == report["epoch"]), {})
    validation = ("validation_loss", *runs.PANELS["validation score"])
    return {
        "rows": report["n_rows"],
        "epoch": report["epoch"],
        **{name: float(epoch[name]) for name in validation if epoch.get(name)},
        **{name: report[name] for name in SCORES},
        **{f"f1_{each['class']}": each["f1"] if each["support"] else None for each in report["per_class"]},
    }


def fold_table(plan: Sequence[Run], states: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each fold, and the mean and the sample deviation of the finished ones."""
    table = [{**run.values, "state": state, **scores_of(run, state)} for run, state in zip(plan, states, strict=True)]
    names = [name for row in table for name in row if name in SCORES or name.startswith("f1_")]
    values = {name: [row[name] for row in table if row.get(name) is not None] for name in names}
    means = {name: float(np.mean(each)) for name, each in values.items() if each}
    deviations = {name: float(np.std(each, ddof=1)) for name, each in values.items() if len(each) > 1}
    n = f"{states.count(FINISHED)} of {len(plan)} folds"
    return [*table, {"fold": "mean", "state": n, **means}, {"fold": "deviation", "state": n, **deviations}]


def grid_table(plan: Sequence[Run], states: Sequence[str], metric: str) -> list[dict[str, Any]]:
    """Return a row for each run, the best by its validation rows first."""
    table = []
    for run, state in zip(plan, states, strict=True):
        scores = {f"{run.split}_{key}" if key in SCORES else key: value for key, value in scores_of(run, state).items()}
        table.append({"run": run.folder.name, **run.values, "state": state, **scores})
    sign, column = (1 if metric == "loss" else -1), f"validation_{metric}"
    return sorted(table, key=lambda row: sign * row[column] if column in row else float("inf"))


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
    check(plan)
    config.print_overrides(settings)

    def table_of(states: Sequence[str]) -> list[dict[str, Any]]:
        by_fold = path.name == "folds.csv"
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
