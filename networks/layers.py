"""Layers that several families of networks share.

Masks (B, 1, T) are 1 where a sample is real and 0 where it is padding; None: all samples are real. A network keeps its
signal at zero outside the mask after every layer, so that padding at the end of a row does not change the logits.

Weights: He initialisation (normal, fan out) for convolutions, PyTorch's default for linear layers, biases of the last
layer 0, batch norm 1 and 0: the first logits are small and no class is ahead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def check_input(x: Tensor, n_leads: int, min_samples: int) -> None:
    """Raise ValueError where x is not (B, n_leads, at least min_samples)."""
    if x.ndim != 3 or x.shape[1] != n_leads or x.shape[2] < min_samples:
        raise ValueError(f"x {tuple(x.shape)}: must be (B, {n_leads} leads, at least {min_samples} samples)")


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
    return mask if mask is None or stride == 1 else F.max_pool1d(mask, stride, ceil_mode=True)


def keep_valid(x: Tensor, mask: Tensor | None) -> Tensor:
    """Set x to zero outside the mask: the next convolution sees there what it sees beyond the end of a signal."""
    return x if mask is None else x * mask.to(x.dtype)


def mean_over_time(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over valid samples, (B, C, T) -> (B, C), summed in float32: float16 would lose digits."""
    if mask is None:
        return x.float().mean(dim=2).to(x.dtype)
    n_valid = mask.float().sum(dim=2).clamp(min=1)  # (B, 1); an empty range gives 0, not NaN
    return (keep_valid(x, mask).float().sum(dim=2) / n_valid).to(x.dtype)


def initialise(network: nn.Module, last: nn.Linear) -> None:
    """Draw the weights of a network whose last layer is `last`."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(last.bias)


def convolution(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Conv1d:
    """Make a convolution to ceil(T / stride) samples, i centred on input i * stride; no bias, as batch norm follows."""
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel {kernel}: must be odd, so that a feature stays where the wave is")
    return nn.Conv1d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm and GELU beside a shortcut: (B, n_in, T) -> (B, n_out, ceil(T / stride))."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = convolution(n_in, n_out, kernel, stride)
        self.norm1 = nn.BatchNorm1d(n_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(n_out, n_out, kernel)
        self.norm2 = nn.BatchNorm1d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(convolution(n_in, n_out, 1, stride), nn.BatchNorm1d(n_out))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x (B, n_in, T), zero where the mask (B, 1, T) is zero -> both with ceil(T / stride) samples."""
        mask = thin_mask(mask, self.stride)
        h = keep_valid(F.gelu(self.norm1(self.conv1(x))), mask)  # (B, n_out, ceil(T / stride))
        h = self.norm2(self.conv2(self.dropout(h)))
        return keep_valid(F.gelu(h + self.shortcut(x)), mask), mask
