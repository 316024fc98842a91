"""How much each sample of a row, and each number beside it, speaks for a class: the mathematics of explain.py.

    found = attribute(trained, batch, "AFIB", typical)              # integrated gradients
    found.per_lead                                                  # (L,) log odds that each lead adds
    found.error                                                     # what is missing to the whole, below 0.01

What is explained is the log odds of a class: its logit where classes are independent, log p / (1 - p) of its softmax
score where one of them holds. A row is compared with a flat line (zeros), and its numbers with typical ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import bundle
import models
from batches import Batch
from bundle import Bundle

Array = NDArray[Any]
# points (M, D) -> log odds (M,), and their gradients (M, D) where these are asked for
Function = Callable[[Array, bool], tuple[Array, Array | None]]

METHODS = ("integrated", "expected", "occlusion")
TOLERANCE = 0.005  # of the difference that is explained: what the sum may lack, half of what is promised
LOCAL_TOLERANCE = 0.05  # of all ups and downs on the way: what its pieces may lack together, by absolute errors
LEAST_DIFFERENCE = 0.1  # log odds: of a smaller difference the tolerance is of this one
FIRST_PIECES = 4  # of the way from the baseline
MAX_POINTS = 3000  # on the way: a network that jumps is given up on, and the error tells it
POINTS_AT_ONCE = 32
PIECES_AT_ONCE = 10
OCCLUDED_S = 0.08  # about a QRS complex
_GAUSS = np.polynomial.legendre.leggauss(3)
NODES, WEIGHTS = (_GAUSS[0] + 1) / 2, _GAUSS[1] / 2  # on 0..1, exact for polynomials up to degree 5


@dataclass(frozen=True)
class Attribution:
    """What speaks for a class in one row."""

    class_name: str
    method: str
    leads: tuple[str, ...]  # of the slots
    values: NDArray[np.float64]  # (L, T) log odds that each sample adds
    numbers: dict[str, float]  # log odds that each number beside the signal adds
    output: float  # log odds of the class
    baseline: float  # its log odds where the row is replaced by what it is compared with
    fs: float  # of the row, Hz
    start_s: float = 0.0  # of the row in its record

    @property
    def per_lead(self) -> NDArray[np.float64]:
        """(L,) log odds that each lead adds."""
        total: NDArray[np.float64] = self.values.sum(axis=1)
        return total

    @property
    def share(self) -> NDArray[np.float64]:
        """(L,) share of each lead, 0..1, in the absolute attributions of all samples and numbers; 0 if all are 0."""
        sizes: NDArray[np.float64] = np.abs(self.values).sum(axis=1)
        return sizes / (self._size or 1.0)

    @property
    def number_share(self) -> dict[str, float]:
        """Share of each number beside the signal, as `share`."""
        return {name: abs(value) / (self._size or 1.0) for name, value in self.numbers.items()}

    @property
    def _size(self) -> float:
        return float(np.abs(self.values).sum() + np.abs(list(self.numbers.values())).sum())

    @property
    def error(self) -> float:
        """What the attributions' sum lacks to output minus baseline, as a share of that difference (completeness).

        Of a difference below LEAST_DIFFERENCE it is a share of that. Occlusion does not promise a small one.
        """
        difference = self.output - self.baseline
        total = float(self.values.sum()) + sum(self.numbers.values())
        return abs(total - difference) / max(abs(difference), LEAST_DIFFERENCE)


def attribute(
    trained: Bundle,
    batch: Batch,
    class_name: str,
    typical: Array | None = None,
    method: str = "integrated",
    references: Array | None = None,
) -> Attribution:
    """Tell how much each sample and number of a row speaks for a class.

    Parameters
    ----------
    trained : the network
    batch : one row as it is scored: signal (1, L, T), context (1, F), valid (1, 2)
    class_name : one of the network's classes
    typical : (F,) numbers that those of the row are compared with; None, or NaN, compares a number with itself
    method : `integrated` gradients (Sundararajan et al. 2017, arXiv:1703.01365); `expected` gradients, the mean over
        references (Erion et al. 2021, doi 10.1038/s42256-021-00343-w; the SHAP values of a deep network), each way
        integrated whole instead of sampled; `occlusion` of OCCLUDED_S of one lead at a time, or of one number (Zeiler
        and Fergus 2014, arXiv:1311.2901)
    references : (R, L, T) rows that `expected` compares with

    Raises
    ------
    ValueError
        An unknown class or method, or `expected` without references.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: must be one of {', '.join(METHODS)}")
    if class_name not in trained.classes:
        raise ValueError(f"class {class_name!r}: the model has {', '.join(trained.classes)}")
    if method == "expected" and (references is None or not len(references)):
        raise ValueError("method expected: needs rows to compare with")
    signal = np.asarray(batch.signal, dtype=np.float64)  # (1, L, T)
    context = np.asarray(batch.context, dtype=np.float64)
    usual = context if typical is None else np.where(np.isfinite(typical) & np.isfinite(context), typical, context)
    function = _function_of(trained, batch, trained.classes.index(class_name))
    stop = np.concatenate([signal.ravel(), context.ravel()])  # (D,)
    first, last = np.asarray(batch.valid)[0]
    inside = (np.arange(signal.shape[2]) >= first) & (np.arange(signal.shape[2]) < last)  # (T,)
    starts = np.zeros((1, *signal.shape[1:])) if method != "expected" else np.where(inside, np.asarray(references), 0.0)
    starts = np.concatenate([starts.reshape(len(starts), -1), np.tile(usual.ravel(), (len(starts), 1))], axis=1)
    if method == "occlusion":
        values = occluded(function, starts[0], stop, _groups(signal.shape[1:], trained.recipe.fs, context.size))
    else:
        values = np.mean([integrated(function, start, stop) for start in starts], axis=0)
    return Attribution(
        class_name=class_name,
        method=method,
        leads=tuple("/".join(slot) for slot in trained.recipe.leads),
        values=values[: signal.size].reshape(signal.shape[1:]),
        numbers=dict(zip(trained.recipe.context_columns, values[signal.size :].tolist(), strict=True)),
        output=float(function(stop[None], False)[0][0]),
        baseline=float(function(starts, False)[0].mean()),
        fs=trained.recipe.fs,
    )


