import json
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow import NARROW
from torch import nn
from torch.nn import functional as F

import models
from networks.beats import NUMBER_LIMIT, RATIO_LIMIT, RATIO_SPREAD, _overlapping_pieces

NAMES = sorted(models.NETWORKS)
WITH_VALID = [name for name in NAMES if "valid" in models.extra_inputs(models.build(name, 2, 3))]
TOLERANCE = 1e-5  # of logits of order 1 in float32: another batch size or length sums in another order
CONTEXT = torch.tensor([0.8, 0.9, 0.85, 0.82])  # s: a regular rhythm at about 70 beats per minute


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The tensors are small: a second thread costs more than it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(name, n_leads=2, n_classes=3, seed=0, **arguments):
    torch.manual_seed(seed)
    return models.build(name, n_leads, n_classes, **NARROW.get(name, {}) | arguments)


def last_layer(network):
    network = getattr(network, "reader", network)
    return network.head.last if hasattr(network, "head") else network.last


def trained_statistics(network, n_leads=2, n_samples=200):
    """The network in eval mode after some batches: batch norm with its first statistics hardly normalises."""
    network.train()
    with torch.no_grad():
        for _ in range(5):
            x = 2 * torch.randn(16, n_leads, n_samples) + 0.5
            network(x, *extras(network, x))
    return network.eval()


def extras(network, x, valid=None):
    """Context and valid range for x, as the network declares them: plausible, different per row, some NaN."""
    n = len(x)
    width = len(getattr(network, "context_features", ()))
    if width == len(CONTEXT):
        context = CONTEXT * torch.linspace(0.5, 1.5, n)[:, None]
    else:  # numbers without a unit
        context = torch.randn(n, max(1, width), generator=torch.Generator().manual_seed(1))
    context[0, 0] = torch.nan  # the first beat of a record has no previous one
    stop = torch.linspace(x.shape[2] // 2, x.shape[2], n).long()
    inputs = {
        "context": context,
        "valid": torch.stack([torch.zeros_like(stop), stop], dim=1) if valid is None else valid,
    }
    return [inputs[key] for key in models.extra_inputs(network)]


# ------------------------------------------------------------------------------------------------------- the registry


def test_the_registry_holds_all_networks():
    published = {"xresnet1d101", "inception1d", "resnet1d_wang", "lstm", "lstm_bidir", "s4"}
    others = {"cnn1d", "resnet1d", "se_resnet1d", "beatcnn", "beatview", "stripnet"}
    others |= {"cnn_lstm", "ecg_convnet", "ecg_transformer", "heartbeit"}
    assert others | published == set(NAMES)
    assert list(models.NETWORKS) == NAMES


def test_an_unknown_name_is_an_error_that_names_the_nearest_and_all():
    with pytest.raises(
        ValueError, match=r"'resnet'.*did you mean resnet1d.*beatcnn, beatview, cnn1d, cnn_lstm, ecg_convnet"
    ):
        models.build("resnet", 12, 6)


def test_an_unknown_argument_is_an_error_that_names_the_nearest_and_all():
    with pytest.raises(
        ValueError, match=r"resnet1d: no argument 'base_chanels'; did you mean base_channels\?; .*kernel, dropout"
    ):
        models.build("resnet1d", 12, 6, base_chanels=8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n_leads", "n_classes"), [(0, 6), (12, 0), (-1, 6)])
def test_no_leads_or_no_classes_is_an_error(name, n_leads, n_classes):
    with pytest.raises(ValueError, match="n_leads"):
        models.build(name, n_leads, n_classes)


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("cnn1d", {"kernel": 4}, "kernel 4"),
        ("cnn1d", {"channels": ()}, "channels"),
        ("cnn1d", {"pool": 0}, "pool 0"),
        ("cnn1d", {"dropout": 1.5}, "dropout"),
        ("resnet1d", {"base_channels": 0}, "base_channels 0"),
        ("resnet1d", {"kernel": 0}, "kernel 0"),
        ("se_resnet1d", {"reduction": 64}, "reduction 64: must be 1 to 32"),
        ("resnet1d_wang", {"width": 0}, "width 0"),
        ("xresnet1d101", {"width": 3}, "width 3"),
        ("inception1d", {"depth": 4}, "depth 4 a multiple of 3"),
        ("lstm_bidir", {"width": 0}, "width 0"),
        ("s4", {"state": 7}, "state 7 even"),
        ("cnn_lstm", {"width": 0}, "width 0"),
        ("cnn_lstm", {"channels": ()}, "channels"),
        ("ecg_convnet", {"mixtures": 0}, "mixtures 0"),
        ("ecg_convnet", {"kernel": 24}, "kernel 24"),
        ("ecg_transformer", {"heads": 3}, "width 128 must be even and a multiple of heads 3"),
        ("ecg_transformer", {"width": 9, "heads": 3}, "width 9 must be even"),
        ("ecg_transformer", {"depth": 0}, "depth 0"),
        ("heartbeit", {"patch": 0}, "patch 0"),
        ("heartbeit", {"heads": 0}, "heads 0"),
        ("beatcnn", {"n_bins": 0}, "n_bins 0"),
        ("beatcnn", {"context_features": ("a", "a")}, "context_features"),
        ("beatcnn", {"context_features": "rr_previous_s"}, "context_features"),
    ],
)
def test_an_impossible_argument_is_an_error_that_names_it(name, arguments, word):
    with pytest.raises(ValueError, match=word):
        models.build(name, 2, 3, **arguments)


