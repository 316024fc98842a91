"""The transformers: attention against PyTorch's own layers, and what a token is, sees and where it stands."""

import numpy as np
import pytest
import torch
from torch import nn

import models
import networks.attention
from networks.attention import Attention, Encoder, positions, without_padding

NAMES = ["ecg_transformer", "heartbeit"]
NARROW = {"width": 32, "depth": 2, "heads": 4}
TOLERANCE = 1e-5  # of numbers of order 1 in float32: another order of the sums


def made(name, n_leads=2, **arguments):
    """A network in eval mode with an embedding for each lead that tells it from the others."""
    torch.manual_seed(0)
    network = models.build(name, n_leads, 3, **NARROW | arguments).eval()
    if name == "heartbeit":
        nn.init.normal_(network.lead)
    return network


def rows(n_samples=230, n_rows=4, n_leads=2):
    """Noise, and valid ranges that begin and end at different places of a patch."""
    x = torch.randn(n_rows, n_leads, n_samples, generator=torch.Generator().manual_seed(2))
    valid = torch.tensor([[0, n_samples], [0, 101], [60, 140], [0, 37]])[:n_rows]
    return x, valid


def real_tokens(name, valid, n_samples, n_leads=2):
    """Which tokens hold a real sample, (B, N), by counting."""
    size = 50 if name == "heartbeit" else 8
    starts = np.arange(0, n_samples, size)
    real = [[start < stop and start + size > first for start in starts] for first, stop in valid.tolist()]
    return np.tile(real, n_leads if name == "heartbeit" else 1)


# -------------------------------------------------------------------------------------------------- against PyTorch


def test_attention_and_its_weights_are_those_of_pytorch():
    torch.manual_seed(1)
    mine, theirs = Attention(24, 3), nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([mine.query.weight, mine.key.weight, mine.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([mine.query.bias, torch.randn(24), mine.value.bias]))  # keys: any bias
        theirs.out_proj.load_state_dict(mine.out.state_dict())
    x = torch.randn(2, 11, 24)
    mask = torch.ones(2, 1, 11)
    mask[1, 0, 7:] = 0
    expected, weights = theirs(x, x, x, key_padding_mask=mask[:, 0] == 0, average_attn_weights=False)
    torch.testing.assert_close(mine(x, mask), expected, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(mine.weights(x, mask), weights, rtol=0, atol=TOLERANCE)


def test_the_encoder_is_the_one_of_pytorch_with_layer_norm_first():
    torch.manual_seed(1)
    mine = Encoder(24, 2, 3, 0.0)
    layer = nn.TransformerEncoderLayer(24, 3, 96, 0.0, "gelu", batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, 2, nn.LayerNorm(24), enable_nested_tensor=False)
    with torch.no_grad():
        for one, other in zip(mine.blocks, theirs.layers, strict=True):
            of = one.attention
            other.self_attn.in_proj_weight.copy_(torch.cat([of.query.weight, of.key.weight, of.value.weight]))
            other.self_attn.in_proj_bias.copy_(torch.cat([of.query.bias, torch.zeros(24), of.value.bias]))
            for their_layer, my_layer in (
                (other.self_attn.out_proj, of.out),
                (other.norm1, one.norm1),
                (other.norm2, one.norm2),
                (other.linear1, one.wide),
                (other.linear2, one.narrow),
            ):
                their_layer.load_state_dict(my_layer.state_dict())
    x = torch.randn(3, 13, 24)
    torch.testing.assert_close(mine(x, None), theirs(x), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_has_no_weight_in_any_precision_and_rows_of_padding_alone_are_finite(dtype):
    scores = torch.tensor([[-50.0, 3.0, 60.0], [1.0, 2.0, 3.0]]).to(dtype).view(2, 1, 1, 3)
    mask = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]])
    weights = torch.softmax(scores + without_padding(mask, dtype), dim=3).float()
    assert weights[0, 0, 0, 2] == 0 and weights[0, 0, 0, 1] == 1
    assert torch.isfinite(weights).all()


# ------------------------------------------------------------------------------------------------ attention weights


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_attention_sum_to_1_and_are_0_at_padding_alone(name):
    network = made(name)
    x, valid = rows()
    with torch.no_grad():
        weights = network.attention(x, valid)
    real = real_tokens(name, valid, x.shape[2])
    n_tokens = real.shape[1]
    assert weights.shape == (4, 2, 4, n_tokens, n_tokens)
    torch.testing.assert_close(weights.sum(dim=4), torch.ones(weights.shape[:4]))
    seen = weights.amin(dim=(1, 2, 3)).numpy() > 0  # (B, N), by all tokens in all layers and heads
    np.testing.assert_array_equal(seen, real)
    hidden = weights.amax(dim=(1, 2, 3)).numpy() == 0
    np.testing.assert_array_equal(hidden, ~real)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_valid", [True, False])
