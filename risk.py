"""Coverage against risk: how many errors are left if the least certain rows are not decided.

curve = coverage_curve(wrong, certainty(scores, "multilabel", thresholds))
curve.risk_at(90)                                       # share of wrong rows among the most certain 90 %
curve.area                                              # 0 at best
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decide import thresholds_of
from script import markdown_table

Array = NDArray[Any]
COVERAGES = (100, 95, 90, 80, 50)  # percent, of the report


class Coverage(NamedTuple):
    """The share of wrong rows among those that are kept, the most certain first."""

    coverage: Array  # (N,) 1 / N to 1, share of the rows that are kept
    risk: Array  # (N,) 0 to 1, share of wrong rows among them

    @property
    def area(self) -> float:
        """The area under risk against coverage (AURC): the mean risk over all N coverages."""
        return float(self.risk.mean())

    def risk_at(self, percent: int) -> float:
        """Return the risk where at least this many percent of the rows are kept, 1 to 100."""
        n_kept = max(1, -(-len(self.risk) * percent // 100))  # in whole numbers: 0.95 * N may round to one row more
        return float(self.risk[n_kept - 1])


def certainty(scores: Array, task: str, thresholds: float | Sequence[float] | Array | None = None) -> Array:
    """Return how far each row is from another decision, (N,).

    Multiclass: the highest score. Multilabel: the least distance of any score from its threshold.

    Parameters
    ----------
    scores : (N, K) float
    task, thresholds : as in `decide`
    """
    scores = np.asarray(scores, dtype=np.float64)
    limits = thresholds_of(task, scores.shape[1], thresholds)
    if limits is None:
        highest: Array = scores.max(axis=1)  # (N, K) -> (N,)
        return highest
    nearest: Array = np.abs(scores - limits).min(axis=1)
    return nearest


def coverage_curve(wrong: Array, certain: Array) -> Coverage:
    """Keep ever more rows, by falling certainty, and count the wrong ones among them.

    Geifman and El-Yaniv 2017 (arXiv:1705.08500); the area is named AURC by Geifman, Uziel and El-Yaniv 2019
    (arXiv:1805.08206). One departure: rows of equal certainty each count as the mean of all of them, so that the order
    of the rows in the dataset does not matter.

    Parameters
    ----------
    wrong : (N,) of 0 and 1, N at least 1
    certain : (N,) float, finite

    Raises
    ------
    ValueError
        no rows, or shapes that differ.
    """
    wrong, certain = np.asarray(wrong, dtype=np.float64), np.asarray(certain, dtype=np.float64)
    if wrong.ndim != 1 or wrong.shape != certain.shape or not len(wrong):
        raise ValueError(f"wrong {wrong.shape} and certainty {certain.shape}: both must be (N,), N at least 1")
    order = np.argsort(-certain, kind="stable")
    _, of_group, sizes = np.unique(-certain[order], return_inverse=True, return_counts=True)  # equal certainty
    shares = (np.bincount(of_group, wrong[order]) / sizes)[of_group]  # (N,)
    n_kept = np.arange(1, len(wrong) + 1)
    return Coverage(n_kept / len(wrong), shares.cumsum() / n_kept)


def best_curve(wrong: Array) -> Coverage:
    """Return the curve of least area with as many wrong rows: each is less certain than any right one."""
    return coverage_curve(wrong, -np.asarray(wrong, dtype=np.float64))


def tree(curve: Coverage, best: Coverage) -> dict[str, Any]:
    """Return risks and areas as JSON holds them."""
    risks = {str(percent): curve.risk_at(percent) for percent in COVERAGES}
    return {"risk_at_coverage": risks, "aurc": curve.area, "least_aurc": best.area}


def as_text(found: dict[str, Any]) -> str:
    """Return what `tree` holds as a section of a report."""
    risks = found["risk_at_coverage"]
    header = ["decided", *(f"{percent} %" for percent in risks)]
    wrong = ["wrong", *(f"{100 * risk:.2f} %" for risk in risks.values())]
    return (
        "## Abstention\n\n"
        "Share of wrong rows if only the most certain rows are decided and a person looks at the others. "
        f"Area under it (AURC) {found['aurc']:.4f}; {found['least_aurc']:.4f} if every wrong row were less certain "
        f"than any right one.\n\n{markdown_table(header, [wrong])}\n"
    )
