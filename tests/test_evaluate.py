import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.special import expit, logit
from sklearn.metrics import accuracy_score, f1_score

import data
import evaluate
import infer
import preprocess
import train
from script import Stop


def test_the_report_agrees_with_its_own_predictions(beat_run):
    report = json.loads((beat_run / "report/metrics.json").read_text())
    table = pd.read_csv(beat_run / "report/predictions.csv", keep_default_na=False)
    classes = report["classes"]
    assert len(table) == report["n_rows"]
    assert report["accuracy"] == pytest.approx(accuracy_score(table.target, table.decided))
    expected = f1_score(table.target, table.decided, labels=report["scored_classes"], average="macro", zero_division=0)
    assert report["macro_f1"] == pytest.approx(expected)
    scores = table[[f"score_{c}" for c in classes]].to_numpy()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)
    assert list(np.array(classes)[scores.argmax(axis=1)]) == list(table.decided)


def test_the_report_holds_what_it_promises(demo_run):
    names = {p.name for p in (demo_run / "report").iterdir()}
    assert names == {
        "metrics.json", "per_class.csv", "report.md", "model_card.md", "predictions.csv",
        "confusion.png", "roc.png", "pr.png", "calibration.png", "coverage.png", "f1.png",
    }  # fmt: skip


def test_another_split_and_checkpoint_can_be_chosen(beat_run, capsys):
    words = [str(beat_run), "--evaluation.split", "validation", "--evaluation.checkpoint", "best-loss"]
    evaluate.main(words)
    assert "best-loss checkpoint" in capsys.readouterr().out
    assert json.loads((beat_run / "report-validation/metrics.json").read_text())["folds"] == ["1"]
    assert json.loads((beat_run / "report/metrics.json").read_text())["folds"] == ["2"]
    shutil.rmtree(beat_run / "report-validation")


def test_folds_drawn_anew_since_a_training_stop_all_that_counts_on_them(mitdb_like, tmp_path):
    """The run may have learnt from those who are test patients now."""
    words = ["--dataset", "mitdb", "--data.raw", str(mitdb_like), "--data.dir", str(tmp_path / "prepared")]
    words += ["--data.folds", "3", "--data.train", "0", "--data.validation", "1", "--data.test", "2"]
    learn = [*words, "--training.batch_size", "16", "--training.epochs", "1", "--training.threads", "1"]
    preprocess.main(words)
    train.main([*learn, "--run_dir", str(tmp_path / "run")])
    drawn = data.Dataset(tmp_path / "prepared").digest_of_folds
    preprocess.main([*words, "--recipe.dtype", "float16", "--overwrite"])
    preprocess.main([*words, "--overwrite"])
    assert data.Dataset(tmp_path / "prepared").digest_of_folds == drawn
    evaluate.main([str(tmp_path / "run")])
    preprocess.main([*words, "--data.seed", "5", "--overwrite"])
    assert data.Dataset(tmp_path / "prepared").digest_of_folds != drawn
    with pytest.raises(Stop, match="prepared has other patients in its folds than when .*run was trained"):
        evaluate.main([str(tmp_path / "run")])
    with pytest.raises(Stop, match="other patients in its folds"):
        train.main([*learn, "--run_dir", str(tmp_path / "b"), "--training.teachers", str(tmp_path / "run")])
    with pytest.raises(Stop, match=r"best.pt: has learnt from other folds than \S+prepared has now"):
        train.main([*learn, "--run_dir", str(tmp_path / "c"), "--model.pretrained", str(tmp_path / "run")])
    (tmp_path / "run/last.pt").replace(tmp_path / "last.pt")
    checkpoint = torch.load(tmp_path / "last.pt", weights_only=True)
    checkpoint["training"]["finished"] = False
    torch.save(checkpoint, tmp_path / "run/last.pt")
    with pytest.raises(Stop, match=r"last.pt: has learnt from other folds than the dataset has now"):
        train.main(["--resume", str(tmp_path / "run")])


def test_a_report_that_cannot_be_finished_leaves_the_old_one(beat_run, monkeypatch):
    before = {path.name: path.read_bytes() for path in (beat_run / "report").iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluate.plots, "save_calibration", fail)
    with pytest.raises(Stop, match="report: cannot be written: No space left on device"):
        evaluate.main([str(beat_run)])
    assert {path.name: path.read_bytes() for path in (beat_run / "report").iterdir()} == before
    assert not list(beat_run.glob("*.tmp"))


def test_a_dataset_of_one_fold_is_evaluated_and_one_without_a_test_part_trained(demo_run, demo_folder, tmp_path):
    words = ["--data.raw", str(demo_folder), "--data.dir", str(tmp_path / "p"), "--data.folds", "2"]
    preprocess.main(words)
    words += ["--run_dir", str(tmp_path / "run"), "--training.epochs", "1", "--training.batch_size", "16"]
    words += ["--data.train", "0", "--data.validation", "1"]
    with pytest.raises(Stop, match="data.test = 8, 9: no rows; there are folds 0, 1"):
        train.main(words)
    train.main([*words, "--data.test", "[]"])
    assert json.loads((tmp_path / "run/report-validation/metrics.json").read_text())["folds"] == ["1"]
    with pytest.raises(Stop, match="data.test = no fold: no rows"):
        evaluate.main([str(tmp_path / "run")])
    # the dataset of another hospital, all of it in one fold
    other = [str(demo_run), "--data.dir", str(tmp_path / "p"), "--data.test", '["0"]']
    evaluate.main([*other, "--data.train", "[]", "--data.validation", "[]"])
    report = json.loads((demo_run / "report/metrics.json").read_text())
    assert (report["folds"], report["dataset"]) == (["0"], str(tmp_path / "p"))
    evaluate.main([str(demo_run)])


