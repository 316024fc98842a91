import json

import numpy as np
import pandas as pd
import pytest
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
        "metrics.json", "per_class.csv", "report.md", "confusion.png", "roc.png", "pr.png", "calibration.png", "f1.png",
        "predictions.csv",
    }  # fmt: skip


def test_another_split_and_checkpoint_can_be_chosen(beat_run, capsys):
    words = [str(beat_run), "--evaluation.split", "validation", "--evaluation.checkpoint", "best-loss"]
    evaluate.main(words)
    assert "best-loss checkpoint" in capsys.readouterr().out
    assert json.loads((beat_run / "report/metrics.json").read_text())["folds"] == ["1"]
    evaluate.main([str(beat_run)])


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


def test_a_folder_without_a_run_stops(tmp_path):
    with pytest.raises(Stop, match="config.yaml"):
        evaluate.main([str(tmp_path)])
