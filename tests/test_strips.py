"""Numbers about a strip, and the network that takes them, against closed forms and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier

import bundle
import data
import infer
import models
import pqrst
import preprocess
import train
from beats import context_of_record
from networks.strips import UNKNOWN, BoostedTrees
from recipe import Recipe
from strip import BEAT, BETWEEN, RHYTHM, STRIP_NUMBERS, WHOLE, strip_numbers

FS = 300


def strip(r_peaks_s, seconds=30.0, fs=FS, p_mv=0.15, f_hz=0.0, seed=0):
    """Beats of a P wave, QRS and T wave at the given times, with f waves in place of P where f_hz is given."""
    time = np.arange(round(seconds * fs)) / fs
    x = 0.01 * np.random.default_rng(seed).standard_normal(len(time))
    for r in r_peaks_s:
        for at, height, width in ((-0.17, p_mv, 0.025), (0.0, 1.0, 0.012), (0.28, 0.25, 0.05)):
            x += height * np.exp(-(((time - r - at) / width) ** 2) / 2)
    if f_hz:
        x += 0.08 * np.sin(2 * np.pi * f_hz * time)
    return x.astype(np.float32), np.round(np.array(r_peaks_s) * fs).astype(np.int64)


def described(*arguments, **options):
    x, peaks = strip(*arguments, **options)
    return dict(zip(STRIP_NUMBERS, strip_numbers(x, options.get("fs", FS), peaks), strict=True))


REGULAR = np.arange(0.5, 29.5, 0.8)
IRREGULAR = np.cumsum(np.random.default_rng(3).uniform(0.45, 1.15, 34)) + 0.3


def test_a_regular_rhythm_by_hand():
    numbers = described(REGULAR)
    assert numbers["beats"] == len(REGULAR) and numbers["duration_s"] == 30
    for name in ("rr_median", "rr_least", "rr_most"):
        assert numbers[name] == pytest.approx(0.8, abs=1 / FS)
    assert numbers["bpm"] == pytest.approx(75, abs=0.1)
    assert numbers["share_50ms"] == 0 and numbers["map_origin"] == 1 and numbers["share_early"] == 0
    assert numbers["likeness_median"] > 0.99 and numbers["upright"] == 1
    assert numbers["height"] == pytest.approx(np.log(1.0), abs=0.25)  # a narrow QRS loses some to the band-pass
    assert numbers["p_likeness_median"] > 0.9


def test_irregular_beats_without_p_waves_are_told_from_regular_ones():
    sinus, fibrillation = described(REGULAR), described(IRREGULAR, p_mv=0.0, f_hz=6.0)
    for name in ("rmssd_ratio", "histogram_entropy", "entropy_1", "map_cells", "turning_points", "between_5hz"):
        assert fibrillation[name] > sinus[name] + 0.1, name
    assert fibrillation["p_likeness_median"] < sinus["p_likeness_median"] - 0.3
    assert max(BETWEEN[:-1], key=fibrillation.get) == "between_5hz"  # the band of the f waves


def test_sample_entropy_against_its_definition():
    _, peaks = strip(IRREGULAR)
    logs = np.log(np.diff(peaks) / FS)
    n, agree = len(logs), {1: 0, 2: 0}
    for length in agree:
        for i in range(n - 1):
            for j in range(i + 1, n - 1):
                agree[length] += max(abs(logs[i + k] - logs[j + k]) for k in range(length)) <= 0.05
    expected = -np.log((agree[2] + 0.5) / (agree[1] + 0.5))
    assert described(IRREGULAR)["entropy_1"] == pytest.approx(expected, rel=1e-5)


def test_an_inverted_strip_has_the_same_numbers_but_for_its_sign():
    x, peaks = strip(IRREGULAR)
    one, other = strip_numbers(x, FS, peaks), strip_numbers(-x, FS, peaks)
    same = np.array([name not in ("upright",) for name in STRIP_NUMBERS])
    np.testing.assert_allclose(one[same], other[same], rtol=1e-3, atol=1e-3)
    place = STRIP_NUMBERS.index("upright")
    assert (one[place], other[place]) == (1, -1)


@pytest.mark.parametrize("fs", [128, 250, 500, 1000])
def test_another_rate_gives_nearly_the_same_numbers(fs):
    here, there = described(REGULAR), described(REGULAR, fs=fs)
    for name in ("rr_median", "bpm", "height", "p_most", "t_place", "width_20"):
        assert there[name] == pytest.approx(here[name], rel=0.1, abs=0.1), name
    assert np.isnan(there["power_70hz"]) == (fs < 200)


@pytest.mark.parametrize("n_beats", [0, 1, 2, 3])
def test_a_strip_with_few_beats_has_the_numbers_of_the_whole_alone(n_beats):
    x, peaks = strip(REGULAR)
    numbers = dict(zip(STRIP_NUMBERS, strip_numbers(x, FS, peaks[5 : 5 + n_beats]), strict=True))
    assert all(np.isfinite(numbers[name]) for name in WHOLE)
    assert all(np.isnan(numbers[name]) for name in RHYTHM)
    assert np.isnan([numbers[name] for name in BEAT]).all() == (n_beats < 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("lead", [np.zeros(3000), np.full(3000, np.nan), np.ones(301), np.ones(20), np.zeros(0)])
@pytest.mark.parametrize("peaks", [[], [5], [100, 300, 600, 900, 1200, 1500]])
def test_flat_empty_and_tiny_strips_give_finite_numbers_or_none(lead, peaks):
    numbers = strip_numbers(lead, FS, np.array(peaks, np.int64))
    assert numbers.shape == (len(STRIP_NUMBERS),) and not np.isinf(numbers).any()


def test_gaps_are_bridged():
    x, peaks = strip(REGULAR)
    x[4000:4100] = np.nan
    numbers = dict(zip(STRIP_NUMBERS, strip_numbers(x, FS, peaks), strict=True))
    assert np.isfinite([numbers[name] for name in (*RHYTHM, *WHOLE, *BEAT, *BETWEEN)]).all()


def test_a_recipe_describes_its_first_slot_and_finds_the_beats_itself():
    x, _ = strip(REGULAR)
    record = pqrst.Record(np.stack([x[::-1], x]), FS, ["V1", "II"], ["mV", "mV"], "two")
    recipe = Recipe(leads=[["II"]], context=["strip"], window={"kind": "record", "length_s": 10})
    found = context_of_record(recipe, lambda: record)
    np.testing.assert_array_equal(found, strip_numbers(record.signal[1], FS, pqrst.rpeaks(record.signal, FS)))
    none = Recipe(leads=[["II"]], window={"kind": "record", "length_s": 10})
    assert context_of_record(none, lambda: pytest.fail("read for nothing")).shape == (0,)


# ------------------------------------------------------------------------------------------------------------- trees


def numbers_and_labels(n_classes, n=400, seed=0):
    rng = np.random.default_rng(seed)
    context = rng.standard_normal((n, 12)).astype(np.float32)
    context[rng.random(context.shape) < 0.05] = np.nan
    place = (np.nan_to_num(context[:, :3]) @ [1.0, 2.0, -1.0] + 0.3 * rng.standard_normal(n)).argsort().argsort()
    return context, place * n_classes // n


def odds_of_sklearn(context, target, weights, trees=20, depth=3):
    boosted = GradientBoostingClassifier(
        n_estimators=trees, learning_rate=0.05, max_depth=depth, subsample=0.6, max_features=1, min_samples_leaf=5,
        random_state=0,
    )  # fmt: skip
    return boosted.fit(np.nan_to_num(context, nan=UNKNOWN), target, weights)


def test_trees_say_what_scikit_learn_says_of_one_class_each():
    context, target = numbers_and_labels(4)
    weights = np.array([1.0, 2.0, 0.5, 1.0], np.float32)
    trees = BoostedTrees(4, 20, 3, 0.05)
    trees.grow(context, np.eye(4, dtype=np.uint8)[target], weights)
    expected = odds_of_sklearn(context, target, weights[target]).predict_proba(np.nan_to_num(context, nan=UNKNOWN))
    np.testing.assert_allclose(trees(torch.from_numpy(context)).softmax(1).numpy(), expected, atol=2e-4)


def test_trees_say_what_scikit_learn_says_of_findings():
    context, target = numbers_and_labels(4)
    labels = np.stack([target > 0, target > 2, target < 9, target > 9], axis=1).astype(np.uint8)
    trees = BoostedTrees(4, 20, 3, 0.05)
    trees.grow(context, labels, np.ones(4, np.float32))
    scores = trees(torch.from_numpy(context)).sigmoid().numpy()
    for k in (0, 1):
        boosted = odds_of_sklearn(context, labels[:, k], np.ones(len(labels)))
        expected = boosted.predict_proba(np.nan_to_num(context, nan=UNKNOWN))[:, 1]
        np.testing.assert_allclose(scores[:, k], expected, atol=2e-3)
    assert (scores[:, 2] > 0.99).all() and (scores[:, 3] < 0.01).all()  # of all rows, and of none


@pytest.mark.parametrize("n_seen", [1, 2, 3])
def test_classes_without_a_row_are_hardly_expected(n_seen):
    context, target = numbers_and_labels(n_seen)
    trees = BoostedTrees(5, 10, 3, 0.05)
    trees.grow(context, np.eye(5, dtype=np.uint8)[target], np.ones(5, np.float32))
    odds = trees(torch.from_numpy(context)).numpy()
    assert (odds[:, n_seen:] < -4).all()
    assert ((odds.argmax(1) == target).mean() > 0.6) and (
        odds[:, :n_seen].max(axis=1) > odds[:, n_seen:].max(axis=1)
    ).all()


def test_trees_split_where_scikit_learn_splits_to_the_last_bit():
    context, target = numbers_and_labels(3)
    trees = BoostedTrees(3, 5, 3, 0.05)
    trees.grow(context, np.eye(3, dtype=np.uint8)[target], np.ones(3, np.float32))
    edges = np.repeat(np.nan_to_num(context[:1], nan=0.0), trees.threshold.numel() * 2, axis=0)
    feature, threshold = trees.feature.flatten().numpy(), trees.threshold.flatten().numpy()
    for i, (column, limit) in enumerate(zip(feature, threshold, strict=True)):
        edges[2 * i, column], edges[2 * i + 1, column] = limit, np.nextafter(limit, np.float32(np.inf))
    boosted = odds_of_sklearn(context, target, np.ones(len(target)), trees=5)
    expected = boosted.predict_proba(edges)
    np.testing.assert_allclose(trees(torch.from_numpy(edges)).softmax(1).numpy(), expected, atol=2e-3)


def test_the_logits_are_the_mean_of_network_and_trees_and_a_step_goes_by_the_network():
    torch.manual_seed(0)
    network = models.build("stripnet", 1, 3, context_features=[f"n{k}" for k in range(12)], base_channels=4, trees=4)
    context, target = numbers_and_labels(3)
    network.grow(context, np.eye(3, dtype=np.uint8)[target], np.ones(3, np.float32))
    x, beside = torch.randn(6, 1, 300), torch.from_numpy(context[:6])
    network.eval()
    both = (network.reader(x) + network.trees(beside)) / 2
    torch.testing.assert_close(network(x, beside), both)
    assert not torch.equal(network.trees(beside)[0], network.trees(beside)[3])
    network.train()
    torch.manual_seed(1)
    trained = network(x, beside)
    torch.manual_seed(1)
    torch.testing.assert_close(trained, network.reader(x))


@pytest.mark.parametrize(
    "arguments", [{"trees": 0}, {"depth": 0}, {"depth": 11}, {"context_features": []}, {"context_features": "abc"}]
)
def test_a_strip_network_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match=r"trees|context_features"):
        models.build("stripnet", 1, 3, **arguments)


# ------------------------------------------------------------------------------------------------------ the pipeline


def test_a_strip_network_learns_from_all_rows_and_predicts_from_the_same_numbers(demo_folder, tmp_path, monkeypatch):
    """With no validation fold the last epoch is kept, and infer.py feeds it to the bit what was stored."""
    words = ["--data.raw", str(demo_folder), "--data.dir", str(tmp_path / "prepared"), "--data.folds", "2"]
    words += ["--recipe.context", '["strip"]', "--data.train", "0,1", "--data.validation", "[]", "--data.test", "[]"]
    preprocess.main(words)
    dataset = data.Dataset(tmp_path / "prepared")
    assert dataset.context.shape == (len(dataset), len(STRIP_NUMBERS))
    assert np.isfinite(dataset.context[:, STRIP_NUMBERS.index("bpm")]).all()
    words += ["--model.name", "stripnet", "--model.arguments", '{"base_channels": 4, "trees": 3, "depth": 2}']
    train.main([*words, "--run", str(tmp_path / "run"), "--training.epochs", "2", "--training.batch_size", "16"])
    best, last = (bundle.load(tmp_path / "run" / name) for name in ("best.pt", "last.pt"))
    assert best.origin.epoch == 2 and not (tmp_path / "run" / "report").exists()
    assert torch.equal(best.network.reader.last.weight, last.network.reader.last.weight)
    assert best.network.trees.leaf.abs().sum() > 0
    seen = []
    inputs_of = bundle.inputs_of
    monkeypatch.setattr(bundle, "inputs_of", lambda network, batch: seen.append(batch) or inputs_of(network, batch))
    for row in (0, 17):
        seen.clear()
        found = infer.predict(demo_folder / dataset.record[row].decode(), run=tmp_path / "run")
        np.testing.assert_array_equal(seen[0].context[0], dataset.context[row])
        assert found.scores.shape == (1, len(dataset.classes))
