"""Figures: the scores of a report, training curves, the classes and rows of a prepared dataset; sheet.py draws records.

    save_confusion(report, "report/confusion.png")          # report: what metrics.scores_of returned
    save_roc(targets, scores, classes, "report/roc.png")    # (N, K) each
    save_curves("runs/demo/metrics.csv", "runs/demo/curves.png")
    save_samples(data.Dataset(Path("prepared/demo")), "samples.png")

Each function draws into a matplotlib Figure of its own, without pyplot: no window, nothing that outlives the call.
The suffix of the path chooses the format. A file is written aside and renamed, so it is never half written.
A class has the same colour in every figure (`figures.class_style`). A score without a value is a dash, never a 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve, roc_auc_score, roc_curve

import pqrst
from data import Dataset
from figures import (
    COLOURS,
    DASH,
    NO_CLASS,
    class_colours,
    class_style,
    label_bars,
    one_against_all,
    plain,
    plain_all,
    save,
)
from metrics import Report
from recipe import Recipe
from risk import Coverage
from runs import PANELS

Array = npt.NDArray[Any]
MAX_WRITTEN = 20  # classes up to which every cell of the confusion matrix carries its number


def save_confusion(report: Report, path: str | Path) -> None:
    """Draw the confusion matrix in rows and as fractions of each true class; a class without rows has dashes.

    Multiclass: class by class decided. Multilabel: one line per class with its true and false negatives and positives,
    as fractions of the rows without the class and of the rows with it.
    """
    counts, n = np.asarray(report.confusion, dtype=np.float64), len(report.classes)  # (K, K) or (K, 2, 2)
    totals = counts.sum(axis=-1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    columns, label, title = list(report.classes), "class decided", "fraction of each true class"
    written = n <= MAX_WRITTEN or report.task == "multilabel"
    width, height = (max(3.5, 0.55 * n), max(3.0, 0.4 * n)) if n <= MAX_WRITTEN else (0.17 * n, 0.17 * n)
    if report.task == "multilabel":
        columns, label = ["TN", "FP", "FN", "TP"], "one class against all others"
        title = "TN, FP: fraction of rows without the class\nFN, TP: fraction of rows with it"
        counts, shares, width = counts.reshape(n, 4), shares.reshape(n, 4), 3.5
    figure = Figure(figsize=(2 * width + 3, height + 2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    # a few classes hold most rows: beyond one row the colour goes by the logarithm, so that one row is seen
    ticks = [0, *(10**k for k in range(10))]
    _draw_cells(left, counts, AsinhNorm(1, 0, counts.max()), "{:,.0f}", None if written else ticks)
    _draw_cells(right, shares, Normalize(0, 1), "{:.2f}", None if written else [0, 0.5, 1])
    left.set_title("rows", fontsize=10)
    right.set_title(title, fontsize=10)
    for axes in (left, right):
        axes.set_xlabel(label)
        rotation = 90 if max(map(len, columns)) > 3 else 0
        axes.set_xticks(range(len(columns)), plain_all(columns), rotation=rotation, fontsize=7)
    left.set_yticks(range(n), plain_all(report.classes), fontsize=7)
    left.set_ylabel("class")
    save(figure, path)


def _draw_cells(axes: Any, values: Array, norm: Normalize, form: str, ticks: Sequence[float] | None) -> None:
    """Draw a matrix with its numbers, or with a colour bar that has these ticks; NaN is grey with a dash."""
    image = axes.imshow(values, cmap=colormaps["Blues"].with_extremes(bad="0.9"), norm=norm, aspect="auto")
    for i, j in np.argwhere(np.isnan(values) | (ticks is None)):
        text = DASH if np.isnan(values[i, j]) else form.format(values[i, j])
        colour = "white" if norm(values[i, j]) > 0.6 else "black"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=7)
    if ticks is not None:
        axes.figure.colorbar(image, ax=axes, fraction=0.03, ticks=ticks, format=form.replace("{", "{x"))
        for axis, length in zip((axes.yaxis, axes.xaxis), values.shape, strict=True):  # cells, to follow a line by
            axis.set_ticks(np.arange(length - 1) + 0.5, minor=True)
        axes.tick_params(which="minor", length=0)
        axes.grid(which="minor", color="0.9", linewidth=0.4)


def save_roc(targets: Array, scores: Array, classes: Sequence[str], path: str | Path) -> None:
    """Draw the ROC curve of each class against all others; targets (N, K) of 0 and 1, scores (N, K)."""

    def curve(target: Array, score: Array) -> tuple[Array, Array, float]:
        false_positives, true_positives, _ = roc_curve(target, score)
        return false_positives, true_positives, float(roc_auc_score(target, score))

    figure, axes = one_against_all(targets, scores, classes, curve, "AUROC")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.5, linestyle="--")  # chance
    axes.set_xlabel("false positive rate (1 - specificity)")
    axes.set_ylabel("true positive rate (sensitivity)")
    save(figure, path)


def save_pr(targets: Array, scores: Array, classes: Sequence[str], path: str | Path) -> None:
    """Draw the precision-recall curve of each class against all others; targets (N, K) of 0 and 1, scores (N, K).

    Steps, because no threshold gives what lies on a straight line between two points, and because the area under the
    steps is the average precision.
    """

    def curve(target: Array, score: Array) -> tuple[Array, Array, float]:
        precision, recall, _ = precision_recall_curve(target, score, drop_intermediate=True)
        return recall, precision, float(average_precision_score(target, score))

    figure, axes = one_against_all(targets, scores, classes, curve, "average precision", drawstyle="steps-post")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision")
    save(figure, path)


def save_calibration(targets: Array, scores: Array, classes: Sequence[str], path: str | Path, n_bins: int = 10) -> None:
    """Draw the fraction of rows of a class against the score that they got, in bins of equal width; scores 0..1."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError(f"scores {scores.min()} .. {scores.max()}: calibration needs probabilities, 0 to 1")

    def curve(target: Array, score: Array) -> tuple[Array, Array, float]:
        observed, predicted = calibration_curve(target, score, n_bins=n_bins)
        return predicted, observed, float(brier_score_loss(target, score))

    figure, axes = one_against_all(targets, scores, classes, curve, "Brier score", marker=".")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.5, linestyle="--")  # calibrated
    axes.set_xlabel("score")
    axes.set_ylabel("fraction of rows that are of the class")
    save(figure, path)


