"""Two runs on the same rows: how much one is better than the other, and whether that can be chance.

    print(compare(Path("runs/a"), Path("runs/b"), settings))

The differences of the macro scores have intervals over patients (intervals.py); McNemar's test looks at the rows that
only one of the two has right, DeLong's at the AUROC of each class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, rankdata

import evaluate
import metrics
import runs
from config import Settings
from decide import decide
from intervals import differences_of
from script import Stop

Array = NDArray[Any]
SCORES = ("accuracy", "macro_f1", "macro_auroc", "macro_average_precision")


class Answer(NamedTuple):
    """What a run says of the rows of a split."""

    classes: tuple[str, ...]
    task: str
    thresholds: tuple[float, ...] | None
    scored: tuple[str, ...]  # classes that enter the macro scores
    names: Array  # (N,) record and start of each row
    patients: Array  # (N,)
    targets: Array  # (N, K)
    scores: Array  # (N, K)


def answer_of(run: Path, settings: Settings) -> Answer:
    """Score the split of a run's own dataset by its own checkpoint."""
    own = runs.settings_of(run).model_copy(update={"evaluation": settings.evaluation})
    trained, dataset, rows = evaluate.open_run(run, own)
    rows, scores = evaluate.score_split(trained, dataset, rows, own)
    names = np.char.add(dataset.record[rows], np.char.add(b" ", dataset.start[rows].astype("S20")))
    scored = tuple(own.data.scored_classes) or dataset.classes
    return Answer(
        dataset.classes, dataset.task, trained.thresholds, scored,
        names, dataset.patient[rows], dataset.labels[rows], scores,
    )  # fmt: skip


def compare(first: Path, second: Path, settings: Settings) -> str:
    """Return the comparison of two runs as Markdown.

    Raises
    ------
    Stop
        They know different classes, or were scored on different rows.
    """
    one, other = answer_of(first, settings), answer_of(second, settings)
    if one.classes != other.classes or one.task != other.task:
        raise Stop(f"{first} knows classes {', '.join(one.classes)}, {second} {', '.join(other.classes)}")
    if not np.array_equal(one.names, other.names) or not np.array_equal(one.targets, other.targets):
        raise Stop(f"{first} and {second} are scored on different rows, {len(one.names):,} and {len(other.names):,}")
    reports = [
        metrics.scores_of(of.targets, of.scores, of.classes, of.task, of.thresholds, one.scored) for of in (one, other)
    ]
    decided = [decide(of.scores, of.task, of.thresholds) for of in (one, other)]
    columns = [one.classes.index(name) for name in one.scored]
    between = differences_of(one.targets, (one.scores, decided[0]), (other.scores, decided[1]), one.patients, columns)
    text = [
        f"# {second} against {first}: {len(one.names):,} {settings.evaluation.split} rows of "
        f"{len(np.unique(one.patients)):,} patients\n",
        f"| | {first} | {second} | difference (95 % interval over patients) |",
        "|---|---|---|---|",
    ]
    for name in SCORES:
        values = [getattr(report, name) for report in reports]
        if None not in values:
            low_high = "({:+.3f} to {:+.3f})".format(*between[name]) if name in between else ""
            difference = f"{values[1] - values[0]:+.4f} {low_high}"
            text.append(f"| {name.replace('_', ' ')} | {values[0]:.4f} | {values[1]:.4f} | {difference} |")
    only_one, only_other, p = mcnemar(one.targets, *decided)
    text.append(
        f"\nRows that only the first has right: {only_one:,}; only the second: {only_other:,}. "
        f"McNemar's exact test: p = {p:.3g}.\n"
    )
    text += ["| class | AUROC of the first | of the second | difference | p (DeLong) |", "|---|---|---|---|---|"]
    for c, name in enumerate(one.classes):
        if 0 < one.targets[:, c].sum(dtype=int) < len(one.targets):
            a, b, p = delong(one.targets[:, c], one.scores[:, c], other.scores[:, c])
            text.append(f"| {name} | {a:.4f} | {b:.4f} | {b - a:+.4f} | {p:.3g} |")
    return "\n".join(text) + "\n"


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
