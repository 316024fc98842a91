"""Residual networks for records and windows."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from networks.layers import (
    ConcatHead,
    ResidualBlock,
    SqueezeExcite,
    check_input,
    convolution,
    initialise,
    keep_valid,
    max_and_mean,
    max_pool,
    mean_of_pairs,
    mean_over_time,
    thin_mask,
    valid_mask,
)


class ResNet1d(nn.Module):
    """1-D residual network with GELU, eight blocks, 1.5 million parameters at its default width.

    A stem of stride 2, then four stages of two blocks (He et al. 2016, basic block, batch norm after each convolution),
    each stage with stride 2: one last feature per 32 samples, which sees 1,275 (12.8 s at 100 Hz, 2.6 s at 500 Hz).
    Departures: one dimension; kernel 7 instead of 3, since a QRS of 100 ms is 10 to 50 samples; GELU for ReLU; dropout
    between the convolutions of a block (Ribeiro et al. 2020); no max pooling after the stem.

    Parameters
    ----------
    n_leads, n_classes : int
    base_channels : int, of the stem and first stage; the stages have 1, 2, 4 and 6 times as many
    kernel : int, odd, samples at the rate of the block
    dropout : float, 0..1, within each block and before the last layer
    """

    source = "He et al. 2016, arXiv:1512.03385; Ribeiro et al. 2020, doi 10.1038/s41467-020-15432-4"
    uses_valid = True
    min_samples = 32

    def __init__(
        self, n_leads: int, n_classes: int, *, base_channels: int = 32, kernel: int = 7, dropout: float = 0.2
    ) -> None:
        super().__init__()
        if base_channels < 1:
            raise ValueError(f"base_channels {base_channels}: must be at least 1 channel")
        self.n_leads = n_leads
        self.stem = convolution(n_leads, base_channels, 15, stride=2)
        self.stem_norm = nn.BatchNorm1d(base_channels)
        blocks = []
        n_in = base_channels
        for multiple in (1, 2, 4, 6):
            blocks.append(ResidualBlock(n_in, multiple * base_channels, kernel, 2, dropout))
            blocks.append(ResidualBlock(multiple * base_channels, multiple * base_channels, kernel, 1, dropout))
            n_in = multiple * base_channels
        self.blocks = nn.ModuleList(blocks)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(n_in, n_classes)
        initialise(self, self.last)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        x = self.stem(keep_valid(x, mask))  # (B, C, ceil(T / 2))
        mask = thin_mask(mask, 2)
        x = keep_valid(F.gelu(self.stem_norm(x)), mask)
        for block in self.blocks:
            x, mask = block(x, mask)  # (B, 6 C, ceil(T / 32)) after the last
        logits: Tensor = self.last(self.dropout(mean_over_time(x, mask)))  # (B, K)
        return logits


class SEResNet1d(ResNet1d):
    """ResNet1d with squeeze and excitation: each block weighs its channels by what all of them show on average.

    Parameters
    ----------
    n_leads, n_classes, base_channels, kernel, dropout : as of ResNet1d
    reduction : int, by which the gate's hidden layer is narrower than its block
    """

    source = "Hu et al. 2018, arXiv:1709.01507, on ResNet1d"

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        base_channels: int = 32,
        kernel: int = 7,
        dropout: float = 0.2,
        reduction: int = 16,
    ) -> None:
        super().__init__(n_leads, n_classes, base_channels=base_channels, kernel=kernel, dropout=dropout)
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            block.gate = SqueezeExcite(block.conv2.out_channels, reduction)


class ResNet1dWang(nn.Module):
    """The small residual network of Wang et al. 2017, as the PTB-XL benchmark trains it (`resnet1d_wang`).

    A stem of kernel 7, three blocks of 128 channels with kernels 5 and 3, the second and third with stride 2, and the
    benchmark's head. Departures: none in the layers; He initialisation by fan out.

    Parameters
    ----------
    n_leads, n_classes : int
    width : int, channels of every layer
    dropout : float, 0..1, before the last layer; half of it before the one before
    """

    source = "Wang et al. 2017, arXiv:1611.06455; Strodthoff et al. 2021, doi 10.1109/JBHI.2020.3022989"
    uses_valid = True
    min_samples = 16

    def __init__(self, n_leads: int, n_classes: int, *, width: int = 128, dropout: float = 0.5) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width {width}: must be at least 1 channel")
        self.n_leads = n_leads
        self.stem = NormalisedConvolution(n_leads, width, 7)
        self.blocks = nn.ModuleList(WangBlock(width, stride) for stride in (1, 2, 2))
        self.head = ConcatHead(2 * width, n_classes, dropout)
        initialise(self, self.head.last)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        x, mask = self.stem(keep_valid(x, mask), mask)
        for block in self.blocks:
            x, mask = block(F.relu(x), mask)  # (B, width, ceil(T / 4)) after the last
        logits: Tensor = self.head(max_and_mean(F.relu(x), mask))  # (B, K)
        return logits


class NormalisedConvolution(nn.Module):
    """A convolution with batch norm, (B, n_in, T) -> (B, n_out, ceil(T / stride)), zero outside the mask."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = convolution(n_in, n_out, kernel, stride)
        self.norm = nn.BatchNorm1d(n_out)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x (B, n_in, T), mask (B, 1, T) -> both with ceil(T / stride) samples."""
        mask = thin_mask(mask, self.stride)
        return keep_valid(self.norm(self.convolution(x)), mask), mask


class WangBlock(nn.Module):
    """Convolutions of kernel 5 and 3 beside a shortcut, which is one of kernel 1 where the stride is not 1."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.first = NormalisedConvolution(width, width, 5, stride)
        self.second = NormalisedConvolution(width, width, 3)
        self.shortcut = NormalisedConvolution(width, width, 1, stride) if stride > 1 else None

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x (B, C, T), mask (B, 1, T) -> the sum before its ReLU, and the mask, both with ceil(T / stride) samples."""
        h, thinned = self.first(x, mask)
        h, _ = self.second(F.relu(h), thinned)
        return h + (x if self.shortcut is None else self.shortcut(x, mask)[0]), thinned


class XResNet1d101(nn.Module):
    """The 101-layer residual network that leads the PTB-XL benchmark's convolutions (`xresnet1d101`).

    The tricks of He et al. 2019 in one dimension: a stem of three convolutions, a shortcut that averages pairs before
    its convolution of kernel 1, the last batch norm of a block starting at 0. 3, 4, 23 and 3 bottleneck blocks, whose
    inner width is 64 in every stage, and the benchmark's head. Departures: none in the layers; He initialisation by fan
    out.

    Parameters
    ----------
    n_leads, n_classes : int
    width : int, inner channels of every block; four times as many leave it
    kernel : int, odd, of the stem and the blocks
    dropout : float, 0..1, before the last layer; half of it before the one before
    """

    source = "He et al. 2019, arXiv:1812.01187; Strodthoff et al. 2021, doi 10.1109/JBHI.2020.3022989"
    uses_valid = True
    min_samples = 32

    def __init__(self, n_leads: int, n_classes: int, *, width: int = 64, kernel: int = 5, dropout: float = 0.5) -> None:
        super().__init__()
        if width < 4:
            raise ValueError(f"width {width}: must be at least 4 channels")
        self.n_leads = n_leads
        widths = (n_leads, width // 2, width // 2, width)
        self.stem = nn.ModuleList(
            NormalisedConvolution(n_in, n_out, kernel, 2 if k == 0 else 1)
            for k, (n_in, n_out) in enumerate(pairwise(widths))
        )
        blocks, n_in = [], width
        for stage, n_blocks in enumerate((3, 4, 23, 3)):
            for k in range(n_blocks):
                blocks.append(Bottleneck(n_in, width, kernel, 2 if stage > 0 and k == 0 else 1))
                n_in = 4 * width
        self.blocks = nn.ModuleList(blocks)
        self.head = ConcatHead(2 * n_in, n_classes, dropout)
        initialise(self, self.head.last)
        for block in blocks:
            nn.init.zeros_(block.last.norm.weight)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        x = keep_valid(x, mask)
        for layer in self.stem:
            x, mask = layer(x, mask)
            x = F.relu(x)  # (B, width, ceil(T / 2))
        x, mask = max_pool(x, 3, 2), thin_mask(mask, 2)
        x = keep_valid(x, mask)
        for block in self.blocks:
            x, mask = block(x, mask)  # (B, 4 width, ceil(T / 32)) after the last
        logits: Tensor = self.head(max_and_mean(x, mask))  # (B, K)
        return logits


class Bottleneck(nn.Module):
    """Convolutions of kernel 1, k and 1 beside a shortcut: (B, n_in, T) -> (B, 4 width, ceil(T / stride))."""

    def __init__(self, n_in: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.first = NormalisedConvolution(n_in, width, 1)
        self.middle = NormalisedConvolution(width, width, kernel, stride)
        self.last = NormalisedConvolution(width, 4 * width, 1)
        self.shortcut = NormalisedConvolution(n_in, 4 * width, 1) if n_in != 4 * width else None

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x (B, n_in, T), mask (B, 1, T) -> both with ceil(T / stride) samples."""
        h, _ = self.first(x, mask)
        h, thinned = self.middle(F.relu(h), mask)
        h, _ = self.last(F.relu(h), thinned)
        if self.stride > 1:
            x = mean_of_pairs(x, mask)
        if self.shortcut is not None:
            x, _ = self.shortcut(x, thinned)
        return F.relu(h + x), thinned
