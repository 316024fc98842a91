"""Recurrent networks for records and windows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from networks.layers import (
    ConcatHead,
    check_input,
    convolution,
    convolved_and_pooled,
    initialise,
    keep_valid,
    mean_over_time,
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
        x, mask = convolved_and_pooled(x, mask, self.convolutions, self.norms, self.pool)
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


def with_onnx_operator(network: LSTM | CNNLSTM) -> LSTM | CNNLSTM:
    """Return a copy for torch.onnx.export: its layers are the operator LSTM of ONNX, for rows of any length."""
    plain = copy.deepcopy(network)
    plain.lstm = OnnxLSTM(network.lstm)  # type: ignore[assignment]
    return plain


class OnnxLSTM(nn.Module):
    """Layers of LSTM as the operator of ONNX: (B, T, C) -> (B, T, ways * width), for the trace alone.

    torch.export would lay out every step of a row of one length.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        if not hasattr(torch.onnx, "ops"):
            raise ValueError(f"an LSTM is written as ONNX by torch 2.8 or newer; this is {torch.__version__}")
        self.n_layers, self.width, self.ways = lstm.num_layers, lstm.hidden_size, 1 + lstm.bidirectional
        for layer in range(lstm.num_layers):
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                ways = ("", "_reverse")[: self.ways]
                of_ways = [getattr(lstm, f"{kind}_l{layer}{way}").detach() for way in ways]
                # gates: input, forget, cell, output in PyTorch; input, output, forget, cell in ONNX
                gates = [way.unflatten(0, (4, -1))[[0, 3, 1, 2]].flatten(0, 1) for way in of_ways]
                self.register_buffer(f"{kind}{layer}", torch.stack(gates))  # (ways, 4 width, ..)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """x (B, T, C) -> states of the last layer (B, T, ways * width), and nothing for its last states."""
        y = x.transpose(0, 1)
        attributes: dict[str, Any] = {
            "hidden_size": self.width,
            "direction": "bidirectional" if self.ways == 2 else "forward",
        }
        ends = (self.ways, y.shape[1], self.width)
        for layer in range(self.n_layers):
            of_input, of_state, *biases = (
                getattr(self, f"{kind}{layer}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            y, _, _ = torch.onnx.ops.symbolic_multi_out(
                "LSTM", (y, of_input, of_state, torch.cat(biases, dim=1)), attributes,
                dtypes=[x.dtype] * 3, shapes=[(y.shape[0], *ends), ends, ends], version=18,
            )  # fmt: skip
            y = y.transpose(1, 2).flatten(2)  # (T, ways, B, width) -> (T, B, ways * width)
        return y.transpose(0, 1), None