def save_f1(report: Report, path: str | Path) -> None:
    """Draw F1 of each class as a bar, its number and its rows beside it, and the macro mean as a line."""
    entries = report.per_class
    places = range(len(entries))
    figure = Figure(figsize=(7, max(2.5, 1.3 + 0.18 * len(entries))), layout="constrained")
    axes = figure.subplots()
    axes.barh(places, [entry.f1 for entry in entries], color=class_colours(len(entries)), height=0.8)
    axes.axvline(report.macro_f1, color="black", linewidth=1, linestyle="--")
    some = "" if report.scored_classes == report.classes else f" of {', '.join(report.scored_classes)}"
    axes.set_title(f"F1 per class; dashed: macro F1 {report.macro_f1:.3f}{plain(some, 40)}", fontsize=9)
    values = [f"{entry.f1:.2f}" if entry.support else DASH for entry in entries]
    texts = [f"{value}, {entry.support:,} rows" for value, entry in zip(values, entries, strict=True)]
    label_bars(axes, places, plain_all(report.classes), texts)
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1")
    save(figure, path)


def save_coverage(curve: Coverage, best: Coverage, path: str | Path) -> None:
    """Draw the share of wrong rows against the share of rows that are kept, the most certain first.

    Beside it the best order of the same rows, and the line of a certainty that says nothing.
    """
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    lines = ((curve, "-", "by falling certainty"), (best, "--", "best order"))
    for place, (each, style, name) in enumerate(lines):
        colour = class_colours(1)[0] if place == 0 else "black"
        label = f"{name}: area {each.area:.4f}"
        axes.plot(100 * each.coverage, 100 * each.risk, color=colour, linestyle=style, linewidth=1.4, label=label)
    overall = float(curve.risk[-1])
    axes.axhline(100 * overall, color="0.5", linewidth=0.8, linestyle=":", label=f"random order: area {overall:.4f}")
    # a few wrong rows among the first make a high peak that would flatten all that follows
    axes.set_ylim(0, min(100.0, max(1.0, 250 * overall)))
    axes.set_xlim(0, 100)
    axes.set_xlabel("rows decided, the most certain first, %")
    axes.set_ylabel("wrong rows among them, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, path)


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
            # an epoch without a validation has no value; a training loss that is not a number leaves a gap
            values = table[["epoch", name]].dropna() if name.startswith("validation_") else table[["epoch", name]]
            title = name.removesuffix("_loss") if label == "loss" else name.removeprefix("validation_")
            axes.plot(values["epoch"], values[name], marker=".", markersize=3, linewidth=1, label=plain(title))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(names), fontsize=7, frameon=False)
        if label == "validation score":
            axes.set_ylim(-0.02, 1.02)
        elif label == "learning rate" and (table[names[0]] > 0).all():
            axes.set_yscale("log")
    save(figure, path)


