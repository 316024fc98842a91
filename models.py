"""The contract of a network, the table of all networks, and how one is built and listed.

    import models
    network = models.build("resnet1d", n_leads=12, n_classes=6, base_channels=32)
    logits = network(x)                                     # (B, 12, T) -> (B, 6)
    print(models.listing())                                 # every network, its size and what it takes

A network takes x (B, L, T) float and gives logits (B, K); softmax or sigmoid belongs to the loss and to the caller. Two
further inputs exist. A network says itself which of them it wants, and `extra_inputs(network)` names them in the order
of the call:

- `context_features`, a tuple of names: a second tensor (B, F) float32, the numbers about a beat or a record that go
  beside the signal, in the order of the names. A missing one is NaN (the first beat of a record has no previous one);
- `uses_valid`: the valid range (B, 2) int64, start and stop of each row's real samples. What lies outside is padding;
  at the end of a row its length and content do not change the logits. Left out, every sample is valid.

A network with `grow(context, labels, weights)` is shown the numbers (N, F) and labels (N, K) of all training rows, and
the weight of each class (K,), before the first step.

`min_samples` is the least T; any T from there up works. `source` names the paper that a network is from. In eval mode a
row's logits do not depend on what else is in the batch. While training, batch statistics see padded samples too, as
zeros before the convolution.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from networks.attention import ECGTransformer, HeartBEiT
from networks.beats import BeatCNN, BeatView
from networks.convolutional import CNN1d, ECGConvNet
from networks.inception import Inception1d
from networks.pretext import TASKS, Task
from networks.recurrent import CNNLSTM, LSTM, BidirectionalLSTM
from networks.residual import ResNet1d, ResNet1dWang, SEResNet1d, XResNet1d101
from networks.state_space import S4
from networks.strips import StripNet
from script import nearest

# Name -> class `(n_leads, n_classes, *, ...)`. A new family is a file in networks/ and its lines here.
NETWORKS: dict[str, type[nn.Module]] = {
    "beatcnn": BeatCNN,
    "beatview": BeatView,
    "cnn1d": CNN1d,
    "cnn_lstm": CNNLSTM,
    "ecg_convnet": ECGConvNet,
    "ecg_transformer": ECGTransformer,
    "heartbeit": HeartBEiT,
    "inception1d": Inception1d,
    "lstm": LSTM,
    "lstm_bidir": BidirectionalLSTM,
    "resnet1d": ResNet1d,
    "resnet1d_wang": ResNet1dWang,
    "s4": S4,
    "se_resnet1d": SEResNet1d,
    "stripnet": StripNet,
    "xresnet1d101": XResNet1d101,
}


def build(name: str, n_leads: int, n_classes: int, **arguments: Any) -> nn.Module:
    """Make a network with fresh weights.

    Parameters
    ----------
    name : str, a key of NETWORKS
    n_leads, n_classes : int, at least 1
    arguments : what the network's own constructor takes, e.g. `dropout=0.1`; `listing()` shows them

    Returns
    -------
    nn.Module in training mode, (B, n_leads, T) -> (B, n_classes)

    Raises
    ------
    ValueError
        an unknown name or argument, with the nearest valid one; n_leads or n_classes below 1; what the network says of
        an argument's value.
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
    check_types(name, arguments)
    try:
        return NETWORKS[name](n_leads, n_classes, **arguments)
    except TypeError as error:
        raise ValueError(f"model {name}: an argument has the wrong type: {error}") from error


