"""The structured state space network (S4): convolutions over the whole signal, whose kernels are a linear system's.

A layer holds one linear system per feature, with N complex states that come in conjugate pairs,

    h(t) = A h(t - 1) + B x(t),    y(t) = C h(t) + D x(t),

discretised from h' = A h + B x by the bilinear rule with a step dt of its own. A is normal plus rank one, diag(lambda)
- P P*, as Gu et al. 2022 (arXiv:2111.00396) have it, and begins as their HiPPO-LegS matrix. The kernel C A^t B is
computed from its generating function at the roots of unity, where the rank-one term is one division (Woodbury), and
applied by FFT. `as_convolutions` turns a trained network into one with plain convolutions.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from networks.layers import check_input, initialise, keep_valid, mean_over_time, valid_mask

DT = (1e-3, 1e-1)  # the steps are drawn between these, evenly by their logarithm: memories of ten to a thousand samples


class S4(nn.Module):
    """Four bidirectional S4 layers between two linear ones, the state space model of the PTB-XL comparison (`s4`).

    A convolution of kernel 1 to `width` features; layers of state space, GELU, dropout, linear layer with GLU and
    dropout, each with a shortcut and layer norm after the sum; the mean over time; one linear layer. The recipe that
    goes with it is configs/ptbxl-s4.yaml. Departures: every feature has its own state matrix; the kernel is exact for
    every length, with no length to be set beforehand. What learns to foretell the signal (networks/pretext.py) must not
    be bidirectional.

    Parameters
    ----------
    n_leads, n_classes : int
    width : int, features
    depth : int, layers
    state : int, even, complex states of each feature
    dropout : float, 0..1, of whole features
    bidirectional : bool; otherwise no sample sees those after it
    """

    source = "Gu et al. 2022, arXiv:2111.00396; Mehari and Strodthoff 2023, arXiv:2308.15291"
    uses_valid = True
    min_samples = 1
    embedding, blocks = ("encoder",), "layers"

    def __init__(
        self,
        n_leads: int,
        n_classes: int,
        *,
        width: int = 512,
        depth: int = 4,
        state: int = 8,
        dropout: float = 0.2,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1 or state < 2 or state % 2:
            raise ValueError(f"width {width} and depth {depth} must be at least 1, and state {state} even")
        self.n_leads, self.width, self.bidirectional = n_leads, width, bidirectional
        self.encoder = nn.Conv1d(n_leads, width, 1)
        self.layers = nn.ModuleList(S4Layer(width, state, dropout, bidirectional) for _ in range(depth))
        self.last = nn.Linear(width, n_classes)
        initialise(self, self.last)

    def states(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the features of each sample by itself and those that the layers give it: (B, H, T) each.

        x (B, L, T), valid (B, 2) or None; zero where a sample is padding
        """
        check_input(x, self.n_leads, self.min_samples)
        mask = valid_mask(x, valid)  # (B, 1, T)
        samples = states = keep_valid(self.encoder(keep_valid(x, mask)), mask)
        for layer in self.layers:
            states = layer(states, mask)
        return samples, states

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x (B, L, T) float, valid (B, 2) int64 or None -> logits (B, K)."""
        _, states = self.states(x, valid)
        logits: Tensor = self.last(mean_over_time(states, valid_mask(x, valid)))  # (B, K)
        return logits


class S4Layer(nn.Module):
    """State space, GELU, linear layer with GLU, shortcut and layer norm: (B, H, T) -> (B, H, T)."""

    def __init__(self, width: int, state: int, dropout: float, bidirectional: bool) -> None:
        super().__init__()
        self.mix: nn.Module = StateSpace(width, state, bidirectional)
        self.dropout = nn.Dropout1d(dropout)
        self.linear = nn.Conv1d(width, 2 * width, 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, H, T), zero where the mask (B, 1, T) is zero -> (B, H, T), likewise."""
        h = self.dropout(F.gelu(self.mix(x)))
        h = self.dropout(F.glu(self.linear(h), dim=1))
        return keep_valid(self.norm((x + h).transpose(1, 2)).transpose(1, 2), mask)


