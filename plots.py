"""Figures: the scores of a report, training curves, a prediction, the classes and rows of a prepared dataset.

    save_confusion(report, "report/confusion.png")          # report: what metrics.scores_of returned
    save_roc(targets, scores, classes, "report/roc.png")    # (N, K) each
    save_curves("runs/demo/metrics.csv", "runs/demo/curves.png")
    save_samples(data.Dataset(Path("prepared/demo")), "samples.png")

Each function draws into a matplotlib Figure of its own, without pyplot: no window, nothing that outlives the call.
The suffix of the path chooses the format. A file is written aside and renamed, so it is never half written.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

import pqrst
import script
from data import Dataset
from metrics import Report
from runs import PANELS

Array = npt.NDArray[Any]
MAX_CURVES = 20  # lines that can be told apart; of more classes the ten at either end are named, the others grey
MAX_WRITTEN = 20  # classes up to which every cell of the confusion matrix carries its number


def save_confusion(report: Report, path: str | Path) -> None:
    """Draw the confusion matrix in rows and as fractions of each true class.

    Multiclass: class by class decided. Multilabel: one line per class with its true and false negatives and positives,
    as fractions of the rows without the class and of the rows with it.
    """
    classes, counts = report.classes, np.asarray(report.confusion)  # (K, K) or (K, 2, 2)
    n = len(classes)
    shares = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)  # a class without rows: all 0
    if report.task == "multilabel":
        columns, label = ["TN", "FP", "FN", "TP"], "one class against all others"
        counts, shares = counts.reshape(n, 4), shares.reshape(n, 4)
        width, written = 3.5, True
    else:
        columns, label = list(classes), "class decided"
        width, written = max(3.5, 0.22 * n if n > MAX_WRITTEN else 0.55 * n), n <= MAX_WRITTEN
    height = max(3.0, 0.22 * n if n > MAX_WRITTEN else 0.4 * n)
    figure = Figure(figsize=(2 * width + 3, height + 1.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    kinds = ((counts, "rows", "{:,}"), (shares, "fraction of each true class", "{:.2f}"))
    for axes, (values, title, form) in zip(panels, kinds, strict=True):
        # a few classes hold most rows: the colour of counts goes by their square root
        tint = np.sqrt(values / max(values.max(), 1)) if values is counts else values
        axes.imshow(tint, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_title(title)
        axes.set_xlabel(label)
        rotation = 90 if max(map(len, columns)) > 3 else 0
        axes.set_xticks(range(len(columns)), _plain(columns), rotation=rotation, fontsize=7)
        axes.set_yticks(range(n), _plain(classes), fontsize=7)
        for i, j in np.ndindex(values.shape) if written else ():
            colour = "white" if tint[i, j] > 0.6 else "black"
            axes.text(j, i, form.format(values[i, j]), ha="center", va="center", color=colour, fontsize=7)
    panels[0].set_ylabel("class")
    _save(figure, path)


def save_roc(targets: Array, scores: Array, classes: Sequence[str], path: str | Path) -> None:
    """Draw the ROC curve of each class against all others; targets (N, K) of 0 and 1, scores (N, K)."""

    def curve(target: Array, score: Array) -> tuple[Array, Array, float]:
        false_positives, true_positives, _ = roc_curve(target, score)
        return false_positives, true_positives, float(roc_auc_score(target, score))

    figure, axes = _one_against_all(targets, scores, classes, curve, "AUROC")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.5, linestyle="--")  # chance
    axes.set_xlabel("false positive rate (1 - specificity)")
    axes.set_ylabel("true positive rate (sensitivity)")
    _save(figure, path)


def save_pr(targets: Array, scores: Array, classes: Sequence[str], path: str | Path) -> None:
    """Draw the precision-recall curve of each class against all others; targets (N, K) of 0 and 1, scores (N, K)."""

    def curve(target: Array, score: Array) -> tuple[Array, Array, float]:
        precision, recall, _ = precision_recall_curve(target, score, drop_intermediate=True)
        return recall, precision, float(average_precision_score(target, score))

    figure, axes = _one_against_all(targets, scores, classes, curve, "average precision")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision")
    _save(figure, path)


def save_calibration(targets: Array, scores: Array, classes: Sequence[str], path: str | Path, n_bins: int = 10) -> None:
    """Draw the fraction of rows of a class against the score that they got, in bins of equal width; scores 0..1."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError(f"scores {scores.min()} .. {scores.max()}: calibration needs probabilities, 0 to 1")

    def curve(target: Array, score: Array) -> tuple[Array, Array, float]:
        observed, predicted = calibration_curve(target, score, n_bins=n_bins)
        return predicted, observed, float(brier_score_loss(target, score))

    figure, axes = _one_against_all(targets, scores, classes, curve, "Brier score", marker=".")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.5, linestyle="--")  # calibrated
    axes.set_xlabel("score")
    axes.set_ylabel("fraction of rows that are of the class")
    _save(figure, path)


