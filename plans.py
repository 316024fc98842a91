"""The runs of a study: one for each group of folds, or one for each combination of a grid's values.

fold_runs(settings, 5)                                      # each fifth of the folds is tested once
grid_runs(trees, check_grid(grid, "grid.yaml: grid", trees), "grid.yaml: grid")
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import bundle
import checks
import config
import runs
import script
from config import Settings
from data import Dataset
from recipe import flatten
from script import Stop
from sources import source_of

TARGET = "data.target"
# What changes a training of a dataset that is prepared; all else is for preprocess.py or for later.
VARIED = ("model.", "training.", "data.dir", "data.train", "data.validation", "data.test", "data.scored_classes")
FINISHED, UNFINISHED = "finished", "unfinished"


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
    dataset = checks.open_dataset(settings)
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
        if key != TARGET and not key.startswith(VARIED):
            raise Stop(f"{origin}: {key} does not change a training of prepared data; data.dir takes several datasets")
        if not isinstance(values, list) or not values:
            raise Stop(f"{origin}: {key} = {values!r}: must be a list of one or more values")
        for place in ("environment", "command line"):
            if key in flatten(trees[place]):
                raise Stop(f"{origin}: {key} is set in the {place} too")
    if "model.arguments" in grid and any(key.startswith("model.arguments.") for key in grid):
        raise Stop(f"{origin}: model.arguments and one of its names; give one or the other")
    if TARGET in grid and "data.dir" in grid:
        raise Stop(f"{origin}: {TARGET} and data.dir; each target has a folder of its own, so leave data.dir out")
    return grid


def grid_runs(trees: Mapping[str, dict[str, Any]], grid: Mapping[str, list[Any]], origin: str) -> list[Run]:
    """Return a run for each combination of the values, each in a folder that they name."""
    base = config.validated(trees)
    tails = [key.rpartition(".")[2] for key in grid]
    labels = [key if tails.count(tail) > 1 else tail for key, tail in zip(grid, tails, strict=True)]
    plan: dict[str, Run] = {}
    for combination in product(*grid.values()):
        settings = config.validated({**trees, origin: tree_of(dict(zip(grid, combination, strict=True)), base)})
        if TARGET in grid:
            settings = of_target(settings)
        values = {key: value_of(settings.tree(), key) for key in grid}
        name = ",".join(f"{label}={plain(value)}" for label, value in zip(labels, values.values(), strict=True))
        if name in plan:
            raise Stop(f"{origin}: two runs are {name}; each value once")
        plan[name] = Run(values, settings.model_copy(update={"run_dir": str(settings.run_folder / name)}))
    return list(plan.values())


def of_target(settings: Settings) -> Settings:
    """Return the settings with the folder of their target: below data.dir, else prepared/<name>-<target>.

    Raises
    ------
    Stop
        The dataset has no such target, or data.dir names several folders.
    """
    name, targets = settings.data.name, list(source_of(settings.data.name).targets)
    target = settings.data.target or targets[0]
    if target not in targets:
        raise Stop(f"{TARGET} = {target!r}: {name} has {', '.join(targets)}{script.nearest(target, targets)}")
    if len(settings.data_dirs) > 1:
        raise Stop(f"data.dir = {settings.data.dir}: must be one folder where {TARGET} is varied")
    place = settings.data.dir / target if settings.data.dir else Path("prepared") / f"{name}-{target}"
    data = settings.data.model_copy(update={"target": target, "dir": place})
    return settings.model_copy(update={"data": data})


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
