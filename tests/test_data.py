from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_summary

import batches
import data
from objectives import class_weights
from recipe import Recipe
from script import Stop


def test_class_weights_follow_their_formula():
    labels = np.eye(3, dtype=np.uint8)[[0] * 6 + [1] * 3 + [2]]
    np.testing.assert_allclose(class_weights(labels, "multiclass", "inverse"), [10 / 18, 10 / 9, 10 / 3])
    np.testing.assert_allclose(class_weights(labels, "multiclass", "sqrt") ** 2, [10 / 18, 10 / 9, 10 / 3], rtol=1e-6)
    np.testing.assert_allclose(class_weights(labels, "multilabel", "inverse"), [4 / 6, 7 / 3, 9])
    np.testing.assert_array_equal(class_weights(labels, "multiclass", "none"), 1)
    absent = np.concatenate([labels, np.zeros((10, 1), np.uint8)], axis=1)
    assert class_weights(absent, "multiclass", "inverse")[3] == 1


def test_a_class_that_is_not_scored_weighs_no_more_than_any_that_is():
    labels = np.eye(3, dtype=np.uint8)[[0] * 6 + [1] * 3 + [2]]
    weights = class_weights(labels, "multiclass", "inverse", np.array([True, True, False]))
    np.testing.assert_allclose(weights, [10 / 18, 10 / 9, 10 / 18])
    weights = class_weights(labels, "multiclass", "inverse", np.array([False, True, True]))
    np.testing.assert_allclose(weights, [10 / 18, 10 / 9, 10 / 3])


def test_the_weighted_sampler_draws_all_classes_alike():
    labels = np.eye(4, dtype=np.uint8)[[0] * 7000 + [1] * 2000 + [2] * 900 + [3] * 100]
    rows = np.arange(len(labels))
    weights = batches.row_weights(labels)
    drawn = np.concatenate([batches.epoch_order(rows, 0, epoch, weights) for epoch in range(10)])
    np.testing.assert_allclose(labels[drawn].mean(axis=0), 0.25, atol=0.02)


def test_rows_without_a_class_are_a_class_of_their_own_to_the_sampler():
    labels = np.zeros((100, 2), np.uint8)
    labels[:10, 0] = 1
    weights = batches.row_weights(labels)
    np.testing.assert_allclose(weights[:10].sum(), 0.5)


def test_an_epoch_holds_each_row_once_in_an_order_of_its_own():
    rows = np.arange(50, 150)
    first, second = (batches.epoch_order(rows, 0, epoch, None) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(rows)
    assert list(first) != list(second)
    assert list(first) == list(batches.epoch_order(rows, 0, 0, None))


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 1)])
def test_each_global_batch_is_the_same_rows_however_it_is_shared(world_size, accumulation):
    order = np.random.default_rng(0).permutation(103)
    shares = [batches.training_batches(order, 8, accumulation, rank, world_size) for rank in range(world_size)]
    for step in range(103 // 8):
        micro = slice(step * accumulation, (step + 1) * accumulation)
        got = np.concatenate([batch for share in shares for batch in share[micro]])
        assert sorted(got) == sorted(order[step * 8 : (step + 1) * 8])


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_scoring_batches_hold_every_row_exactly_once(n, world_size):
    rows = np.random.default_rng(n).permutation(1000)[:n]
    got = [b for rank in range(world_size) for b in batches.scoring_batches(rows, 4, rank, world_size)]
    assert sorted(np.concatenate(got)) == sorted(rows)


def test_augmented_rows_do_not_depend_on_the_batch(prepared_beats):
    folder = data.Path(prepared_beats[prepared_beats.index("--data.dir") + 1])
    fetched = batches.Batches(data.Dataset(folder), {"noise": 0.1, "shift_s": 0.02}, seed=3, epoch=2)
    together = fetched[np.array([5, 9, 40])]
    alone = fetched[np.array([9])]
    np.testing.assert_array_equal(together.signal[1], alone.signal[0])
    first, last = together.valid[0]
    assert (together.signal[0][:, :first] == 0).all() and (together.signal[0][:, last:] == 0).all()


def test_a_fold_that_is_not_there_stops_and_names_those_that_are(prepared_beats):
    dataset = data.Dataset(data.Path(prepared_beats[prepared_beats.index("--data.dir") + 1]))
    with pytest.raises(Stop, match=r"data.test = 9: no rows; there are folds 0, 1, 2, paced"):
        dataset.splits(["0"], ["1"], ["9"])


def small_dataset(folder, damage=lambda file: None):
    """Write a dataset of one part of five rows, damage the part, and open it."""
    recipe = Recipe(leads=[["I"]], window={"kind": "record", "samples": 40})
    with h5py.File(folder / "part-00000.h5", "w") as file:
        file["signals"] = np.arange(200).reshape(5, 1, 40).astype(np.float16)
        file["labels"] = np.ones((5, 1), np.uint8)
        damage(file)
    write_summary(folder, recipe, [{"file": "part-00000.h5", "rows": 5}])
    return data.Dataset(folder)


def pack(file):
    signals = file["signals"][()]
    del file["signals"]
    file.create_dataset("signals", data=signals, compression="gzip")


def test_a_part_that_was_packed_again_gives_the_same_rows(tmp_path):
    rows = np.arange(5)
    np.testing.assert_array_equal(small_dataset(tmp_path, pack).signals(rows), small_dataset(tmp_path).signals(rows))


def replace(name, values):
    def damage(file):
        if name in file:
            del file[name]
        file[name] = values

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (replace("signals", np.zeros((5, 1, 40), np.float32)), "float32, dataset.json says .* float16"),
        (replace("signals", np.zeros((5, 2, 40), np.float16)), r"signals \(5, 2, 40\)"),
        (replace("signals", np.zeros((4, 1, 40), np.float16)), r"signals \(4, 1, 40\)"),
        (replace("labels", np.zeros((4, 1), np.uint8)), "labels is no column of 5 rows"),
        (replace("labels", np.uint8(1)), "labels is no column of 5 rows"),
        (lambda file: file.create_group("notes"), "notes is no column of 5 rows"),
        (lambda file: file.__delitem__("signals"), "not a whole part"),
    ],
)
def test_a_part_that_is_not_what_the_summary_says_stops_the_load(tmp_path, damage, words):
    with pytest.raises(Stop, match=rf"part-00000.h5: .*{words}"):
        small_dataset(tmp_path, damage)


