"""What all figures share: the colour and line of a class, names that fit, texts beside bars, the file.

    axes.plot(x, y, **class_style(2))                       # the third class of the dataset, the same in every figure
    save(figure, "report/roc.png")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import script

# Ten colours that people with any colour blindness can tell apart: Petroff 2021, arXiv:2107.02270, matplotlib's
# "petroff10". Its two greys come last here, because figures draw in grey what is of no class.
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#92dadd", "#a96b59", "#e76300", "#b9ac70", "#717581", "#94a4a2",
)  # fmt: skip
# The first ten classes have solid lines, the next ten have the second pattern (on, off in line widths), and so on.
PATTERNS: tuple[Any, ...] = (
    "-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (10, 2)), (0, (5, 1, 1, 1, 1, 1)), (0, (3, 4)), (0, (1, 3)),
)  # fmt: skip
NO_CLASS = "0.4"  # bars of all rows, and of rows without a class
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


def plain(name: str, longest: int = 30) -> str:
    """Return a name for a figure: a dollar sign is no mathematics, a long name loses its middle."""
    if len(name) > longest:
        name = name[: longest // 2] + "…" + name[len(name) - (longest - longest // 2 - 1) :]
    return name.replace("$", r"\$")


def plain_all(names: Sequence[str]) -> list[str]:
    """Return names for a figure; names that become equal by losing their middles get their places in front."""
    short = [plain(name) for name in names]
    return [f"{k + 1}: {name}" if short.count(name) > 1 else name for k, name in enumerate(short)]


def write_beside(axes: Any, places: Sequence[float], texts: Sequence[str]) -> None:
    """Write a text to the right of each bar, outside of the axes, where no line runs."""
    for place, text in zip(places, texts, strict=True):
        axes.text(1.015, place, text, va="center", fontsize=7, transform=axes.get_yaxis_transform())


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure without date or version inside: the same numbers give the same file."""
    path = Path(path)
    with script.aside(path) as temporary:
        kind = path.suffix[1:]
        figure.savefig(temporary, format=kind, dpi=150, metadata={"Software": None} if kind == "png" else None)
