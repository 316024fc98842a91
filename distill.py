"""Soft labels for a training: the mean score of trained networks, its teachers, mixed into the labels.

    python train.py --training.teachers runs/a,runs/b,runs/c --model.arguments '{"channels": [16, 32, 64]}'

    learnt = taught(dataset, rows, settings)        # as the dataset, but labels (N, K) float32 of the training rows

A row with label y and mean score m of the teachers is learnt as (1 - s) * y + s * m, where s is `training.distill`.
Each loss of objectives.py is linear in its labels, so this is (1 - s) times the loss on the label plus s times that on
the teachers' scores: the distillation of Hinton et al. 2015 (arXiv:1503.02531). Two departures: the teachers' logits
are divided by the temperature that their validation rows chose, the student's by none, where the paper divides both by
the same one; and the teachers score whole rows, each in its own way, where the student may learn from pieces of them.

The teachers score before the first step, also before that of a training that goes on: the run folder keeps no scores.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import bundle
import evaluate
import runs
import script
from batches import Batches, scoring_batches
from bundle import Bundle
from checks import check_leak
from config import Settings
from data import Dataset
from folds import Rows
from script import Stop


class Teacher(NamedTuple):
    """A trained network, and the rows of its own dataset that are a student's training rows."""

    run: Path
    trained: Bundle
    dataset: Dataset
    rows: Rows  # (N,) in the order of the student's


def taught(dataset: Dataset, rows: dict[str, Rows], settings: Settings) -> Dataset:
    """Return the dataset with the teachers' mean score in the labels of its training rows, for `training.teachers`.

    Parameters
    ----------
    dataset : of the student
    rows : of each split of it
    settings : of the student's run

    Returns
    -------
    A dataset with the same signals, whose labels are (N, K) float32, 0 to 1.

    Raises
    ------
    Stop
        A teacher is no run, or the student's own; it has other classes, rows or labels; it has learnt from a patient of
        the student's validation or test rows. All teachers are looked at before the first one scores.
    """
    training, learnt = settings.training, rows["train"]
    teachers = open_teachers(dataset, rows, settings)
    if script.rank()[0] == 0:
        print(
            f"teachers {', '.join(training.teachers)} score {len(learnt):,} rows before the first step; "
            f"{training.distill:g} of each label is their mean score",
            flush=True,
        )
    mean = np.mean([scores_of(teacher, settings.evaluation.batch_size) for teacher in teachers], axis=0)  # (N, K)
    labels = dataset.labels.astype(np.float32)
    labels[learnt] = (1 - training.distill) * labels[learnt] + training.distill * mean
    soft = copy.copy(dataset)  # the signals stay mapped once
    soft.labels = labels  # type: ignore[assignment]  # uint8 elsewhere
    return soft


def open_teachers(dataset: Dataset, rows: dict[str, Rows], settings: Settings) -> list[Teacher]:
    """Open all teachers of a student, none of which scores yet; `taught` says what stops."""
    script.check_each_once(settings.training.teachers, "training.teachers")
    return [open_teacher(Path(run), dataset, rows, settings) for run in settings.training.teachers]


def open_teacher(run: Path, dataset: Dataset, rows: dict[str, Rows], settings: Settings) -> Teacher:
    """Open a teacher, and find the student's training rows among those of its own dataset; `taught` says what stops."""
    named = f"training.teachers: {run}"
    if run.resolve() == settings.run_folder.resolve():
        raise Stop(f"{named} is the run itself")
    own = runs.settings_of(run)
    evaluation = own.evaluation.model_copy(update={"checkpoint": "best", "split": "train"})
    trained, of_teacher, _ = evaluate.open_run(run, own.model_copy(update={"evaluation": evaluation}))
    if (trained.classes, trained.task) != (dataset.classes, dataset.task):
        raise Stop(
            f"{named} knows classes {', '.join(trained.classes)} ({trained.task}), {dataset.folder} has "
            f"{', '.join(dataset.classes)} ({dataset.task})"
        )
    check_leak(named, of_teacher, own, dataset, rows)
    return Teacher(run, trained, of_teacher, matching_rows(named, of_teacher, dataset, rows["train"]))


def matching_rows(named: str, of_teacher: Dataset, dataset: Dataset, learnt: Rows) -> Rows:
    """Return the rows of a teacher's dataset with the record and start of these, (N,); Stop where one is absent."""
    theirs, mine = of_teacher.names(np.arange(len(of_teacher))), dataset.names(learnt)
    order = np.argsort(theirs, kind="stable")
    place = np.minimum(np.searchsorted(theirs[order], mine), len(theirs) - 1)
    found: Rows = order[place]
    absent = theirs[found] != mine
    if absent.any():
        raise Stop(
            f"{named}: {of_teacher.folder} has no row for {absent.sum():,} of {len(mine):,} training rows, such as "
            f"record and start {mine[absent][0].decode()}"
        )
    differ = (of_teacher.labels[found] != dataset.labels[learnt]).any(axis=1)
    if differ.any():
        raise Stop(
            f"{named}: {of_teacher.folder} has other labels for {differ.sum():,} of {len(mine):,} training rows, such "
            f"as record and start {mine[differ][0].decode()}"
        )
    return found


def scores_of(teacher: Teacher, batch_size: int) -> NDArray[Any]:
    """Return a teacher's score of each row, (N, K), 0 to 1."""
    whole, shares = Batches(teacher.dataset), list(scoring_batches(teacher.rows, batch_size))
    bar = tqdm(shares, str(teacher.run), unit=" batches", disable=None if script.rank()[0] == 0 else True, leave=False)
    rows, logits = bundle.score(teacher.trained, (whole[share] for share in bar))
    each = np.arange(len(rows))  # row by row: the windows of a record are labels of their own
    return bundle.pool(logits, each, teacher.dataset.inside(rows), teacher.dataset.task)[1]
