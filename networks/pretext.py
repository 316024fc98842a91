"""What a network can learn from signals without labels: to fill in pieces that are hidden, or to tell what comes next.

    task = TASKS["masked"](network)
    losses = task(x, valid)                     # (B, L, T) -> (B,), one for each row

A task is a module around a network, which it trains but for the last layer, and has a head of its own that nothing
needs afterwards. It draws at random what is hidden or compared, from PyTorch's generator, in eval mode too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.layers import cut, keep_valid, thin_mask, valid_mask

INSIDE = "network."  # what the names of a network's weights begin with, in the task around it
HIDDEN = 0.5  # share of the tokens
LEAST_POWER = 1e-4  # mean square of a row below which its loss is not taken relative to it
N_STEPS = 12  # samples that are foretold
N_PLACES = 32  # of a row, from which they are
N_OTHERS = 64  # samples of a row that are not what comes next
HEAD_WIDTH = 128


class Task(nn.Module):
    """What all tasks are: a network that learns, but for its last layer."""

    needs: str  # method of the networks that can learn by it

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network: Any = network
        network.last.requires_grad_(False)

    def head(self) -> dict[str, Tensor]:
        """Return the weights that are not the network's."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(INSIDE)}

    def load(self, network: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> None:
        """Take over the weights of both."""
        self.load_state_dict({**{INSIDE + name: value for name, value in network.items()}, **head})


class MaskedPieces(Task):
    """Hide pieces of the signal, and fill them in from the others.

    After BEiT (Bao et al. 2022, arXiv:2106.08254), which puts a learnt vector in the place of hidden patches of a
    picture. Departures: what is filled in is the signal itself, as He et al. 2022 (arXiv:2111.06377) have it, instead
    of the number of a patch in a codebook that another network learns first; tokens are hidden by chance, one by one or
    in stretches as the network says, instead of in blocks.

    The loss of a row is the squared error of its hidden pieces over their power: 0 is exact, 1 is what a flat line has.
    """

    needs = "fill"

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.hidden = nn.Parameter(0.02 * torch.randn(network.width))
        self.last = nn.Linear(network.width, network.token_samples * network.n_leads // network.token_leads)

    def pieces(self, x: Tensor) -> Tensor:
        """Cut the signal into what each token stands for: (B, L, T) -> (B, token_leads, N, values)."""
        groups = x.unflatten(1, (self.network.token_leads, -1))  # (B, groups, L / groups, T)
        return cut(groups, self.network.token_samples).transpose(2, 3).flatten(3)

    def signals(self, pieces: Tensor) -> Tensor:
        """Put pieces together again: (B, token_leads, N, values) -> (B, L, N * token_samples)."""
        apart = pieces.unflatten(3, (-1, self.network.token_samples))  # (B, groups, N, L / groups, size)
        signals: Tensor = apart.transpose(2, 3).flatten(3).flatten(1, 2)
        return signals

    def choose(self, mask: Tensor) -> Tensor:
        """Choose what is hidden: real tokens (B, token_leads, N), 1 where one is -> bool, likewise."""
        span = self.network.token_span
        begins = torch.rand(mask.shape, device=mask.device) < 1 - (1 - HIDDEN) ** (1 / span)
        within = F.max_pool1d(F.pad(begins.flatten(0, 1).float(), (span - 1, 0)), span, 1)  # (B * token_leads, N)
        return (within.view(mask.shape) > 0) & (mask > 0)

    def fill(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pieces, which were hidden, and what the network puts in their place.

        x (B, L, T), valid (B, 2) or None -> (B, token_leads, N, values), bool (B, token_leads, N), like the first
        """
        mask = valid_mask(x, valid)
        pieces = self.pieces(keep_valid(x, mask))
        real = torch.ones_like(x[:, :1]) if mask is None else mask
        tokens = thin_mask(real, self.network.token_samples)  # (B, 1, N)
        assert tokens is not None
        hidden = self.choose(tokens.expand(pieces.shape[:3]))
        return pieces, hidden, self.last(self.network.fill(x, valid, hidden, self.hidden))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> the loss of each row, (B,)."""
        pieces, hidden, filled = self.fill(x, valid)
        counted = hidden.unsqueeze(3)  # (B, token_leads, N, 1)
        error = ((filled.float() - pieces.float()) ** 2 * counted).sum(dim=(1, 2, 3))
        power = (pieces.float() ** 2 * counted).sum(dim=(1, 2, 3))
        least = LEAST_POWER * pieces.shape[3] * hidden.sum(dim=(1, 2)).clamp(min=1)
        return error / torch.maximum(power, least)


class ContrastivePrediction(Task):
    """Tell the next samples from others of the same row, by what has been so far.

    Contrastive predictive coding (van den Oord et al. 2018, arXiv:1807.03748), as Mehari and Strodthoff 2022
    (doi 10.1016/j.compbiomed.2021.105114) use it for ECGs: twelve steps, no thinning in time, and others from the same
    row. Departures: the layers between the samples and what is compared belong to the head; of each row some places
    are looked at instead of all.

    The loss of a row is the mean cross-entropy: ln 65 = 4.17 is chance. A row shorter than the steps has loss 0.
    """

    needs = "states"

    def __init__(self, network: Any) -> None:
        if network.bidirectional:
            raise ValueError("sees what it should foretell; give --model.arguments '{\"bidirectional\": false}'")
        super().__init__(network)
        width = network.width
        self.sample = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, HEAD_WIDTH))
        self.context = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, N_STEPS * HEAD_WIDTH))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> the loss of each row, (B,)."""
        samples, states = self.network.states(x, valid)  # (B, H, T) each
        if valid is None:
            valid = torch.tensor([[0, x.shape[2]]], device=x.device).expand(len(x), 2)
        first, last = valid[:, :1], valid[:, 1:]  # (B, 1)
        enough = (last - first > N_STEPS).squeeze(1)  # (B,)

        def drawn(n: int, stop: Tensor) -> Tensor:
            """Draw n places from first to stop, (B, n)."""
            chance = torch.rand(len(x), n, device=x.device)
            return (first + (chance * (stop - first).clamp(min=1)).long()).clamp(max=x.shape[2] - 1)

        here = drawn(N_PLACES, last - N_STEPS)
        steps = torch.arange(1, N_STEPS + 1, device=x.device)
        there = (here.unsqueeze(2) + steps).clamp(max=x.shape[2] - 1)  # (B, P, S)
        others = drawn(N_OTHERS, last)  # (B, M)
        guess = self.context(taken(states, here)).unflatten(2, (N_STEPS, -1)).float()  # (B, P, S, D)
        true = self.sample(taken(samples, there.flatten(1))).unflatten(1, there.shape[1:]).float()
        false = self.sample(taken(samples, others)).float()  # (B, M, D)
        scores = torch.cat(
            [(guess * true).sum(dim=3, keepdim=True), torch.einsum("bpsd,bmd->bpsm", guess, false)], dim=3
        )
        same = F.pad(others[:, None, None] == there.unsqueeze(3), (1, 0))  # one of the others is what comes next
        log_chance = (scores / HEAD_WIDTH**0.5).masked_fill(same, -torch.inf).log_softmax(dim=3)[..., 0]  # (B, P, S)
        losses: Tensor = -log_chance.mean(dim=(1, 2)) * enough
        return losses


def taken(x: Tensor, places: Tensor) -> Tensor:
    """Return features of some samples, (B, H, T) at (B, n) -> (B, n, H)."""
    return x.gather(2, places.unsqueeze(1).expand(-1, x.shape[1], -1)).transpose(1, 2)


TASKS: dict[str, type[Task]] = {"masked": MaskedPieces, "contrastive": ContrastivePrediction}


def network_of(module: nn.Module) -> nn.Module:
    """Return the network in a task, or the network itself."""
    return module.network if isinstance(module, Task) else module
