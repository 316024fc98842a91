"""The scores by which the PhysioNet/CinC challenges ranked their entries.

weights = read_weights(Path("weights_abbreviations.csv"), classes)
score_2021(targets, decided, weights, classes.index("NSR"))      # 1 at best, 0 for `always sinus rhythm`
score_2017(targets, decided, ("N", "A", "O", "~"))               # mean F1 of N, A and O
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from script import Stop

Array = NDArray[Any]
SINUS_RHYTHM = ("NSR", "426783006")  # as the tables of weights call it
RANKED_2017, NOISE = ("N", "A", "O"), "~"  # noise is not ranked


def read_weights(path: Path, classes: Sequence[str]) -> Array:
    """Return the weight (K, K) of each class decided where another is true, from the challenge's table.

    Its rows and columns are the classes by name or by code, equivalent ones joined with `|`.

    Raises
    ------
    Stop
        The file cannot be read, is no square table of numbers, or lacks a class.
    """
    try:
        table = pd.read_csv(path, index_col=0)
    except (OSError, ValueError) as error:
        raise Stop(f"{path}: cannot be read as a table of weights: {error}") from error
    rows, columns = ([frozenset(str(label).split("|")) for label in axis] for axis in (table.index, table.columns))
    if rows != columns or not all(kind.kind == "f" for kind in table.dtypes):
        raise Stop(f"{path}: no table of weights: its rows and columns must be the same classes, its cells numbers")
    wanted = [frozenset(name.split("|")) for name in classes]
    lacking = [name for name, label in zip(classes, wanted, strict=True) if label not in rows]
    if lacking:
        raise Stop(f"{path}: has no class {', '.join(lacking)}; its classes are {', '.join(map(str, table.index))}")
    places = [rows.index(label) for label in wanted]
    weights: Array = table.to_numpy(np.float64)[np.ix_(places, places)]
    return weights


def score_2021(targets: Array, decided: Array, weights: Array, sinus_rhythm: int) -> float:
    """Return the score of the challenges of 2020 and 2021 (Perez Alday et al. 2020, doi 10.1088/1361-6579/abc960).

    Each pair of a true and a decided class of a record counts its weight, by the number of classes that the record has
    in either; the sum is brought to 0 for `always sinus rhythm` and 1 for what is true.

    Parameters
    ----------
    targets, decided : (N, K) of 0 and 1
    weights : (K, K)
    sinus_rhythm : its column
    """

    def raw(answer: Array) -> float:
        either = np.maximum((targets.astype(bool) | answer.astype(bool)).sum(axis=1), 1)
        return float((weights * (targets.T.astype(float) @ (answer / either[:, None]))).sum())

    idle = np.zeros(targets.shape)
    idle[:, sinus_rhythm] = 1
    least, most = raw(idle), raw(targets)
    return (raw(decided) - least) / (most - least) if most != least else 0.0


def score_2017(targets: Array, decided: Array, classes: Sequence[str]) -> float:
    """Return the score of the challenge of 2017: the mean F1 of normal, AF and other rhythms, of (N, K) of 0 and 1."""
    places = [list(classes).index(name) for name in RANKED_2017]
    return float(f1_score(targets[:, places], decided[:, places], average="macro", zero_division=0))


def challenge_scores(targets: Array, decided: Array, classes: Sequence[str], table: Path | None) -> dict[str, float]:
    """Return the scores of the challenges that rank these classes, by name; targets and decided (N, K) of 0 and 1.

    table : that of the weights of 2020 or 2021
    """
    scores = {}
    if set(classes) == {*RANKED_2017, NOISE}:
        scores["CinC 2017, mean F1 of N, A, O"] = score_2017(targets, decided, classes)
    if table is not None:
        sinus = [k for k, name in enumerate(classes) if name in SINUS_RHYTHM]
        if not sinus:
            raise Stop(f"{table}: ranks against sinus rhythm, {' or '.join(SINUS_RHYTHM)}, which is no class here")
        scores["CinC 2020/2021, by weights"] = score_2021(targets, decided, read_weights(table, classes), sinus[0])
    return scores


def as_text(scores: Mapping[str, float]) -> str:
    """Return the scores as a paragraph of a report; nothing where there are none."""
    return "".join(f"Challenge score ({name}): {value:.4f}\n\n" for name, value in scores.items())
