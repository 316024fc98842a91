"""The learning rate of each step of a training."""

from __future__ import annotations

import math

# Of one cycle (Smith 2018, arXiv:1803.09820): first and last rate as parts of the peak, and AdamW's first beta, which
# moves against the rate.
FIRST, LAST = 1 / 25, 1 / 25 / 1e4
BETA_HIGH, BETA_LOW = 0.95, 0.85
COSINE_END = 0.01  # last rate of the cosine, of the peak
STEPS = (0.5, 0.75)  # shares of a training after which the rate of the kind `step` is a tenth, and a tenth again


def learning_rate(kind: str, step: int, n_steps: int, warmup: float) -> float:
    """Return the rate of a step as a part of the peak.

    Parameters
    ----------
    kind : `cosine`, down to 1 %; `one_cycle`, up and down as cosines; `constant`; `step`, a tenth after half of the
        steps and a hundredth after three quarters; `plateau`, constant here: train.py lowers it where the score stands
    step, n_steps : the step, from 0, of all steps of the training
    warmup : 0..1, share of the steps in which the rate rises; linearly, but of one cycle
    """
    if kind == "one_cycle":
        return _cycle(step, n_steps, warmup, FIRST, 1.0, LAST)
    n_warmup = max(1, round(warmup * n_steps))
    if step < n_warmup:
        return (step + 1) / n_warmup
    if kind == "cosine":
        progress = (step - n_warmup) / max(1, n_steps - n_warmup)
        return COSINE_END + (1 - COSINE_END) * 0.5 * (1 + math.cos(math.pi * progress))
    if kind == "step":
        return float(0.1 ** sum(step >= share * n_steps for share in STEPS))
    return 1.0


def first_beta(step: int, n_steps: int, warmup: float) -> float:
    """Return AdamW's first beta of a step of one cycle: low where the rate is high."""
    return _cycle(step, n_steps, warmup, BETA_HIGH, BETA_LOW, BETA_HIGH)


def _cycle(step: int, n_steps: int, warmup: float, first: float, peak: float, last: float) -> float:
    """Go from `first` to `peak` in the share `warmup` of the steps, then to `last`, along cosines."""
    top = warmup * n_steps - 1
    if step <= top:
        return _along(first, peak, step / top if top > 0 else 1.0)
    return _along(peak, last, (step - top) / max(1, n_steps - 1 - top))


def _along(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