@pytest.fixture
def two(prepared_beats, mitdb_like, tmp_path):
    """Two prepared datasets of the same records, with other folds."""
    import preprocess

    first = Path(prepared_beats[prepared_beats.index("--data.dir") + 1])
    second = tmp_path / "second"
    words = [second if word == str(first) else word for word in prepared_beats]
    preprocess.main([*map(str, words), "--data.seed", "5"])
    return first, second


def test_several_datasets_are_one_with_patients_apart(two):
    alone = [data.Dataset(folder) for folder in two]
    both = data.Dataset(*two)
    assert len(both) == len(alone[0]) + len(alone[1])
    assert both.summary.name == "mitdb+mitdb"
    n = len(alone[0])
    rows = np.array([0, n - 1, n, len(both) - 1])
    expected = np.concatenate([alone[0].signals(rows[:2]), alone[1].signals(rows[2:] - n)])
    np.testing.assert_array_equal(both.signals(rows), expected)
    np.testing.assert_array_equal(both.labels, np.concatenate([each.labels for each in alone]))
    assert both.patient[0] == f"{two[0].name}/".encode() + alone[0].patient[0]
    assert both.n_patients(np.arange(len(both))) == 2 * alone[0].n_patients(np.arange(n))
    parts = both.splits(["0"], ["1"], ["2"])
    for name, fold in (("train", b"0"), ("validation", b"1"), ("test", b"2")):
        assert (both.fold[parts[name]] == fold).all()
        assert len(parts[name]) == sum((each.fold == fold).sum() for each in alone)


def test_datasets_that_differ_are_not_joined(two, demo_folder, tmp_path):
    import preprocess

    words = ["--data.raw", str(demo_folder), "--data.dir", str(tmp_path / "demo")]
    preprocess.main(words)
    with pytest.raises(Stop, match="cannot be joined: .*recipe.fs: 360.0 -> 100.0"):
        data.Dataset(two[0], tmp_path / "demo")
    path = two[1] / "dataset.json"
    path.write_text(path.read_text().replace('"multiclass"', '"multilabel"'))
    with pytest.raises(Stop, match="cannot be joined: task multiclass and multilabel"):
        data.Dataset(*two)
    with pytest.raises(Stop, match="one dataset is prepared at a time"):
        preprocess.main(["--data.raw", str(demo_folder), "--data.dir", "a,b"])


def test_a_network_learns_from_several_datasets(two, prepared_beats, tmp_path, capsys):
    import evaluate
    import train

    words = [f"{two[0]},{two[1]}" if word == str(two[0]) else word for word in prepared_beats]
    run = tmp_path / "run"
    train.main([*words, "--run", str(run), "--training.epochs", "1", "--training.batch_size", "64"])
    n = sum((data.Dataset(folder).fold == b"0").sum() for folder in two)
    assert f"on {n:,} rows" in capsys.readouterr().out
    evaluate.main([str(run)])
    assert f"of {two[0]}, {two[1]}" in (run / "report/report.md").read_text()
