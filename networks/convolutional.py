"""Convolutional networks for records and windows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from networks.layers import (
    ResidualBlock,
    check_input,
    convolution,
    initialise,
    keep_valid,
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
            x = F.max_pool1d(x, self.pool, ceil_mode=True)  # (B, C, ceil(T / pool))
            mask = thin_mask(mask, self.pool)
        logits: Tensor = self.last(self.dropout(mean_over_time(x, mask)))  # (B, K)
        return logits


class ResNet1d(nn.Module):
    """1-D residual network with GELU, eight blocks, 1.5 million parameters at its default width.

    A stem of stride 2, then four stages of two blocks (He et al. 2016, basic block, batch norm after each convolution),
    each stage with stride 2: one last feature per 32 samples, which sees 1,275 (12.8 s at 100 Hz, 2.6 s at 500 Hz).
    Departures: one dimension; kernel 7 instead of 3, since a QRS of 100 ms is 10 to 50 samples; GELU for ReLU; dropout
    between the convolutions of a block (Ribeiro et al. 2020); no max pooling after the stem.

    Parameters
    ----------
    n_leads, n_classes : int
    width : int, channels of the stem and first stage; the stages have 1, 2, 4 and 6 times as many
    kernel : int, odd, samples at the rate of the block
    dropout : float, 0..1, within each block and before the last layer
    """

    uses_valid = True
    min_samples = 32

    def __init__(self, n_leads: int, n_classes: int, *, width: int = 32, kernel: int = 7, dropout: float = 0.2) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width {width}: must be at least 1 channel")
        self.n_leads = n_leads
        self.stem = convolution(n_leads, width, 15, stride=2)
        self.stem_norm = nn.BatchNorm1d(width)
        blocks = []
        n_in = width
        for multiple in (1, 2, 4, 6):
            blocks.append(ResidualBlock(n_in, multiple * width, kernel, 2, dropout))
            blocks.append(ResidualBlock(multiple * width, multiple * width, kernel, 1, dropout))
            n_in = multiple * width
        self.blocks = nn.ModuleList(blocks)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(n_in, n_classes)
        initialise(self, self.last)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        x = self.stem(keep_valid(x, mask))  # (B, width, ceil(T / 2))
        mask = thin_mask(mask, 2)
        x = keep_valid(F.gelu(self.stem_norm(x)), mask)
        for block in self.blocks:
            x, mask = block(x, mask)  # (B, 6 width, ceil(T / 32)) after the last
        logits: Tensor = self.last(self.dropout(mean_over_time(x, mask)))  # (B, K)
        return logits
