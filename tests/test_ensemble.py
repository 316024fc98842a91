"""The mean of several runs' scores, and trainings that learn from it: against their predictions and closed forms."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import f1_score, roc_auc_score
from test_resume import raise_signal_at, same_run
from test_train import steps

import bundle
import calibration
import compare
import data
import distill
import evaluate
import runs
import train
from objectives import row_losses
from script import Stop

PRINTED = 1e-6  # predictions.csv has six digits of each score
QUICK = ["--training.epochs", "1", "--training.batch_size", "16", "--training.threads", "1"]


@pytest.fixture(scope="module")
def other_run(prepared_demo, tmp_path_factory) -> Path:
    """A second network on the folds of `demo_run`, trained for two epochs."""
    folder = tmp_path_factory.mktemp("other") / "run"
    words = [*prepared_demo, *QUICK, "--training.epochs", "2", "--training.seed", "1"]
    train.main([*words, "--run_dir", str(folder), "--model.arguments", '{"channels": [8, 16, 32]}'])
    return folder


def predictions(folder):
    table = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    return table, table.filter(like="score_").to_numpy()


def targets_of(table, classes):
    return np.array([[name in cell.split("+") for name in classes] for cell in table.target], np.uint8)


def test_the_scores_of_an_ensemble_are_the_mean_of_its_members(demo_run, other_run, capsys):
    for run in (demo_run, other_run):
        evaluate.main([str(run)])
    capsys.readouterr()
    evaluate.main([str(demo_run), str(other_run), "--ensemble"])
    said = capsys.readouterr()
    place = demo_run / "report-ensemble"
    assert said.err.splitlines()[-1] == f"report in {place}"
    (one, a), (other, b), (table, scores) = (predictions(p) for p in (demo_run / "report", other_run / "report", place))
    assert list(table.record) == list(one.record) == list(other.record)
    np.testing.assert_allclose(scores, (a + b) / 2, rtol=0, atol=PRINTED)
    report = json.loads((place / "metrics.json").read_text())
    targets = targets_of(table, report["classes"])
    ranked = (targets.sum(axis=0) > 0) & (targets.sum(axis=0) < len(targets))
    assert report["macro_auroc"] == pytest.approx(roc_auc_score(targets[:, ranked], ((a + b) / 2)[:, ranked]))
    decided = (scores >= report["thresholds"]).astype(int)
    assert report["macro_f1"] == pytest.approx(f1_score(targets, decided, average="macro", zero_division=0))
    assert [member["run"] for member in report["members"]] == [str(demo_run), str(other_run)]
    for member, run in zip(report["members"], (demo_run, other_run)):
        alone = json.loads((run / "report/metrics.json").read_text())
        for name in ("macro_f1", "macro_auroc", "accuracy"):
            assert member[name] == alone[name] and member["intervals"].get(name) == alone["intervals"].get(name)
    for name, gain in report["gains"].items():
        assert gain["difference"] == pytest.approx(report[name] - max(m[name] for m in report["members"]))
        assert gain["between"] is None or gain["between"][0] <= gain["difference"] <= gain["between"][1]
    names = {path.name for path in (demo_run / "report").iterdir()} - {"model_card.md"}
    assert {path.name for path in place.iterdir()} == names
    assert f"| {other_run} (cnn1d) |" in (place / "report.md").read_text()


def test_its_thresholds_are_those_of_the_mean_scores_of_the_validation_rows(demo_run, other_run):
    where = [str(demo_run), str(other_run), "--evaluation.split", "validation"]
    scores = []
    for run in (demo_run, other_run):
        evaluate.main([str(run), *where[2:]])
        table, of_run = predictions(run / "report-validation")
        scores.append(of_run)
    evaluate.main([*where, "--ensemble"])
    evaluate.main([*where[:2], "--ensemble"])
    reports = [demo_run / f"report-ensemble{split}/metrics.json" for split in ("", "-validation")]
    on_test, on_validation = (json.loads(path.read_text()) for path in reports)
    expected = calibration.best_thresholds(targets_of(table, on_test["classes"]), np.mean(scores, axis=0))
    np.testing.assert_allclose(on_test["thresholds"], expected, rtol=0, atol=PRINTED)
    assert on_validation["thresholds"] == on_test["thresholds"]
    assert "chosen on the mean scores of the validation rows" in reports[0].with_name("report.md").read_text()


def with_folds(run, folder, **folds):
    """Copy a run, with other folds in its settings."""
    shutil.copytree(run, folder)
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    tree["data"].update(folds)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.mark.parametrize("folds", [[], ["6"]])
def test_without_validation_rows_that_all_share_its_thresholds_are_the_mean(demo_run, other_run, tmp_path, folds):
    train_folds = ["0", "1", "2", "3", "4", "5"]
    another = with_folds(other_run, tmp_path / "run", train=train_folds, validation=folds)
    evaluate.main([str(demo_run), str(another), "--ensemble"])
    report = json.loads((demo_run / "report-ensemble/metrics.json").read_text())
    limits = [bundle.load(run / "best.pt").thresholds for run in (demo_run, another)]
    np.testing.assert_allclose(report["thresholds"], np.mean(limits, axis=0))
    said = (demo_run / "report-ensemble/report.md").read_text()
    assert "share no validation rows: thresholds are the mean of theirs" in said


def test_an_ensemble_of_beats_decides_by_the_highest_mean_score(beat_run, tmp_path):
    shutil.copytree(beat_run, tmp_path / "copy")
    evaluate.main([str(tmp_path / "copy"), str(beat_run), "--ensemble"])
    report = json.loads((tmp_path / "copy/report-ensemble/metrics.json").read_text())
    assert report["thresholds"] is None
    assert report["macro_f1"] == json.loads((beat_run / "report/metrics.json").read_text())["macro_f1"]
    assert report["gains"]["macro_f1"] == {"member": str(tmp_path / "copy"), "difference": 0.0, "between": [0.0, 0.0]}
    table, scores = predictions(tmp_path / "copy/report-ensemble")
    assert list(np.array(report["classes"])[scores.argmax(axis=1)]) == list(table.decided)


def test_runs_that_are_no_ensemble_stop_before_any_of_them_scores(demo_run, beat_run, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "scores_of", None)
    other = with_folds(demo_run, tmp_path / "other", test=["8"])
    cases = [
        ([demo_run, beat_run], r"knows classes 1dAVb, .* \(multilabel\), .* N, S, V, F, Q \(multiclass\)"),
        ([demo_run, other], rf"{demo_run} and {other} are scored on different rows, \d+ and \d+"),
        ([demo_run, other, f"{demo_run}/../{demo_run.name}"], f"--ensemble: {demo_run} is given twice"),
        ([demo_run, tmp_path / "none"], f"{tmp_path}/none: no run there"),
        ([demo_run], "--ensemble: is of two or more runs"),
        ([demo_run, demo_run, "--robustness"], "--ensemble and --robustness: give one of them at a time"),
        ([demo_run, demo_run, "--explain", "2"], "--ensemble and --explain: give one of them at a time"),
        ([demo_run, demo_run, "--data.raw", "x"], "--ensemble and --data.raw: give one of them at a time"),
    ]
    for words, message in cases:
        with pytest.raises(Stop, match=message):
            evaluate.main([*map(str, words), "--ensemble"])


@pytest.mark.parametrize("words", [[], ["--ensemble"]])
def test_settings_that_several_runs_would_not_heed_are_refused(demo_run, other_run, monkeypatch, words):
    monkeypatch.setattr(compare, "scores_of", None)
    both = [str(demo_run), str(other_run), *words]
    with pytest.raises(Stop, match=r"data.test: \['8', '9'\] -> \['0'\]: each of several runs is scored by its own"):
        evaluate.main([*both, "--data.test", "0"])
    monkeypatch.setenv("ECG_DATA__SCORED_CLASSES", '["AF"]')
    with pytest.raises(Stop, match="data.scored_classes: .* each of several runs is scored by its own settings"):
        evaluate.main(both)


def test_a_report_of_an_ensemble_that_cannot_be_finished_leaves_the_old_one(demo_run, other_run, monkeypatch):
    evaluate.main([str(demo_run), str(other_run), "--ensemble"])
    before = {path.name: path.read_bytes() for path in (demo_run / "report-ensemble").iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluate.plots, "save_calibration", fail)
    with pytest.raises(Stop, match="report-ensemble: cannot be written: No space left on device"):
        evaluate.main([str(demo_run), str(other_run), "--ensemble"])
    assert {path.name: path.read_bytes() for path in (demo_run / "report-ensemble").iterdir()} == before
    assert not list(demo_run.glob("*.tmp"))


# ------------------------------------------------------------------------------------------------ distillation


def opened(run, words=()):
    """The settings of a training as this run's, with other words; its dataset and rows."""
    import argparse

    import config

    settings, _ = config.load(argparse.ArgumentParser(), list(words), base=lambda _: run / "config.yaml")
    dataset = data.Dataset(*settings.data_dirs)
    own = settings.data
    return settings, dataset, dataset.splits(own.train, own.validation, own.test)


