"""A small convolutional network for records and windows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from networks.layers import (
    check_input,
    convolution,
    initialise,
    keep_valid,
    max_pool,
    mean_over_time,
    thin_mask,
    valid_mask,
)


class CNN1d(nn.Module):
    """Three convolutions with batch norm, ReLU and max pooling, then the mean over time: small and quick, a baseline.

    Parameters
    ----------
    n_leads, n_classes : int
    channels : sequence of int, one layer each
    kernel : int, odd, samples at the rate of the layer; pool 4 three times makes the last layer see 190 samples (1.9 s
        at 100 Hz), enough for one beat with its neighbours
    pool : int, samples that become one after each layer
    dropout : float, 0..1, of the features before the last layer
    """

    source = "this project"
    uses_valid = True
    min_samples = 16

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        channels: Sequence[int] = (32, 64, 128),
        kernel: int = 7,
        pool: int = 4,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1 or pool < 1:
            raise ValueError(f"channels {channels} must be one or more layers of at least 1, pool {pool} at least 1")
        self.n_leads, self.pool = n_leads, pool
        widths = [n_leads, *channels]
        self.convolutions = nn.ModuleList(convolution(*pair, kernel) for pair in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in channels)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(widths[-1], n_classes)
        initialise(self, self.last)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        x = keep_valid(x, mask)
        for layer, norm in zip(self.convolutions, self.norms, strict=True):
            x = keep_valid(F.relu(norm(layer(x))), mask)  # (B, C, T); padding is 0, never above a valid sample
            x = max_pool(x, self.pool, self.pool)  # (B, C, ceil(T / pool))
            mask = thin_mask(mask, self.pool)
        logits: Tensor = self.last(self.dropout(mean_over_time(x, mask)))  # (B, K)
        return logits
