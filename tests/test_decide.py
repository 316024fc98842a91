import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import f1_score

import bundle
import data
from batches import Batches
from calibration import best_thresholds, temperature_of
from decide import decide, thresholds_of


def test_multiclass_decides_for_the_highest_score_and_the_first_of_equals():
    decided = decide(np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0, 0, 0]]), "multiclass")
    assert decided.dtype == np.uint8
    assert decided.tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_multilabel_decides_at_or_above_the_threshold_of_each_class():
    scores = np.array([[0.5, 0.49, 0.9], [0.1, 0.2, 0.3]], dtype=np.float32)
    assert decide(scores, "multilabel").tolist() == [[1, 0, 1], [0, 0, 0]]
    assert decide(scores, "multilabel", 0.25).tolist() == [[1, 1, 1], [0, 0, 1]]
    assert decide(scores, "multilabel", [0.1, 0.3, 0.95]).tolist() == [[1, 1, 0], [1, 0, 0]]


def test_deciding_over_no_rows_gives_no_rows():
    for task in ("multiclass", "multilabel"):
        assert decide(np.zeros((0, 3)), task).shape == (0, 3)


@pytest.mark.parametrize(
    ("scores", "task", "thresholds", "words"),
    [
        (np.zeros((2, 3)), "binary", None, "task 'binary': must be one of multiclass, multilabel"),
        (np.zeros(3), "multilabel", None, r"scores \(3,\)"),
        (np.zeros((3, 0)), "multiclass", None, r"scores \(3, 0\)"),
        (np.array([[0.1], [np.nan]]), "multilabel", None, "NaN or infinity in 1 of 2 rows, first row 1"),
        (np.array([[0.1], [-np.inf]]), "multiclass", None, "first row 1"),
        (np.zeros((2, 3)), "multiclass", 0.5, "thresholds: multiclass"),
        (np.zeros((2, 3)), "multilabel", [0.5, 0.5], "thresholds .* one number or 3"),
        (np.zeros((2, 3)), "multilabel", [0.5, 0.5, np.nan], "thresholds"),
    ],
)
def test_what_cannot_be_decided_is_an_error(scores, task, thresholds, words):
    with pytest.raises(ValueError, match=words):
        decide(scores, task, thresholds)


def test_thresholds_are_one_for_each_class_and_none_where_the_highest_score_decides():
    assert thresholds_of("multilabel", 3) == (0.5, 0.5, 0.5)
    assert thresholds_of("multilabel", 2, [0.25, 0.75]) == (0.25, 0.75)
    assert thresholds_of("multiclass", 3) is None


# ------------------------------------------------------------------------------------- chosen on the validation rows


def test_the_threshold_of_a_class_is_that_nearest_to_a_half_within_one_row_of_the_best_f1(rng):
    targets = (rng.random((200, 3)) < [0.1, 0.4, 0.8]).astype(np.uint8)
    scores = np.round(np.clip(0.3 * targets + 0.8 * rng.random((200, 3)), 0, 1), 2).astype(np.float32)  # with equals
    for k, limit in enumerate(best_thresholds(targets, scores)):
        grid = np.arange(-0.005, 1.01, 0.01)
        wrong = {at: int(((scores[:, k] >= at) != targets[:, k]).sum()) for at in grid}
        best = max(grid, key=lambda at: f1_score(targets[:, k], scores[:, k] >= at))
        near = [at for at in grid if wrong[at] <= wrong[best] + 1]
        assert ((scores[:, k] >= limit) != targets[:, k]).sum() <= wrong[best] + 1
        assert abs(limit - 0.5) <= min(abs(at - 0.5) for at in near) + 0.011


def test_one_row_far_from_the_others_does_not_move_a_threshold():
    scores = np.concatenate([np.linspace(0.9, 0.6, 20), [0.05], np.linspace(0.04, 0.01, 100)]).astype(np.float32)
    targets = np.r_[np.ones(21), np.zeros(100)].astype(np.uint8)
    (limit,) = best_thresholds(targets[:, None], scores[:, None])
    assert limit == pytest.approx((0.6 + 0.05) / 2)


@pytest.mark.parametrize("sensitivity", [0.5, 0.9, 1.0])
def test_a_stated_sensitivity_is_reached_by_the_highest_threshold(rng, sensitivity):
    targets = (rng.random((300, 2)) < 0.3).astype(np.uint8)
    scores = rng.random((300, 2)).astype(np.float32)
    for k, limit in enumerate(best_thresholds(targets, scores, sensitivity)):
        of_class = scores[targets[:, k] > 0, k]
        assert (of_class >= limit).mean() >= sensitivity
        next_higher = of_class[of_class >= limit].min()
        assert (of_class > next_higher).mean() < sensitivity


def test_a_class_of_few_rows_keeps_the_threshold_of_all():
    targets = np.zeros((50, 1), np.uint8)
    targets[:4] = 1
    assert best_thresholds(targets, np.linspace(1, 0, 50, dtype=np.float32)[:, None]) == (0.5,)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 3.0])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_temperature_of_logits_that_were_scaled_is_found(rng, task, temperature):
    logits = 2 * rng.normal(size=(20_000, 3))
    if task == "multiclass":
        drawn = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
        targets = np.eye(3, dtype=np.uint8)[drawn]
    else:
        targets = (rng.random(logits.shape) < expit(logits)).astype(np.uint8)
    found = temperature_of((logits * temperature).astype(np.float32), targets, task)
    assert found == pytest.approx(temperature, rel=0.05)
    assert temperature_of(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), task) == 1


def test_a_checkpoint_holds_what_validation_taught_and_every_score_follows_it(demo_run, prepared_demo):
    trained = bundle.load(demo_run / "best.pt")
    dataset = data.Dataset(data.Path(prepared_demo[prepared_demo.index("--data.dir") + 1]))
    rows = dataset.splits(["0"], ["7"], [])["validation"]
    one = bundle.replace(trained, temperature=1.0)
    logits = bundle.score(one, [Batches(dataset)[rows]])[1]
    assert trained.temperature == pytest.approx(temperature_of(logits, dataset.labels[rows], "multilabel"), rel=1e-3)
    np.testing.assert_allclose(
        bundle.score(trained, [Batches(dataset)[rows]])[1], logits / trained.temperature, rtol=1e-5, atol=1e-6
    )
    assert len(trained.thresholds) == 6
