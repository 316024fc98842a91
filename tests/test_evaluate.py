import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

import evaluate
from config import Stop


def test_the_report_agrees_with_its_own_predictions(beat_run):
    report = json.loads((beat_run / "report/metrics.json").read_text())
    table = pd.read_csv(beat_run / "report/predictions.csv", keep_default_na=False)
    classes = report["classes"]
    assert len(table) == report["n_rows"]
    assert report["accuracy"] == pytest.approx(accuracy_score(table.target, table.decided))
    expected = f1_score(table.target, table.decided, labels=classes, average="macro", zero_division=0)
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


def test_a_folder_without_a_run_stops(tmp_path):
    with pytest.raises(Stop, match="config.yaml"):
        evaluate.main([str(tmp_path)])