def scores_by_evaluation(run, split):
    """The scores that evaluate.py writes, by record."""
    evaluate.main([str(run), "--evaluation.split", split])
    table, scores = predictions(run / f"report-{split}")
    return dict(zip(table.record, scores))


def test_labels_are_mixed_with_the_mean_score_of_the_teachers(demo_run, other_run):
    words = ["--training.teachers", f"{demo_run},{other_run}", "--training.distill", "0.3", "--run_dir", "new"]
    settings, dataset, rows = opened(demo_run, words)
    soft = distill.taught(dataset, rows, settings)
    by_record = [scores_by_evaluation(run, "train") for run in (demo_run, other_run)]
    learnt = rows["train"]
    mean = np.array([[each[name.decode()] for name in dataset.record[learnt]] for each in by_record]).mean(axis=0)
    expected = 0.7 * dataset.labels[learnt] + 0.3 * mean
    assert soft.labels.dtype == np.float32
    np.testing.assert_allclose(soft.labels[learnt], expected, rtol=0, atol=2 * PRINTED)
    others = np.setdiff1d(np.arange(len(dataset)), learnt)
    np.testing.assert_array_equal(soft.labels[others], dataset.labels[others])
    assert dataset.labels.dtype == np.uint8  # validation, class weights and reports have these


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_the_loss_of_mixed_labels_is_the_mixture_of_two_losses(task, loss):
    generator = torch.Generator().manual_seed(3)
    logits, scores = (torch.randn(7, 4, generator=generator) for _ in range(2))
    labels = torch.eye(4)[torch.arange(7) % 4]
    scores = scores.softmax(dim=1)
    weights = torch.tensor([1.0, 0.5, 2.0, 1.5])
    mixed, hard, soft = (
        row_losses(logits, of, task, weights, loss) for of in (0.6 * labels + 0.4 * scores, labels, scores)
    )
    torch.testing.assert_close(mixed, 0.6 * hard + 0.4 * soft)