def save_f1(report: Report, path: str | Path) -> None:
    """Draw F1 of each class as a bar with its number of rows, and the macro mean as a line."""
    entries = report.per_class
    figure = Figure(figsize=(7, max(2.5, 1.2 + 0.2 * len(entries))), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(entries)), [entry.f1 for entry in entries], color="tab:blue", height=0.8)
    axes.axvline(report.macro_f1, color="tab:red", linewidth=1)
    axes.set_title(f"F1 per class; line: macro F1 {report.macro_f1:.3f}", fontsize=10)
    for k, entry in enumerate(entries):
        rows = f" {entry.f1:.2f}, {entry.support:,} rows"
        axes.text(entry.f1, k, rows, va="center", fontsize=7, clip_on=False)
    axes.set_yticks(range(len(entries)), _plain([entry.name for entry in entries]), fontsize=7)
    axes.set_ylim(len(entries) - 0.4, -0.6)  # first class on top
    axes.set_xlim(0, 1.25)  # room for the numbers beside a bar of 1
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_xlabel("F1")
    _save(figure, path)


def save_curves(metrics_csv: str | Path, path: str | Path) -> None:
    """Draw the training curves of a metrics.csv: losses, validation scores and learning rate over the epochs.

    A column without a value is left out, and so is a panel without columns (`runs.PANELS`). A line goes through epochs
    without a validation.

    Raises
    ------
    ValueError
        no column `epoch`, no row, or nothing to draw.
    """
    table = pd.read_csv(metrics_csv)
    if "epoch" not in table.columns or table.empty:
        raise ValueError(f"{metrics_csv}: needs a column epoch and at least one row; it has {list(table.columns)}")
    drawn = {name for name in table.columns if pd.api.types.is_numeric_dtype(table[name]) and table[name].notna().any()}
    panels = {label: [name for name in names if name in drawn] for label, names in PANELS.items()}
    panels = {label: names for label, names in panels.items() if names}
    if not panels:
        raise ValueError(f"{metrics_csv}: has no column that curves show; it has {list(table.columns)}")
    figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    for axes, (label, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name in names:
            values = table[["epoch", name]].dropna()
            title = name.removesuffix("_loss") if label == "loss" else name.removeprefix("validation_")
            axes.plot(values["epoch"], values[name], marker=".", label=_plain([title])[0])
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=7)
        elif (table[names[0]] > 0).all():
            axes.set_yscale("log")
    _save(figure, path)


STRIP_S = 10.0  # seconds of signal per line of a prediction
MAX_STRIPS = 6  # lines of a prediction of beats: the first minute


class Mark(NamedTuple):
    """A beat to be marked in a figure."""

    sample: int
    number: int  # of its class, which chooses the colour
    name: str


