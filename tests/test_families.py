"""Each family of networks against an independent form of what is special about it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import cont2discrete

import models
from networks.layers import SqueezeExcite, mean_of_pairs
from networks.recurrent import last_valid
from networks.state_space import StateSpace, as_convolutions, hippo

# ------------------------------------------------------------------------------------------------------- state space


def state_space(width=3, state=8, bidirectional=True):
    torch.manual_seed(4)
    return StateSpace(width, state, bidirectional)


def recurrence(space, x):
    """The layer in float64 as it is defined: SciPy's bilinear rule, then a loop over time in each direction."""
    dt, poles, low_rank, inputs, outputs = (part.detach().numpy().astype(complex) for part in space.system())
    y = space.skip.detach().double().numpy()[:, None] * x
    for h in range(len(x)):
        matrix = np.diag(poles[h]) - np.outer(low_rank[h], low_rank[h].conj())
        a, b, *_ = cont2discrete((matrix, inputs[h][:, None], np.eye(len(matrix)), 0), dt[h, 0].real, "bilinear")
        forward, backward = np.zeros(len(a), complex), np.zeros(len(a), complex)
        for t in range(x.shape[1]):
            forward = a @ forward + b[:, 0] * x[h, t]
            y[h, t] += (outputs[0, h] @ forward).real
        for t in range(x.shape[1] - 1, -1, -1) if len(outputs) == 2 else ():
            y[h, t] += (outputs[1, h] @ backward).real  # what stands after this sample
            backward = a @ backward + b[:, 0] * x[h, t]
    return y


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("n_samples", [1, 2, 3, 32, 101, 500])
def test_a_state_space_layer_equals_its_recurrence(n_samples, bidirectional):
    space = state_space(bidirectional=bidirectional)
    x = np.random.default_rng(1).standard_normal((3, n_samples))
    with torch.no_grad():
        y = space(torch.from_numpy(x).float().unsqueeze(0))[0].numpy()
    np.testing.assert_allclose(y, recurrence(space, x), rtol=0, atol=2e-5 * max(1, np.abs(y).max()))


def test_the_kernel_of_a_shorter_signal_is_the_beginning_of_the_longer_one():
    space = state_space()
    with torch.no_grad():
        long, short = space.kernels(400), space.kernels(123)
    torch.testing.assert_close(short, long[..., :123], rtol=0, atol=1e-5)


@pytest.mark.parametrize("state", [2, 8, 16])
def test_hippo_is_normal_plus_rank_one_with_the_eigenvalues_of_legs(state):
    poles, low_rank, inputs = hippo(state)
    matrix = np.array(
        [
            [-math.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else -(n + 1.0) if n == k else 0.0 for k in range(state)]
            for n in range(state)
        ]
    )
    both = [np.concatenate([half, half.conj()]) for half in (poles, low_rank, inputs)]
    rebuilt = np.diag(both[0]) - np.outer(both[1], both[1].conj())
    # a change of basis keeps the characteristic polynomial, and the response of the system
    np.testing.assert_allclose(np.poly(rebuilt), np.poly(matrix), rtol=1e-9)
    vector = np.sqrt(2 * np.arange(state) + 1)
    for power in range(4):
        mine = both[2].conj() @ np.linalg.matrix_power(rebuilt, power) @ both[2]
        assert mine == pytest.approx(vector @ np.linalg.matrix_power(matrix, power) @ vector, rel=1e-9)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_state_space_network_as_convolutions_gives_the_same_logits(bidirectional):
    torch.manual_seed(2)
    network = models.build("s4", 2, 3, width=16, bidirectional=bidirectional).eval()
    plain = as_convolutions(network, 200)
    assert not any(p.is_complex() for p in plain.parameters())
    for n_samples in (200, 77):
        x, valid = torch.randn(3, 2, n_samples), torch.tensor([[0, n_samples], [0, 60], [5, 50]])
        with torch.no_grad():
            torch.testing.assert_close(plain(x, valid), network(x, valid), rtol=0, atol=1e-4)
            torch.testing.assert_close(plain(x), network(x), rtol=0, atol=1e-4)


def test_the_steps_and_poles_of_a_state_space_have_no_weight_decay():
    from train import parameter_groups

    network = models.build("s4", 2, 3, width=16)
    decayed, others = parameter_groups(network, 0.1)
    spaces = {id(p) for layer in network.layers for p in layer.mix.parameters()}
    assert not spaces & {id(p) for p in decayed["params"]} and spaces <= {id(p) for p in others["params"]}
    assert any(p is network.layers[0].linear.weight for p in decayed["params"])


# --------------------------------------------------------------------------------------------------------- recurrent