def test_a_share_of_nothing_gives_the_bits_of_a_training_without_teachers(prepared_demo, demo_run, other_run, tmp_path):
    words = [*prepared_demo, *QUICK, "--training.epochs", "2", "--training.sampler", "weighted"]
    train.main([*words, "--run_dir", str(tmp_path / "plain")])
    taught = ["--training.teachers", f"{demo_run},{other_run}", "--training.distill", "0"]
    train.main([*words, *taught, "--run_dir", str(tmp_path / "taught")])
    same_run(tmp_path / "plain", tmp_path / "taught")


def test_a_share_of_one_learns_from_scores_alone(demo_run, other_run):
    words = ["--training.teachers", str(other_run), "--training.distill", "1", "--run_dir", "new"]
    settings, dataset, rows = opened(demo_run, words)
    soft = distill.taught(dataset, rows, settings)
    by_record, learnt = scores_by_evaluation(other_run, "train"), rows["train"]
    expected = np.array([by_record[name.decode()] for name in dataset.record[learnt]])
    np.testing.assert_allclose(soft.labels[learnt], expected, rtol=0, atol=PRINTED)


def test_a_training_with_teachers_goes_on_in_the_same_bits(prepared_demo, demo_run, tmp_path, monkeypatch, capsys):
    words = [*prepared_demo, *QUICK, "--training.epochs", "2", "--training.teachers", str(demo_run)]
    words += ["--training.mixup", "0.4", "--training.crops.length_s", "2.5"]
    train.main([*words, "--run_dir", str(tmp_path / "whole")])
    assert f"teachers {demo_run} score " in capsys.readouterr().out
    raise_signal_at(monkeypatch, 15, 1)
    with pytest.raises(SystemExit):
        train.main([*words, "--run_dir", str(tmp_path / "cut")])
    monkeypatch.undo()
    train.main(["--resume", str(tmp_path / "cut")])
    same_run(tmp_path / "whole", tmp_path / "cut")
    train.main([*words[:-6], "--run_dir", str(tmp_path / "plain"), *words[-4:]])
    assert steps(tmp_path / "plain") != steps(tmp_path / "whole")
    card = (tmp_path / "whole/report/model_card.md").read_text()
    assert f"* 0.5 of each label is the mean score of {demo_run}.\n" in card


