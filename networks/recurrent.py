"""Recurrent networks for records and windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks.layers import ConcatHead, check_input, initialise


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
