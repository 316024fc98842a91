"""The classes of one dataset in the words of another, by codes.csv.

joined = join(target, run_classes)          # `AFIB` of PTB-XL is `AF` of the challenges
joined.target, joined.shared, joined.lacking
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sources import Target, code_lines


class Joined(NamedTuple):
    """A dataset whose labels are told as the classes of a run."""

    target: Target
    shared: tuple[str, ...]  # classes of the run that the dataset can tell
    lacking: tuple[str, ...]  # classes of the dataset that the run does not know


def join(target: Target, classes: Sequence[str], task: str) -> Joined:
    """Translate the labels of a dataset into the classes of a run.

    A class is another one's where both have the same name, or else where a line of codes.csv that has it as its code or
    name, or a line of the same meaning, has the other: a diagnosis joins its superclass, not the other way round. One
    that could be two of the run's is none of them.

    Parameters
    ----------
    target : classes and labels of the dataset
    classes, task : of the run. A recording with none of its classes counts where each class has a threshold of its own,
        and is left out where one of them must be chosen
    """
    of = {theirs: _counterpart(theirs, classes) for theirs in target.classes}
    labels = {name: name for name in target.classes} if target.of is None else target.of
    translated = {label: of.get(name, "") for label, name in labels.items()}
    without = target.without if task == "multiclass" else "kept"
    told = {name for name in of.values() if name}
    return Joined(
        replace(target, classes=tuple(classes), of=translated, without=without),
        tuple(name for name in classes if name in told),
        tuple(theirs for theirs, ours in of.items() if not ours),
    )


def _counterpart(theirs: str, classes: Sequence[str]) -> str:
    """Return the class that means `theirs`, or nothing."""
    if theirs in classes:
        return theirs
    words = _words(theirs)
    found = [ours for ours in classes if words & {ours, *ours.split("|")}]
    return found[0] if len(found) == 1 else ""


def _words(name: str) -> set[str]:
    """Return what codes.csv calls a class: codes, names and classes of its lines and of those of the same meaning."""
    wanted = {name, *name.split("|")}
    lines = [line for line in code_lines() if wanted & {line["code"], line["name"]}]
    meanings = {line["meaning"] for line in lines} - {""}
    alike = [line for line in code_lines() if line["meaning"] in meanings]
    cells = (cell for line in (*lines, *alike) for column, cell in line.items() if column not in ("system", "meaning"))
    return {word for cell in cells if cell for word in (cell, *cell.split("|"))}
