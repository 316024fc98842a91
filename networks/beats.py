"""Networks for single beats, with the numbers about the rhythm beside the signal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.layers import ResidualBlock, check_context, check_input, convolution, different, initialise
from recipe import RR_NUMBERS
from view import VIEW_NUMBERS

# A supraventricular beat looks like a normal one and comes early. Early is a ratio: 0.7 s is premature at 60 beats per
# minute and late at 100, so seconds alone do not carry over from one patient to the next.
PREVIOUS, NEXT, MEAN10, RECORD = RR_NUMBERS
CONTEXT_RATIOS = (
    (PREVIOUS, MEAN10),  # below 1: premature
    (NEXT, MEAN10),  # above 1: a compensatory pause follows
    (PREVIOUS, RECORD),  # the same against the whole record, where the last ten beats are ectopic too
    (NEXT, PREVIOUS),  # both at once: early, then a pause
)
RATIO_LIMIT = 1.0  # of |log ratio|: a factor of 2.7 either way; beyond lie missed and doubled beats
RATIO_SPREAD = 0.3  # typical |log ratio| of a premature beat (0.74): divides, so that inputs are of order 1
VIEW_LIMIT = 4.0  # of a number of view.py, in deviations
NUMBER_LIMIT = 3.0  # of |log seconds| (0.05 .. 20 s) and of numbers without a unit


class BeatCNN(nn.Module):
    """Small network for single beats, with numbers about the rhythm (RR intervals and their ratios) beside the signal.

    The signal goes through a stem and three residual blocks. The features are then averaged in `n_bins` overlapping
    pieces of the window rather than over all of it, because only its place tells a P wave from a T wave. The context
    goes through its own layer, and one joint layer sees both: an early wide beat is ventricular, an early narrow one
    supraventricular.

    Parameters
    ----------
    n_leads, n_classes : int
    context_features : sequence of str, names of the context's columns in order, each once. Those of CONTEXT_RATIOS
        enter as ratios only: seconds tell patients apart, and a network that knows its patients fails on new ones.
        Others that end in `_s` enter as log of seconds. Empty: no context, forward takes x alone
    width : int, channels of the stem; the blocks have 4/3, 2 and 8/3 times as many
    n_bins : int, pieces of the window
    dropout : float, 0..1, of the joint features; half of it inside the blocks
    shape_dropout : float, 0..1, chance that a row's signal is withheld from the joint layer while training, so that the
        rhythm is learnt too: shapes alone separate the few patients of a training set, and not the next one
    """

    source = "this project"
    min_samples = 16
    in_seconds: Tensor

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        context_features: Sequence[str] = RR_NUMBERS,
        width: int = 16,
        n_bins: int = 6,
        dropout: float = 0.3,
        shape_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.context_features = different(context_features)
        if width < 3 or n_bins < 1:
            raise ValueError(f"width {width} must be at least 3 channels and n_bins {n_bins} at least 1 piece")
        self.n_leads, self.n_bins = n_leads, n_bins
        place = {feature: column for column, feature in enumerate(self.context_features)}
        self.ratios = [(place[a], place[b]) for a, b in CONTEXT_RATIOS if a in place and b in place]
        in_ratios = {column for pair in self.ratios for column in pair}
        self.alone = [column for column in range(len(self.context_features)) if column not in in_ratios]
        in_seconds = torch.tensor([feature.endswith("_s") for feature in self.context_features], dtype=torch.bool)
        self.register_buffer("in_seconds", in_seconds, persistent=False)  # (F,), follows the network to its device

        self.stem = convolution(n_leads, width, 7)
        self.stem_norm = nn.BatchNorm1d(width)
        widths = [width, width * 4 // 3, width * 2, width * 8 // 3]
        self.blocks = nn.ModuleList(ResidualBlock(n_in, n_out, 5, 2, dropout / 2) for n_in, n_out in pairwise(widths))
        self.shape = nn.Linear(widths[-1] * n_bins, 64)
        n_joint = 64
        if self.context_features:
            self.rhythm = nn.Linear(len(self.alone) + len(self.context_features) + len(self.ratios), 32)
            self.shape_dropout = nn.Dropout(shape_dropout)
            n_joint += 32
        self.joint = nn.Linear(n_joint, 64)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(64, n_classes)
        initialise(self, self.last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, context (B, F) float32 with NaN where missing -> logits (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        if context is not None or self.context_features:
            check_context(context, x.shape[0], self.context_features)
        h = F.gelu(self.stem_norm(self.stem(x)))  # (B, width, T)
        for block in self.blocks:
            h, _ = block(h)  # (B, 8/3 width, ceil(T / 8)) after the last
        pieces = _overlapping_pieces(h.shape[2], self.n_bins, h)  # (T / 8, n_bins)
        h = F.gelu(self.shape(self.dropout((h @ pieces).flatten(1))))  # (B, C, n_bins) -> (B, 64)
        if context is not None and self.context_features:
            h = h * self.shape_dropout(h.new_ones(h.shape[0], 1))  # whole rows
            h = torch.cat([h, F.gelu(self.rhythm(self.numbers(context).to(h.dtype)))], dim=1)  # (B, 64 + 32)
        logits: Tensor = self.last(self.dropout(F.gelu(self.joint(h))))  # (B, K)
        return logits

    def numbers(self, context: Tensor) -> Tensor:
        """Turn the context into values, missing flags and ratios: (B, F) -> (B, alone + F + ratios).

        A missing value and a ratio with a missing side are 0, which is also what 1 s and "as long as usual" give: the
        flag tells them apart.
        """
        context = context.float()
        missing = ~torch.isfinite(context)  # (B, F)
        known = torch.where(missing, torch.ones_like(context), context)  # 1: its log is 0
        logs = known.clamp(min=1e-3).log()  # an interval of 0 s is a damaged annotation, not a reason for -inf
        values = torch.where(self.in_seconds, logs, known.masked_fill(missing, 0)).clamp(-NUMBER_LIMIT, NUMBER_LIMIT)
        columns = [values[:, self.alone], missing.float()]
        for a, b in self.ratios:
            ratio = (logs[:, a] - logs[:, b]).clamp(-RATIO_LIMIT, RATIO_LIMIT) / RATIO_SPREAD  # (B,)
            columns.append(ratio.masked_fill(missing[:, a] | missing[:, b], 0).unsqueeze(1))
        return torch.cat(columns, dim=1)


class BeatView(nn.Module):
    """Layers over the record's view of a beat (view.py): its rhythm, shape and waves beside the record's normal beats.

    The signal itself is not looked at: what a few dozen patients teach about the shape of a wave holds for them alone,
    while the numbers compare each beat with its own record. Each number is brought to mean 0 and deviation 1 by running
    statistics, and limited; a missing one is 0. While training, numbers are withheld and blurred at random.

    Parameters
    ----------
    n_leads, n_classes : int
    context_features : sequence of str, names of the context's columns in order, each once
    width : int, units of each of the two hidden layers
    dropout : float, 0..1, of the hidden units
    number_dropout : float, 0..1, chance that a number is withheld while training
    blur : float, deviation of the noise on each number while training
    """

    source = "this project; numbers of view.py after Teijeiro et al. 2018, doi 10.1109/JBHI.2016.2631247"
    min_samples = 1

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        context_features: Sequence[str] = VIEW_NUMBERS,
        width: int = 96,
        dropout: float = 0.3,
        number_dropout: float = 0.1,
        blur: float = 0.1,
    ) -> None:
        super().__init__()
        self.context_features = different(context_features)
        if not context_features or width < 1:
            raise ValueError(f"width {width} must be at least 1 unit, and context_features must name a number")
        self.n_leads, self.blur = n_leads, blur
        self.norm = nn.BatchNorm1d(len(self.context_features), affine=False)
        self.withhold = nn.Dropout(number_dropout)
        self.hidden = nn.Sequential(
            nn.Linear(len(self.context_features), width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout),
        )  # fmt: skip
        self.last = nn.Linear(width, n_classes)
        initialise(self, self.last)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, L, T) float, of which only the shape matters, context (B, F) float32, NaN where missing -> (B, K)."""
        check_input(x, self.n_leads, self.min_samples)
        check_context(context, x.shape[0], self.context_features)
        mean = self.norm.running_mean
        assert mean is not None
        missing = ~torch.isfinite(context)
        numbers = self.norm(torch.where(missing, mean, context).to(mean.dtype))
        numbers = numbers.clamp(-VIEW_LIMIT, VIEW_LIMIT).masked_fill(missing, 0)
        if self.training:
            numbers = self.withhold(numbers + self.blur * torch.randn_like(numbers))
        logits: Tensor = self.last(self.hidden(numbers.to(self.last.weight.dtype)))
        return logits


def _overlapping_pieces(n_samples: int, n_bins: int, like: Tensor) -> Tensor:
    """Return weights (T, n_bins), each column a triangle over its part of the window with sum 1.

    Like adaptive average pooling, but smooth at the borders, and of one form for every T, so that ONNX can hold it.
    """
    place = (torch.arange(n_samples, device=like.device) + 0.5) / n_samples  # (T,), 0..1
    middle = (torch.arange(n_bins, device=like.device) + 0.5) / n_bins  # (n_bins,)
    half = 1 / torch.sym_min(n_bins, n_samples)  # never narrower than one sample: no piece is empty
    weights = (1 - (place[:, None] - middle).abs() / half).clamp(min=0)  # (T, n_bins)
    pieces: Tensor = weights / weights.sum(dim=0)
    return pieces.to(like.dtype)
