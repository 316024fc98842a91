"""What figures share: the style of a class, names that fit, curves of each class, texts beside bars, the file.

    axes.plot(x, y, **class_style(2))                       # the third class of the dataset, the same in every figure
    save(figure, "report/roc.png")

Drawn without pyplot, as plots.py is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import script

Array = npt.NDArray[Any]
CurveOf = Callable[[Array, Array], tuple[Array, Array, float]]  # target (N,), score (N,) -> x, y, score in the legend

# Ten colours that people with any colour blindness can tell apart: Petroff 2021, arXiv:2107.02270, with a dark green
# for its light blue, which is too pale for a line. The greys come last: much that is of no class is drawn in grey.
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#004d40", "#e76300", "#b9ac70", "#a96b59", "#717581", "#94a4a2",
)  # fmt: skip
# The first ten classes have solid lines, the next ten have the second pattern (on, off in line widths), and so on.
PATTERNS: tuple[Any, ...] = (
    "-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (10, 2)), (0, (5, 1, 1, 1, 1, 1)), (0, (3, 4)), (0, (1, 3)),
)  # fmt: skip
NO_CLASS = "0.4"  # bars of all rows, and of rows without a class
MAX_CURVES = 20  # lines that can be told apart; of more classes the ten at either end are named, the others grey
DASH = "–"  # stands for a score that has no value


def class_style(place: int) -> dict[str, Any]:
    """Return colour and line style of a class in every figure, from its place among the classes of the dataset.

    The first ten classes differ in colour, the first eighty in colour or line style; then the styles repeat.
    """
    turn, hue = divmod(place, len(COLOURS))
    return {"color": COLOURS[hue], "linestyle": PATTERNS[turn % len(PATTERNS)]}


def class_colours(n_classes: int) -> list[str]:
    """Return the colour of each class, for bars."""
    return [class_style(place)["color"] for place in range(n_classes)]


def printable(name: str) -> str:
    """Replace what cannot be printed: an SVG that held it could not be read."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)


def plain(name: str, longest: int = 36) -> str:
    """Return a name for a figure: a dollar sign is no mathematics, a long name loses its middle."""
    name = printable(name)
    if len(name) > longest:
        name = name[: longest // 2] + "…" + name[len(name) - (longest - longest // 2 - 1) :]
    return name.replace("$", r"\$")


def plain_all(names: Sequence[str]) -> list[str]:
    """Return names for a figure; names that become equal by losing their middles get their places in front."""
    short = [plain(name) for name in names]
    return [f"{k + 1}: {name}" if short.count(name) > 1 else name for k, name in enumerate(short)]


def label_bars(axes: Any, places: Sequence[float] | Array, names: Sequence[str], texts: Sequence[str]) -> None:
    """Write a name left and a text right of each bar, outside of the axes, where no line runs; the first bar on top."""
    axes.set_yticks(places, names, fontsize=7)
    axes.set_ylim(places[-1] + 0.6, places[0] - 0.6)
    for place, text in zip(places, texts, strict=True):
        axes.text(1.015, place, text, va="center", fontsize=7, transform=axes.get_yaxis_transform())


class Curve(NamedTuple):
    """The curve of one class against all others."""

    x: Array
    y: Array
    value: float  # the score that the legend shows
    place: int  # of the class


def one_against_all(
    targets: Array,
    scores: Array,
    classes: Sequence[str],
    curve: CurveOf,
    score_name: str,
    **line: Any,
) -> tuple[Figure, Any]:
    """Draw a curve for each class that some rows have and some lack, by falling score; of many, name either end.

    Parameters
    ----------
    targets, scores : (N, K), 0 or 1, and float
    classes : K names
    curve : computes the curve of one class
    score_name : what the score in the legend is
    line : how matplotlib draws each named curve, beside the style of its class
    """
    curves, names = _curves(targets, scores, classes, curve), plain_all(classes)
    undrawn = sorted(set(range(len(classes))) - {entry.place for entry in curves})
    half = MAX_CURVES // 2
    others = range(half, len(curves) - half) if len(curves) > MAX_CURVES else range(0)
    title = f"each class against all others: {score_name}"
    if others:
        title += f"\n{half} highest and {half} lowest of {len(curves)} classes, the others grey"
    if undrawn:
        title += f"\nnot drawn: {len(undrawn)} of {len(classes)} classes, which all rows or none have"

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots()
    for rank, (x, y, value, k) in enumerate(curves):
        # the number first: matplotlib hides labels that begin with _
        named: dict[str, Any] = {"linewidth": 1.4, "label": f"{value:.3f} {names[k]}", **class_style(k)}
        style = {"color": "0.85", "linewidth": 0.6, "zorder": 1} if rank in others else named
        axes.plot(x, y, **style, **line)
    for k in undrawn if len(classes) <= MAX_CURVES else ():
        axes.plot([], [], color="none", label=f"{DASH} {names[k]}")
    axes.set_title(title, fontsize=9)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize=7, handlelength=4)
    return figure, axes


def _curves(targets: Array, scores: Array, classes: Sequence[str], curve: CurveOf) -> list[Curve]:
    """Compute the curve of each class that some rows have and some lack, by falling value."""
    targets, scores = np.asarray(targets), np.asarray(scores, dtype=np.float64)
    if targets.ndim != 2 or targets.shape != scores.shape or targets.shape[1] != len(classes):
        raise ValueError(f"targets {targets.shape} and scores {scores.shape}: both must be (N, {len(classes)})")
    support = targets.sum(axis=0, dtype=int)  # (K,)
    both = np.flatnonzero((support > 0) & (support < len(targets))).tolist()
    curves = [Curve(*curve(targets[:, k], scores[:, k]), k) for k in both]
    return sorted(curves, key=lambda entry: entry.value, reverse=True)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure without date or version inside: the same numbers give the same file."""
    path = Path(path)
    with script.aside(path) as temporary:
        kind = path.suffix[1:]
        figure.savefig(temporary, format=kind, dpi=150, metadata={"Software": None} if kind == "png" else None)
