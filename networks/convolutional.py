"""Small convolutional networks for records and windows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from networks.layers import (
    check_input,
    convolution,
    convolved_and_pooled,
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
        x, mask = convolved_and_pooled(x, mask, self.convolutions, self.norms, self.pool)
        logits: Tensor = self.last(self.dropout(mean_over_time(x, mask)))  # (B, K)
        return logits


class ECGConvNet(nn.Module):
    """Filters in time shared by all leads, mixtures of the leads for each filter, and two separable convolutions.

    A compact baseline after EEGNet, which has the same three parts for electrodes on the head. Departures: more filters
    and a second separable convolution, since the waves of an ECG have more shapes than a rhythm of the brain; ReLU with
    max pooling instead of ELU with mean pooling, so that zeros of padding stay out; no batch norm between the filters
    and the mixtures, which are both linear; no limit on the norm of weights, as weight decay is at hand; the mean over
    time before the last layer, for rows of any length.

    Parameters
    ----------
    n_leads, n_classes : int
    filters : int, filters in time
    mixtures : int, of all leads, for each filter
    kernel : int, odd, samples of a filter; 25 are a quarter of a second at 100 Hz, a P wave or a QRS complex with its
        surroundings
    pool : int, samples that become one after each of the three parts
    dropout : float, 0..1, of the features after each part
    """

    source = "Lawhern et al. 2018, doi 10.1088/1741-2552/aace8c"
    uses_valid = True
    min_samples = 16

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        filters: int = 16,
        mixtures: int = 4,
        kernel: int = 25,
        pool: int = 4,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if filters < 1 or mixtures < 1 or pool < 1:
            raise ValueError(f"filters {filters}, mixtures {mixtures} and pool {pool} must be at least 1")
        self.n_leads, self.pool = n_leads, pool
        width = filters * mixtures
        self.filters = convolution(1, filters, kernel)
        self.mixtures = nn.Conv1d(filters * n_leads, width, 1, groups=filters, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.blocks = nn.ModuleList(SeparableConvolution(n, 2 * n) for n in (width, 2 * width))
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(4 * width, n_classes)
        initialise(self, self.last)

    def of_leads(self, x: Tensor) -> Tensor:
        """Filter each lead by itself, then mix the leads filter by filter: (B, L, T) -> (B, filters * mixtures, T)."""
        filtered = self.filters(x.flatten(0, 1).unsqueeze(1)).unflatten(0, (-1, self.n_leads))  # (B, L, filters, T)
        mixed: Tensor = self.mixtures(filtered.transpose(1, 2).flatten(1, 2))
        return mixed

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        x = keep_valid(F.relu(self.norm(self.of_leads(keep_valid(x, mask)))), mask)
        x, mask = self.pooled(x, mask)
        for block in self.blocks:
            x, mask = self.pooled(keep_valid(block(x), mask), mask)
        logits: Tensor = self.last(mean_over_time(x, mask))  # (B, K)
        return logits

    def pooled(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x (B, C, T), at least 0 and 0 at padding, mask (B, 1, T) -> both with ceil(T / pool) samples."""
        return self.dropout(max_pool(x, self.pool, self.pool)), thin_mask(mask, self.pool)


class SeparableConvolution(nn.Module):
    """A filter for each channel, mixtures of all, batch norm and ReLU: (B, n_in, T) -> (B, n_out, T)."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 15) -> None:
        super().__init__()
        self.filters = nn.Conv1d(n_in, n_in, kernel, padding=kernel // 2, groups=n_in, bias=False)
        self.mixtures = convolution(n_in, n_out, 1)
        self.norm = nn.BatchNorm1d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, n_in, T) -> (B, n_out, T), at least 0."""
        return F.relu(self.norm(self.mixtures(self.filters(x))))
