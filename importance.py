"""What counts for each class: the mean attributions of rows, as a table, as text and as bars.

found = explain_rows(trained, dataset, rows, scores, 5)         # of each class the five most certain right answers
table = table_of(found)                                         # a line for each class and lead or number
draw(table, "importance.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from attributions import Attribution, attribute, similarity, typical_of, with_random_weights
from batches import Batch
from bundle import Bundle
from data import Dataset
from figures import class_colours, label_bars, plain, plain_all, save
from folds import Rows
from script import markdown_table

MOST_BARS = 12  # of a class; a record of twelve leads has them all
MOST_PANELS = 12  # classes that are drawn
PANELS_IN_LINE = 3


def explain_rows(
    trained: Bundle, dataset: Dataset, rows: Rows, scores: NDArray[np.float32], n: int
) -> tuple[list[Attribution], list[float]]:
    """Explain the rows of each class that the network knows best, by integrated gradients.

    Parameters
    ----------
    trained : network
    dataset, rows : (U,) the rows that are scored
    scores : (U, K) of these
    n : how many rows of each class, at most

    Returns
    -------
    The attributions, class by class, and for the first row of each class how alike an untrained network explains it
    (rank correlation; near 0, or the explanation shows the network's build and not what it has learnt).
    """
    wanted = [
        (k, row)
        for k in range(len(trained.classes))
        for row in sorted(np.flatnonzero(dataset.labels[rows, k]), key=lambda row: -scores[row, k])[:n]
    ]
    found: list[Attribution] = []
    alike: list[float] = []
    untrained = with_random_weights(trained)
    for k, place in tqdm(wanted, "explaining", unit=" rows", disable=None, leave=False):
        one = rows[place : place + 1]
        batch = Batch(dataset.signals(one), None, dataset.context[one], dataset.valid[one], one)
        typical = typical_of(dataset.context[dataset.record == dataset.record[one[0]]])
        name = trained.classes[k]
        new = not found or found[-1].class_name != name
        found.append(attribute(trained, batch, name, typical))
        if new:
            alike.append(similarity(found[-1], attribute(untrained, batch, name, typical)))
    return found, alike


def table_of(found: Sequence[Attribution]) -> pd.DataFrame:
    """Return a line for each class and lead or number: class, name, log odds that it adds, share, rows; means."""
    lines: list[dict[str, Any]] = []
    for each in found:
        shares = zip(each.leads, each.per_lead.tolist(), each.share.tolist(), strict=True)
        lines += [{"class": each.class_name, "name": name, "adds": a, "share": s} for name, a, s in shares]
        share_of = each.number_share
        lines += [
            {"class": each.class_name, "name": name, "adds": value, "share": share_of[name]}
            for name, value in each.numbers.items()
        ]
    groups = pd.DataFrame(lines, columns=["class", "name", "adds", "share"]).groupby(["class", "name"], sort=False)
    table = groups.mean()
    table["rows"] = groups.size()
    return table.reset_index()


def as_text(table: pd.DataFrame, found: Sequence[Attribution], alike: Sequence[float]) -> str:
    """Return a section of a report: what counts most for each class, and how far that can be trusted."""
    lines = []
    for name, lines_of in table.groupby("class", sort=False):
        most = lines_of.sort_values("share", ascending=False).head(3)
        texts = [f"{each['name']} {each['share']:.0%} ({each['adds']:+.2f})" for _, each in most.iterrows()]
        lines.append([str(name), str(int(lines_of["rows"].iloc[0])), *texts, *[""] * (3 - len(texts))])
    header = ["class", "rows", "counts most", "second", "third"]
    missing = max(each.error for each in found)
    return (
        "## What counts\n\n"
        "Integrated gradients of the rows of each class with the highest scores: share of a lead, or of a number "
        "beside the signal, in all that speaks for or against the class, and the log odds that it adds. Sums miss "
        "at most "
        f"{missing:.2%} of what they explain. Explanations of the same rows by an untrained network have a rank "
        f"correlation of {np.nanmean(alike):.2f} with these. This shows what the network looks at, not that it is "
        f"right.\n\n{markdown_table(header, lines)}\n"
    )


def draw(table: pd.DataFrame, path: str | Path) -> None:
    """Draw a panel for each class with a bar for each lead or number, the first MOST_PANELS classes."""
    panels = list(table.groupby("class", sort=False))[:MOST_PANELS]
    n_columns = min(PANELS_IN_LINE, len(panels))
    n_lines = -(-len(panels) // n_columns)
    most = min(MOST_BARS, max(len(lines) for _, lines in panels))
    size = (1.5 + 3.3 * n_columns, n_lines * (0.9 + 0.17 * most))
    figure = Figure(figsize=size, layout="constrained")
    colours = class_colours(len(panels))
    grid = figure.subplots(n_lines, n_columns, squeeze=False).flat
    for k, (name, lines) in enumerate(panels):
        axes = grid[k]
        shown = lines if len(lines) <= most else lines.sort_values("share", ascending=False).head(most)
        places = range(len(shown))
        axes.barh(places, 100 * shown["share"], color=colours[k], height=0.8)
        label_bars(axes, places, plain_all(shown["name"].tolist()), [f"{adds:+.2f}" for adds in shown["adds"]])
        axes.set_xlim(0, max(1.0, 105 * shown["share"].max()))
        axes.set_title(f"{plain(str(name), 28)}, rows: {lines['rows'].iloc[0]}", fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
    for axes in figure.axes[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("share of the absolute attributions, %; beside each bar the log odds that it adds", fontsize=8)
    save(figure, path)
