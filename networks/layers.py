"""Layers that several families of networks share.

Masks (B, 1, T) are 1 where a sample is real and 0 where it is padding; None: all samples are real. A network keeps its
signal at zero outside the mask after every layer, so that padding at the end of a row does not change the logits.

Weights: He initialisation (normal, fan out) for convolutions, PyTorch's default for linear layers, biases of the last
layer 0, batch norm 1 and 0: the first logits are small and no class is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def check_input(x: Tensor, n_leads: int, min_samples: int) -> None:
    """Raise ValueError where x is not (B, n_leads, at least min_samples)."""
    if x.ndim != 3 or x.shape[1] != n_leads or x.shape[2] < min_samples:
        raise ValueError(f"x {tuple(x.shape)}: must be (B, {n_leads} leads, at least {min_samples} samples)")


def different(context_features: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a context's columns; ValueError where they are no list of different names."""
    if isinstance(context_features, str) or len(set(context_features)) != len(context_features):
        raise ValueError(f"context_features {context_features!r}: must be a list of different names")
    return tuple(context_features)


def check_context(context: Tensor | None, n_rows: int, names: Sequence[str]) -> None:
    """Raise ValueError where the context is not (n_rows, a column for each name)."""
    if context is None or context.shape != (n_rows, len(names)):
        given = None if context is None else tuple(context.shape)
        columns = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(f"context {given}: must be {(n_rows, len(names))}, columns {columns}")


def valid_mask(x: Tensor, valid: Tensor | None) -> Tensor | None:
    """Return the mask of valid ranges (B, 2): (B, 1, T) of 1 where a sample is real and 0 where it is padding."""
    if valid is None:
        return None
    if valid.shape != (x.shape[0], 2):
        raise ValueError(f"valid {tuple(valid.shape)}: must be ({x.shape[0]}, 2), start and stop of each row of x")
    time = torch.arange(x.shape[2], device=x.device)  # (T,)
    return ((time >= valid[:, :1]) & (time < valid[:, 1:])).unsqueeze(1).to(x.dtype)


def thin_mask(mask: Tensor | None, stride: int) -> Tensor | None:
    """Return the mask after a strided layer, (B, 1, T) -> (B, 1, ceil(T / stride)): 1 where any sample was valid."""
    return mask if mask is None or stride == 1 else max_pool(mask, stride, stride)


def max_pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Return the maximum of kernel samples, (B, C, T) -> (B, C, ceil(T / stride)): of an odd kernel around each
    stride-th sample, of one that equals the stride from there on."""
    before = kernel // 2 if kernel != stride else 0
    if not torch.compiler.is_compiling():
        return F.max_pool1d(x, kernel, stride, before, ceil_mode=kernel == stride)
    # max_pool1d is exported for one length alone, and the rounding up for some; this takes 10 times as long on a CPU
    x = F.pad(x, (before, kernel - 1 - before), value=-torch.inf)
    return F.max_pool2d(x.unsqueeze(2), (1, kernel), (1, stride)).squeeze(2)


def keep_valid(x: Tensor, mask: Tensor | None) -> Tensor:
    """Set x to zero outside the mask: the next convolution sees there what it sees beyond the end of a signal."""
    return x if mask is None else x * mask.to(x.dtype)


def cut(x: Tensor, n_samples: int) -> Tensor:
    """Cut into pieces of so many samples, the last one filled up with zeros: (..., T) -> (..., N, n_samples)."""
    pieces: Tensor = F.pad(x, (0, -x.shape[-1] % n_samples)).unflatten(-1, (-1, n_samples))
    return pieces


def mean_over_time(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over valid samples, (B, C, T) -> (B, C), summed in float32: float16 would lose digits."""
    if mask is None:
        return x.float().mean(dim=2).to(x.dtype)
    n_valid = mask.float().sum(dim=2).clamp(min=1)  # (B, 1); an empty range gives 0, not NaN
    return (keep_valid(x, mask).float().sum(dim=2) / n_valid).to(x.dtype)


