"""The networks and their registry.

    import models
    network = models.build("resnet1d", n_leads=12, n_classes=6, width=32)
    logits = network(x)                                     # (B, 12, T) -> (B, 6)
    print(models.listing())                                 # every network, its size and what it takes

A network takes x (B, L, T) float and gives logits (B, K); softmax or sigmoid belongs to the loss and to the caller. Two
further inputs exist, and a network says itself which of them it wants: `extra_inputs(network)`, in the order of the
call.

- `context_features`, a tuple of names: a second tensor (B, F) float32, the numbers about a beat that go beside its
  signal, in the order of the names; NaN where there is none (the first beat of a record has no previous one);
- `uses_valid`: the valid range (B, 2) int64, start and stop of each row's real samples. What lies outside is padding;
  at the end of a row its length and content do not change the logits. Left out, every sample is valid.

Any T from `min_samples` up. In eval mode a row's logits do not depend on what else is in the batch. While training,
batch statistics see padded samples too, as zeros before the convolution.

Weights: He initialisation (normal, fan out) for convolutions, PyTorch's default for linear layers, biases of the last
layer 0, batch norm 1 and 0: the first logits are small and no class is ahead.
"""

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from script import nearest

# ---------------------------------------------------------------------------------------------------------- registry

_networks: dict[str, type[nn.Module]] = {}
Network = TypeVar("Network", bound=type[nn.Module])


def register(name: str) -> Callable[[Network], Network]:
    """Decorator: make a class `(n_leads, n_classes, *, ...) -> nn.Module` available to `build` under this name."""

    def add(network: Network) -> Network:
        assert name not in _networks, f"two networks are called {name}"
        _networks[name] = network
        return network

    return add


def names() -> list[str]:
    """Names of all networks, sorted."""
    return sorted(_networks)


def build(name: str, n_leads: int, n_classes: int, **arguments: Any) -> nn.Module:
    """Make a network with fresh weights.

    Parameters
    ----------
    name : str, one of `names()`
    n_leads, n_classes : int, at least 1
    arguments : what the network's own constructor takes, e.g. `dropout=0.1`; `describe()` lists them

    Returns
    -------
    nn.Module in training mode, (B, n_leads, T) -> (B, n_classes)

    Raises
    ------
    ValueError
        an unknown name or argument, with the nearest valid one; n_leads or n_classes below 1.
    """
    allowed = arguments_of(name)
    if n_leads < 1 or n_classes < 1:
        raise ValueError(f"model {name}: n_leads {n_leads} and n_classes {n_classes} must be at least 1")
    for argument in arguments:
        if argument not in allowed:
            raise ValueError(
                f"model {name}: no argument {argument!r}{nearest(argument, allowed)}; "
                f"its arguments are {', '.join(allowed)}"
            )
    return _networks[name](n_leads, n_classes, **arguments)


