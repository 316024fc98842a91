"""The scores of a set of rows, for training and evaluation. scikit-learn computes every one of them.

    report = scores_of(targets, scores, classes=("N", "S", "V"), task="multiclass")
    report.macro_f1, report.per_class[1].recall
    Path("metrics.json").write_text(json.dumps(report.tree()))
    Path("report.md").write_text(report_markdown(report))

Where a score has no value:

- precision (nothing decided for the class), recall and F1 (no row of the class) are 0 where they would divide by zero
  (`zero_division=0`), and enter macro means as that 0: a class nobody found does not improve the mean. Classes without
  a row are listed in `classes_without_rows`, and the table of `report_markdown` has dashes for them.
- AUROC of a class without positive or without negative rows, and average precision of a class without positive rows,
  are None (null in JSON) and left out of the macro mean; `macro_auroc_classes` and `macro_average_precision_classes`
  say how many classes entered. Without any, the mean is None as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    hamming_loss,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from decide import TASKS, decide, thresholds_of
from script import markdown, markdown_table

Array = NDArray[Any]
ZERO_DIVISION = 0.0
BINS = 10  # of the calibration error


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class against all others, 0..1."""

    name: str
    support: int  # rows of the class
    decided: int  # rows decided to be of it
    precision: float
    recall: float
    f1: float
    auroc: float | None
    average_precision: float | None

    def tree(self) -> dict[str, Any]:
        """Return the scores as JSON and CSV hold them."""
        return {"class" if key == "name" else key: value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Report:
    """All scores of a set of rows, 0..1; macro scores are means over the scored classes."""

    task: str
    n_rows: int
    classes: tuple[str, ...]
    scored_classes: tuple[str, ...]  # those that enter the macro scores
    thresholds: tuple[float, ...] | None  # (K,); None where the highest score decides
    classes_without_rows: tuple[str, ...]
    accuracy: float  # fraction of rows with every class right (multilabel: exact match)
    mean_class_accuracy: float | None  # fraction of right decisions over all classes; None for multiclass
    macro_f1: float
    macro_precision: float
    macro_recall: float
    micro_f1: float
    micro_precision: float
    micro_recall: float
    weighted_f1: float
    weighted_precision: float
    weighted_recall: float
    macro_auroc: float | None
    macro_auroc_classes: int
    micro_auroc: float | None
    macro_average_precision: float | None
    macro_average_precision_classes: int
    micro_average_precision: float | None
    brier: float | None  # mean squared distance of scores from 0 and 1, over rows and classes; None of other scores
    calibration_error: float | None  # mean distance of ten bins' mean score from the share of positives in them (ECE)
    per_class: tuple[ClassScores, ...]
    # multiclass (K, K) rows, [class][decided]; multilabel (K, 2, 2) rows, [[TN, FP], [FN, TP]] of each class
    confusion: list[Any]

    def tree(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return {**asdict(self), "per_class": [scores.tree() for scores in self.per_class]}


def scores_of(
    targets: Array,
    scores: Array,
    classes: Sequence[str],
    task: str,
    thresholds: float | Sequence[float] | Array | None = None,
    scored: Sequence[str] = (),
) -> Report:
    """Compute all scores of a set of rows.

    Parameters
    ----------
    targets : (N, K) of 0 and 1, N at least 1; multiclass: exactly one 1 per row, K at least 2
    scores : (N, K) float, finite; AUROC and average precision use their order only
    classes : K different names
    task, thresholds : as in `decide`
    scored : the classes that enter the macro scores, each once, e.g. ("N", "S", "V") of beats; all where empty

    Raises
    ------
    ValueError
        what `decide` raises, shapes that disagree, no rows, targets other than described, unknown scored classes.
    """
    targets, classes, scored = np.asarray(targets), tuple(classes), tuple(scored or classes)
    scores = np.asarray(scores, dtype=np.float64)
    _check(targets, scores, classes, task)
    if len(set(scored)) != len(scored) or set(scored) - set(classes):
        raise ValueError(f"scored classes {', '.join(scored)}: must be some of {', '.join(classes)}, each once")
    columns = [classes.index(name) for name in scored]
    targets = targets.astype(np.uint8)
    decided = decide(scores, task, thresholds)  # (N, K)

    support = targets.sum(axis=0, dtype=int)  # (K,)
    auroc = _ranking(roc_auc_score, targets, scores, (support > 0) & (support < len(targets)), columns)
    precision = _ranking(average_precision_score, targets, scores, support > 0, columns)
    means: dict[str, float] = {}
    for average, used in (("macro", columns), ("micro", slice(None)), ("weighted", slice(None))):
        values = _f1(targets[:, used], decided[:, used], average)
        means |= {f"{average}_{name}": float(value) for name, value in values.items()}
    return Report(
        task=task,
        n_rows=len(targets),
        classes=classes,
        scored_classes=scored,
        thresholds=thresholds_of(task, len(classes), thresholds),
        classes_without_rows=tuple(name for name, n in zip(classes, support, strict=True) if n == 0),
        accuracy=float(accuracy_score(targets, decided)),
        mean_class_accuracy=float(1 - hamming_loss(targets, decided)) if task == "multilabel" else None,
        **means,
        macro_auroc=auroc.macro,
        macro_auroc_classes=auroc.n_macro,
        micro_auroc=auroc.micro,
        macro_average_precision=precision.macro,
        macro_average_precision_classes=precision.n_macro,
        micro_average_precision=precision.micro,
        brier=float(((scores - targets) ** 2).mean()) if (scores >= 0).all() and (scores <= 1).all() else None,
        calibration_error=_calibration_error(targets, scores),
        per_class=_class_scores(targets, decided, classes, auroc, precision),
        confusion=_confusion(targets, decided, task).tolist(),
    )


class Ranking(NamedTuple):
    """AUROC or average precision."""

    per_class: list[float | None]  # None where it is not defined
    macro: float | None
    n_macro: int  # classes that enter the macro mean
    micro: float | None  # over all decisions


def _class_scores(
    targets: Array, decided: Array, classes: tuple[str, ...], auroc: Ranking, precision: Ranking
) -> tuple[ClassScores, ...]:
    values = _f1(targets, decided, average=None)  # each (K,)
    counts = targets.sum(axis=0, dtype=int).tolist(), decided.sum(axis=0, dtype=int).tolist()
    thirds = [values[name].tolist() for name in ("precision", "recall", "f1")]
    columns = zip(classes, *counts, *thirds, auroc.per_class, precision.per_class, strict=True)
    return tuple(ClassScores(*column) for column in columns)


def _check(targets: Array, scores: Array, classes: Sequence[str], task: str) -> None:
    if task not in TASKS:
        raise ValueError(f"task {task!r}: must be one of {', '.join(TASKS)}")
    if targets.ndim != 2 or targets.shape != scores.shape or targets.shape[1] != len(classes):
        raise ValueError(
            f"targets {targets.shape} and scores {scores.shape}: both must be (N, {len(classes)}), rows by classes"
        )
    if len(targets) == 0:
        raise ValueError("targets: no rows, nothing to score")
    if len(set(classes)) != len(classes):
        raise ValueError(f"classes {', '.join(classes)}: names must differ")
    if not np.isin(targets, (0, 1)).all():
        raise ValueError("targets: must be 0 or 1")
    if task == "multiclass":
        if len(classes) < 2:
            raise ValueError(f"class {', '.join(classes)} alone: multiclass needs at least 2; one class is multilabel")
        wrong = np.flatnonzero(targets.sum(axis=1, dtype=int) != 1)
        if len(wrong):
            raise ValueError(f"targets: {len(wrong)} rows without exactly one class, first row {wrong[0]}")


def _f1(targets: Array, decided: Array, average: str | None) -> dict[str, Any]:
    """Return precision, recall and f1 over the columns of two (N, K) arrays: (K,) each, or their mean."""
    columns = list(range(targets.shape[1]))
    if len(columns) == 1:  # scikit-learn takes one column for a binary problem, where class 1 is the column
        targets, decided, columns = targets[:, 0], decided[:, 0], [1]
    values = precision_recall_fscore_support(
        targets, decided, labels=columns, average=average, zero_division=ZERO_DIVISION
    )
    return dict(zip(("precision", "recall", "f1"), values, strict=False))


def _ranking(score: Any, targets: Array, scores: Array, defined: Array, columns: list[int]) -> Ranking:
    """Compute a score that looks at the order of scores only.

    Parameters
    ----------
    score : a function of scikit-learn
    targets, scores : (N, K)
    defined : (K,) whether a class has the rows that it takes
    columns : the classes that enter the macro mean, as far as they are defined
    """
    each = range(targets.shape[1])
    per_class = [float(score(targets[:, k], scores[:, k])) if defined[k] else None for k in each]
    usable = [k for k in columns if defined[k]]
    macro = float(score(targets[:, usable], scores[:, usable], average="macro")) if usable else None
    # micro: every cell of the (N, K) table is one decision, so a class without rows still counts by its negatives
    positives = targets.sum(dtype=int)
    has_micro = 0 < positives < targets.size or (positives > 0 and score is average_precision_score)
    micro = float(score(targets.ravel(), scores.ravel())) if has_micro else None
    return Ranking(per_class, macro, len(usable), micro)


def _calibration_error(targets: Array, scores: Array) -> float | None:
    """Return the expected calibration error of all decisions, in ten bins of equal width (Guo et al. 2017)."""
    if (scores < 0).any() or (scores > 1).any():
        return None
    place = np.minimum((scores * BINS).astype(int), BINS - 1).ravel()
    gaps = np.bincount(place, (scores - targets).ravel(), BINS)  # of each bin, the sum over its decisions
    return float(np.abs(gaps).sum() / targets.size)


def _confusion(targets: Array, decided: Array, task: str) -> Array:
    """Count rows: (K, K) of one class decided for another, or for multilabel (K, 2, 2)."""
    columns = list(range(targets.shape[1]))
    if task == "multiclass":
        table: Array = confusion_matrix(targets.argmax(axis=1), decided.argmax(axis=1), labels=columns)
    elif len(columns) == 1:
        table = multilabel_confusion_matrix(targets[:, 0], decided[:, 0], labels=[1])
    else:
        table = multilabel_confusion_matrix(targets, decided, labels=columns)
    return table


# ---------------------------------------------------------------------------------------------------------- the report

MAX_CONFUSION_COLUMNS = 20  # a wider table is no longer read; the most frequent confusions are listed instead


def report_markdown(report: Report, intervals: Mapping[str, tuple[float, float]] | None = None) -> str:
    """Return a report as Markdown: overall scores with their intervals, one line per class, the confusion matrix."""
    sections = [_overall_section(report, intervals or {}), _classes_section(report), _confusion_section(report)]
    return "\n\n".join(sections) + "\n"


def _overall_section(report: Report, intervals: Mapping[str, tuple[float, float]]) -> str:
    def value(name: str) -> str:
        between = f" ({intervals[name][0]:.3f} to {intervals[name][1]:.3f})" if name in intervals else ""
        return _number(getattr(report, name)) + between

    multilabel = report.task == "multilabel"
    rows = [("accuracy" + (" (all classes of a row right)" if multilabel else ""), value("accuracy"))]
    if multilabel:
        rows.append(("accuracy, mean over classes", _number(report.mean_class_accuracy)))
    some = "" if report.scored_classes == report.classes else f" of {', '.join(report.scored_classes)}"
    for score, label in (("f1", "F1"), ("precision", "precision"), ("recall", "recall")):
        for mean, which in (("macro", some), ("micro", ""), ("weighted", "")):
            rows.append((f"{mean} {label}{which}", value(f"{mean}_{score}")))
    for score, label in (("auroc", "AUROC"), ("average_precision", "average precision")):
        entered = f"over {getattr(report, f'macro_{score}_classes')} of {len(report.scored_classes)} classes"
        rows.append((f"macro {label}{some}, {entered}", value(f"macro_{score}")))
        rows.append((f"micro {label}", value(f"micro_{score}")))
    rows += [("Brier score", value("brier")), ("calibration error", value("calibration_error"))]
    kind = "any number of classes per row" if multilabel else "one class per row"
    text = f"{report.n_rows:,} rows, {len(report.classes)} classes, {kind} ({report.task}). Scores are 0 to 1."
    if intervals:
        text += " In brackets the 95 % interval over patients."
    absent = [name for name in report.classes_without_rows if name in report.scored_classes]
    if absent:
        text += f" Without a row, and with an F1 of 0 in the macro means: {', '.join(map(markdown, absent))}."
    return f"## Overall\n\n{text}\n\n" + markdown_table(("score", "value"), rows)


def _classes_section(report: Report) -> str:
    header = ["class", "rows", "decided", "precision", "recall", "F1", "AUROC", "average precision"]
    keys = ("precision", "recall", "f1", "auroc", "average_precision")
    rows = []
    for k, entry in enumerate(report.per_class):
        row = [entry.name, f"{entry.support:,}", f"{entry.decided:,}", *(_class_number(entry, key) for key in keys)]
        rows.append(row if report.thresholds is None else [*row, _number(report.thresholds[k])])
    text = "Rows of the class and rows decided to be of it; a dash where a score has no value."
    if report.thresholds is not None:
        header.append("threshold")
        text += " A class is decided at or above its threshold."
    return f"## Per class\n\n{text}\n\n" + markdown_table(header, rows)


def _confusion_section(report: Report) -> str:
    classes, confusion = report.classes, report.confusion
    if report.task == "multilabel":
        text = "Rows of each class against all others."
        header = ["class", "true negative", "false positive", "false negative", "true positive"]
        rows = [
            [name, *(f"{n:,}" for side in table for n in side)] for name, table in zip(classes, confusion, strict=True)
        ]
    elif len(classes) <= MAX_CONFUSION_COLUMNS:
        text = "Rows: one line per class, one column per class decided."
        header = ["class", *classes]
        rows = [[name, *(f"{n:,}" for n in line)] for name, line in zip(classes, confusion, strict=True)]
    else:
        text = f"The {MAX_CONFUSION_COLUMNS} most frequent confusions, in rows."
        header = ["class", "decided", "rows"]
        pairs = [
            (n, i, j) for i, line in enumerate(confusion) for j, n in enumerate(line) if i != j and n > 0
        ]  # (rows, class, decided)
        pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
        rows = [[classes[i], classes[j], f"{n:,}"] for n, i, j in pairs[:MAX_CONFUSION_COLUMNS]]
    return f"## Confusion\n\n{text}\n\n" + markdown_table(header, rows)


def _class_number(entry: ClassScores, key: str) -> str:
    """Return a score of a class, or a dash: no row is of the class, or for precision none was decided to be."""
    has_value = entry.support > 0 and (key != "precision" or entry.decided > 0)
    return _number(getattr(entry, key) if has_value else None)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
