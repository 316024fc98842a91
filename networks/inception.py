"""The inception network for records and windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.layers import (
    ConcatHead,
    check_input,
    convolution,
    initialise,
    keep_valid,
    max_and_mean,
    max_of_three,
    valid_mask,
)

KERNELS = (39, 19, 9)  # samples: at 100 Hz a cycle's part, a T wave, a QRS


class Inception1d(nn.Module):
    """InceptionTime as the PTB-XL benchmark trains it (`inception1d`): convolutions of three lengths side by side.

    Six blocks, a shortcut over each three, no stride anywhere, and the benchmark's head. Departures: none in the
    layers; He initialisation by fan out.

    Parameters
    ----------
    n_leads, n_classes : int
    width : int, channels of each of the four branches
    depth : int, number of blocks, a multiple of three
    dropout : float, 0..1, before the last layer; half of it before the one before
    """

    source = "Fawaz et al. 2020, arXiv:1909.04939; Strodthoff et al. 2021, doi 10.1109/JBHI.2020.3022989"
    uses_valid = True
    min_samples = 16

    def __init__(self, n_leads: int, n_classes: int, *, width: int = 32, depth: int = 6, dropout: float = 0.5) -> None:
        super().__init__()
        if width < 1 or depth < 3 or depth % 3:
            raise ValueError(f"width {width} must be at least 1 channel, and depth {depth} a multiple of 3 blocks")
        self.n_leads = n_leads
        n_out = 4 * width
        self.blocks = nn.ModuleList(InceptionBlock(n_out if k else n_leads, width) for k in range(depth))
        self.shortcuts = nn.ModuleList(
            nn.Sequential(convolution(n_out if k else n_leads, n_out, 1), nn.BatchNorm1d(n_out))
            for k in range(depth // 3)
        )
        self.head = ConcatHead(2 * n_out, n_classes, dropout)
        initialise(self, self.head.last)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        x = before = keep_valid(x, mask)
        for k, block in enumerate(self.blocks):
            x = block(x, mask)  # (B, 4 width, T)
            if k % 3 == 2:
                x = before = keep_valid(F.relu(x + self.shortcuts[k // 3](before)), mask)
        logits: Tensor = self.head(max_and_mean(x, mask))  # (B, K)
        return logits


class InceptionBlock(nn.Module):
    """Convolutions of three lengths beside one of the local maximum: (B, n_in, T) -> (B, 4 width, T)."""

    def __init__(self, n_in: int, width: int) -> None:
        super().__init__()
        self.narrow = convolution(n_in, width, 1)
        self.branches = nn.ModuleList(convolution(width, width, kernel) for kernel in KERNELS)
        self.of_maximum = convolution(n_in, width, 1)
        self.norm = nn.BatchNorm1d(4 * width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, n_in, T), zero where the mask (B, 1, T) is zero -> (B, 4 width, T), likewise."""
        narrow = self.narrow(x)
        branches = [*(branch(narrow) for branch in self.branches), self.of_maximum(max_of_three(x, mask))]
        return keep_valid(F.relu(self.norm(torch.cat(branches, dim=1))), mask)