def test_the_weights_of_attention_give_the_logits_of_forward(name, with_valid, monkeypatch):
    """Forward mixes the values by the weights that `attention` returned, and its logits stay."""
    network = made(name)
    x, valid = rows()
    inputs = (x, valid) if with_valid else (x,)
    with torch.no_grad():
        expected = network(*inputs)
        layers = list(network.attention(*inputs).unbind(dim=1))
        mixed = lambda query, key, value, attn_mask: layers.pop(0) @ value  # noqa: E731
        monkeypatch.setattr(networks.attention.F, "scaled_dot_product_attention", mixed)
        torch.testing.assert_close(network(*inputs), expected, rtol=0, atol=TOLERANCE)
    assert not layers and expected.std() > 100 * TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_attention_of_a_row_without_a_real_sample_is_finite(name):
    with torch.no_grad():
        assert torch.isfinite(made(name).attention(torch.randn(1, 2, 100), torch.zeros(1, 2, dtype=torch.int64))).all()


# --------------------------------------------------------------------------------------------------------- positions


def test_positions_are_sines_and_cosines_by_hand_and_the_same_in_a_longer_row():
    found = positions(50, 6, torch.zeros(1)).numpy()
    angle = np.arange(50)[:, None] / 10_000 ** (np.array([0, 2, 4]) / 6)
    np.testing.assert_allclose(found, np.hstack([np.sin(angle), np.cos(angle)]), atol=1e-5)
    assert torch.equal(positions(200, 6, torch.zeros(1))[:50], torch.from_numpy(found))


def test_no_two_positions_of_half_an_hour_are_alike():
    place = positions(4000, 32, torch.zeros(1))
    assert torch.pdist(place).min() > 0.1


def test_without_positions_the_order_of_patches_is_not_seen_and_with_them_it_is(monkeypatch):
    network = made("heartbeit")
    x = torch.randn(2, 2, 200)
    order = torch.tensor([2, 0, 3, 1])
    mixed = x.unflatten(2, (4, 50))[:, :, order].flatten(2)
    with torch.no_grad():
        assert (network(x) - network(mixed)).abs().max() > 100 * TOLERANCE
        nowhere = lambda n_tokens, width, like: torch.zeros(n_tokens, width)  # noqa: E731
        monkeypatch.setattr(networks.attention, "positions", nowhere)
        torch.testing.assert_close(network(mixed), network(x), rtol=0, atol=TOLERANCE)


# ------------------------------------------------------------------------------------------------ patches and leads


@pytest.mark.parametrize(("n_samples", "n_patches"), [(50, 1), (51, 2), (99, 2), (100, 2), (101, 3)])
def test_patches_are_the_signal_of_each_lead_filled_up_with_zeros(n_samples, n_patches):
    x = torch.randn(3, 2, n_samples)
    patches = made("heartbeit").patches(x)
    assert patches.shape == (3, 2, n_patches, 50)
    lined_up = patches.flatten(2)
    assert torch.equal(lined_up[:, :, :n_samples], x)
    assert not lined_up[:, :, n_samples:].any()


def test_a_token_sees_its_own_patch_of_its_own_lead_alone():
    network = made("heartbeit", n_leads=3)
    x = torch.randn(1, 3, 200)
    other = x.clone()
    other[0, 1, 120] += 1
    with torch.no_grad():
        changed = (network.embed(x, None)[0] != network.embed(other, None)[0]).any(dim=3)[0]
    assert changed.nonzero().tolist() == [[1, 2]]


def test_leads_in_another_order_with_their_embeddings_give_the_same_logits():
    network = made("heartbeit", n_leads=3)
    x, valid = rows(n_leads=3)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        expected = network(x, valid)
        assert (network(x[:, order], valid) - expected).abs().max() > 100 * TOLERANCE
        network.lead.copy_(network.lead[order])
        torch.testing.assert_close(network(x[:, order], valid), expected, rtol=0, atol=TOLERANCE)


def test_what_is_masked_between_embed_and_encode_is_not_seen():
    """How a network is trained on masked patches: the vector in a patch's place hides it from all that follows."""
    network = made("heartbeit")
    x, valid = rows(n_rows=1)
    other = x.clone()
    other[0, 1, 50:100] = 9
    hidden = torch.zeros(1, 2, 5, 1, dtype=torch.bool)
    hidden[0, 1, 1] = True
    encoded = []
    with torch.no_grad():
        for signal in (x, other):
            tokens, mask = network.embed(signal, valid)
            encoded.append(network.encode(tokens.masked_fill(hidden, 0.5), mask))
    assert encoded[0].shape == (1, 2, 5, 32)
    assert torch.equal(*encoded)


# ------------------------------------------------------------------------------------------------------------- sizes


def of_block(width):
    """Parameters of a block by hand: four layers in attention, three biases, two wide layers, two norms."""
    return 4 * width**2 + 3 * width + 8 * width**2 + 5 * width + 4 * width


def n_parameters(name, **arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in models.build(name, 12, 5, **arguments).parameters())


def test_parameter_counts_by_hand():
    stem = 7 * (12 * 64 + 64 * 128 + 128 * 128) + 2 * (64 + 128 + 128)
    ends = 2 * 128 + 128 * 5 + 5  # the last norm and the last layer
    assert n_parameters("ecg_transformer") == stem + 6 * of_block(128) + ends
    assert n_parameters("heartbeit") == 50 * 128 + 128 + 12 * 128 + 4 * of_block(128) + ends


def test_heartbeit_reaches_the_published_size():
    """Of BEiT-base and HeartBEiT: 86 million parameters."""
    assert abs(n_parameters("heartbeit", width=768, depth=12, heads=12) / 86e6 - 1) < 0.02