def check_types(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise a ValueError for an argument of another type than the network's constructor says: true is no number."""
    types = get_type_hints(NETWORKS[name].__init__)
    for argument, value in arguments.items():
        try:
            TypeAdapter(types[argument]).validate_python(value, strict=True)
        except ValidationError as error:
            raise ValueError(f"model {name}: {argument} = {value!r}: {error.errors()[0]['msg']}") from error


def arguments_of(name: str) -> dict[str, Any]:
    """Return the arguments of a network and their defaults; ValueError for an unknown name, with the nearest one."""
    if name not in NETWORKS:
        raise ValueError(f"model {name!r}: unknown{nearest(name, NETWORKS)}; models are {', '.join(sorted(NETWORKS))}")
    parameters = inspect.signature(NETWORKS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def without_labels(name: str, objective: str, network: nn.Module) -> Task:
    """Make a task around the network of a name that teaches it without labels, see networks/pretext.py.

    Raises
    ------
    ValueError
        the network cannot learn by it, with those that can, or not with its arguments.
    """
    task = TASKS[objective]
    able = [other for other, made in NETWORKS.items() if hasattr(made, task.needs)]
    if name not in able:
        raise ValueError(f"model {name}: does not learn by the objective {objective}; {', '.join(able)} can")
    try:
        return task(network)
    except ValueError as error:
        raise ValueError(f"model {name}: {error}") from error


def is_of_last_layer(parameter: str) -> bool:
    """Tell whether a parameter, by its name, is of the layer that gives the logits."""
    return "last" in parameter.split(".")[-2:-1]


def layer_depths(name: str, network: nn.Module) -> dict[str, int]:
    """Return how many layers lie between each parameter and the output; ValueError where the network does not say.

    A network says the order of its layers by `embedding`, the names of what makes up its first layer, and `blocks`, the
    list of those that follow; all else is the last.
    """
    if not hasattr(network, "blocks"):
        able = [other for other, made in NETWORKS.items() if hasattr(made, "blocks")]
        raise ValueError(f"model {name}: does not say the order of its layers; {', '.join(able)} do")
    blocks, embedding = str(network.blocks), tuple(f"{part}." for part in NETWORKS[name].embedding)  # type: ignore[attr-defined]
    n_blocks = len(list(network.get_submodule(blocks).children()))

    def depth(parameter: str) -> int:
        if f"{parameter}.".startswith(embedding):
            return n_blocks + 1
        if parameter.startswith(f"{blocks}."):
            return n_blocks - int(parameter[len(blocks) + 1 :].partition(".")[0])
        return 0

    return {parameter: depth(parameter) for parameter, _ in network.named_parameters()}


def extra_inputs(network: nn.Module) -> tuple[str, ...]:
    """Name what forward takes after x, in order: a subset of ("context", "valid").

    Ask the network itself, before DDP or torch.compile wrap it.
    """
    context = ("context",) if getattr(network, "context_features", ()) else ()
    valid = ("valid",) if getattr(network, "uses_valid", False) else ()
    return context + valid


@dataclass(frozen=True)
class Description:
    """A line of the listing."""

    name: str
    n_parameters: int
    inputs: tuple[str, ...]
    arguments: dict[str, Any]  # with their defaults
    summary: str
    source: str


def describe(n_leads: int = 12, n_classes: int = 6) -> list[Description]:
    """Describe every network, with the size that it has for these leads and classes."""
    descriptions = []
    for name in sorted(NETWORKS):
        with torch.device("meta"):  # shapes without memory, and without a draw from the random generator
            network = build(name, n_leads, n_classes)
        shapes = {"context": f"context (B, {len(getattr(network, 'context_features', ()))})", "valid": "valid (B, 2)"}
        inputs = (f"x (B, {n_leads}, T >= {network.min_samples})", *(shapes[key] for key in extra_inputs(network)))
        n_parameters = sum(parameter.numel() for parameter in network.parameters())
        summary = (inspect.getdoc(NETWORKS[name]) or "").split("\n")[0]
        source = str(network.source)
        descriptions.append(Description(name, n_parameters, inputs, arguments_of(name), summary, source))
    return descriptions


def listing(n_leads: int = 12, n_classes: int = 6) -> str:
    """Return the description of every network as text for the terminal."""
    lines = [f"networks, with parameters for {n_leads} leads and {n_classes} classes:"]
    for network in describe(n_leads, n_classes):
        arguments = ", ".join(f"{key}={_short(value)}" for key, value in network.arguments.items())
        lines += [
            f"{network.name:<15} {network.n_parameters:>10,}  {network.summary}",
            f"{'':<26}  takes {', '.join(network.inputs)}",
            f"{'':<26}  settings {arguments}",
            f"{'':<26}  source {network.source}",
        ]
    return "\n".join(lines)


def _short(value: Any) -> str:
    """Return a default for the listing: of a long tuple how it begins and its length."""
    many = isinstance(value, tuple) and len(value) > 8
    return f"({value[0]!r}, ... {len(value)} in all)" if many else repr(value)
