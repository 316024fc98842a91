"""Folds: how recordings or rows are dealt out, which rows a split takes, and what leaks. On arrays alone."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from script import Stop

Rows = NDArray[np.int64]  # indices of rows in a prepared dataset
Fold = bytes | NDArray[np.bytes_]  # of a recording, or of each of its rows where a split divides recordings

LEAKS = {
    "random_rows": "rows of one patient stand in several splits: scores say nothing about new patients",
    "dechazal": "records 201 (DS1) and 202 (DS2) come from one person, as the split is defined",
}
# The owner's folds that each kind of split keeps (None: all of them); every other recording gets a drawn one.
KEPT_FOLDS = {"patients": {"paced"}, "random_rows": {"paced"}, "dechazal": {"DS2", "paced"}, "official": None}


def leak_of(split: str, names: Iterable[str]) -> str | None:
    """Say what leaks in a kind of split of the recordings with these names, if anything does."""
    if split == "dechazal" and not {"201", "202"} <= set(names):
        return None
    return LEAKS.get(split)


def keeps_fold(split: str, owner_fold: str | None) -> bool:
    """Tell whether a recording keeps the fold that its owner gave it."""
    kept = KEPT_FOLDS[split]
    return owner_fold is not None and (kept is None or owner_fold in kept)


def deal_patients(patients: Sequence[str], counts: NDArray[np.int64], n_folds: int, seed: int) -> list[bytes]:
    """Draw the fold of each recording, with all recordings of a patient in one fold.

    Patients are dealt out one by one, those with the largest share of a rare class first, each to the fold where the
    shares of all classes then lie closest to even. Ties fall by a hash of seed and patient: the same on every machine.

    Parameters
    ----------
    patients : (N,) names, one for each recording
    counts : (N, C) rows of each class in each recording, and whatever else is to be dealt out evenly
    n_folds, seed : int

    Returns
    -------
    (N,) names of folds, `0` to `n_folds - 1`

    Raises
    ------
    Stop
        Fewer patients than folds.
    """
    number: dict[str, int] = {}  # of each patient
    of_recording = [number.setdefault(patient, len(number)) for patient in patients]
    if len(number) < n_folds:
        few = ", ".join(list(number)[:3]) + (", ..." if len(number) > 3 else "")
        raise Stop(f"data.folds = {n_folds}: there are only {len(number)} patients without a given fold: {few}")
    of_patient = np.zeros((len(number), counts.shape[1]), np.int64)
    np.add.at(of_patient, of_recording, counts)
    share = of_patient / np.maximum(of_patient.sum(axis=0), 1)
    by_weight = np.lexsort((np.array([draw_key(seed, patient) for patient in number]), -share.max(axis=1)))
    filled = np.zeros((n_folds, share.shape[1]))  # share of each class in each fold so far
    fold_of = np.empty(len(number), np.int64)
    for patient in by_weight:
        # growth of the sum of squared shares: least where this patient's classes are scarcest
        growth = ((filled + share[patient]) ** 2 - filled**2).sum(axis=1)
        fold = growth.argmin()
        filled[fold] += share[patient]
        fold_of[patient] = fold
    names = [str(fold).encode() for fold in range(n_folds)]
    return [names[fold_of[patient]] for patient in of_recording]


def deal_rows(labels: NDArray[np.uint8], n_folds: int, seed: int) -> NDArray[np.bytes_]:
    """Draw the fold of each row, (N,), by class and at random within each class; labels (N, K)."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.lexsort(labels[order].T)]
    fold_of = np.empty(len(labels), np.int64)
    fold_of[order] = np.arange(len(labels)) % n_folds
    folds: NDArray[np.bytes_] = fold_of.astype("S16")
    return folds


def take_evenly(keys: Sequence[Any], fraction: float) -> list[int]:
    """Choose a part of some things, evenly from all sorted by their keys; return their places, ascending."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    steps = np.ceil(np.arange(len(order) + 1) * fraction)  # the first is always taken
    return sorted(order[n] for n in np.flatnonzero(np.diff(steps)))


def draw_key(seed: int, text: str) -> str:
    """Return a key that sorts texts at random, the same on every machine."""
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


def choose_rows(
    fold: NDArray[np.bytes_],
    patient: NDArray[np.bytes_],
    splits: Mapping[str, Sequence[str]],
    needed: Collection[str],
    may_leak: bool,
) -> dict[str, Rows]:
    """Return the rows of each split, which is a list of folds.

    Parameters
    ----------
    fold, patient : (N,) of each row
    splits : names of folds for each split
    needed : the splits that must have rows
    may_leak : whether a patient may be in two splits

    Raises
    ------
    Stop
        A needed split without a row, a fold in two splits, or a patient in two splits that may not leak.
    """
    rows = {}
    for split, names in splits.items():
        rows[split] = np.flatnonzero(np.isin(fold, np.array(names, dtype=bytes)))
        if len(rows[split]) == 0 and split in needed:
            present = ", ".join(sorted(each.decode() for each in np.unique(fold)))
            hint = "; --data.test '[]' does without a test part" if split == "test" and names else ""
            raise Stop(f"data.{split} = {', '.join(names) or 'no fold'}: no rows; there are folds {present}{hint}")
    for a, b in combinations(splits, 2):
        if shared := set(splits[a]) & set(splits[b]):
            raise Stop(f"data.{a} and data.{b} share fold {min(shared)}")
        if not may_leak and (name := _shared(patient, rows[a], rows[b])):
            places = [f"{s} (fold {fold[rows[s]][patient[rows[s]] == name][0].decode()})" for s in (a, b)]
            raise Stop(f"patient {name.decode()} is in both {' and '.join(places)}")
    return rows


def _shared(patient: NDArray[Any], a: Rows, b: Rows) -> bytes:
    """Name a patient of both lists of rows, if there is one."""
    shared = np.intersect1d(patient[a], patient[b])
    return bytes(shared[0]) if len(shared) else b""
