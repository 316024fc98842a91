"""95 % intervals of scores, by drawing patients with replacement (the bootstrap).

    intervals_of(targets, scores, decided, patients, scored)["macro_f1"]     # (low, high)

The rows of a patient resemble each other, so patients are drawn and not rows. A draw in which a scored class has no
row, or nothing but rows, is drawn again: left in with the class missing, rare classes would make the interval too low.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DRAWS = (200, 1000)  # least and most, by how many rows there are
MOST_CELLS, CELLS_AT_ONCE = 2e8, 20_000_000  # rows times draws, of all and in memory
MOST_TRIES = 20  # times so many draws, after which a class is too rare for an interval
LEVEL = (0.025, 0.975)


def intervals_of(
    targets: Array, scores: Array, decided: Array, patients: Array, scored: Sequence[int], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the intervals of the macro scores and the accuracy by their names in metrics.Report.

    Parameters
    ----------
    targets, decided : (N, K) of 0 and 1
    scores : (N, K)
    patients : (N,) any names
    scored : the columns that enter the macro scores; those without a row, or with nothing else, are left out of
        AUROC and average precision
    seed : of the draws

    Returns
    -------
    Empty where there is one patient only, or a class so rare that draws with all of them hardly come.
    """
    return _between(_over_draws(targets, [(scores, decided)], patients, scored, seed)[0])


def differences_of(
    targets: Array,
    one: tuple[Array, Array],
    other: tuple[Array, Array],
    patients: Array,
    scored: Sequence[int],
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return the intervals of the differences, `other` minus `one`, each (scores, decided) of the same rows.

    Both are scored on the same draws: what makes a draw hard for both is no part of their difference.
    """
    return differences_from(targets, one, [other], patients, scored, seed)[0]


def differences_from(
    targets: Array,
    one: tuple[Array, Array],
    others: Sequence[tuple[Array, Array]],
    patients: Array,
    scored: Sequence[int],
    seed: int = 0,
) -> list[dict[str, tuple[float, float]]]:
    """Return the intervals of the differences of each of several from the same one, all on the same draws."""
    first, *rest = _over_draws(targets, [one, *others], patients, scored, seed)
    return [_between({name: each[name] - first[name] for name in first}) for each in rest]


def values_of(targets: Array, scores: Array, decided: Array, scored: Sequence[int]) -> dict[str, float]:
    """Return the scores themselves, by the names of their intervals; arguments as in `intervals_of`.

    They are those of metrics.py, but `decided` may differ from what the scores decide: a row without an answer.
    """
    columns = list(scored)
    once = np.ones((1, len(targets)))
    values = _scores(targets, scores, decided, once, columns, _ranked(targets, columns))
    return {name: float(value[0]) for name, value in values.items()}


def _ranked(targets: Array, columns: Sequence[int]) -> list[int]:
    """Return the columns that some rows have and some lack: only these have an AUROC."""
    support = targets[:, columns].sum(axis=0, dtype=int)
    return [c for c, n in zip(columns, support, strict=True) if 0 < n < len(targets)]


def _over_draws(
    targets: Array, answers: Sequence[tuple[Array, Array]], patients: Array, scored: Sequence[int], seed: int
) -> list[dict[str, Array]]:
    """Return the scores of each of several answers (scores, decided) over the same draws, (B,) by name."""
    columns = list(scored)
    ranked = _ranked(targets, columns)
    names, of_row = np.unique(patients, return_inverse=True)
    counted = (np.ones(len(of_row)), *targets[:, ranked].T)  # rows, and rows of each class
    per_patient = np.stack([np.bincount(of_row, of, len(names)) for of in counted])
    drawn = draws(per_patient, int(np.clip(MOST_CELLS / len(targets), *DRAWS)), seed)
    pieces: list[dict[str, list[Array]]] = [{} for _ in answers]
    for some in np.array_split(drawn, max(1, len(drawn) * len(targets) // CELLS_AT_ONCE)) if len(drawn) else ():
        times = some[:, of_row]
        for (scores, decided), into in zip(answers, pieces, strict=True):
            for name, values in _scores(targets, scores, decided, times, columns, ranked).items():
                into.setdefault(name, []).append(values)
    return [{name: np.concatenate(values) for name, values in of.items()} for of in pieces]


def _between(values: dict[str, Array]) -> dict[str, tuple[float, float]]:
    quantiles = {name: np.quantile(of, LEVEL) for name, of in values.items()}
    return {name: (float(low), float(high)) for name, (low, high) in quantiles.items()}


def draws(per_patient: Array, n_draws: int, seed: int) -> Array:
    """Draw patients with replacement until every class has rows with and without it.

    Parameters
    ----------
    per_patient : (1 + K, P) rows of each patient, and those of each class
    n_draws : B
    seed : of the draws

    Returns
    -------
    (B, P) times each patient is drawn; none where there is one patient, or such draws hardly come
    """
    n_patients = per_patient.shape[1]
    if n_patients < 2:
        return np.zeros((0, n_patients))
    rng = np.random.default_rng(seed)
    kept: list[Array] = []
    for _ in range(MOST_TRIES):
        times = rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), n_draws).astype(float)
        n_rows, *with_class = per_patient @ times.T  # (B,) each
        whole = np.ones(n_draws, bool)
        for n in with_class:
            whole &= (n > 0) & (n < n_rows)
        kept.append(times[whole])
        if sum(map(len, kept)) >= n_draws:
            return np.concatenate(kept)[:n_draws]
    return np.zeros((0, n_patients))


def _scores(
    targets: Array, scores: Array, decided: Array, times: Array, columns: Sequence[int], ranked: Sequence[int]
) -> dict[str, Array]:
    """Return each score of each draw, (B,); times (B, N) how often each row comes."""
    values = {"accuracy": times @ (targets == decided).all(axis=1) / times.sum(axis=1)}
    both = times @ (targets & decided)[:, columns].astype(float)  # (B, K)
    present, said = (times @ of[:, columns].astype(float) for of in (targets, decided))
    values["macro_f1"] = _ratio(2 * both, present + said).mean(axis=1)
    values["macro_precision"] = _ratio(both, said).mean(axis=1)
    values["macro_recall"] = _ratio(both, present).mean(axis=1)
    if ranked:
        of_classes = [ranking(targets[:, c], scores[:, c], times) for c in ranked]
        values["macro_auroc"] = np.mean([auroc for auroc, _ in of_classes], axis=0)
        values["macro_average_precision"] = np.mean([precision for _, precision in of_classes], axis=0)
    return values


def ranking(target: Array, score: Array, times: Array) -> tuple[Array, Array]:
    """Return AUROC and average precision of each draw, (B,) each.

    Parameters
    ----------
    target, score : (N,)
    times : (B, N) how often each row comes

    Equal to scikit-learn's for rows repeated so often; a group of equal scores is one step of the curve.
    """
    order = np.argsort(-score, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(score[order]) != 0))  # of each group of equal scores
    with_class = np.add.reduceat(times[:, order] * target[order], first, axis=1)  # (B, G)
    without = np.add.reduceat(times[:, order] * (1 - target[order]), first, axis=1)
    found, false = with_class.cumsum(axis=1), without.cumsum(axis=1)
    n_with, n_without = found[:, -1], false[:, -1]
    # a row without the class counts the rows with it above, and half of those beside
    auroc = ((found - with_class / 2) * without).sum(axis=1) / (n_with * n_without)
    precision = (_ratio(found, found + false) * with_class).sum(axis=1) / n_with
    return auroc, precision


def _ratio(part: Array, whole: Array) -> Array:
    """Return part / whole, 0 where nothing is counted, as metrics.py has it."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
