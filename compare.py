"""Two runs on the same rows: how much one is better than the other, and whether that can be chance.

    print(compare(Path("runs/a"), Path("runs/b"), settings))

The differences of the macro scores have intervals over patients (intervals.py); McNemar's test looks at the rows that
only one of the two has right, DeLong's at the AUROC of each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, rankdata

import config
import evaluate
import metrics
import runs
from bundle import Bundle
from config import Settings
from data import Dataset
from decide import decide
from folds import Rows
from intervals import differences_of
from recipe import differences
from script import Stop, markdown_table

Array = NDArray[Any]
SCORES = ("accuracy", "macro_f1", "macro_auroc", "macro_average_precision")


class Side(NamedTuple):
    """A run, and the rows of a split of its own dataset."""

    run: Path
    settings: Settings  # its own, but for how it is evaluated
    trained: Bundle
    dataset: Dataset
    rows: Rows  # all rows of the split
    first: Rows  # (N,) what is scored, each unit by its first row

    @property
    def targets(self) -> Array:
        """The labels of what is scored, (N, K)."""
        return self.dataset.labels[self.first]

    @property
    def patients(self) -> Array:
        """The patients of what is scored, (N,)."""
        return self.dataset.patient[self.first]

    @property
    def scored(self) -> list[int]:
        """The classes that enter the macro scores, as places in those of the dataset."""
        return [self.dataset.classes.index(name) for name in self.settings.data.scored_classes or self.dataset.classes]


def open_sides(folders: Sequence[Path], settings: Settings) -> list[Side]:
    """Open runs that are to be scored as `settings.evaluation` says.

    Raises
    ------
    Stop
        They know different classes, or their splits have different rows; other settings than the first run's are given.
    """
    first, asked = (config.of_the_work(of) for of in (runs.settings_of(folders[0]), settings))
    if changes := differences(first, asked):
        raise Stop(f"{'; '.join(changes)}: each of several runs is scored by its own settings, but for evaluation")
    sides = []
    for folder in folders:
        own = runs.settings_of(folder).model_copy(update={"evaluation": settings.evaluation})
        sides.append(side_of(folder, own, *evaluate.open_run(folder, own)))
    for side in sides[1:]:
        check_alike(sides[0], side)
    return sides


def side_of(run: Path, settings: Settings, trained: Bundle, dataset: Dataset, rows: Rows) -> Side:
    """Return a run with the rows of a split, and with what of them is scored as one."""
    units = rows if settings.evaluation.windows else dataset.units(rows)
    return Side(run, settings, trained, dataset, rows, rows[np.unique(units, return_index=True)[1]])


def on_split(sides: Sequence[Side], split: str) -> list[Side]:
    """Return open runs with the rows of another split; Stop as `open_sides` does."""
    others = []
    for run, settings, trained, dataset, *_ in sides:
        evaluation = settings.evaluation.model_copy(update={"split": split})
        own = settings.model_copy(update={"evaluation": evaluation})
        others.append(side_of(run, own, trained, dataset, evaluate.rows_of(dataset, own)))
    for side in others[1:]:
        check_alike(others[0], side)
    return others


def check_alike(one: Side, other: Side) -> None:
    """Stop where two runs know different classes, or are scored on different rows."""
    (classes, task), (others, other_task) = ((side.dataset.classes, side.dataset.task) for side in (one, other))
    if (classes, task) != (others, other_task):
        raise Stop(
            f"{one.run} knows classes {', '.join(classes)} ({task}), {other.run} {', '.join(others)} ({other_task})"
        )
    names, other_names = (side.dataset.names(side.first) for side in (one, other))
    if not np.array_equal(names, other_names) or not np.array_equal(one.targets, other.targets):
        raise Stop(f"{one.run} and {other.run} are scored on different rows, {len(names):,} and {len(other_names):,}")


def scores_of(side: Side) -> Array:
    """Score what a side holds by its own checkpoint, (N, K), 0 to 1."""
    return evaluate.score_split(side.trained, side.dataset, side.rows, side.settings)[1]


def compare(first: Path, second: Path, settings: Settings) -> str:
    """Return the comparison of two runs as Markdown; Stop where they know other classes or are scored on other rows."""
    sides = open_sides((first, second), settings)
    classes, task, targets = sides[0].dataset.classes, sides[0].dataset.task, sides[0].targets
    patients, columns = sides[0].patients, sides[0].scored
    scores = [scores_of(side) for side in sides]
    limits = [side.trained.thresholds for side in sides]
    named = [classes[c] for c in columns]
    reports = [
        metrics.scores_of(targets, of, classes, task, limit, named) for of, limit in zip(scores, limits, strict=True)
    ]
    decided = [decide(of, task, limit) for of, limit in zip(scores, limits, strict=True)]
    between = differences_of(targets, (scores[0], decided[0]), (scores[1], decided[1]), patients, columns)
    of_all = []
    for name in SCORES:
        values = [getattr(report, name) for report in reports]
        if None not in values:
            low_high = "({:+.3f} to {:+.3f})".format(*between[name]) if name in between else ""
            difference = f"{values[1] - values[0]:+.4f} {low_high}"
            of_all.append([name.replace("_", " "), *(f"{value:.4f}" for value in values), difference])
    only_one, only_other, p = mcnemar(targets, *decided)
    of_classes = []
    for c, name in enumerate(classes):
        if 0 < targets[:, c].sum(dtype=int) < len(targets):
            a, b, p_of_class = delong(targets[:, c], *(of[:, c] for of in scores))
            of_classes.append([name, f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}", f"{p_of_class:.3g}"])
    header = ["", str(first), str(second), "difference (95 % interval over patients)"]
    header_of_classes = ["class", "AUROC of the first", "of the second", "difference", "p (DeLong)"]
    leaks = "".join(dict.fromkeys(side.dataset.summary.warning for side in sides))
    return (
        f"# {second} against {first}: {len(targets):,} {settings.evaluation.split} rows, "
        f"{sides[0].dataset.patients(sides[0].first)}\n\n{leaks}{markdown_table(header, of_all)}\n\n"
        f"Rows that only the first has right: {only_one:,}; only the second: {only_other:,}. "
        f"McNemar's exact test: p = {p:.3g}.\n\n{markdown_table(header_of_classes, of_classes)}\n"
    )


def mcnemar(targets: Array, one: Array, other: Array) -> tuple[int, int, float]:
    """Return the rows that only `one`, and only `other`, has right, and the p of McNemar's exact test (1947)."""
    right = [(targets == decided).all(axis=1) for decided in (one, other)]
    only_one, only_other = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    n = only_one + only_other
    return only_one, only_other, float(binomtest(only_one, n, 0.5).pvalue) if n else 1.0


def delong(target: Array, one: Array, other: Array) -> tuple[float, float, float]:
    """Return the AUROCs of two scores (N,) of the same rows, and the p of their difference.

    DeLong, DeLong and Clarke-Pearson 1988, by the midranks of Sun and Xu 2014 (doi 10.1109/LSP.2014.2337313).
    """
    present = target > 0
    m, n = int(present.sum()), int((~present).sum())
    parts_of_present, parts_of_absent, aurocs = [], [], []
    for score in (one, other):
        ranks = rankdata(score)
        parts_of_present.append((ranks[present] - rankdata(score[present])) / n)  # share of the absent below each
        parts_of_absent.append(1 - (ranks[~present] - rankdata(score[~present])) / m)
        aurocs.append(float(parts_of_present[-1].mean()))
    variance = 0.0
    for parts, count in ((parts_of_present, m), (parts_of_absent, n)):
        variance += float(np.var(parts[1] - parts[0], ddof=1)) / count if count > 1 else 0.0
    if variance <= 0:
        return aurocs[0], aurocs[1], 1.0 if aurocs[0] == aurocs[1] else 0.0
    return aurocs[0], aurocs[1], float(2 * norm.sf(abs(aurocs[1] - aurocs[0]) / np.sqrt(variance)))
