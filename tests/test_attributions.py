"""Attributions against closed forms, and their completeness for every network of the table."""

import numpy as np
import pytest
import torch

import attributions
import models
from attributions import attribute, integrated, occluded, similarity, typical_of, with_random_weights
from batches import Batch
from bundle import Bundle, Origin
from recipe import RR_NUMBERS, Recipe, Window

TOLERANCE = 0.01  # of the difference between output and baseline: the promised completeness


def function_of(value, gradient):
    """What `integrated` takes, of functions of points (M, D)."""
    return lambda points, wanted: (value(points), gradient(points) if wanted else None)


def trained_of(name, n_leads=2, classes="abc", task="multiclass", **more):
    """An untrained network whose batch statistics are not those of noise, in a recipe of its leads and numbers."""
    torch.manual_seed(3)
    network = models.build(name, n_leads, len(classes), **more).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    names = getattr(network, "context_features", ())
    window = {"window": Window(kind="beat", length_s=1.0)} if set(names) & set(RR_NUMBERS) else {}
    context = {"context": ("strip",) if name == "stripnet" else ("view",) if name == "beatview" else RR_NUMBERS}
    if name == "beatview":
        window = {"window": Window(kind="beat", length_s=1.0)}
    recipe = Recipe(leads=tuple((f"V{k + 1}",) for k in range(n_leads)), **window, **(context if names else {}))
    return Bundle(network, name, more, recipe, tuple(classes), task, None, Origin("", None))


def batch_of(rng, trained, n_samples=150, valid=None):
    n_numbers = len(trained.recipe.context_columns)
    signal = rng.normal(size=(1, len(trained.recipe.leads), n_samples)).astype(np.float16)
    context = np.exp(rng.normal(size=(1, n_numbers))).astype(np.float32)
    return Batch(signal, None, context, np.array([valid or (0, n_samples)]), np.array([0]))


# ---------------------------------------------------------------------------------------------------- closed forms


def test_a_linear_function_gives_each_coordinate_its_own_term(rng):
    weight = rng.normal(size=20)
    start, stop = rng.normal(size=(2, 20))
    found = integrated(function_of(lambda x: x @ weight, lambda x: np.tile(weight, (len(x), 1))), start, stop)
    np.testing.assert_allclose(found, weight * (stop - start), rtol=1e-5)


def test_a_product_is_shared_equally():
    """x * y from 0 to (2, 3): each gets half of 6 (Sundararajan et al. 2017: integrated gradients are symmetric)."""
    product = function_of(lambda x: x[:, 0] * x[:, 1], lambda x: x[:, ::-1].copy())
    np.testing.assert_allclose(integrated(product, np.zeros(2), np.array([2.0, 3.0])), [3, 3], rtol=1e-6)


@pytest.mark.parametrize("steep", [1.0, 100.0, 10_000.0])
def test_a_step_near_the_baseline_is_integrated_to_the_promised_share(steep):
    """tanh(steep * x) rises within 1 / steep of the baseline, where no step of a fixed grid lies."""
    function = function_of(
        lambda x: np.tanh(steep * x.sum(axis=1)),
        lambda x: np.tile(steep / np.cosh(np.minimum(steep * x.sum(axis=1, keepdims=True), 300)) ** 2, (1, 2)),
    )
    found = integrated(function, np.zeros(2), np.array([0.75, 0.25]))
    assert found.sum() == pytest.approx(np.tanh(steep), rel=TOLERANCE)
    assert found[0] == pytest.approx(3 * found[1], rel=1e-5)


def test_a_jump_is_given_up_on_and_its_error_is_told():
    jump = function_of(lambda x: (x[:, 0] > 0.3).astype(float), lambda x: np.zeros_like(x))
    assert integrated(jump, np.zeros(1), np.ones(1)).sum() == 0
    found = attributions.Attribution("a", "integrated", ("I",), np.zeros((1, 4)), {}, 1.0, 0.0, 100.0)
    assert found.error == 1


def test_occlusion_of_a_linear_function_is_the_mean_of_its_terms_in_each_group(rng):
    weight, stop = rng.normal(size=(2, 10))
    groups = [slice(0, 4), slice(4, 9), slice(9, 10)]
    found = occluded(function_of(lambda x: x @ weight, None), np.zeros(10), stop, groups)
    for group in groups:
        np.testing.assert_allclose(found[group], (weight * stop)[group].mean())


# --------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("name", sorted(models.NETWORKS))
def test_attributions_of_every_network_sum_to_output_minus_baseline(rng, name):
    trained = trained_of(name)
    batch = batch_of(rng, trained)
    with torch.no_grad():
        inputs = [torch.from_numpy(np.asarray(batch.signal, np.float32))]
        extra = {"context": batch.context, "valid": batch.valid}
        inputs += [torch.from_numpy(extra[key]) for key in models.extra_inputs(trained.network)]
        scores = trained.network(*inputs).double().softmax(dim=1)[0]
    found = attribute(trained, batch, "b", np.full(batch.context.shape[1], 0.5) if name != "stripnet" else None)
    assert found.output == pytest.approx(float(torch.log(scores[1] / (1 - scores[1]))), abs=1e-4), "log odds of softmax"
    assert found.values.sum() + sum(found.numbers.values()) == pytest.approx(
        found.output - found.baseline, abs=TOLERANCE * max(0.1, abs(found.output - found.baseline))
    )
    assert found.error < TOLERANCE
    if name != "beatview":
        assert np.abs(found.values).sum() > 0
    else:
        assert np.abs(found.values).sum() == 0, "it does not look at the signal"
    assert found.share.sum() + sum(found.number_share.values()) == pytest.approx(1)