def arguments_of(name: str) -> dict[str, Any]:
    """The arguments of a network and their defaults; ValueError for an unknown name, with the nearest valid one."""
    if name not in _networks:
        raise ValueError(f"model {name!r}: unknown{nearest(name, names())}; models are {', '.join(names())}")
    parameters = inspect.signature(_networks[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def extra_inputs(network: nn.Module) -> tuple[str, ...]:
    """What forward takes after x, in order: a subset of ("context", "valid").

    `network(x, *(batch[name] for name in extra_inputs(network)))`. Ask the network itself, before DDP or torch.compile
    wrap it.
    """
    context = ("context",) if getattr(network, "context_features", ()) else ()
    valid = ("valid",) if getattr(network, "uses_valid", False) else ()
    return context + valid


def describe(n_leads: int = 12, n_classes: int = 6) -> list[dict[str, Any]]:
    """One entry per network: name, parameters (a count), inputs, min_samples, arguments (with defaults), summary."""
    entries = []
    for name in names():
        with torch.device("meta"):  # shapes without memory, and without a draw from the random generator
            network = build(name, n_leads, n_classes)
        shapes = {"context": f"context (B, {len(getattr(network, 'context_features', ()))})", "valid": "valid (B, 2)"}
        inputs = [f"x (B, {n_leads}, T >= {network.min_samples})", *(shapes[key] for key in extra_inputs(network))]
        entries.append(
            {
                "name": name,
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "inputs": inputs,
                "min_samples": network.min_samples,
                "arguments": arguments_of(name),
                "summary": (inspect.getdoc(_networks[name]) or "").split("\n")[0],
            }
        )
    return entries


def listing(n_leads: int = 12, n_classes: int = 6) -> str:
    """`describe()` as text for the terminal."""
    lines = [f"networks, with parameters for {n_leads} leads and {n_classes} classes:"]
    for entry in describe(n_leads, n_classes):
        arguments = ", ".join(f"{key}={value!r}" for key, value in entry["arguments"].items())
        lines += [
            f"{entry['name']:<10} {entry['parameters']:>10,}  {entry['summary']}",
            f"{'':<21}  takes {', '.join(entry['inputs'])}",
            f"{'':<21}  settings {arguments}",
        ]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------- parts


def _check(x: Tensor, n_leads: int, min_samples: int) -> None:
    if x.ndim != 3 or x.shape[1] != n_leads or x.shape[2] < min_samples:
        raise ValueError(f"x {tuple(x.shape)}: must be (B, {n_leads} leads, at least {min_samples} samples)")


def _valid_mask(x: Tensor, valid: Tensor | None) -> Tensor | None:
    """(B, 1, T) of 1 where a sample is real and 0 where it is padding; None if all are."""
    if valid is None:
        return None
    if valid.shape != (x.shape[0], 2):
        raise ValueError(f"valid {tuple(valid.shape)}: must be ({x.shape[0]}, 2), start and stop of each row of x")
    time = torch.arange(x.shape[2], device=x.device)  # (T,)
    return ((time >= valid[:, :1]) & (time < valid[:, 1:])).unsqueeze(1).to(x.dtype)


def _thin(mask: Tensor | None, stride: int) -> Tensor | None:
    """The mask after a layer of that stride: (B, 1, T) -> (B, 1, ceil(T / stride)), 1 where any sample was valid."""
    return mask if mask is None or stride == 1 else F.max_pool1d(mask, stride, ceil_mode=True)


def _keep(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero outside the valid range: the next convolution then sees there what it sees beyond the end of a signal."""
    return x if mask is None else x * mask.to(x.dtype)


def _mean_over_time(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, C, T) -> (B, C), the mean over valid samples, summed in float32: float16 would lose digits."""
    if mask is None:
        return x.float().mean(dim=2).to(x.dtype)
    n_valid = mask.float().sum(dim=2).clamp(min=1)  # (B, 1); an empty range gives 0, not NaN
    return (_keep(x, mask).float().sum(dim=2) / n_valid).to(x.dtype)


def _initialise(network: nn.Module, last: nn.Linear) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(last.bias)


def _convolution(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Conv1d:
    """No bias: batch norm follows. Gives ceil(T / stride) samples, output i centred on input i * stride."""
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel {kernel}: must be odd, so that a feature stays where the wave is")
    return nn.Conv1d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm and GELU beside a shortcut: (B, n_in, T) -> (B, n_out, ceil(T / stride))."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = _convolution(n_in, n_out, kernel, stride)
        self.norm1 = nn.BatchNorm1d(n_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _convolution(n_out, n_out, kernel)
        self.norm2 = nn.BatchNorm1d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(_convolution(n_in, n_out, 1, stride), nn.BatchNorm1d(n_out))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x (B, n_in, T), zero where mask (B, 1, T) is -> the same two, ceil(T / stride) samples long."""
        mask = _thin(mask, self.stride)
        h = _keep(F.gelu(self.norm1(self.conv1(x))), mask)  # (B, n_out, ceil(T / stride))
        h = self.norm2(self.conv2(self.dropout(h)))
        return _keep(F.gelu(h + self.shortcut(x)), mask), mask


# ---------------------------------------------------------------------------------------------------------- networks


@register("cnn1d")
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
        self.convolutions = nn.ModuleList(_convolution(*pair, kernel) for pair in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in channels)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(widths[-1], n_classes)
        _initialise(self, self.last)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        _check(x, self.n_leads, self.min_samples)
        mask = _valid_mask(x, valid)  # (B, 1, T)
        x = _keep(x, mask)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = _keep(F.relu(norm(convolution(x))), mask)  # (B, C, T); padding is 0, never above a valid sample
            x = F.max_pool1d(x, self.pool, ceil_mode=True)  # (B, C, ceil(T / pool))
            mask = _thin(mask, self.pool)
        logits: Tensor = self.last(self.dropout(_mean_over_time(x, mask)))  # (B, K)
        return logits


@register("resnet1d")
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
        self.stem = _convolution(n_leads, width, 15, stride=2)
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
        _initialise(self, self.last)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        _check(x, self.n_leads, self.min_samples)
        mask = _valid_mask(x, valid)  # (B, 1, T)
        x = self.stem(_keep(x, mask))  # (B, width, ceil(T / 2))
        mask = _thin(mask, 2)
        x = _keep(F.gelu(self.stem_norm(x)), mask)
        for block in self.blocks:
            x, mask = block(x, mask)  # (B, 6 width, ceil(T / 32)) after the last
        logits: Tensor = self.last(self.dropout(_mean_over_time(x, mask)))  # (B, K)
        return logits


# A supraventricular beat looks like a normal one and comes early. Early is a ratio: 0.7 s is premature at 60 beats per
# minute and late at 100, so seconds alone do not carry over from one patient to the next.
CONTEXT_RATIOS = (
    ("rr_previous_s", "rr_mean10_s"),  # below 1: premature
    ("rr_next_s", "rr_mean10_s"),  # above 1: a compensatory pause follows
    ("rr_previous_s", "rr_record_s"),  # the same against the whole record, where the last ten beats are ectopic too
    ("rr_next_s", "rr_previous_s"),  # both at once: early, then a pause
)
RATIO_LIMIT = 1.0  # of |log ratio|: a factor of 2.7 either way; beyond lie missed and doubled beats
RATIO_SPREAD = 0.3  # typical |log ratio| of a premature beat (0.74): divides, so that inputs are of order 1
NUMBER_LIMIT = 3.0  # of |log seconds| (0.05 .. 20 s) and of numbers without a unit


@register("beatcnn")
class BeatCNN(nn.Module):
    """Small network for single beats, with numbers about the rhythm (RR intervals and their ratios) beside the signal.

    The signal goes through a stem and three residual blocks; the features are then averaged in `n_bins` overlapping
    pieces of the window rather than over all of it: whether a small wave comes before or after the QRS is what tells a
    P wave from a T wave. The context goes through its own layer, and one joint layer sees both (an early wide beat is
    ventricular, an early narrow one supraventricular).

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

    min_samples = 16
    in_seconds: Tensor

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        context_features: Sequence[str] = ("rr_previous_s", "rr_next_s", "rr_mean10_s", "rr_record_s"),
        width: int = 16,
        n_bins: int = 6,
        dropout: float = 0.3,
        shape_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if isinstance(context_features, str) or len(set(context_features)) != len(context_features):
            raise ValueError(f"context_features {context_features!r}: must be a list of different names")
        if width < 3 or n_bins < 1:
            raise ValueError(f"width {width} must be at least 3 channels and n_bins {n_bins} at least 1 piece")
        self.n_leads, self.n_bins = n_leads, n_bins
        self.context_features = tuple(context_features)
        place = {feature: column for column, feature in enumerate(self.context_features)}
        self.ratios = [(place[a], place[b]) for a, b in CONTEXT_RATIOS if a in place and b in place]
        in_ratios = {column for pair in self.ratios for column in pair}
        self.alone = [column for column in range(len(self.context_features)) if column not in in_ratios]
        in_seconds = torch.tensor([feature.endswith("_s") for feature in self.context_features], dtype=torch.bool)
        self.register_buffer("in_seconds", in_seconds, persistent=False)  # (F,), follows the network to its device

        self.stem = _convolution(n_leads, width, 7)
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
        _initialise(self, self.last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, context (B, F) float32 with NaN where missing -> logits (B, K)."""
        _check(x, self.n_leads, self.min_samples)
        expected = (x.shape[0], len(self.context_features))
        if (context is not None or self.context_features) and (context is None or context.shape != expected):
            given = None if context is None else tuple(context.shape)
            raise ValueError(f"context {given}: must be {expected}, columns {', '.join(self.context_features)}")
        h = F.gelu(self.stem_norm(self.stem(x)))  # (B, width, T)
        for block in self.blocks:
            h, _ = block(h)  # (B, 8/3 width, ceil(T / 8)) after the last
        pieces = _overlapping_pieces(h.shape[2], self.n_bins, h)  # (T / 8, n_bins)
        h = F.gelu(self.shape(self.dropout((h @ pieces).flatten(1))))  # (B, C, n_bins) -> (B, 64)
        if context is not None and self.context_features:
            h = h * self.shape_dropout(h.new_ones(len(h), 1))  # whole rows
            h = torch.cat([h, F.gelu(self.rhythm(self.numbers(context).to(h.dtype)))], dim=1)  # (B, 64 + 32)
        logits: Tensor = self.last(self.dropout(F.gelu(self.joint(h))))  # (B, K)
        return logits

    def numbers(self, context: Tensor) -> Tensor:
        """What the network makes of the context: (B, F) -> (B, alone + F + ratios): values, missing flags, ratios.

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


def _overlapping_pieces(n_samples: int, n_bins: int, like: Tensor) -> Tensor:
    """(T, n_bins) weights, each column a triangle over its part of the window with sum 1.

    As adaptive average pooling, but smooth at the borders and of one form for every T, so that ONNX can hold it.
    """
    place = (torch.arange(n_samples, device=like.device) + 0.5) / n_samples  # (T,), 0..1
    middle = (torch.arange(n_bins, device=like.device) + 0.5) / n_bins  # (n_bins,)
    half = max(1 / n_bins, 1 / n_samples)  # never narrower than one sample: no piece is empty
    weights = (1 - (place[:, None] - middle).abs() / half).clamp(min=0)  # (T, n_bins)
    return (weights / weights.sum(dim=0)).to(like.dtype)