def test_a_beat_network_learns_from_another(prepared_beats, beat_run, tmp_path):
    words = [*prepared_beats, *QUICK, "--training.teachers", str(beat_run), "--training.distill", "0.9"]
    train.main([*words, "--run_dir", str(tmp_path / "student")])
    settings, dataset, rows = opened(tmp_path / "student")
    soft = distill.taught(dataset, rows, settings).labels[rows["train"]]
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    assert soft.min() > 0 and soft.max() < 1


def test_teachers_that_do_not_fit_stop_before_any_of_them_scores(
    prepared_demo, demo_run, beat_run, demo_folder, tmp_path, monkeypatch
):
    import preprocess

    monkeypatch.setattr(distill, "scores_of", None)
    leaks = with_folds(demo_run, tmp_path / "leaks", train=["0", "1", "7"], validation=["2"])
    tested = with_folds(demo_run, tmp_path / "tested", test=["0"], train=["1", "2"], validation=["8"])
    few = ["--data.raw", str(demo_folder), "--data.dir", str(tmp_path / "few"), "--data.folds", "2", "--data.limit"]
    preprocess.main([*few, "20"])
    fewer = with_folds(demo_run, tmp_path / "fewer", dir=str(tmp_path / "few"), train=["0"], validation=[], test=[])
    checkpoint = torch.load(fewer / "best.pt", weights_only=True)
    checkpoint["origin"]["folds"] = ""  # as if it had learnt from these
    torch.save(checkpoint, fewer / "best.pt")
    cases = [
        (tmp_path / "none", "none: no run there"),
        (demo_run, f"training.teachers: {demo_run} is given twice"),
        (tmp_path / "run", f"training.teachers: {tmp_path}/run is the run itself"),
        (beat_run, r"knows classes N, S, V, F, Q \(multiclass\), .* has 1dAVb, .* \(multilabel\)"),
        (leaks, r"leaks was trained with \d+ patients of this run's validation rows, such as \w+; choose a run"),
        (tested, r"tested was trained with \d+ patients of this run's test rows"),
    ]
    for teacher, message in cases:
        with pytest.raises(Stop, match=message):
            train.main([*prepared_demo, *QUICK, "--run_dir", str(tmp_path / "run"), "--training.teachers",
                        f"{demo_run},{teacher}"])  # fmt: skip
        assert not (tmp_path / "run").exists()
    with pytest.raises(Stop, match=r"fewer: \S*few has no row for \d+ of \d+ training rows, such as record and start"):
        settings, dataset, rows = opened(demo_run, ["--run_dir", "new", "--training.teachers", str(fewer)])
        distill.taught(dataset, rows | {"validation": rows["test"][:0], "test": rows["test"][:0]}, settings)


@pytest.mark.parametrize("split", ["random_rows", "dechazal"])
def test_a_teacher_of_the_test_rows_is_refused_where_patients_may_be_in_two_splits(demo_run, tmp_path, split):
    tested = with_folds(demo_run, tmp_path / "tested", test=["0"], train=["1", "2", "8"], validation=["7"])
    settings, dataset, rows = opened(demo_run, ["--run_dir", "new", "--training.teachers", str(tested)])
    dataset.summary = dataset.summary.model_copy(update={"data": {**dataset.summary.data, "split": split}})
    dataset.patient = np.full_like(dataset.patient, dataset.patient[0])  # one person in all folds
    with pytest.raises(
        Stop, match=r"tested was trained with \d+ of this run's test rows, such as record and start \S+ 0;"
    ):
        distill.taught(dataset, rows, settings)
    settings, *_ = opened(demo_run, ["--run_dir", "new", "--training.teachers", str(demo_run)])
    distill.taught(dataset, rows, settings)


def test_a_teacher_of_other_labels_is_refused(demo_run, monkeypatch):
    settings, dataset, rows = opened(demo_run, ["--run_dir", "new", "--training.teachers", str(demo_run)])
    row = rows["train"][3]
    dataset.labels[row] = 1 - dataset.labels[row]
    named = rf"other labels for 1 of {len(rows['train'])} training rows, such as record and start \S+ 0"
    with pytest.raises(Stop, match=named):
        distill.taught(dataset, rows, settings)


def test_the_share_of_the_teachers_is_between_nothing_and_all(tmp_path):
    with pytest.raises(Stop, match="training.distill"):
        train.main(["--training.distill", "1.5", "--run_dir", str(tmp_path / "run")])
    assert not runs.newest(tmp_path)