def max_of_three(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the maximum of each sample and its two neighbours, (B, C, T) -> (B, C, T), among valid samples."""
    if mask is not None:
        x = x.masked_fill(mask == 0, torch.finfo(x.dtype).min)
    return keep_valid(max_pool(x, 3, 1), mask)


def mean_of_pairs(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of each two samples, (B, C, T) -> (B, C, ceil(T / 2)), of one valid sample itself."""
    if mask is None:
        return F.avg_pool1d(x, 2, ceil_mode=True)
    odd = 1 if torch.compiler.is_compiling() else 0  # where the length is not known, the last pair may be half padding
    sums, counts = (F.avg_pool1d(F.pad(y, (0, odd)), 2, ceil_mode=not odd) for y in (x, mask.to(x.dtype)))
    return sums / counts.clamp(min=0.5)


def initialise(network: nn.Module, last: nn.Linear) -> None:
    """Draw the weights of a network whose last layer is `last`."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            with torch.no_grad():
                module.weight *= module.groups**0.5  # an input of one group reaches the outputs of that group alone
    nn.init.zeros_(last.bias)


def convolution(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Conv1d:
    """Make a convolution to ceil(T / stride) samples, i centred on input i * stride; no bias, as batch norm follows."""
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel {kernel}: must be odd, so that a feature stays where the wave is")
    return nn.Conv1d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)


def convolved_and_pooled(
    x: Tensor, mask: Tensor | None, convolutions: nn.ModuleList, norms: nn.ModuleList, pool: int
) -> tuple[Tensor, Tensor | None]:
    """Apply convolution, batch norm, ReLU and max pooling, layer by layer.

    x (B, L, T) and mask (B, 1, T) -> x (B, C, N) and mask (B, 1, N), N = T / pool of each layer, rounded up.
    """
    for layer, norm in zip(convolutions, norms, strict=True):
        x = keep_valid(F.relu(norm(layer(x))), mask)  # (B, C, T); padding is 0, never above a valid sample
        x = max_pool(x, pool, pool)  # (B, C, ceil(T / pool))
        mask = thin_mask(mask, pool)
    return x, mask


class SqueezeExcite(nn.Module):
    """Weigh each channel by a gate that sees the mean of all of them (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, n_channels: int, reduction: int) -> None:
        super().__init__()
        if not 1 <= reduction <= n_channels:
            raise ValueError(f"reduction {reduction}: must be 1 to {n_channels}, the channels of the first stage")
        self.gate = nn.Sequential(
            nn.Linear(n_channels, n_channels // reduction), nn.ReLU(),
            nn.Linear(n_channels // reduction, n_channels), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, C, T), mask (B, 1, T) -> (B, C, T)."""
        gates: Tensor = self.gate(mean_over_time(x, mask))  # (B, C)
        return x * gates.unsqueeze(2)


class ConcatHead(nn.Module):
    """The head of the PTB-XL benchmark (Strodthoff et al. 2021): two linear layers, each after batch norm and dropout.

    It takes several poolings over time side by side, (B, n_features) -> logits (B, K).
    """

    def __init__(self, n_features: int, n_classes: int, dropout: float = 0.5, width: int = 128) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm1d(n_features)
        self.dropout1 = nn.Dropout(dropout / 2)
        self.hidden = nn.Linear(n_features, width)
        self.norm2 = nn.BatchNorm1d(width)
        self.dropout2 = nn.Dropout(dropout)
        self.last = nn.Linear(width, n_classes)

    def forward(self, pooled: Tensor) -> Tensor:
        h = F.relu(self.hidden(self.dropout1(self.norm1(pooled))))
        logits: Tensor = self.last(self.dropout2(self.norm2(h)))
        return logits


def max_and_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return maximum and mean over valid samples, (B, C, T) -> (B, 2C); x is at least 0, and 0 outside the mask."""
    return torch.cat([x.amax(dim=2), mean_over_time(x, mask)], dim=1)


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm and GELU beside a shortcut: (B, n_in, T) -> (B, n_out, ceil(T / stride)).

    With a gate, the channels are weighed before the sum.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = convolution(n_in, n_out, kernel, stride)
        self.norm1 = nn.BatchNorm1d(n_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(n_out, n_out, kernel)
        self.norm2 = nn.BatchNorm1d(n_out)
        self.gate: SqueezeExcite | None = None
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(convolution(n_in, n_out, 1, stride), nn.BatchNorm1d(n_out))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x (B, n_in, T), zero where the mask (B, 1, T) is zero -> both with ceil(T / stride) samples."""
        mask = thin_mask(mask, self.stride)
        h = keep_valid(F.gelu(self.norm1(self.conv1(x))), mask)  # (B, n_out, ceil(T / stride))
        h = self.norm2(self.conv2(self.dropout(h)))
        if self.gate is not None:
            h = self.gate(keep_valid(h, mask), mask)
        return keep_valid(F.gelu(h + self.shortcut(x)), mask), mask
