"""Recurrent networks for records and windows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.layers import (
    ConcatHead,
    check_input,
    convolution,
    initialise,
    keep_valid,
    mean_over_time,
    thin_mask,
    valid_mask,
)


class LSTM(nn.Module):
    """Two layers of long short-term memory, as the PTB-XL benchmark trains them (`lstm`).

    Mean, maximum and last state over time go into the benchmark's head. Padding is read as a signal of zeros.

    Parameters
    ----------
    n_leads, n_classes : int
    width : int, units of each layer and direction
    dropout : float, 0..1, before the last layer; half of it before the one before
    """

    source = "Strodthoff et al. 2021, doi 10.1109/JBHI.2020.3022989"
    min_samples = 1
    bidirectional = False

    def __init__(self, n_leads: int, n_classes: int, *, width: int = 256, dropout: float = 0.5) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width {width}: must be at least 1 unit")
        self.n_leads, self.width = n_leads, width
        self.lstm = nn.LSTM(n_leads, width, num_layers=2, batch_first=True, bidirectional=self.bidirectional)
        self.head = ConcatHead((6 if self.bidirectional else 3) * width, n_classes, dropout)
        initialise(self, self.head.last)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, T) float -> logits (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        with torch.autocast(x.device.type, enabled=False):  # a thousand steps in a row would lose digits
            states, _ = self.lstm(x.transpose(1, 2).to(self.head.last.weight.dtype))  # (B, T, width or 2 width)
        ends = [states[:, -1, : self.width]]
        if self.bidirectional:
            ends.append(states[:, 0, self.width :])  # where the backward layer has seen all
        mean = states.float().mean(dim=1).to(states.dtype)
        logits: Tensor = self.head(torch.cat([mean, states.amax(dim=1), *ends], dim=1))  # (B, K)
        return logits


class BidirectionalLSTM(LSTM):
    """LSTM in both directions (`lstm_bidir`): of each direction the state that has seen the whole signal.

    Departure: the benchmark's code never reads the backward direction's last state; here it is read.

    Parameters
    ----------
    n_leads, n_classes, width, dropout : as of LSTM
    """

    bidirectional = True


class CNNLSTM(nn.Module):
    """Three convolutions with max pooling, an LSTM over what they find, its last state and the mean of all states.

    After the network of Oh et al. 2018 for heartbeats of any length: waves are found by convolutions, their order by
    the LSTM. Departures: batch norm, and more channels and units, for twelve leads and many classes; the mean of the
    states beside the last one, since a beat in the middle of a record is far from its end; one linear layer instead of
    three, as the mean needs none; the state at the last real sample, where the paper's network also reads the zeros
    behind it. Zeros before the first real sample are read.

    Parameters
    ----------
    n_leads, n_classes : int
    channels : sequence of int, one convolution each
    kernel : int, odd, samples at the rate of the layer
    pool : int, samples that become one after each convolution
    width : int, units of the LSTM
    dropout : float, 0..1, before the last layer
    """

    source = "Oh et al. 2018, doi 10.1016/j.compbiomed.2018.06.002"
    uses_valid = True
    min_samples = 16

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        channels: Sequence[int] = (32, 64, 128),
        kernel: int = 7,
        pool: int = 2,
        width: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1 or pool < 1 or width < 1:
            raise ValueError(
                f"channels {channels} must be one or more layers of at least 1; pool {pool}, width {width} at least 1"
            )
        self.n_leads, self.pool = n_leads, pool
        widths = [n_leads, *channels]
        self.convolutions = nn.ModuleList(convolution(*pair, kernel) for pair in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) for n in channels)
        self.lstm = nn.LSTM(widths[-1], width, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(2 * width, n_classes)
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
        with torch.autocast(x.device.type, enabled=False):  # a hundred steps in a row would lose digits
            states, _ = self.lstm(x.transpose(1, 2).to(self.last.weight.dtype))  # (B, T, width)
        states = states.transpose(1, 2)  # (B, width, T)
        both = torch.cat([last_valid(states, mask), mean_over_time(states, mask)], dim=1)
        logits: Tensor = self.last(self.dropout(both))  # (B, K)
        return logits


def last_valid(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the last valid sample of each row, (B, C, T) -> (B, C); of an empty range the first sample."""
    if mask is None:
        return x[:, :, -1]
    place = torch.arange(x.shape[2], device=x.device) * (mask > 0)  # (B, 1, T)
    return x.gather(2, place.amax(dim=2, keepdim=True).expand(-1, x.shape[1], -1)).squeeze(2)
