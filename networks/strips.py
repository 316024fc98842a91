"""Boosted trees over numbers about a strip, and a network that has them beside a residual one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from networks.layers import check_context, check_input, different
from networks.residual import ResNet1d
from strip import STRIP_NUMBERS

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeRegressor

UNKNOWN = -9.0  # what a missing number is for a tree: below what it splits on


class BoostedTrees(nn.Module):
    """For each class the log odds by gradient boosted trees (Friedman 2001, doi 10.1214/aos/1013203451).

    scikit-learn grows them; what they say is computed from buffers, and is what scikit-learn says. A tree is laid out
    as a complete one: the children of node i are 2 i + 1 and 2 i + 2.

    Parameters
    ----------
    n_classes : int
    trees : int, of each class
    depth : int, questions of each tree
    rate : float, share of each tree's answer that is added
    """

    feature: Tensor
    threshold: Tensor
    leaf: Tensor
    prior: Tensor

    def __init__(self, n_classes: int, trees: int, depth: int, rate: float) -> None:
        super().__init__()
        if trees < 1 or not 1 <= depth <= 10:
            raise ValueError(f"trees {trees} must be at least 1, and depth {depth} from 1 to 10")
        self.depth, self.rate = depth, rate
        self.register_buffer("feature", torch.zeros(n_classes, trees, 2**depth - 1, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(n_classes, trees, 2**depth - 1))
        self.register_buffer("leaf", torch.zeros(n_classes, trees, 2**depth))
        self.register_buffer("prior", torch.zeros(n_classes))

    def grow(self, context: NDArray[np.float32], labels: NDArray[np.uint8], weights: NDArray[np.float32]) -> None:
        """Learn from rows; the same rows give the same trees.

        Parameters
        ----------
        context : (N, F), NaN where unknown
        labels : (N, K), 0 or 1. Where each row has one of three classes or more, all grow together, for softmax;
            otherwise each grows alone
        weights : (K,), how much a row of each class counts
        """
        from sklearn.ensemble import GradientBoostingClassifier  # loaded by a training alone

        numbers = np.nan_to_num(context, nan=UNKNOWN)
        exclusive = int(labels.any(axis=0).sum()) > 2 and bool((labels.sum(axis=1) == 1).all())
        tasks = [labels.argmax(axis=1)] if exclusive else list(labels.T)
        for k, target in enumerate(tasks):
            counts = weights[target] if exclusive else np.where(target == 1, weights[k], 1.0)
            boosted = GradientBoostingClassifier(
                n_estimators=self.leaf.shape[1], learning_rate=self.rate, max_depth=self.depth, subsample=0.6,
                max_features=max(1, round(0.06 * numbers.shape[1])), min_samples_leaf=5, random_state=0,
            )  # fmt: skip
            share = np.bincount(target, counts, minlength=labels.shape[1] if exclusive else 2) + 0.5 / len(target)
            share = np.log(share / counts.sum())
            places = range(labels.shape[1]) if exclusive else [k]
            self.prior[places] = torch.from_numpy(share if exclusive else share[1:] - share[:1]).float()
            if target.min() == target.max():
                continue  # of a class that all rows have, or none, nothing but its share is known
            boosted.fit(numbers, target, counts)
            for column, place in enumerate(boosted.classes_ if exclusive else [k]):
                for m, tree in enumerate(boosted.estimators_[:, column]):
                    self._lay_out(tree, place, m)

    def _lay_out(self, regressor: DecisionTreeRegressor, k: int, m: int) -> None:
        tree = regressor.tree_
        feature, threshold, leaf = (part[k, m] for part in (self.feature, self.threshold, self.leaf))
        level = [0]  # the node of scikit-learn that stands at each place
        for depth in range(self.depth):
            following = []
            for place, node in enumerate(level, 2**depth - 1):
                if tree.children_left[node] < 0:  # a leaf: whatever the answer, it stays
                    following += [node, node]
                    continue
                feature[place], limit = int(tree.feature[node]), np.float32(tree.threshold[node])
                # a number of float32 is at most the limit of float64 where it is at most the next float32 below
                threshold[place] = float(limit if limit <= tree.threshold[node] else np.nextafter(limit, -np.inf))
                following += [tree.children_left[node], tree.children_right[node]]
            level = following
        leaf[:] = torch.from_numpy(self.rate * tree.value[level, 0, 0])

    def forward(self, context: Tensor) -> Tensor:
        """context (B, F) float32, NaN where unknown -> log odds of each class (B, K) float32."""
        numbers = context.float().nan_to_num(nan=UNKNOWN)
        n_classes, n_trees, _ = self.leaf.shape
        feature, threshold, leaf = (part.flatten(0, 1) for part in (self.feature, self.threshold, self.leaf))
        tree = torch.arange(len(leaf), device=context.device)  # (K * M,)
        place = torch.zeros(numbers.shape[0], len(leaf), dtype=torch.int64, device=context.device)  # (B, K * M)
        for _ in range(self.depth):
            asked = numbers.gather(1, feature[tree, place])
            place = 2 * place + 1 + (asked > threshold[tree, place]).long()
        answers = leaf[tree, place - (2**self.depth - 1)].unflatten(1, (n_classes, n_trees))
        odds: Tensor = self.prior + answers.sum(dim=2)
        return odds


class StripNet(nn.Module):
    """A residual network reads the strip, boosted trees its numbers (strip.py); their logits are averaged.

    Published classifiers of rhythm strips that lead combine both: what the waves look like is learnt, and that RR
    intervals follow no pattern is measured (Hong et al. 2019, doi 10.1088/1361-6579/ab15a2; Teijeiro et al. 2018,
    doi 10.1088/1361-6579/aac7c5). The trees grow before the first step. A training step goes by the network alone: of
    the rows that they grew from the trees know nearly everything, and the network would learn nothing.

    Parameters
    ----------
    n_leads, n_classes : int
    context_features : sequence of str, names of the numbers, in the order of the context
    base_channels, kernel, dropout : as of ResNet1d
    trees, depth, rate : as of BoostedTrees
    """

    source = "this project, after Hong et al. 2019, doi 10.1088/1361-6579/ab15a2"
    uses_valid = True
    min_samples = ResNet1d.min_samples

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        context_features: Sequence[str] = STRIP_NUMBERS,
        base_channels: int = 16,
        kernel: int = 7,
        dropout: float = 0.2,
        trees: int = 250,
        depth: int = 5,
        rate: float = 0.05,
    ) -> None:
        super().__init__()
        self.context_features = different(context_features)
        if not self.context_features:
            raise ValueError("context_features: must name at least one number; resnet1d takes the signal alone")
        self.reader = ResNet1d(n_leads, n_classes, base_channels=base_channels, kernel=kernel, dropout=dropout)
        self.trees = BoostedTrees(n_classes, trees, depth, rate)

    def grow(self, context: NDArray[np.float32], labels: NDArray[np.uint8], weights: NDArray[np.float32]) -> None:
        """Take in numbers (N, F), labels (N, K) and the weight of each class (K,), before the first step."""
        self.trees.grow(context, labels, weights)

    def forward(self, x: Tensor, context: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T), context (B, F) float32 with NaN where unknown, valid (B, 2) or None -> logits (B, K)."""
        check_input(x, self.reader.n_leads, self.min_samples)
        check_context(context, x.shape[0], self.context_features)
        logits: Tensor = self.reader(x, valid)
        return logits if self.training else (logits + self.trees(context).to(logits.dtype)) / 2