MAX_FOLDS = 20  # folds that have a place in the legend


def save_filled(signal: Array, hidden: Array, filled: Array, recipe: Recipe, path: str | Path) -> None:
    """Draw rows (R, L, T), what of them is hidden, and what was put in its place; of many leads four."""
    leads = np.unique(np.linspace(0, signal.shape[1] - 1, 4).round().astype(int))
    time = np.arange(signal.shape[2]) / recipe.fs
    figure = Figure(figsize=(3.2 * len(leads), 1.6 * len(signal) + 0.8), layout="constrained")
    panels = figure.subplots(len(signal), len(leads), sharex=True, squeeze=False)
    for row, lead_panels in enumerate(panels):
        for lead, axes in zip(leads, lead_panels, strict=True):
            covered = hidden[row, lead]
            axes.plot(time, signal[row, lead], color="0.45", linewidth=0.8, label="signal")
            axes.plot(time, np.where(covered, filled[row, lead], np.nan), linewidth=1.1, label="put in its place",
                      color=COLOURS[0])  # fmt: skip
            axes.fill_between(time, 0, 1, where=covered, transform=axes.get_xaxis_transform(), step="mid",
                              color="0.9", linewidth=0, label="hidden")  # fmt: skip
            axes.set_title(recipe.leads[lead][0], fontsize=8, loc="left", pad=2)
            axes.tick_params(labelsize=7)
    for axes in panels[-1]:
        axes.set_xlabel("s", fontsize=8)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    save(figure, path)


def save_class_balance(dataset: Dataset, path: str | Path) -> None:
    """Draw the rows of each class of a prepared dataset (left, on a log scale), and how folds share them (right).

    The bar of all rows on top shows the shares that a fair deal gives each class. Multilabel: a row counts in each
    class that it has, and rows without a class count as one class more.
    """
    names = sorted(np.unique(dataset.fold), key=lambda name: (len(name), name))
    labels, classes = np.asarray(dataset.labels, dtype=np.int64), list(dataset.classes)
    columns = [np.ones((len(labels), 1), np.int64), labels]  # (N, 1 + K) or (N, K + 2)
    colours = [NO_CLASS, *class_colours(len(classes))]
    if dataset.task == "multilabel":
        columns.append(labels.sum(axis=1, keepdims=True) == 0)
        classes.append("none of them")
        colours.append(NO_CLASS)
    marks = np.concatenate(columns, axis=1)
    counts = np.stack([marks[dataset.fold == name].sum(axis=0) for name in names])  # (folds, bars)
    totals = counts.sum(axis=0)
    bars = np.concatenate([[-0.5], np.arange(1, len(totals))])  # the bar of all rows stands apart

    height = max(2.8, 1.3 + 0.18 * len(bars), 0.6 + 0.16 * min(len(names), MAX_FOLDS))
    figure = Figure(figsize=(10, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.2))
    left.barh(bars, totals, color=colours, height=0.8)
    label_bars(left, bars, ["all rows", *plain_all(classes)], [f"{total:,}" for total in totals])
    left.set_xscale("log")
    left.set_xlim(0.8, 1.2 * max(totals.max(), 1))
    left.set_xlabel("rows (log scale)")
    left.tick_params(axis="x", labelsize=8)

    shares = counts / np.maximum(totals, 1)
    begin = np.cumsum(shares, axis=0) - shares
    greys = colormaps["Greys"](np.linspace(0.2, 0.9, len(names)))  # colours are of classes
    for number, name in enumerate(names):
        style = {"color": greys[number], "edgecolor": "white", "linewidth": 0.5, "height": 0.8}
        right.barh(bars, shares[number], left=begin[number], label=name.decode(), **style)
    for edge in begin[1:, 0]:
        right.axvline(edge, color="tab:red", linewidth=0.6, linestyle=":")
    right.set_xlim(0, 1)
    right.tick_params(axis="x", labelsize=8)
    right.set_xlabel("share of each fold; dotted: its share of all rows")
    if len(names) <= MAX_FOLDS:
        figure.legend(loc="outside right upper", fontsize=7, title="fold", title_fontsize=7)
    save(figure, path)