def test_the_bidirectional_network_reads_the_state_of_each_direction_that_has_seen_all():
    torch.manual_seed(3)
    network = models.build("lstm_bidir", 2, 3, width=4).eval()
    x = torch.randn(5, 2, 40)
    pooled = []
    network.head.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    network(x)
    _, (last, _) = network.lstm(x.transpose(1, 2))  # (layers x directions, B, width): the second layer stands last
    torch.testing.assert_close(pooled[0][:, -8:], torch.cat([last[2], last[3]], dim=1))


# ---------------------------------------------------------------------------------------------------------- residual


def test_squeeze_and_excitation_is_a_factor_for_each_channel():
    torch.manual_seed(5)
    layer, x = SqueezeExcite(8, 2), torch.randn(3, 8, 50)
    first, second = layer.gate[0], layer.gate[2]
    gates = torch.sigmoid(F.relu(x.mean(2) @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    torch.testing.assert_close(layer(x, None), x * gates[:, :, None])


def test_a_block_of_xresnet_begins_as_its_shortcut():
    network = models.build("xresnet1d101", 2, 3, width=8)
    x = torch.relu(torch.randn(2, 32, 50))
    same = network.blocks[1].eval()
    with torch.no_grad():
        assert torch.equal(same(x, None)[0], x)


@pytest.mark.parametrize("n_samples", [1, 2, 5, 8])
def test_the_mean_of_pairs_of_one_left_over_is_itself(n_samples):
    x = torch.arange(n_samples, dtype=torch.float32).reshape(1, 1, -1)
    expected = torch.tensor([[[(2 * k + min(2 * k + 1, n_samples - 1)) / 2 for k in range((n_samples + 1) // 2)]]])
    assert torch.equal(mean_of_pairs(x, None), expected)
    padded, mask = F.pad(x, (0, 3)), F.pad(torch.ones_like(x), (0, 3))
    assert torch.equal(mean_of_pairs(padded, mask)[..., : expected.shape[2]], expected)


# -------------------------------------------------------------------------------------------- CNN-LSTM and ConvNet


def test_the_last_valid_state_is_the_one_before_the_padding():
    x = torch.arange(24.0).view(2, 3, 4)  # rows 0 and 1, 3 channels, 4 samples
    mask = torch.tensor([[[1.0, 1, 1, 0]], [[0.0, 1, 0, 0]]])
    assert last_valid(x, mask).tolist() == [[2, 6, 10], [13, 17, 21]]
    assert last_valid(x, None).tolist() == [[3, 7, 11], [15, 19, 23]]
    assert last_valid(x, torch.zeros(2, 1, 4)).tolist() == [[0, 4, 8], [12, 16, 20]]


def test_cnn_lstm_hears_the_order_of_waves():
    """Two bumps of different height in either order, far apart: convolutions and a mean alone see the same."""
    torch.manual_seed(0)
    network = models.build("cnn_lstm", 1, 2, channels=(8, 8), width=16, dropout=0.0)
    x = torch.zeros(32, 1, 128)
    target = torch.arange(32) % 2
    for row, swapped in zip(x, target, strict=True):
        first, second = (2.0, 1.0) if swapped else (1.0, 2.0)
        row[0, 30:34], row[0, 90:94] = first, second
    x += 0.05 * torch.randn_like(x)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        loss = F.cross_entropy(network(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_ecg_convnet_filters_each_lead_and_mixes_leads_filter_by_filter(rng):
    torch.manual_seed(0)
    network = models.build("ecg_convnet", 3, 2, filters=2, mixtures=2, kernel=5)
    x = rng.normal(size=(3, 40)).astype(np.float32)
    filters = network.filters.weight.detach().numpy()[:, 0]  # (2, 5)
    mixtures = network.mixtures.weight.detach().numpy()[:, :, 0]  # (4, 3): two of each filter
    expected = [
        sum(mixtures[2 * f + m, lead] * np.correlate(np.pad(x[lead], 2), filters[f], "valid") for lead in range(3))
        for f in range(2)
        for m in range(2)
    ]
    found = network.of_leads(torch.from_numpy(x)[None]).detach()[0]
    np.testing.assert_allclose(found, np.array(expected), atol=1e-5)


def test_sizes_of_cnn_lstm_and_ecg_convnet_by_hand():
    def count(name):
        return sum(p.numel() for p in models.build(name, 12, 6).parameters())

    convolutions = 7 * (12 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128)
    assert count("cnn_lstm") == convolutions + 4 * 128 * (128 + 128 + 2) + 256 * 6 + 6
    separable = [15 * n + n * 2 * n + 2 * 2 * n for n in (64, 128)]
    assert count("ecg_convnet") == 16 * 25 + 64 * 12 + 2 * 64 + sum(separable) + 256 * 6 + 6