def test_describe_counts_what_build_makes():
    for entry in models.describe(12, 6):
        network = models.build(entry.name, 12, 6)
        assert entry.n_parameters == sum(p.numel() for p in network.parameters())
        assert entry.inputs[0] == f"x (B, 12, T >= {network.min_samples})"
        assert entry.summary.endswith(".")


def test_describe_leaves_the_random_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    models.describe()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_listing_names_every_network_its_size_and_its_inputs():
    text = models.listing()
    for entry in models.describe():
        assert f"{entry.name:<15} {entry.n_parameters:>10,}" in text and entry.source in text
        assert ", ".join(entry.inputs) in text


def test_the_arguments_of_describe_build_the_same_network_after_json():
    for entry in models.describe(2, 3):
        arguments = json.loads(json.dumps(entry.arguments))  # tuples come back as lists, as from YAML
        network = made(entry.name, **arguments)
        default = made(entry.name, **models.arguments_of(entry.name))
        for one, other in zip(network.parameters(), default.parameters(), strict=True):
            assert torch.equal(one, other)


def test_a_new_network_is_one_class_and_one_line(monkeypatch):
    """The example of CONTRIBUTING, at most 20 lines with its text."""
    text = (Path(models.__file__).parent / "CONTRIBUTING.md").read_text().split("## Add a network")[1].split("## ")[0]
    assert len(text.strip().splitlines()) <= 20
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    ") or not line)
    scope = {"nn": nn, "Tensor": torch.Tensor}
    exec(code, scope)
    monkeypatch.setitem(models.NETWORKS, "linear", scope["Linear"])
    network = models.build("linear", 12, 6, dropout=0.1)
    assert network(torch.zeros(3, 12, 500)).shape == (3, 6)
    assert "linear" in models.listing() and "dropout=0.0" in models.listing()


# --------------------------------------------------------------------------------------------------- every network


def n_parameters(name, **arguments):
    return sum(p.numel() for p in models.build(name, 12, 6, **arguments).parameters())


def test_parameter_counts_are_as_stated():
    assert abs(n_parameters("resnet1d") / 1.5e6 - 1) < 0.05
    assert 50_000 < n_parameters("beatcnn") < 150_000
    assert n_parameters("cnn1d") < 100_000
    # by hand: three convolutions of kernel 7 without bias, two numbers of batch norm per channel, one linear layer
    assert n_parameters("cnn1d") == 7 * (12 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + 128 * 6 + 6


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("xresnet1d101", 1_880_775),
        ("inception1d", 516_167),
        ("resnet1d_wang", 481_863),
        ("lstm", 912_199),
        ("lstm_bidir", 2_339_143),
    ],
)
def test_the_baselines_of_ptb_xl_have_the_published_size(name, count):
    """Of 12 leads and 71 statements."""
    assert sum(p.numel() for p in models.build(name, 12, 71).parameters()) == count


def test_s4_has_about_its_published_size():
    # by hand: encoder, four linear layers with GLU and layer norm, the head, and per feature and layer dt, D and
    # 4 states of lambda (2), P (2), B (2) and C in two directions (4)
    linear = 12 * 512 + 512 + 4 * (512 * 1024 + 1024 + 2 * 512) + 512 * 71 + 71
    count = sum(p.numel() for p in models.build("s4", 12, 71).parameters())
    assert count == linear + 4 * 512 * (2 + 4 * 10)
    assert abs(count / 2.2e6 - 1) < 0.02