def save_prediction(record: pqrst.Record, title: str, path: str | Path, beats: Sequence[Mark] | None) -> None:
    """Draw a record with what was found in it.

    With beats: the first lead in lines of ten seconds, at most the first minute, each beat marked with its class.
    Without (None): ten seconds of every lead.
    """
    signal, fs, leads = record.signal, record.fs, record.leads
    if beats is None:
        strips = [(lead, 0.0, name) for lead, name in zip(signal, leads, strict=True)]
    else:
        n_strips = min(MAX_STRIPS, int(np.ceil(signal.shape[1] / fs / STRIP_S)))
        strips = [(signal[0], k * STRIP_S, leads[0]) for k in range(n_strips)]
    figure = Figure(figsize=(14, 1.3 * len(strips) + 0.8), layout="constrained")
    panels = figure.subplots(len(strips), 1, squeeze=False)[:, 0]
    for axes, (lead, start_s, name) in zip(panels, strips, strict=True):
        first, last = round(start_s * fs), min(round((start_s + STRIP_S) * fs), len(lead))
        axes.plot(np.arange(first, last) / fs, lead[first:last], color="black", linewidth=0.7)
        axes.set_xlim(start_s, start_s + STRIP_S)
        axes.set_ylabel(f"{_plain([name])[0]}\n(mV)", fontsize=8)
        axes.grid(alpha=0.3)
        for beat in beats or ():
            if first <= beat.sample < last:
                time_s, color, top = beat.sample / fs, f"C{beat.number}", axes.get_xaxis_transform()
                axes.axvline(time_s, color=color, linewidth=0.8, alpha=0.6)
                axes.text(time_s, 1.0, beat.name, color=color, ha="center", va="bottom", fontsize=8, transform=top)
    panels[-1].set_xlabel("time (s)")
    figure.suptitle(_plain([title], 200)[0], fontsize=10)
    _save(figure, path)


def save_class_balance(dataset: Dataset, path: str | Path) -> None:
    """Draw the rows of each class of a prepared dataset (left, on a log scale), and how folds share them (right).

    The bar of all rows on top shows the shares that a fair deal gives each class. Multilabel: a row counts in each
    class that it has, and rows without a class count as one class more.
    """
    names = sorted(np.unique(dataset.fold), key=lambda name: (len(name), name))
    labels, classes = np.asarray(dataset.labels, dtype=np.int64), list(dataset.classes)
    columns = [np.ones((len(labels), 1), np.int64), labels]  # (N, 1 + K) or (N, K + 2)
    if dataset.task == "multilabel":
        columns.append(labels.sum(axis=1, keepdims=True) == 0)
        classes.append("none of them")
    marks = np.concatenate(columns, axis=1)
    counts = np.stack([marks[dataset.fold == name].sum(axis=0) for name in names])  # (folds, bars)
    totals = counts.sum(axis=0)
    bars = np.concatenate([[-0.5], np.arange(1, len(totals))])  # the bar of all rows stands apart

    figure = Figure(figsize=(10, max(2.8, 1.3 + 0.2 * len(bars))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.2))
    left.barh(bars, totals, color=["0.4"] + ["tab:blue"] * (len(bars) - 1), height=0.8)
    for place, total in zip(bars, totals, strict=True):
        left.text(max(total, 0.8), place, f" {total:,}", va="center", fontsize=7)
    left.set_xscale("log")
    left.set_xlim(0.8, 6 * max(totals.max(), 1))  # room for the numbers
    left.set_xlabel("rows")
    left.tick_params(axis="x", labelsize=8)
    left.set_yticks(bars, _plain(["all rows", *classes]), fontsize=7)
    left.set_ylim(len(bars) - 0.4, -1.1)  # first class on top

    shares = counts / np.maximum(totals, 1)
    begin = np.cumsum(shares, axis=0) - shares
    for number, name in enumerate(names):
        # neighbours differ in lightness, so that ten folds can be told apart
        color = colormaps["tab20"](number % 20)
        right.barh(bars, shares[number], left=begin[number], color=color, height=0.8, label=name.decode())
    for edge in begin[1:, 0]:
        right.axvline(edge, color="black", linewidth=0.5, linestyle=":")
    right.set_xlim(0, 1)
    right.tick_params(axis="x", labelsize=8)
    right.set_xlabel("share of each fold; dotted: its share of all rows")
    if len(names) <= MAX_CURVES:
        figure.legend(loc="outside right upper", fontsize=7, title="fold", title_fontsize=7)
    _save(figure, path)


