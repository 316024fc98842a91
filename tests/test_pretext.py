"""Learning without labels: what is hidden, what is foretold, and what the losses are, against closed forms."""

import math

import pytest
import torch

import models
from networks.pretext import HIDDEN, N_OTHERS, N_STEPS, network_of

NARROW = {
    "ecg_transformer": {"width": 32, "depth": 1, "heads": 4},
    "heartbeit": {"width": 32, "depth": 1, "heads": 4},
    "s4": {"width": 16, "depth": 2, "bidirectional": False},
}
TASK_OF = {"ecg_transformer": "masked", "heartbeit": "masked", "s4": "contrastive"}
MASKED = ["ecg_transformer", "heartbeit"]


def task(name, n_leads=3, **arguments):
    torch.manual_seed(0)
    network = models.build(name, n_leads, 4, **NARROW[name] | arguments)
    return models.without_labels(name, TASK_OF[name], network).eval()


def rows(n_samples=400, n_rows=4, n_leads=3):
    x = torch.randn(n_rows, n_leads, n_samples, generator=torch.Generator().manual_seed(2))
    return x, torch.tensor([[0, n_samples], [0, 201], [100, 300], [0, n_samples]])[:n_rows]


# ------------------------------------------------------------------------------------------------- masked pieces


@pytest.mark.parametrize("name", MASKED)
def test_pieces_hold_every_sample_once_in_its_token(name):
    made = task(name)
    x = torch.arange(3 * 203.0).reshape(1, 3, 203)
    pieces = made.pieces(x)
    size, groups = made.network.token_samples, made.network.token_leads
    n_tokens = math.ceil(203 / size)
    assert pieces.shape == (1, groups, n_tokens, size * 3 // groups)
    for token in range(n_tokens):
        for lead in range(3):
            expected = torch.zeros(size)
            piece = x[0, lead, token * size : (token + 1) * size]
            expected[: len(piece)] = piece
            have = pieces[0, lead, token] if groups == 3 else pieces[0, 0, token].reshape(3, size)[lead]
            assert torch.equal(have, expected)
    assert torch.equal(made.signals(pieces)[..., :203], x) and not made.signals(pieces)[..., 203:].any()


@pytest.mark.parametrize("name", MASKED)
def test_about_the_stated_share_of_the_real_tokens_is_hidden_and_no_padding(name):
    made = task(name)
    real = torch.ones(50, made.network.token_leads, 400)
    real[:, :, 300:] = 0
    torch.manual_seed(3)
    hidden = made.choose(real)
    assert not hidden[:, :, 300:].any()
    assert hidden[:, :, 10:300].float().mean() == pytest.approx(HIDDEN, abs=0.02)
    span = made.network.token_span
    begins = hidden[:, :, 1:] & ~hidden[:, :, :-1]
    for row, lead, token in begins[:, :, : 299 - span].nonzero()[:200].tolist():
        assert hidden[row, lead, token + 1 : token + 1 + span].all()  # a stretch is never shorter than its span


@pytest.mark.parametrize("name", MASKED)
def test_what_is_hidden_does_not_reach_what_is_put_in_its_place(name):
    made = task(name)
    x, _ = rows()
    torch.manual_seed(5)
    pieces, hidden, filled = made.fill(x)
    size, groups = made.network.token_samples, made.network.token_leads
    covered = hidden.repeat_interleave(size, dim=2)[..., : x.shape[2]].expand(-1, 3 if groups == 1 else -1, -1)
    other = torch.where(covered, torch.randn(x.shape), x)
    torch.manual_seed(5)
    changed, same, refilled = made.fill(other)
    assert torch.equal(hidden, same) and not torch.equal(pieces, changed)
    torch.testing.assert_close(refilled, filled, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MASKED)
def test_the_loss_is_the_error_over_the_power_of_what_is_hidden(name):
    made = task(name)
    x, valid = rows()
    torch.manual_seed(7)
    pieces, hidden, filled = made.fill(x, valid)
    torch.manual_seed(7)
    losses = made(x, valid)
    for row in range(len(x)):
        true, guess = pieces[row][hidden[row]], filled[row][hidden[row]]
        expected = ((true - guess) ** 2).sum().item() / (true**2).sum().item() if len(true) else 0  # by chance none
        assert losses[row].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", MASKED)
def test_a_flat_guess_costs_one_and_a_flat_row_is_finite(name):
    made = task(name)
    torch.nn.init.zeros_(made.last.weight)
    torch.nn.init.zeros_(made.last.bias)
    x, _ = rows()
    torch.testing.assert_close(made(x), torch.ones(4))
    x[1] = 0
    assert made(x)[1] == 0


# ------------------------------------------------------------------------------------------------- what comes next


def test_a_network_that_foretells_does_not_see_the_future():
    network = task("s4").network
    x, _ = rows()
    other = x.clone()
    other[:, :, 250:] += 1
    _, before = network.states(x, None)
    _, after = network.states(other, None)
    torch.testing.assert_close(before[..., :250], after[..., :250], rtol=0, atol=1e-5)
    assert not torch.allclose(before[..., 250:], after[..., 250:], atol=1e-2)


def test_without_knowledge_the_loss_is_that_of_chance():
    made = task("s4")
    torch.nn.init.zeros_(made.context[-1].weight)
    torch.nn.init.zeros_(made.context[-1].bias)
    x, _ = rows(n_samples=20_000)  # so long that what comes next is hardly ever among the others
    torch.testing.assert_close(made(x), torch.full((4,), math.log(1 + N_OTHERS)), rtol=0, atol=0.02)


def test_rows_too_short_to_foretell_cost_nothing_and_others_are_of_their_own_samples():
    made = task("s4")
    x, _ = rows()
    valid = torch.tensor([[0, 400], [50, 50 + N_STEPS], [100, 300], [0, 0]])
    torch.manual_seed(1)
    losses = made(x, valid)
    assert losses[1] == 0 and losses[3] == 0 and (losses[[0, 2]] > 0).all()
    x[2, :, 300:] = 7
    x[2, :, :100] = -7  # padding
    torch.manual_seed(1)
    torch.testing.assert_close(made(x, valid), losses)


# ------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", TASK_OF)
def test_a_task_trains_all_of_the_network_but_its_last_layer(name):
    made = task(name).train()
    x, valid = rows()
    made(x, valid).sum().backward()
    for parameter, value in made.named_parameters():
        assert (value.grad is None) == parameter.startswith("network.last."), parameter


@pytest.mark.parametrize("name", TASK_OF)
def test_a_task_gets_better_at_a_periodic_signal(name):
    made = task(name).train()
    time = torch.arange(200) / 100
    phase = torch.rand(16, 1, 1, generator=torch.Generator().manual_seed(4)) * 2 * math.pi
    x = torch.sin(2 * math.pi * 3 * time + phase + torch.arange(3).reshape(1, 3, 1))
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    torch.manual_seed(6)
    losses = []
    for _ in range(50):
        loss = made(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("name", TASK_OF)
def test_network_and_head_of_a_task_are_taken_over_apart(name):
    one, other = task(name), task(name)
    for value in one.parameters():
        torch.nn.init.normal_(value)
    other.load(network_of(one).state_dict(), one.head())
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    assert not any(key.startswith("network.") for key in one.head())


@pytest.mark.parametrize(
    "name, objective, arguments, message",
    [
        ("cnn1d", "masked", {}, "model cnn1d: does not learn by the objective masked; ecg_transformer, heartbeit can"),
        ("heartbeit", "contrastive", {}, "does not learn by the objective contrastive; s4 can"),
        ("s4", "contrastive", {}, r'model s4: sees what it should foretell; give .*"bidirectional": false'),
    ],
)
def test_a_network_that_cannot_learn_so_is_refused_with_those_that_can(name, objective, arguments, message):
    with pytest.raises(ValueError, match=message):
        models.without_labels(name, objective, models.build(name, 2, 3, **arguments))


@pytest.mark.parametrize("name, n_layers", [("ecg_transformer", 6), ("heartbeit", 4), ("s4", 4)])
def test_the_layers_of_a_network_are_in_order(name, n_layers):
    depths = models.layer_depths(name, models.build(name, 2, 3))
    first = {"ecg_transformer": "convolutions.2.weight", "heartbeit": "lead", "s4": "encoder.weight"}[name]
    blocks = "layers" if name == "s4" else "encoder.blocks"
    assert depths["last.weight"] == 0 and depths[first] == n_layers + 1
    for layer in range(n_layers):
        assert {d for key, d in depths.items() if key.startswith(f"{blocks}.{layer}.")} == {n_layers - layer}
