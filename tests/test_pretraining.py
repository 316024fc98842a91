"""Trainings without labels, and those that begin with their weights."""

import json
import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_summary
from test_resume import raise_signal_at, same_run
from test_train import metrics_of, steps

import bundle
import checks
import evaluate
import infer
import models
import pretraining
import runs
import study
import train
from data import Summary
from script import Stop

NARROW = '{"width": 16, "depth": 2, "heads": 2}'
SMALL = ["--training.batch_size", "8", "--training.epochs", "2", "--training.threads", "1"]
SMALL += ["--training.crops.length_s", "2"]
HEARTBEIT = [*SMALL, "--model.name", "heartbeit", "--model.arguments", NARROW]
MASKED = [*HEARTBEIT, "--training.objective", "masked", "--training.ema_decay", "0.9"]
S4 = [*SMALL, "--model.name", "s4", "--model.arguments", '{"width": 8, "depth": 1, "bidirectional": false}']


@pytest.fixture(scope="module")
def pretrained(prepared_demo, tmp_path_factory):
    """A network that has filled in hidden pieces for two epochs."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    train.main([*prepared_demo, *MASKED, "--run_dir", str(folder)])
    return folder


def weights_of(folder, name=runs.BEST):
    return torch.load(folder / name, weights_only=True)["weights"]


def test_a_training_without_labels_has_losses_alone_and_keeps_the_epoch_of_the_least(pretrained):
    lines = metrics_of(pretrained)
    assert [line["validation_macro_f1"] for line in lines] == ["", ""]
    losses = [float(line["validation_loss"]) for line in lines]
    best = torch.load(pretrained / runs.BEST, weights_only=True)
    assert best["objective"] == "masked" and best["origin"]["epoch"] == 1 + int(np.argmin(losses))
    assert (pretrained / runs.CURVES).exists() and not list(pretrained.glob("report*"))
    assert (pretrained / runs.FILLED).exists()


def test_the_validation_loss_is_that_of_the_same_hidden_pieces_each_time(prepared_demo, pretrained):
    trained = bundle.load(pretrained / runs.BEST, needs_labels=False)
    settings = runs.settings_of(pretrained)
    dataset = checks.open_dataset(settings)
    rows = dataset.splits(settings.data.train, settings.data.validation, settings.data.test)["validation"]
    task = pretraining.learner_of(trained, settings.training)
    one, other = (pretraining.loss_of(task, trained, dataset, rows, 16) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("objective, words", [("masked", MASKED), ("contrastive", S4)])
def test_labels_play_no_part_in_it(prepared_demo, tmp_path, monkeypatch, objective, words):
    words = [*prepared_demo, *words, "--training.objective", objective]
    train.main([*words, "--run_dir", str(tmp_path / "one")])
    opened = checks.open_dataset

    def otherwise(settings):
        dataset = opened(settings)
        dataset.labels = 1 - dataset.labels
        return dataset

    monkeypatch.setattr(checks, "open_dataset", otherwise)
    train.main([*words, "--run_dir", str(tmp_path / "other")])
    assert steps(tmp_path / "one") == steps(tmp_path / "other")


def test_rows_without_any_class_are_enough(prepared_demo, tmp_path):
    source = Path(prepared_demo[prepared_demo.index("--data.dir") + 1])
    summary = Summary.load(source)
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    for part in summary.parts:
        with h5py.File(source / part.file) as one, h5py.File(unlabelled / part.file, "w") as other:
            for name in one:
                other[name] = one[name][()] if name != "labels" else one[name][:, :0]
    parts = [part.tree() for part in summary.parts]
    write_summary(unlabelled, summary.recipe, parts, classes=())
    run = tmp_path / "run"
    words = [*MASKED, "--training.metric", "macro_auroc"]  # which a file of settings may hold, and labels alone have
    train.main(["--data.raw", str(tmp_path), "--data.dir", str(unlabelled), *words, "--run_dir", str(run)])
    train.main([*prepared_demo, *HEARTBEIT, "--model.pretrained", str(run), "--run_dir", str(tmp_path / "tuned")])
    with pytest.raises(Stop, match=r"unlabelled has no labels; choose training.objective masked or contrastive"):
        train.main(
            [
                "--data.raw",
                str(tmp_path),
                "--data.dir",
                str(unlabelled),
                *HEARTBEIT,
                "--run_dir",
                str(tmp_path / "none"),
            ]
        )


def test_a_training_without_labels_goes_on_in_the_same_bits(prepared_demo, pretrained, tmp_path, monkeypatch):
    cut = tmp_path / "cut"
    raise_signal_at(monkeypatch, signal.SIGTERM, 4)
    with pytest.raises(SystemExit):
        train.main([*prepared_demo, *MASKED, "--run_dir", str(cut)])
    monkeypatch.undo()
    train.main(["--resume", str(cut)])
    same_run(pretrained, cut)
    heads = [torch.load(run / runs.LAST, weights_only=True)["training"]["head"] for run in (pretrained, cut)]
    assert heads[0].keys() == {"hidden", "last.weight", "last.bias"}
    assert all(torch.equal(heads[0][key], heads[1][key]) for key in heads[0])


def test_a_training_begins_with_all_pretrained_weights_but_those_of_the_last_layer(prepared_demo, pretrained, tmp_path):
    run = tmp_path / "run"
    slow = ["--training.learning_rate", "1e-12", "--training.weight_decay", "0", "--training.seed", "1"]
    train.main([*prepared_demo, *HEARTBEIT, *slow, "--model.pretrained", str(pretrained), "--run_dir", str(run)])
    before, after = weights_of(pretrained), weights_of(run)
    for key in before:
        same = torch.allclose(before[key], after[key], rtol=0, atol=1e-6)
        assert same != (key == "last.weight"), key


def test_a_training_begins_with_the_last_layer_of_the_same_classes_too(prepared_demo, pretrained, tmp_path):
    words = [*prepared_demo, *HEARTBEIT, "--training.weight_decay", "0"]
    train.main([*words, "--model.pretrained", str(pretrained), "--run_dir", str(tmp_path / "first")])
    more = ["--training.learning_rate", "1e-12", "--training.seed", "1", "--model.pretrained", str(tmp_path / "first")]
    train.main([*words, *more, "--run_dir", str(tmp_path / "second")])
    before, after = weights_of(tmp_path / "first"), weights_of(tmp_path / "second")
    for key in before:
        torch.testing.assert_close(before[key], after[key], rtol=0, atol=1e-6)


def test_arguments_that_are_written_out_are_those_of_the_same_network(prepared_demo, demo_run, tmp_path):
    words = ["--training.batch_size", "16", "--training.epochs", "1", "--training.learning_rate", "1e-12"]
    words += ["--model.pretrained", str(demo_run), "--model.arguments", '{"channels": [32, 64, 128], "pool": 4}']
    train.main([*prepared_demo, *words, "--run_dir", str(tmp_path / "run")])
    before, after = weights_of(demo_run), weights_of(tmp_path / "run")
    weights = [name for name in before if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in weights)


def test_frozen_layers_stay_as_they_were_and_the_last_learns(prepared_demo, pretrained, tmp_path):
    run = tmp_path / "run"
    words = [*prepared_demo, *HEARTBEIT, "--training.freeze", "true", "--model.pretrained", str(pretrained)]
    train.main([*words, "--run_dir", str(run)])
    before, after = weights_of(pretrained), weights_of(run)
    for key in before:
        assert torch.equal(before[key], after[key]) != key.startswith("last."), key
    optimizer = torch.load(run / runs.LAST, weights_only=True)["training"]["optimizer"]
    assert sum(len(group["params"]) for group in optimizer["param_groups"]) == 2
    lines = metrics_of(run)
    assert float(lines[1]["train_loss"]) < float(lines[0]["train_loss"])


def test_what_happens_in_training_alone_may_be_another(prepared_beats, beat_run, tmp_path):
    words = [*prepared_beats, "--training.batch_size", "16", "--training.epochs", "1", "--training.threads", "1"]
    words += ["--model.pretrained", str(beat_run), "--run_dir", str(tmp_path / "run")]
    train.main([*words, "--model.arguments", '{"dropout": 0.1, "shape_dropout": 0.0}'])
    assert bundle.load(tmp_path / "run/best.pt").network.shape_dropout.p == 0


def test_a_frozen_network_is_fed_as_in_use_without_dropout(prepared_demo, pretrained, tmp_path):
    words = [*prepared_demo, *HEARTBEIT, "--training.freeze", "true", "--model.pretrained", str(pretrained)]
    for dropout in ("0.0", "0.9"):
        arguments = json.dumps({**json.loads(NARROW), "dropout": float(dropout)})
        train.main([*words, "--model.arguments", arguments, "--run_dir", str(tmp_path / dropout)])
    assert steps(tmp_path / "0.0") == steps(tmp_path / "0.9")


def test_each_layer_learns_at_the_rate_of_the_next_times_the_decay():
    network = models.build("s4", 2, 3, width=8, depth=3)
    state = train.new_state(network, "s4", train.Training(layer_decay=0.5, learning_rate=0.1), None)
    train.set_rate(state, 99, 1000, train.Training(learning_rate=0.1, schedule="constant"))
    rate = {id(p): group["lr"] for group in state.optimizer.param_groups for p in group["params"]}
    for name, part in (("last", 1), ("layers.2", 0.5), ("layers.1", 0.25), ("layers.0", 0.125), ("encoder", 0.0625)):
        for p in network.get_submodule(name).parameters():
            assert rate[id(p)] == pytest.approx(0.1 * part), name
    assert sum(len(group["params"]) for group in state.optimizer.param_groups) == len(list(network.parameters()))


# --------------------------------------------------------------------------------------------------- what is refused


def refused(words, match):
    with pytest.raises((Stop, ValueError), match=match):
        train.main(words)


def test_weights_of_another_recipe_or_network_are_refused_before_any_work(
    prepared_demo, prepared_beats, pretrained, tmp_path
):
    run = tmp_path / "run"
    start = ["--model.pretrained", str(pretrained), "--run_dir", str(run)]
    refused(
        [*prepared_beats, "--model.name", "heartbeit", "--model.arguments", NARROW, *start],
        r"best.pt: has learnt from rows of another recipe than this dataset's \(.*recipe.fs: 100.0 -> 360.0",
    )
    refused(
        [*prepared_demo, *SMALL, "--model.name", "cnn1d", *start], "is of another network .*model: heartbeit -> cnn1d"
    )
    wider = json.dumps({**json.loads(NARROW), "width": 32})
    refused([*prepared_demo, *HEARTBEIT, "--model.arguments", wider, *start], r"another network \(width: 16 -> 32\)")
    refused([*prepared_demo, *HEARTBEIT, "--model.pretrained", str(tmp_path / "no"), "--run_dir", str(run)],
            "no/best.pt: no such checkpoint")  # fmt: skip
    assert not run.exists()


def test_weights_that_have_learnt_what_is_held_out_are_refused_before_any_work(
    prepared_demo, pretrained, demo_run, tmp_path
):
    words = [*prepared_demo, "--training.batch_size", "16", "--run_dir", str(tmp_path / "run")]
    held_out = ["--data.train", "2,3,4,5,6,7,8", "--data.validation", "9", "--data.test"]
    message = r"model.pretrained: \S+best.pt was trained with \d+ patients of this run's test rows, such as \w+; choose"
    refused([*words, *held_out, "0", "--model.pretrained", str(demo_run)], message)
    assert not (tmp_path / "run").exists()
    with pytest.raises(Stop, match="fold-0-1: model.pretrained: .* was trained with"):
        study.main([*words, "--folds", "5", "--model.pretrained", str(demo_run)])
    without_labels = [*prepared_demo, *HEARTBEIT, "--training.epochs", "1", "--model.pretrained", str(pretrained)]
    train.main([*without_labels, *held_out, "0", "--run_dir", str(tmp_path / "tuned")])
    alone = tmp_path / "alone.pt"  # without its run nobody knows what it has learnt from
    shutil.copy(demo_run / runs.BEST, alone)
    train.main([*words, *held_out, "0", "--training.epochs", "1", "--model.pretrained", str(alone)])


@pytest.mark.parametrize("named", [".", "last.pt"])
def test_a_run_that_replaces_itself_cannot_begin_with_its_own_weights(prepared_demo, pretrained, tmp_path, named):
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    words = [*prepared_demo, *MASKED, "--overwrite", "--run_dir", str(run), "--model.pretrained", str(run / named)]
    refused(words, f"model.pretrained = {run / named}: is the run itself, which would be replaced")
    assert (run / runs.BEST).read_bytes() == (pretrained / runs.BEST).read_bytes()


@pytest.mark.parametrize(
    "words, match",
    [
        (["--model.name", "cnn1d", "--training.objective", "masked"], "cnn1d: does not learn by the objective masked"),
        (["--model.name", "s4", "--training.objective", "contrastive"], "s4: sees what it should foretell; give"),
        ([*MASKED, "--training.sampler", "weighted"], "training.sampler = weighted: is for learning by labels"),
        ([*MASKED, "--training.freeze", "true"], "training.freeze: is for learning by labels, and not for masked"),
        ([*MASKED, "--training.teachers", "x"], "training.teachers: is for learning by labels"),
        ([*MASKED, "--training.layer_decay", "0.9"], "training.layer_decay: is for learning by labels"),
        ([*SMALL, "--model.name", "cnn1d", "--training.layer_decay", "0.9"], "does not say the order of its layers"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_so_is_refused_before_any_work(prepared_demo, tmp_path, words, match):
    refused([*prepared_demo, *words, "--run_dir", str(tmp_path / "run")], match)
    assert not (tmp_path / "run").exists()


def test_a_network_that_has_learnt_without_labels_answers_nothing(prepared_demo, pretrained, demo_folder, tmp_path):
    message = r"best.pt: has learnt without labels \(masked\) and cannot answer; train on from it with"
    record = next(demo_folder.glob("**/*.hea"))
    with pytest.raises(Stop, match=message):
        infer.predict(str(record), run=str(pretrained))
    with pytest.raises(Stop, match=message):
        evaluate.main([str(pretrained)])
    with pytest.raises(Stop, match="training.objective = masked: has no scores to make a table of"):
        study.main([*prepared_demo, *MASKED, "--folds", "5", "--run_dir", str(tmp_path / "study")])


def test_a_study_refuses_weights_of_another_network_before_its_first_run(prepared_demo, pretrained, tmp_path):
    words = [*prepared_demo, *SMALL, "--model.name", "s4", "--model.pretrained", str(pretrained), "--folds", "5"]
    with pytest.raises(Stop, match="fold-0-1: .*is of another network"):
        study.main([*words, "--run_dir", str(tmp_path / "study")])


def test_the_report_of_a_tuned_run_is_that_of_any_other(prepared_demo, pretrained, tmp_path):
    run = tmp_path / "run"
    words = [*prepared_demo, *HEARTBEIT, "--model.pretrained", str(pretrained), "--training.layer_decay", "0.7"]
    train.main([*words, "--run_dir", str(run)])
    assert len(pd.read_csv(run / "report" / "per_class.csv")) == 6