def test_base_channels_changes_the_size_of_resnet1d_about_by_its_square():
    assert 3.5 < n_parameters("resnet1d", base_channels=64) / n_parameters("resnet1d", base_channels=32) < 4.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_leads", [1, 2, 12])
@pytest.mark.parametrize("n_samples", [32, 33, 63, 187, 256, 1000])
def test_logits_have_one_column_per_class_for_any_length(name, n_leads, n_samples):
    for n_classes in (1, 71):
        network = made(name, n_leads, n_classes)
        x = torch.randn(3, n_leads, n_samples)
        for training in (True, False):
            network.train(training)
            logits = network(x, *extras(network, x))
            assert logits.shape == (3, n_classes)
            assert logits.dtype == torch.float32
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_stated_minimum_length_trains_and_one_less_is_an_error(name):
    network = made(name)
    x = torch.randn(2, 2, network.min_samples)
    assert network(x, *extras(network, x)).shape == (2, 3)
    with pytest.raises(ValueError, match=f"at least {network.min_samples} samples"):
        network(x[:, :, 1:], *extras(network, x[:, :, 1:]))


def test_beatcnn_takes_beats_of_16_samples():
    assert made("beatcnn").min_samples <= 16


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(4, 3, 200), (2, 200), (4, 200, 2)])
def test_another_number_of_leads_or_rank_is_an_error(name, shape):
    network = made(name)
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match="2 leads"):
        network(x, *extras(network, torch.zeros(4, 2, 200)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_logits_of_zeros_are_finite(name, training):
    network = made(name).train(training)
    x = torch.zeros(4, 2, 187)
    assert torch.isfinite(network(x, *extras(network, x))).all()
    empty = torch.zeros(4, 2, dtype=torch.int64)  # a valid range without a sample
    inputs = {"context": torch.full((4, len(getattr(network, "context_features", ()))), torch.nan), "valid": empty}
    assert torch.isfinite(network(x, *(inputs[key] for key in models.extra_inputs(network)))).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name):
    network = made(name)
    x = torch.randn(8, 2, 200)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(2):  # a scale that begins at 0 lets no gradient through before the first step
        optimiser.step()
        optimiser.zero_grad()
        F.cross_entropy(network(x, *extras(network, x)), torch.arange(8) % 3).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_samples", [63, 200])
def test_in_eval_mode_a_row_does_not_depend_on_its_batch(name, n_samples):
    network = trained_statistics(made(name))
    x = torch.randn(9, 2, n_samples)
    more = extras(network, x)
    with torch.no_grad():
        together = network(x, *more)
        order = torch.randperm(9)
        shuffled = network(x[order], *(tensor[order] for tensor in more))
        x_loud = x.clone()
        x_loud[1:] *= 1000  # the others change, row 0 does not
        loud = network(x_loud, *more)
        for i in range(9):
            alone = network(x[i : i + 1], *(tensor[i : i + 1] for tensor in more))
            torch.testing.assert_close(alone[0], together[i], rtol=0, atol=TOLERANCE)
    assert together.std(dim=0).min() > 100 * TOLERANCE  # rows differ: the comparison can fail
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(loud[0], together[0], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights_and_the_last_bias_is_0(name):
    one, other = made(name, seed=3), made(name, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(last_layer(one).bias, torch.zeros(3))


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_start_with_he_weights(name):
    for module in made(name, n_leads=12).modules():
        if isinstance(module, nn.Conv1d) and module.weight.numel() > 2000:
            fan_out = module.out_channels // module.groups * module.kernel_size[0]
            assert abs(module.weight.std() / np.sqrt(2 / fan_out) - 1) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_a_file_read_with_weights_only(name, tmp_path):
    network = trained_statistics(made(name))
    x = torch.randn(4, 2, 200)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other = made(name, seed=1)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    other.eval()
    with torch.no_grad():
        assert torch.equal(other(x, *extras(other, x)), network(x, *extras(network, x)))


@pytest.mark.parametrize("name", NAMES)
def test_autocast_gives_nearly_the_same_logits(name):
    network = trained_statistics(made(name))
    x = torch.randn(4, 2, 200)
    with torch.no_grad():
        full = network(x, *extras(network, x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(x, *extras(network, x))
    # bfloat16 has 8 bits: 0.4 % at each of some ten layers
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.05 * full.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_a_network_in_bfloat16_runs(name):
    network = trained_statistics(made(name)).bfloat16()
    x = torch.randn(4, 2, 200).bfloat16()
    assert network(x, *extras(network, x)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_64_rows_are_learnt_by_heart(name):
    wider = {"lstm": 32, "lstm_bidir": 32, "resnet1d": 16, "s4": 64}
    key = "base_channels" if name == "resnet1d" else "width"
    network = made(name, **({key: wider[name]} if name in wider else {}))
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout1d):
            module.p = 0.0
    x = torch.randn(64, 2, 96)
    target = torch.randint(0, 3, (64,))  # nothing to generalise from: noise with random classes
    more = extras(network, x)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2 if name == "s4" else 3e-3)
    for _ in range(100 if name == "s4" else 40):
        loss = F.cross_entropy(network(x, *more), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert (network(x, *more).argmax(dim=1) == target).float().mean() >= 0.95
    assert loss < 0.3


def compiled(name, backend):
    network = trained_statistics(made(name))
    x = torch.randn(4, 2, 128)
    more = extras(network, x)
    with torch.no_grad():
        expected = network(x, *more)
        logits = torch.compile(network, backend=backend)(x, *more)
    torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_network_gives_the_same_logits(name):
    compiled(name, "aot_eager")


@pytest.mark.slow
def test_inductor_gives_the_same_logits():
    compiled("cnn1d", "inductor")


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"cnn1d"}))
def test_inductor_gives_the_same_logits_of_every_network(name):
    compiled(name, "inductor")


# ------------------------------------------------------------------------------------------------------ valid range


def logits_of(network, x, valid=None):
    """Logits of x with this valid range, or without any, of a network that takes one."""
    given = extras(network, x, valid)
    return network(x, *(given[:-1] if valid is None else given))


@pytest.mark.parametrize("name", WITH_VALID)
@pytest.mark.parametrize("n_valid", [40, 100, 101, 127, 128])
@pytest.mark.parametrize("n_padding", [0, 1, 31, 64, 200])
def test_padding_at_the_end_does_not_change_the_logits(name, n_valid, n_padding):
    network = trained_statistics(made(name))
    x = torch.randn(2, 2, n_valid)
    padded = torch.cat([x, 10 * torch.randn(2, 2, n_padding)], dim=2)  # not even zeros: what stands there is not read
    valid = torch.tensor([[0, n_valid]] * 2)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(network, padded, valid), logits_of(network, x), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", WITH_VALID)
def test_a_valid_range_of_everything_equals_none(name):
    network = trained_statistics(made(name))
    x = torch.randn(3, 2, 131)
    with torch.no_grad():
        everything = logits_of(network, x, torch.tensor([[0, 131]] * 3))
        torch.testing.assert_close(everything, logits_of(network, x), rtol=0, atol=TOLERANCE)
        half = logits_of(network, x, torch.tensor([[0, 60]] * 3))
        assert (half - everything).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", WITH_VALID)
def test_what_stands_before_the_valid_range_is_not_read(name):
    network = trained_statistics(made(name))
    x = torch.randn(2, 2, 150)
    other = x.clone()
    other[:, :, :37] = 100
    other[:, :, 90:] = -100
    valid = torch.tensor([[37, 90], [37, 90]])
    with torch.no_grad():
        assert torch.equal(logits_of(network, x, valid), logits_of(network, other, valid))


@pytest.mark.parametrize("name", WITH_VALID)
def test_a_valid_range_of_another_shape_is_an_error(name):
    network = made(name)
    with pytest.raises(ValueError, match=r"valid \(2,\): must be \(4, 2\)"):
        logits_of(network, torch.zeros(4, 2, 100), torch.tensor([0, 100]))


# ----------------------------------------------------------------------------------------------------------- context


def test_beatcnn_declares_its_context_and_without_names_takes_the_signal_alone():
    network = made("beatcnn")
    assert network.context_features == ("rr_previous_s", "rr_next_s", "rr_mean10_s", "rr_record_s")
    assert models.extra_inputs(network) == ("context",)
    alone = made("beatcnn", context_features=[])
    assert models.extra_inputs(alone) == ()
    assert alone(torch.randn(4, 2, 187)).shape == (4, 3)
    with pytest.raises(ValueError, match="context"):
        alone(torch.randn(4, 2, 187), torch.zeros(4, 4))


@pytest.mark.parametrize("context", [None, torch.zeros(4, 3), torch.zeros(3, 4), torch.zeros(4)])
def test_a_missing_context_or_one_of_another_shape_is_an_error(context):
    with pytest.raises(ValueError, match=r"context .*must be \(4, 4\), columns rr_previous_s, rr_next_s"):
        made("beatcnn")(torch.zeros(4, 2, 187), context)


def test_the_numbers_of_a_context_are_flags_and_ratios_by_hand():
    network = made("beatcnn")
    numbers = network.numbers(torch.tensor([[0.6, 1.2, 0.8, 0.75], [torch.nan, 0.9, 0.9, 0.75]]))
    log = np.log
    expected = [
        [0, 0, 0, 0, *(log([0.75, 1.5, 0.8, 2.0]) / 0.3)],
        [1, 0, 0, 0, 0, 0, 0, 0],  # the ratios with rr_previous_s are unknown, the other is 1
    ]
    np.testing.assert_allclose(numbers.numpy(), expected, atol=1e-6)


def test_ratios_stay_the_same_when_the_heart_beats_faster():
    network = made("beatcnn")
    context = torch.tensor([[0.6, 1.2, 0.8, 0.75]])
    torch.testing.assert_close(network.numbers(0.7 * context), network.numbers(context))


def test_extreme_context_is_clipped():
    context = torch.tensor([[0.0, 1e9, 1e-9, -3.0], [torch.inf, -torch.inf, torch.nan, 1.0]])
    numbers = made("beatcnn").numbers(context)
    assert torch.isfinite(numbers).all()
    assert numbers.abs().max() <= max(NUMBER_LIMIT, RATIO_LIMIT / RATIO_SPREAD) + 1e-6
    assert numbers[1, :4].tolist() == [1, 1, 1, 0]  # infinity counts as missing


def test_context_of_other_names_enters_as_it_is_and_in_the_order_of_the_names():
    network = made("beatcnn", context_features=("amplitude", "rr_mean10_s", "rr_previous_s"))
    numbers = network.numbers(torch.tensor([[-1.5, 0.8, 0.6], [torch.nan, 1.0, 1.0]]))
    expected = [[-1.5, 0, 0, 0, np.log(0.75) / 0.3], [0, 1, 0, 0, 0]]
    np.testing.assert_allclose(numbers.numpy(), expected, atol=1e-6)


def test_a_missing_neighbour_changes_its_own_row_only_and_trains():
    network = trained_statistics(made("beatcnn"))
    x = torch.randn(4, 2, 187)
    context = CONTEXT.repeat(4, 1)
    holed = context.clone()
    holed[2, 0] = torch.nan
    with torch.no_grad():
        change = (network(x, holed) - network(x, context)).abs().max(dim=1).values
    assert change[2] > 100 * TOLERANCE
    assert change[[0, 1, 3]].max() <= TOLERANCE
    network.train()
    network(x, torch.full((4, 4), torch.nan)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_beatcnn_learns_prematurity_from_context_alone_and_keeps_it_at_another_heart_rate():
    network = made("beatcnn", n_classes=2)

    def rhythm(n, mean_s):
        target = torch.arange(n) % 2
        usual = mean_s * (1 + 0.03 * torch.randn(n))
        previous = torch.where(target == 1, 0.7, 1.0) * usual  # class 1 comes 30 % early
        context = torch.stack([previous, usual, torch.full((n,), mean_s), torch.full((n,), mean_s)], dim=1)
        return torch.randn(n, 2, 64), context, target

    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(60):
        x, context, target = rhythm(128, 0.9)
        loss = F.cross_entropy(network(x, context), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    x, context, target = rhythm(400, 0.7)
    with torch.no_grad():
        assert (network(x, context).argmax(dim=1) == target).float().mean() > 0.9


@pytest.mark.parametrize("n_samples", [2, 3, 6, 7, 24, 100])
@pytest.mark.parametrize("n_bins", [1, 6])
def test_the_pieces_of_a_window_are_means_in_order(n_samples, n_bins):
    weights = _overlapping_pieces(n_samples, n_bins, torch.zeros(1))
    assert weights.shape == (n_samples, n_bins)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(n_bins))
    middles = torch.arange(n_samples).float() @ weights
    assert (weights >= 0).all()
    assert (middles.diff() > 0).all() or n_samples < n_bins
