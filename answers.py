"""Several answers of a network to the same rows, each against the first: their scores, a table and a picture.

    table = table_of("change", {"as recorded": first, "gain x2": other}, targets, patients, scored)
    as_markdown(table), draw(table, "robustness.png")

For robustness.py, which changes the recordings, and leadsets.py, which hides some of their leads. A unit that has no
answer counts as decided for no class, with a score of 0 for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

import bundle
from bundle import Bundle
from data import Dataset
from decide import decide
from figures import class_style, label_bars, plain_all, save
from folds import Rows
from intervals import differences_from, intervals_of, values_of
from script import markdown_table

Array = NDArray[Any]
SCORES = {"macro_f1": "macro F1", "macro_auroc": "macro AUROC", "accuracy": "accuracy"}


class Answer(NamedTuple):
    """What the network says of U units."""

    scores: NDArray[np.float32]  # (U, K), 0 where there is none
    decided: NDArray[np.uint8]  # (U, K), 0 where there is none
    unscored: int  # units without a score


def numbered(dataset: Dataset, rows: Rows, units: Array) -> tuple[Rows, Array]:
    """Number what is scored as one.

    Parameters
    ----------
    dataset : of N rows
    rows : (B,) the rows in question
    units : (B,) what each of them is a piece of, as `Dataset.units` gives it

    Returns
    -------
    the first row of each unit (U,), and the unit of each row of the dataset (N,), -1 where it is not in question.
    """
    _, first, number = np.unique(units, return_index=True, return_inverse=True)
    of_rows = np.full(len(dataset), -1)
    of_rows[rows] = number
    return rows[first], of_rows


def pooled(trained: Bundle, rows: Rows, logits: NDArray[np.float32], inside: Array, units: Array) -> Answer:
    """Make an answer to all units of what a network says of some of their rows.

    Parameters
    ----------
    trained : the network
    rows, logits, inside : (B,) rows that it was fed, (B, K) what it said, (B,) samples of each inside its record
    units : (N,) as `numbered` gives them
    """
    n_units, n_classes = int(units.max()) + 1, len(trained.classes)
    scores, decided = np.zeros((n_units, n_classes), np.float32), np.zeros((n_units, n_classes), np.uint8)
    if not len(rows):
        return Answer(scores, decided, n_units)
    first, of_units = bundle.pool(logits, units[rows], inside, trained.task)
    answered = units[rows[first]]
    scores[answered], decided[answered] = of_units, decide(of_units, trained.task, trained.thresholds)
    return Answer(scores, decided, n_units - len(answered))


def table_of(
    what: str, answers: Mapping[str, Answer], targets: Array, patients: Array, scored: Sequence[int]
) -> pd.DataFrame:
    """Return a line per answer: its scores, their differences from the first answer's, 95 % intervals of both.

    The column of a score's name holds the score, `_from` and `_to` its interval, `_difference`, `_low` and `_high` its
    difference and the interval of that. Differences are paired: the same patients are drawn for both. NaN where a score
    or an interval does not exist.

    Parameters
    ----------
    what : first column, which names the answers
    answers : by name
    targets, patients, scored : (U, K), (U,), and the classes that enter macro scores, as intervals.py takes them
    """
    pairs = {name: (each.scores, each.decided) for name, each in answers.items()}
    reference = next(iter(pairs))
    differences = differences_from(targets, pairs[reference], list(pairs.values()), patients, scored)
    before = values_of(targets, *pairs[reference], scored)
    none = (np.nan, np.nan)
    lines = []
    for (name, pair), between in zip(pairs.items(), differences, strict=True):
        values, own = values_of(targets, *pair, scored), intervals_of(targets, *pair, patients, scored)
        line: dict[str, Any] = {what: name, "rows": len(targets), "without_score": answers[name].unscored}
        for score in SCORES:
            value, (begin, end) = values.get(score, np.nan), own.get(score, none)
            low, high = none if name == reference else between.get(score, none)
            line |= {score: value, f"{score}_from": begin, f"{score}_to": end}
            difference = value - before.get(score, np.nan)
            line |= {f"{score}_difference": difference, f"{score}_low": low, f"{score}_high": high}
        lines.append(line)
    return pd.DataFrame(lines)


def as_markdown(table: pd.DataFrame) -> str:
    """Return the table for people: each score, and its difference from the first line's with its interval."""
    what = str(table.columns[0])
    heads = [head for name in SCORES.values() for head in (name, "difference (95 % interval)")]
    rows = []
    for place, line in enumerate(table.to_dict("records")):
        cells = []
        for score in SCORES:
            value, difference = line[score], line[f"{score}_difference"]
            low, high = line[f"{score}_low"], line[f"{score}_high"]
            known = np.isfinite(value) and place > 0
            between = f" ({low:+.3f} to {high:+.3f})" if np.isfinite(low) else ""
            cells += [f"{value:.4f}" if np.isfinite(value) else "-", f"{difference:+.4f}{between}" if known else "-"]
        rows.append([line[what], *cells, f"{line['without_score']:,}"])
    return markdown_table([what, *heads, "without a score"], rows) + "\n"


def draw(table: pd.DataFrame, path: Path, scores: Sequence[str] = ("macro_f1",)) -> None:
    """Draw scores of each answer as points, a panel for each score that exists.

    The line of a point is the interval of its difference from the first answer (dashed), and stands where it would put
    the score: a line that does not reach the dashed one is a difference beyond chance.
    """
    drawn = [score for score in scores if table[score].notna().any()]
    figure = Figure(figsize=(2.5 + 5 * len(drawn), 1.4 + 0.24 * len(table)), layout="constrained")
    names: list[str] = table.iloc[:, 0].tolist()
    for panel, (axes, score) in enumerate(zip(np.atleast_1d(figure.subplots(1, len(drawn))), drawn, strict=True)):
        _draw_score(axes, table, score, plain_all(names) if panel == 0 else [""] * len(names))
    figure.supxlabel(f"line: 95 % interval of the difference from {names[0]} (dashed)", fontsize=9)
    save(figure, path)


def _draw_score(axes: Any, table: pd.DataFrame, score: str, names: Sequence[str]) -> None:
    values, places = table[score].to_numpy(), np.arange(len(table))
    before = float(values[0])
    lows, highs = before + table[f"{score}_low"], before + table[f"{score}_high"]
    axes.axvline(before, color="0.4", linewidth=1, linestyle="--", zorder=1)
    axes.hlines(places, lows, highs, color=class_style(0)["color"], linewidth=2)
    axes.plot(values, places, "o", color="black", markersize=4)
    texts = [
        f"{value:.3f}" + (f"  {difference:+.3f}" if place else "")
        for place, value, difference in zip(places, values, table[f"{score}_difference"], strict=True)
    ]
    label_bars(axes, places, names, texts)
    ends = np.concatenate([values, lows, highs])
    low, high = np.nanmin(ends), np.nanmax(ends)
    room = max(0.05 * (high - low), 0.01)
    axes.set_xlim(low - room, high + room)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(SCORES[score], fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