def test_the_task_decides_what_log_odds_are(rng):
    for task in ("multiclass", "multilabel"):
        trained = trained_of("cnn1d", task=task)
        batch = batch_of(rng, trained)
        with torch.no_grad():
            logits = trained.network(torch.from_numpy(np.asarray(batch.signal, np.float32)))[0].double().numpy()
        expected = logits[2] if task == "multilabel" else logits[2] - np.log(np.exp(logits[:2]).sum())
        assert attribute(trained, batch, "c").output == pytest.approx(expected, abs=1e-5)


def test_padding_and_missing_numbers_speak_for_nothing(rng):
    trained = trained_of("resnet1d")
    batch = batch_of(rng, trained, valid=(0, 100))
    assert not attribute(trained, batch, "a").values[:, 100:].any()
    trained = trained_of("beatcnn")
    batch = batch_of(rng, trained)
    batch.context[0, 0] = np.nan
    found = attribute(trained, batch, "a", np.full(4, 0.5))
    assert found.numbers[RR_NUMBERS[0]] == 0 and found.numbers[RR_NUMBERS[1]] != 0
    assert found.error < TOLERANCE


def test_expected_gradients_are_the_mean_over_references_and_vanish_for_the_row_itself(rng):
    trained = trained_of("cnn1d")
    batch = batch_of(rng, trained)
    references = rng.normal(size=(3, 2, 150))
    found = attribute(trained, batch, "a", method="expected", references=references)
    assert found.error < TOLERANCE
    alone = [attribute(trained, batch, "a", method="expected", references=references[k : k + 1]) for k in range(3)]
    np.testing.assert_allclose(found.values, np.mean([one.values for one in alone], axis=0), atol=1e-6)
    assert found.baseline == pytest.approx(np.mean([one.baseline for one in alone]))
    same = attribute(trained, batch, "a", method="expected", references=np.asarray(batch.signal))
    assert np.abs(same.values).max() == 0 and same.output == same.baseline


def test_occlusion_finds_the_lead_that_a_network_reads(rng):
    trained = trained_of("cnn1d")
    first = next(module for module in trained.network.modules() if isinstance(module, torch.nn.Conv1d))
    with torch.no_grad():
        first.weight[:, 0] = 0  # the first lead is not read
    for method in ("occlusion", "integrated"):
        found = attribute(trained, batch_of(rng, trained), "a", method=method)
        assert found.share[0] < 1e-4 and found.share[1] == pytest.approx(1, abs=1e-4)


def test_rows_scored_in_pieces_are_explained_whole(rng):
    from dataclasses import replace

    from crops import Crops

    trained = replace(trained_of("cnn1d"), crops=Crops(64, 32, "mean"), temperature=2.0)
    found = attribute(trained, batch_of(rng, trained), "a")
    assert found.error < TOLERANCE and np.abs(found.values[:, -20:]).sum() > 0


def test_a_network_with_other_weights_explains_otherwise_and_the_same_one_alike(rng):
    trained = trained_of("cnn1d")
    batch = batch_of(rng, trained)
    found = attribute(trained, batch, "a")
    other = attribute(with_random_weights(trained), batch, "a")
    assert similarity(found, found) == pytest.approx(1)
    assert similarity(found, other) < 0.6
    again = attribute(with_random_weights(trained), batch, "a")
    np.testing.assert_array_equal(other.values, again.values)


def test_drawing_random_weights_leaves_the_random_generator_alone():
    trained = trained_of("cnn1d")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with_random_weights(trained)
    assert torch.rand(1) == expected


def test_typical_numbers_are_medians_of_what_is_known():
    context = np.array([[1, np.nan, np.nan], [2, 5, np.nan], [9, 7, np.nan]], np.float32)
    np.testing.assert_array_equal(typical_of(context), [2, 6, np.nan])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"method": "guess"}, "method 'guess': must be one of integrated, expected, occlusion"),
        ({"class_name": "z"}, "class 'z': the model has a, b, c"),
        ({"method": "expected"}, "method expected: needs rows to compare with"),
        ({"method": "expected", "references": np.zeros((0, 2, 150))}, "needs rows to compare with"),
    ],
)
def test_what_cannot_be_explained_is_an_error_that_says_why(rng, more, words):
    trained = trained_of("cnn1d")
    with pytest.raises(ValueError, match=words):
        attribute(trained, batch_of(rng, trained), **{"class_name": "a", **more})