def typical_of(context: Array) -> NDArray[np.float64]:
    """Return the median of each column of numbers (N, F) about the rows of a record, (F,); NaN where none is known."""
    return np.asarray(pd.DataFrame(context).median().to_numpy(np.float64))


def _groups(shape: Sequence[int], fs: float, n_numbers: int) -> list[slice]:
    """Return what is hidden together: stretches of each lead, and each number."""
    n_leads, n_samples = shape
    step = max(1, round(OCCLUDED_S * fs))
    stretches = [
        slice(lead * n_samples + at, lead * n_samples + min(at + step, n_samples))
        for lead in range(n_leads)
        for at in range(0, n_samples, step)
    ]
    n = n_leads * n_samples
    return stretches + [slice(n + k, n + k + 1) for k in range(n_numbers)]


def _function_of(trained: Bundle, batch: Batch, k: int) -> Function:
    """Return the log odds of class k as a function of the signal and the numbers of a row, (M, L * T + F) in one."""
    _, n_leads, n_samples = np.shape(batch.signal)
    context = torch.from_numpy(np.array(batch.context, np.float32))
    missing = ~torch.isfinite(context)  # (1, F)

    def log_odds(points: torch.Tensor) -> torch.Tensor:
        signal = points[:, : n_leads * n_samples].unflatten(1, (n_leads, n_samples))
        numbers = points[:, n_leads * n_samples :].masked_fill(missing, torch.nan)
        valid = torch.from_numpy(np.array(batch.valid)).expand(len(points), 2)
        logits = bundle.logits_of_batch(trained, Batch(signal, None, numbers, valid, batch.rows)) / trained.temperature
        if trained.task == "multilabel":
            return logits[:, k]
        others = [other for other in range(logits.shape[1]) if other != k]
        return logits[:, k] - logits[:, others].logsumexp(dim=1)

    def function(points: Array, gradient: bool) -> tuple[Array, Array | None]:
        values, slopes = [], []
        for chunk in np.array_split(points, -(-len(points) // POINTS_AT_ONCE)):
            place = torch.from_numpy(np.nan_to_num(chunk)).float().requires_grad_(gradient)
            # cuDNN has the gradient of recurrent layers in training mode alone
            with torch.set_grad_enabled(gradient), torch.backends.cudnn.flags(enabled=not gradient):
                odds = log_odds(place)
            values.append(odds.detach().cpu().double().numpy())
            if gradient:  # rows do not see each other: the gradient of the sum is that of each
                slopes.append(torch.autograd.grad(odds.sum(), place)[0].nan_to_num().double().numpy())
        return np.concatenate(values), np.concatenate(slopes) if gradient else None

    return function


# ------------------------------------------------------------------------------------------------ any function


class _Piece(NamedTuple):
    """A stretch of the way, with the function's values at its ends."""

    low: float
    high: float
    at_low: float
    at_high: float


def integrated(function: Function, start: Array, stop: Array) -> NDArray[np.float64]:
    """Integrate the gradient on the straight way from start to stop (D,): what each coordinate adds to the difference.

    The difference over a piece of the way is known from its ends, so each piece tells its own error. The worst pieces
    are halved until the sum lacks no more than TOLERANCE and the pieces no more than LOCAL_TOLERANCE. A fixed number of
    steps misses the 1 % on networks that are steep near the baseline.
    """
    direction = np.nan_to_num(stop - start)
    edges = np.linspace(0, 1, FIRST_PIECES + 1)
    values, _ = function(start + edges[:, None] * direction, False)
    difference = max(abs(values[-1] - values[0]), LEAST_DIFFERENCE)
    new = [_Piece(*piece) for piece in zip(edges[:-1], edges[1:], values[:-1], values[1:], strict=True)]
    done: list[tuple[float, _Piece, float, Array]] = []  # error, piece, value in its middle, share of each coordinate
    n_points = 0
    while True:
        for some in (new[k : k + PIECES_AT_ONCE] for k in range(0, len(new), PIECES_AT_ONCE)):
            places = np.array([piece.low + (piece.high - piece.low) * NODES for piece in some])  # (P, 3)
            values, slopes = function(start + places.reshape(-1, 1) * direction, True)
            assert slopes is not None
            n_points += places.size
            for k, piece in enumerate(some):
                part = (piece.high - piece.low) * direction * (WEIGHTS @ slopes[3 * k : 3 * k + 3])  # (D,)
                error = float(part.sum()) - (piece.at_high - piece.at_low)
                done.append((error, piece, values[3 * k + 1], part.astype(np.float32)))
        done.sort(key=lambda entry: abs(entry[0]))
        errors = np.array([entry[0] for entry in done])
        within = abs(errors.sum()) <= TOLERANCE * difference
        variation = sum(abs(piece.at_high - piece.at_low) for _, piece, _, _ in done)
        allowed = LOCAL_TOLERANCE * max(variation, LEAST_DIFFERENCE)
        if n_points >= MAX_POINTS or (within and np.abs(errors).sum() <= allowed):
            total: NDArray[np.float64] = np.sum([entry[3] for entry in done], axis=0, dtype=np.float64)
            return total
        # what may stay: the best pieces, that lack half of what is allowed; the worst one is always halved
        kept = int(np.searchsorted(np.abs(errors).cumsum(), allowed / 2, side="right"))
        kept = min(kept, len(done) - max(1, len(done) // 4))
        worst, done = done[kept:], done[:kept]
        new = []
        for _, (low, high, at_low, at_high), at_middle, _ in worst:
            middle = (low + high) / 2
            new += [_Piece(low, middle, at_low, at_middle), _Piece(middle, high, at_middle, at_high)]


def occluded(function: Function, start: Array, stop: Array, groups: Sequence[slice]) -> NDArray[np.float64]:
    """Tell how much is lost where each group of stop's coordinates is replaced by start's, spread over the group."""
    total = np.zeros(len(stop))
    whole = function(stop[None], False)[0][0]
    for some in (groups[k : k + POINTS_AT_ONCE] for k in range(0, len(groups), POINTS_AT_ONCE)):
        points = np.tile(stop, (len(some), 1))
        for point, group in zip(points, some, strict=True):
            point[group] = start[group]
        lost = whole - function(points, False)[0]  # (G,)
        for group, loss in zip(some, lost, strict=True):
            total[group] = loss / (group.stop - group.start)
    return total


# ------------------------------------------------------------------------------------------------ sanity


def with_random_weights(trained: Bundle, seed: int = 0) -> Bundle:
    """Return the same network untrained: an explanation that it shares explains no learning.

    Adebayo et al. 2018, arXiv:1810.03292.
    """
    device = next(trained.network.parameters()).device
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = models.build(trained.name, len(trained.recipe.leads), len(trained.classes), **trained.arguments)
    return replace(trained, network=network.to(device).eval())


def similarity(one: Attribution, other: Attribution) -> float:
    """Return the rank correlation (Spearman's) of the absolute attributions of two networks; NaN if one has none."""
    sizes = [np.abs([*found.values.ravel(), *found.numbers.values()]) for found in (one, other)]
    return float(pd.DataFrame(sizes).T.corr(method="spearman").to_numpy()[0, 1])