# By the scale of a prepared row: the unit of its numbers, the length of a bar that shows them, and its name.
SAMPLE_UNITS = {"zscore": ("SD", 5.0, "5 SD"), "minmax": ("0 to 1", 1.0, "0 to 1"), "none": ("mV", 1.0, "1 mV")}
SAMPLE_COLUMNS = 3


def save_samples(dataset: Dataset, path: str | Path, n_rows: int = 12, seed: int = 0) -> None:
    """Draw a page of rows of a prepared dataset as the network gets them, each with record, fold and labels.

    Rows are drawn by `seed`, one class after the other (the most frequent if they are more than n_rows; of a
    multilabel dataset, rows of no class too), from as many records as there are. Grey: outside the record, padding.
    A bar under the title has the colours of the row's classes.
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
        axes.set_title(_title(dataset, row), fontsize=8)
        _draw_classes(axes, np.flatnonzero(dataset.labels[row]))
        axes.tick_params(labelsize=7, labelbottom=True)
    for axes in panels[len(rows) :]:
        axes.remove()
    figure.supxlabel("time from the R peak (s)" if recipe.of_beats else "time (s)", fontsize=9)
    figure.supylabel(f"{plain(leads[0])} ({unit})" if len(leads) == 1 else f"leads; thick bar: {bar_name}", fontsize=9)
    save(figure, path)


def _title(dataset: Dataset, row: int) -> str:
    """Return record, fold and classes of a row; of more classes than fit, the first and how many more."""
    labels = [dataset.classes[k] for k in np.flatnonzero(dataset.labels[row])]
    found = ", ".join(labels) or "no class"
    if len(labels) > 1 and len(found) > 36:
        found = f"{plain(labels[0], 26)} and {len(labels) - 1} more"
    record, fold = Path(dataset.record[row].decode()).name, dataset.fold[row].decode()
    return f"{plain(record, 30)}, fold {plain(fold, 12)}: {plain(found, 40)}"


def _draw_classes(axes: Any, places: Array) -> None:
    """Draw a bar along the top of the axes, a piece for each class of the row in the colour of that class."""
    for piece, place in enumerate(places):
        ends = [piece / len(places), (piece + 1) / len(places)]
        axes.plot(ends, [1, 1], linewidth=3, transform=axes.transAxes, clip_on=False, zorder=3, **class_style(place))


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
        axes.set_yticks(places, plain_all(leads))
        low, high = lines[-1].min() - 0.1 * step, lines[0].max() + 0.1 * step
        axes.set_ylim(max(low, places[-1] - 1.5 * step), min(high, 1.5 * step))
        half, right = SAMPLE_UNITS[recipe.scale.kind][1] / 2, 0.992
        ends = [places.mean() - half, places.mean() + half]
        axes.plot([right, right], ends, color="black", linewidth=3, transform=axes.get_yaxis_transform())


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