class StateSpace(nn.Module):
    """One linear system per feature that runs forward in time, and perhaps one of the same A and B that runs backward.

    Parameters are real: complex ones as pairs (..., 2), of each conjugate pair of states the one above the axis.
    """

    def __init__(self, width: int, state: int, bidirectional: bool) -> None:
        super().__init__()
        poles, low_rank, inputs = hippo(state)  # (N / 2,) each
        self.log_dt = nn.Parameter(torch.empty(width).uniform_(*np.log(DT)))
        self.log_decay = nn.Parameter(real(np.log(-poles.real), width))  # of the poles: their real parts stay negative
        self.frequency = nn.Parameter(real(poles.imag, width))
        self.low_rank = nn.Parameter(real(pairs(low_rank), width))
        self.inputs = nn.Parameter(real(pairs(inputs), width))
        self.outputs = nn.Parameter(
            torch.randn(1 + bidirectional, width, state // 2, 2) * 0.5**0.5
        )  # forward, backward
        self.skip = nn.Parameter(torch.randn(width))
        for parameter in self.parameters():
            parameter.decays = False  # type: ignore[attr-defined]  # train.py: no weight decay

    def system(self) -> tuple[Tensor, ...]:
        """Return dt (H, 1) float32, and lambda, P, B (H, N) and C (1 or 2, H, N) complex64, with all N states."""
        poles = torch.complex(-self.log_decay.float().exp(), self.frequency.float())  # (H, N / 2)
        others = (torch.view_as_complex(p.float()) for p in (self.low_rank, self.inputs, self.outputs))
        both = (torch.cat([half, half.conj()], dim=-1) for half in (poles, *others))
        return self.log_dt.float().exp().unsqueeze(1), *both

    def kernels(self, n_samples: int) -> Tensor:
        """Return the responses to a sample at 0, forward and perhaps backward: (1 or 2, H, T) float32.

        With z = exp(-2 pi i k / T), the sum over t < T of C A^t B z^t is C (1 - A^T) (1 - A z)^-1 B. Both factors of
        the bilinear rule are brought over 1 + z, which is 0 at half the rate, so that nothing is divided by it:
        2 C (1 - A^T) [2 (1 - z) / dt - (1 + z) (diag(lambda) - P P*)]^-1 B.
        """
        dt, poles, low_rank, inputs, outputs = self.system()
        outputs = outputs - self.after(n_samples, dt, poles, low_rank, outputs)
        angle = torch.arange(n_samples // 2 + 1, device=dt.device) * (-2 * np.pi / n_samples)
        z = torch.polar(torch.ones_like(angle), angle)  # (F,)
        inverse = 1 / ((2 / dt).unsqueeze(2) * (1 - z) - (1 + z) * poles.unsqueeze(2))  # (H, N, F)

        def through(left: Tensor, right: Tensor) -> Tensor:  # (.., H, N), (H, N) -> (.., H, F)
            return torch.einsum("...hn,hnf->...hf", left * right, inverse)

        conjugate = low_rank.conj()
        rank_one = (1 + z) / (1 + (1 + z) * through(conjugate, low_rank))
        response = through(outputs, inputs) - through(outputs, low_rank) * rank_one * through(conjugate, inputs)
        kernels: Tensor = torch.fft.irfft(2 * response, n=n_samples)
        return kernels

    @staticmethod
    def after(n_samples: int, dt: Tensor, poles: Tensor, low_rank: Tensor, outputs: Tensor) -> Tensor:
        """Return C A^T, (1 or 2, H, N), of the discrete A."""
        matrix = torch.diag_embed(poles) - low_rank.unsqueeze(2) * low_rank.conj().unsqueeze(1)  # (H, N, N)
        half = matrix * (dt / 2).unsqueeze(2)
        one = torch.eye(matrix.shape[1], device=dt.device)
        discrete = torch.linalg.solve(one - half, one + half)
        after: Tensor = (outputs.unsqueeze(2) @ torch.linalg.matrix_power(discrete, n_samples)).squeeze(2)
        return after

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, T) -> (B, H, T), each sample from itself, the past and the future; computed in float32."""
        n = x.shape[2]
        with torch.autocast(x.device.type, enabled=False):
            forward, *backward = self.kernels(n)
            kernel = F.pad(forward, (0, n))  # (H, 2T)
            for response in backward:  # of the samples after this one: lag -1 is the last place of the circle of 2 T
                kernel = kernel + F.pad(response.flip(1), (n, 0))
            spectrum = torch.fft.rfft(x.float(), n=2 * n) * torch.fft.rfft(kernel)
            y: Tensor = torch.fft.irfft(spectrum, n=2 * n)[..., :n] + self.skip.float().unsqueeze(1) * x.float()
        return y.to(x.dtype)


def hippo(state: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return lambda, P and B of the HiPPO-LegS matrix, of each conjugate pair one: (N / 2,) complex128 each.

    The matrix is diag(lambda) - P P* in the basis of its normal part's eigenvectors (Gu et al. 2022, theorem 1).
    """
    n = np.arange(state)
    inputs, low_rank = np.sqrt(2 * n + 1.0), np.sqrt(n + 0.5)
    matrix = -np.tril(np.outer(inputs, inputs), -1) - np.diag(n + 1.0)
    skew = matrix + np.outer(low_rank, low_rank) + 0.5 * np.eye(state)  # the normal part, but for its real part
    frequencies, basis = np.linalg.eigh(-1j * skew)
    above = frequencies > 0
    project = basis[:, above].conj().T
    return -0.5 + 1j * frequencies[above], project @ low_rank, project @ inputs


def pairs(values: NDArray[Any]) -> NDArray[Any]:
    """Turn complex numbers into pairs of real ones, (N,) -> (N, 2)."""
    return np.stack([values.real, values.imag], axis=-1)


def real(values: NDArray[Any], width: int) -> Tensor:
    """Repeat values for every feature, (N, ...) -> (H, N, ...) float32."""
    return torch.tensor(values, dtype=torch.float32).repeat(width, *[1] * values.ndim)


class PlainConvolution(nn.Module):
    """A StateSpace as one depthwise convolution, for signals of up to `n_samples`."""

    def __init__(self, space: StateSpace, n_samples: int) -> None:
        super().__init__()
        with torch.no_grad():
            forward, *backward = space.kernels(n_samples)
            kernel = F.pad(forward.flip(1), (0, n_samples - 1))  # (H, 2T - 1), lag T - 1 .. 1 - T
            for response in backward:
                kernel[:, n_samples:] += response[:, :-1]
            kernel[:, n_samples - 1] += space.skip.float()
        self.weight = nn.Parameter(kernel.unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, H, T) -> (B, H, T)."""
        return F.conv1d(x, self.weight, padding=self.weight.shape[2] // 2, groups=len(self.weight))


def as_convolutions(network: S4, n_samples: int) -> S4:
    """Return a copy with plain convolutions that computes the same for signals of up to n_samples.

    It has no complex numbers, for formats that know none; it is slower, and is not for training.
    """
    plain = copy.deepcopy(network)
    for layer in plain.layers:
        assert isinstance(layer, S4Layer) and isinstance(layer.mix, StateSpace)
        layer.mix = PlainConvolution(layer.mix, n_samples)
    return plain