def test_evaluation_and_prediction_say_the_same_of_a_record_of_several_windows(demo_folder, tmp_path):
    words = ["--data.raw", str(demo_folder), "--data.dir", str(tmp_path / "prepared")]
    words += ["--recipe.window.kind", "window", "--recipe.window.length_s", "4", "--recipe.window.overlap_s", "0.5"]
    preprocess.main(words)
    train.main([*words, "--run", str(tmp_path / "run"), "--training.epochs", "1", "--training.batch_size", "16"])
    dataset = data.Dataset(tmp_path / "prepared")
    table = pd.read_csv(tmp_path / "run/report/predictions.csv", keep_default_na=False)
    tested = np.isin(dataset.fold, [b"8", b"9"])
    assert tested.sum() == 3 * len(table), "three windows a record, one line"
    assert list(table.record) == list(dict.fromkeys(dataset.record[tested].astype(str)))
    assert json.loads((tmp_path / "run/report/metrics.json").read_text())["n_rows"] == len(table)
    for line in table.itertuples():
        prediction = infer.predict(demo_folder / line.record, run=tmp_path / "run")
        scores = table.loc[line.Index, [f"score_{name}" for name in dataset.classes]].to_numpy(float)
        np.testing.assert_allclose(prediction.scores[0], scores, rtol=1e-4)  # the table has six digits
        present = [row["class"] for row in prediction.rows() if row["present"]]
        assert ("+".join(present) or "-") == line.decided
    evaluate.main([str(tmp_path / "run"), "--evaluation.windows", "true"])
    each = pd.read_csv(tmp_path / "run/report/predictions.csv", keep_default_na=False)
    assert len(each) == tested.sum() and list(each.start[:3]) == list(dataset.start[tested][:3])
    score = f"score_{dataset.classes[0]}"
    inside = dataset.inside(np.flatnonzero(tested)).reshape(-1, 3)
    of_records = np.average(each[score].to_numpy().reshape(-1, 3), axis=1, weights=inside)
    np.testing.assert_allclose(of_records, table[score], rtol=1e-4)


def test_a_folder_without_a_run_stops(tmp_path):
    with pytest.raises(Stop, match="config.yaml"):
        evaluate.main([str(tmp_path)])


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_row_is_scored_by_its_pieces_as_infer_predicts_it(prepared_demo, demo_folder, tmp_path, pool):
    run = tmp_path / "run"
    words = [*prepared_demo, "--run_dir", str(run), "--training.epochs", "1", "--training.batch_size", "16"]
    words += ["--training.crops.length_s", "2.5", "--training.crops.stride_s", "2", "--training.crops.pool", pool]
    train.main(words)
    table = pd.read_csv(run / "report/predictions.csv")
    dataset = data.Dataset(*train.runs.settings_of(run).data_dirs)
    found = infer.predict(str(demo_folder / table.record[0]), run=str(run))
    scores = table.loc[0, [f"score_{name}" for name in found.classes]].to_numpy(float)
    np.testing.assert_allclose(found.scores[0], scores, atol=1e-6)

    (row,) = np.flatnonzero(dataset.record == table.record[0].encode())
    signal = torch.from_numpy(dataset.signals(np.array([row]))).float()
    pieces = torch.cat([signal[:, :, start : start + 250] for start in (0, 200, 400, 600, 750)])
    trained = evaluate.bundle.load(run / "best.pt")
    with torch.no_grad():
        of_pieces = trained.network(pieces).double().sigmoid().numpy()
    pooled = of_pieces.mean(axis=0) if pool == "mean" else of_pieces.max(axis=0)
    np.testing.assert_allclose(scores, expit(logit(pooled) / trained.temperature), atol=1e-5)


def test_the_card_of_a_run_says_what_it_is_learnt_from_and_scored_on(beat_run, demo_run):
    report = json.loads((beat_run / "report/metrics.json").read_text())
    text = (beat_run / "report/model_card.md").read_text()
    assert "Not a medical device" in text and "folds 0 to learn from; 1 to choose epoch" in text
    low, high = report["intervals"]["macro_f1"]
    assert f"| macro F1 | {report['macro_f1']:.3f} ({low:.3f} to {high:.3f}) |" in text
    assert f"of {report['patients']:,} patients; in brackets" in text
    rare = [entry["class"] for entry in report["per_class"] if entry["support"] < 10]
    assert f"Fewer than 10 rows of {', '.join(rare)}:" in text
    assert (
        "patients unknown" not in text and "It takes 10 s at 100 Hz" in (demo_run / "report/model_card.md").read_text()
    )


@pytest.mark.parametrize("words", [[], ["--leads"], ["--robustness"], ["--ensemble"], ["two"]])
def test_what_leaks_is_said_in_each_report(demo_run, prepared_demo, tmp_path, capsys, words):
    prepared, run = tmp_path / "prepared", tmp_path / "run"
    shutil.copytree(prepared_demo[prepared_demo.index("--data.dir") + 1], prepared)
    shutil.copytree(demo_run, run)
    for path, key, value in ((prepared / "dataset.json", "leak", "rows of one"), (run / "config.yaml", "data", None)):
        tree = yaml.safe_load(path.read_text())
        tree[key] = value or {**tree[key], "dir": str(prepared)}
        path.write_text(json.dumps(tree))
    again = [str(shutil.copytree(run, tmp_path / "copy"))] if words in (["--ensemble"], ["two"]) else []
    evaluate.main([str(run), *again, *(word for word in words if word != "two")])
    assert capsys.readouterr().out.count("**LEAK: rows of one.**\n\n") == 1