# By the scale of a prepared row: the unit of its numbers, the length of a bar that shows them, and its name.
SAMPLE_UNITS = {"zscore": ("SD", 5.0, "5 SD"), "minmax": ("0 to 1", 1.0, "0 to 1"), "none": ("mV", 1.0, "1 mV")}
SAMPLE_COLUMNS = 3


def save_samples(dataset: Dataset, path: str | Path, n_rows: int = 12, seed: int = 0) -> None:
    """Draw a page of rows of a prepared dataset as the network gets them, each with record, fold and labels.

    Rows are drawn by `seed`, one class after the other (the most frequent if they are more than n_rows; of a
    multilabel dataset, rows of no class too), from as many records as there are. Grey: outside the record, padding.
    """
    rows, recipe = _choose(dataset, n_rows, seed), dataset.recipe
    leads = [slot[0] for slot in recipe.leads]
    unit, _, bar_name = SAMPLE_UNITS[recipe.scale.kind]
    lines = -(-len(rows) // SAMPLE_COLUMNS)
    height = 1.9 if len(leads) == 1 else 1.1 + 0.27 * max(len(leads), 3)
    figure = Figure(figsize=(5.4 * SAMPLE_COLUMNS, height * lines + 0.7), layout="constrained")
    panels = figure.subplots(lines, SAMPLE_COLUMNS, squeeze=False, sharex=True).ravel()
    for axes, row, signal in zip(panels, rows, dataset.signals(rows).astype(np.float64), strict=False):  # (L, T)
        _draw_row(axes, dataset, row, signal)
        labels = [name for name, has_it in zip(dataset.classes, dataset.labels[row], strict=True) if has_it]
        names = _plain([Path(dataset.record[row].decode()).name, ", ".join(labels) or "no class"])
        axes.set_title(f"{names[0]}, fold {dataset.fold[row].decode()}: {names[1]}", fontsize=9)
        axes.tick_params(labelsize=7, labelbottom=True)
    for axes in panels[len(rows) :]:
        axes.remove()
    figure.supxlabel("time from the R peak (s)" if recipe.of_beats else "time (s)", fontsize=9)
    figure.supylabel(f"{_plain(leads)[0]} ({unit})" if len(leads) == 1 else f"leads; red bar: {bar_name}", fontsize=9)
    _save(figure, path)


def _draw_row(axes: Any, dataset: Dataset, row: int, signal: Array) -> None:
    """Draw the leads of one row (L, T) under each other, a lone one with its own axis; a missing lead is grey."""
    recipe, (first, last) = dataset.recipe, dataset.valid[row]
    leads = [slot[0] for slot in recipe.leads]
    before_s = pqrst.row_before(recipe.tree()) / recipe.fs if recipe.of_beats else 0.0  # ahead of time 0, the R peak
    time_s = np.arange(signal.shape[1]) / recipe.fs - before_s
    inside = signal[:, first:last]
    middle = np.median(inside, axis=1, keepdims=True) if len(leads) > 1 and last > first else np.zeros((len(signal), 1))
    # most of each lead fits between its neighbours; a lone spike may cross them
    spread = np.ptp(np.quantile(inside, [0.005, 0.995], axis=1), axis=0).max() if last > first else 0.0
    step = 0.9 * max(float(spread), 1e-3) if len(leads) > 1 else 0.0
    places = -step * np.arange(len(leads))
    lines = signal - middle + places[:, None]
    for line, is_there in zip(lines, dataset.lead_mask[row], strict=True):
        axes.plot(time_s, line, color="black" if is_there else "0.7", linewidth=0.6)
    for begin, end in ((0, first), (last, signal.shape[1])):
        if end > begin:
            axes.axvspan(begin / recipe.fs - before_s, end / recipe.fs - before_s, color="0.9", zorder=0)
    axes.set_xlim(-before_s, signal.shape[1] / recipe.fs - before_s)
    axes.grid(axis="x", alpha=0.3)
    if len(leads) > 1:
        axes.set_yticks(places, _plain(leads))
        low, high = lines[-1].min() - 0.1 * step, lines[0].max() + 0.1 * step
        axes.set_ylim(max(low, places[-1] - 1.5 * step), min(high, 1.5 * step))
        half, right = SAMPLE_UNITS[recipe.scale.kind][1] / 2, 0.992
        ends = [places.mean() - half, places.mean() + half]
        axes.plot([right, right], ends, color="tab:red", linewidth=2, transform=axes.get_yaxis_transform())


def _choose(dataset: Dataset, n_rows: int, seed: int) -> Array:
    """Choose rows of one class after the other, each from a record that has not come yet, where there is one."""
    labels = np.asarray(dataset.labels, dtype=bool)
    groups = np.concatenate([labels, ~labels.any(axis=1, keepdims=True)], axis=1)  # (N, K + 1), the last: no class
    by_size = np.argsort(-groups.sum(axis=0), kind="stable")[:n_rows]
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    queues = {k: list(order[groups[order, k]]) for k in sorted(by_size)}  # classes in their own order
    chosen: list[int] = []
    records: set[bytes] = set()
    while len(chosen) < n_rows and any(queues.values()):
        for queue in queues.values():
            left = [row for row in queue if row not in chosen]
            if left and len(chosen) < n_rows:
                row = next((row for row in left if dataset.record[row] not in records), left[0])
                chosen.append(int(row))
                records.add(dataset.record[row])
            queue[:] = left
    return np.array(chosen, dtype=np.int64)


def _one_against_all(
    targets: Array,
    scores: Array,
    classes: Sequence[str],
    curve: Callable[[Array, Array], tuple[Array, Array, float]],
    score_name: str,
    marker: str | None = None,
) -> tuple[Figure, Any]:
    """Draw a curve for each class that some rows have and some lack, by falling score; of many, name either end."""
    targets, scores = np.asarray(targets), np.asarray(scores, dtype=np.float64)
    if targets.ndim != 2 or targets.shape != scores.shape or targets.shape[1] != len(classes):
        raise ValueError(f"targets {targets.shape} and scores {scores.shape}: both must be (N, {len(classes)})")
    support = targets.sum(axis=0, dtype=int)  # (K,)
    both = [(k, name) for k, name in enumerate(_plain(classes)) if 0 < support[k] < len(targets)]
    drawn = [(*curve(targets[:, k], scores[:, k]), name) for k, name in both]  # x, y, value, class
    drawn.sort(key=lambda entry: entry[2], reverse=True)
    half = MAX_CURVES // 2
    named = set(range(len(drawn)))
    if len(drawn) > MAX_CURVES:
        named = {*range(half), *range(len(drawn) - half, len(drawn))}

    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    axes = figure.subplots()
    place = 0
    for rank, (x, y, value, name) in enumerate(drawn):
        if rank not in named:
            axes.plot(x, y, color="0.8", linewidth=0.6, zorder=1)
            continue
        style = "-" if place < 10 else "--"  # ten colours of the cycle, then the same dashed
        label = f"{value:.3f} {name}"  # the number first: matplotlib hides labels that begin with _
        axes.plot(x, y, style, color=f"C{place % 10}", linewidth=1.2, marker=marker, label=label, zorder=2)
        place += 1
    title = f"each class against all others: {score_name}"
    if len(drawn) > MAX_CURVES:
        title += f"\n{half} highest and {half} lowest of {len(drawn)} classes, the others grey"
    if len(drawn) < len(classes):
        title += f"\nnot drawn: {len(classes) - len(drawn)} of {len(classes)} classes, which all rows or none have"
    axes.set_title(title, fontsize=9)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.grid(alpha=0.3)
    if drawn:
        figure.legend(loc="outside right upper", fontsize=7)
    return figure, axes


def _plain(names: Sequence[str], longest: int = 30) -> list[str]:
    """Return names for a figure: a dollar sign is no mathematics, long names end in an ellipsis."""
    return [(name if len(name) <= longest else name[: longest - 1] + "…").replace("$", r"\$") for name in names]


def _save(figure: Figure, path: str | Path) -> None:
    """Write a figure without date or version inside: the same numbers give the same file."""
    path = Path(path)
    with script.aside(path) as temporary:
        kind = path.suffix[1:]
        figure.savefig(temporary, format=kind, dpi=150, metadata={"Software": None} if kind == "png" else None)
