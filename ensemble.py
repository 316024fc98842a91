"""Several runs on the same rows: the mean of their scores, beside each of them.

    evaluate_ensemble([Path("runs/a"), Path("runs/b"), Path("runs/c")], settings)

Writes report-ensemble/ in the first run's folder, for another split than test report-ensemble-<split>/, whole or not at
all: the files of evaluate.py without the card of one network. Each run scores the rows of its own dataset, prepared by
its own recipe, by its own checkpoint; the score of the ensemble is the mean of theirs, 0 to 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import calibration
import compare
import evaluate
import runs
import script
from answers import SCORES
from compare import Array, Side
from config import Settings
from evaluate import Judged
from intervals import differences_of
from script import Stop, markdown_table

Thresholds = tuple[float, ...] | None


class Gain(NamedTuple):
    """How much an ensemble is better than the member that is best by the same score."""

    member: str
    difference: float
    between: tuple[float, float] | None  # 95 % interval over patients


def evaluate_ensemble(folders: Sequence[Path], settings: Settings) -> Judged:
    """Score a split by the mean of the runs' scores, write the report and print it.

    Raises
    ------
    Stop
        A run is given twice, the runs know different classes, or are scored on different rows.
    """
    script.check_each_once(folders, "--ensemble")
    sides = compare.open_sides(folders, settings)
    scores = [compare.scores_of(side) for side in sides]
    limits, how = thresholds_of(sides, scores)
    first, own = sides[0], sides[0].settings
    members = [
        evaluate.judge(first.dataset, first.first, of, side.trained.thresholds, own)
        for side, of in zip(sides, scores, strict=True)
    ]
    judged = evaluate.judge(first.dataset, first.first, mean_of(scores), limits, own)
    gained = gains(sides, members, judged)
    split = settings.evaluation.split
    tree = {
        "members": [member_tree(side, member) for side, member in zip(sides, members, strict=True)],
        "gains": {name: gain._asdict() for name, gain in gained.items()},
        "split": split,
        "folds": list(getattr(own.data, split)),
        "commit": runs.commit(),
        **judged.place,
        **judged.tree(),
    }
    text = (
        f"# The mean of {len(sides)} runs: {split} rows\n\n"
        f"{len(judged.rows):,} rows, {first.dataset.patients(judged.rows)}, each run by its "
        f"{settings.evaluation.checkpoint} checkpoint. {how}\n\n"
        f"{table_of(sides, members, judged)}\n\n{as_text(gained)}\n\n{judged.text()}"
    )
    place = folders[0] / f"{runs.REPORT}-ensemble{'' if split == 'test' else f'-{split}'}"
    with script.folder_aside(place) as folder:
        evaluate.write_report(folder, judged, tree, text)
    print(text)
    print(f"report in {place}", file=sys.stderr)
    return judged


def mean_of(scores: Sequence[Array]) -> Array:
    """Return the mean of the scores (N, K) of several runs, float32."""
    return np.asarray(np.mean(scores, axis=0, dtype=np.float64), np.float32)


def thresholds_of(sides: Sequence[Side], scores: Sequence[Array]) -> tuple[Thresholds, str]:
    """Return the thresholds of an ensemble, (K,), and a sentence about them; None where the highest score decides.

    They are chosen as those of one network are, on the ensemble's scores of the validation rows. Where the runs do not
    share these rows, none are held out for all of them, and the thresholds are the mean of the runs'.
    """
    if sides[0].dataset.task == "multiclass":
        return None, "The highest mean score decides."
    first = sides[0].settings
    if first.evaluation.split != "validation":
        try:
            sides = compare.on_split(sides, "validation")
        except Stop:
            own = [side.trained.thresholds for side in sides]
            mean = np.mean(np.array(own, np.float64), axis=0)
            return tuple(mean.tolist()), "The runs share no validation rows: thresholds are the mean of theirs."
        scores = [compare.scores_of(side) for side in sides]
    limits = calibration.best_thresholds(sides[0].targets, mean_of(scores), first.training.sensitivity)
    return limits, "Thresholds are chosen on the mean scores of the validation rows."


def gains(sides: Sequence[Side], members: Sequence[Judged], judged: Judged) -> dict[str, Gain]:
    """Return by each score how much the ensemble is better than the best member."""
    found, targets = {}, sides[0].targets
    for name in SCORES:
        values = [getattr(member.report, name) for member in members]
        if None in values:
            continue
        best = int(np.argmax(values))
        one, other = ((of.scores, of.decided) for of in (members[best], judged))
        between = differences_of(targets, one, other, sides[0].patients, sides[0].scored)
        gain = getattr(judged.report, name) - values[best]
        found[name] = Gain(str(sides[best].run), gain, between.get(name))
    return found


def n_parameters(side: Side) -> int:
    """Count the weights of a member."""
    return sum(p.numel() for p in side.trained.network.parameters())


def member_tree(side: Side, member: Judged) -> dict[str, Any]:
    """Return what metrics.json tells of a member."""
    return {
        "run": str(side.run),
        "network": side.trained.name,
        "parameters": n_parameters(side),
        "epoch": side.trained.origin.epoch,
        "commit": side.trained.origin.commit,
        **{name: getattr(member.report, name) for name in SCORES},
        "intervals": {name: member.between[name] for name in SCORES if name in member.between},
    }


def table_of(sides: Sequence[Side], members: Sequence[Judged], judged: Judged) -> str:
    """Return each member and the ensemble as lines of a Markdown table."""

    def cells(of: Judged) -> list[str]:
        values = {name: getattr(of.report, name) for name in SCORES}
        between = {name: " ({:.3f} to {:.3f})".format(*of.between[name]) for name in SCORES if name in of.between}
        return ["–" if value is None else f"{value:.3f}{between.get(name, '')}" for name, value in values.items()]

    lines = [
        [f"{side.run} ({side.trained.name})", f"{n_parameters(side):,}", *cells(member)]
        for side, member in zip(sides, members, strict=True)
    ]
    lines.append(["ensemble", f"{sum(map(n_parameters, sides)):,}", *cells(judged)])
    return markdown_table(["", "parameters", *SCORES.values()], lines)


def as_text(gained: dict[str, Gain]) -> str:
    """Return the gains as Markdown."""
    lines = []
    for name, (member, difference, between) in gained.items():
        low_high = " ({:+.3f} to {:+.3f})".format(*between) if between else ""
        lines.append([SCORES[name], member, f"{difference:+.3f}{low_high}"])
    return markdown_table(["score", "best member", "ensemble minus best member"], lines)
