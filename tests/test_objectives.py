"""Losses and learning rates against their formulas and PyTorch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import schedules
from objectives import row_losses

WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0])


def rows_of(task, rng):
    logits = torch.from_numpy(3 * rng.normal(size=(7, 4))).float()
    if task == "multiclass":
        return logits, torch.eye(4, dtype=torch.uint8)[torch.tensor([0, 1, 2, 3, 0, 1, 2])]
    return logits, torch.from_numpy(rng.integers(0, 2, (7, 4)).astype(np.uint8))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_pytorch(rng, smoothing):
    logits, labels = rows_of("multiclass", rng)
    expected = F.cross_entropy(logits, labels.argmax(1), WEIGHTS, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(row_losses(logits, labels, "multiclass", WEIGHTS, smoothing=smoothing), expected)
    logits, labels = rows_of("multilabel", rng)
    target = labels * (1 - smoothing) + smoothing / 2
    expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=WEIGHTS, reduction="none").mean(1)
    torch.testing.assert_close(row_losses(logits, labels, "multilabel", WEIGHTS, smoothing=smoothing), expected)


def test_a_mixed_row_has_the_mixture_of_the_losses(rng):
    for task in ("multiclass", "multilabel"):
        logits, labels = rows_of(task, rng)
        other = labels.roll(1, 0)
        mixed = row_losses(logits, 0.7 * labels + 0.3 * other, task, WEIGHTS)
        apart = 0.7 * row_losses(logits, labels, task, WEIGHTS) + 0.3 * row_losses(logits, other, task, WEIGHTS)
        torch.testing.assert_close(mixed, apart)


def test_the_focal_loss_equals_its_definition(rng):
    logits, labels = rows_of("multiclass", rng)
    p = logits.double().softmax(1)
    expected = -(labels * WEIGHTS * (1 - p) ** 2 * p.log()).sum(1).float()
    torch.testing.assert_close(row_losses(logits, labels, "multiclass", WEIGHTS, "focal"), expected)
    logits, labels = rows_of("multilabel", rng)
    p = logits.double().sigmoid()
    present, absent = (1 - p) ** 2 * p.log(), p**2 * (1 - p).log()
    expected = -torch.where(labels > 0, WEIGHTS * present, absent).mean(1).float()
    torch.testing.assert_close(row_losses(logits, labels, "multilabel", WEIGHTS, "focal"), expected)


def test_the_asymmetric_loss_equals_its_definition_and_forgets_easy_negatives(rng):
    logits, labels = rows_of("multilabel", rng)
    p = logits.double().sigmoid()
    shifted = (p - 0.05).clamp(min=0)
    expected = -torch.where(labels > 0, WEIGHTS * (1 - p) * p.log(), shifted**4 * (1 - shifted).log()).mean(1).float()
    torch.testing.assert_close(row_losses(logits, labels, "multilabel", WEIGHTS, "asymmetric"), expected)
    easy = torch.full((1, 4), -4.0, requires_grad=True)  # a score of 0.018, below the margin
    row_losses(easy, torch.zeros(1, 4), "multilabel", WEIGHTS, "asymmetric").sum().backward()
    assert (easy.grad == 0).all()


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "asymmetric"])
def test_losses_of_extreme_logits_and_their_gradients_are_finite(loss):
    for task in ("multiclass", "multilabel")[loss == "asymmetric" :]:
        logits = torch.tensor([[200.0, -200.0, 0.0, 80.0]] * 2, requires_grad=True)
        losses = row_losses(logits, torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]]), task, WEIGHTS, loss)
        losses.sum().backward()
        assert losses.isfinite().all() and logits.grad.isfinite().all()


def rates(kind, n_steps, warmup):
    return [schedules.learning_rate(kind, step, n_steps, warmup) for step in range(n_steps)]


def test_the_rate_warms_up_and_falls_as_a_cosine():
    expected = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * np.arange(90) / 90))
    np.testing.assert_allclose(rates("cosine", 100, 0.1), np.concatenate([np.arange(1, 11) / 10, expected]))


@pytest.mark.parametrize(("n_steps", "warmup"), [(100, 0.3), (37, 0.25), (1000, 0.5)])
def test_one_cycle_is_that_of_pytorch(n_steps, warmup):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=n_steps, pct_start=warmup)
    expected = []
    for _ in range(n_steps):
        expected.append((optimiser.param_groups[0]["lr"], optimiser.param_groups[0]["betas"][0]))
        optimiser.step()
        theirs.step() if len(expected) < n_steps else None
    mine = [schedules.first_beta(step, n_steps, warmup) for step in range(n_steps)]
    np.testing.assert_allclose(
        rates("one_cycle", n_steps, warmup), [rate for rate, _ in expected], rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(mine, [beta for _, beta in expected], rtol=1e-9)


def test_the_other_rates():
    assert rates("constant", 10, 0.2) == [0.5] + [1.0] * 9
    np.testing.assert_allclose(rates("step", 8, 0.0), [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert rates("plateau", 10, 0.2) == rates("constant", 10, 0.2)
    assert all(
        0 < rate <= 1 for kind in ("cosine", "one_cycle", "step") for n in (1, 2, 3) for rate in rates(kind, n, 0.0)
    )
