import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

import plots
import runs
from metrics import scores_of
from recipe import Recipe

TASKS = ["multiclass", "multilabel"]


def example(rng, n_rows, n_classes, task):
    """targets (N, K), scores (N, K) 0..1, classes."""
    targets = np.eye(n_classes, dtype=np.uint8)[rng.integers(n_classes, size=n_rows)]
    if task == "multilabel":
        targets |= rng.random(targets.shape) < 0.1
    scores = 1 / (1 + np.exp(-rng.normal(size=targets.shape) - 2 * targets + 1))
    return targets, scores, [f"class {k}" for k in range(n_classes)]


def assert_drawn(path):
    """The file is a picture, of a size a screen shows, and not of one colour; nothing else was left in its folder."""
    picture = imread(path)[:, :, :3]  # (height, width, 3), 0..1
    assert picture.shape[0] > 200 and picture.shape[1] > 200
    assert picture.std() > 0.01
    assert not list(path.parent.glob("*.tmp"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n_classes", [2, 5, 71])
def test_every_figure_of_a_report_is_written(rng, tmp_path, task, n_classes):
    targets, scores, classes = example(rng, 600, n_classes, task)
    report = scores_of(targets, scores, classes, task)
    plots.save_confusion(report, tmp_path / "confusion.png")
    plots.save_f1(report, tmp_path / "f1.png")
    plots.save_roc(targets, scores, classes, tmp_path / "roc.png")
    plots.save_pr(targets, scores, classes, tmp_path / "pr.png")
    plots.save_calibration(targets, scores, classes, str(tmp_path / "calibration.png"))
    for name in ("confusion", "f1", "roc", "pr", "calibration"):
        assert_drawn(tmp_path / f"{name}.png")


@pytest.mark.parametrize("task", TASKS)
def test_one_row_with_classes_absent_is_drawn_without_a_warning(tmp_path, task):
    targets, scores, classes = np.array([[1, 0, 0]]), np.array([[0.2, 0.5, 0.3]]), ("N", "S", "V")
    report = scores_of(targets, scores, classes, task)
    plots.save_confusion(report, tmp_path / "confusion.png")
    plots.save_f1(report, tmp_path / "f1.png")
    plots.save_roc(targets, scores, classes, tmp_path / "roc.png")  # no class has both kinds: axes without a curve
    plots.save_pr(targets, scores, classes, tmp_path / "pr.png")
    for name in ("confusion", "f1", "roc", "pr"):
        assert_drawn(tmp_path / f"{name}.png")


def test_one_multilabel_class_is_drawn(rng, tmp_path):
    targets, scores = np.array([[1], [0], [1]]), np.array([[0.7], [0.4], [0.3]])
    plots.save_confusion(scores_of(targets, scores, ["AF"], "multilabel"), tmp_path / "confusion.png")
    plots.save_roc(targets, scores, ["AF"], tmp_path / "roc.png")
    assert_drawn(tmp_path / "confusion.png")
    assert_drawn(tmp_path / "roc.png")


def test_class_names_with_dollars_underscores_and_great_length_are_drawn_as_they_are(rng, tmp_path):
    classes = ["_hidden", "$x_", "a" * 200]
    targets, scores, _ = example(rng, 50, 3, "multiclass")
    plots.save_roc(targets, scores, classes, tmp_path / "roc.png")
    plots.save_confusion(scores_of(targets, scores, classes, "multiclass"), tmp_path / "confusion.png")
    assert_drawn(tmp_path / "roc.png")
    assert_drawn(tmp_path / "confusion.png")


def test_the_same_numbers_give_the_same_file(rng, tmp_path):
    targets, scores, classes = example(rng, 100, 3, "multiclass")
    for name in ("one.png", "two.png"):
        plots.save_roc(targets, scores, classes, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def drawn_curves(metrics_csv, monkeypatch):
    """Panel -> the lines in it, each (x, y)."""
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    plots.save_curves(metrics_csv, "curves.png")
    monkeypatch.undo()
    return {axes.get_ylabel(): [line.get_xydata().T for line in axes.lines] for axes in figures[0].axes}


def test_the_curves_of_a_real_run_show_losses_scores_and_the_learning_rate(beat_run, monkeypatch):
    """The file that train.py has written, not a table made for the test."""
    table = pd.read_csv(beat_run / "metrics.csv")
    panels = drawn_curves(beat_run / "metrics.csv", monkeypatch)
    assert list(panels) == ["loss", "validation score", "learning rate"]
    np.testing.assert_array_equal(panels["learning rate"], [[table.epoch, table.learning_rate]])
    np.testing.assert_array_equal(
        panels["loss"], [[table.epoch, table.train_loss], [table.epoch, table.validation_loss]]
    )
    assert len(panels["validation score"]) == 3
    assert {name for names in runs.PANELS.values() for name in names} <= set(table.columns)


@pytest.mark.parametrize(
    "text",
    [
        "epoch,train_loss,validation_loss,validation_macro_f1,learning_rate\n1,1,,,0\n2,.7,.9,.5,0\n",  # not validated
        "epoch,train_loss,validation_loss,validation_macro_f1,learning_rate\n1,1,1.1,.3,1e-4\n",  # one epoch
        "epoch,train_loss\n1,1\n2,0.5\n",
        "epoch,train_loss,note\n1,nan,first\n2,0.5,second\n",
    ],
)
def test_curves_are_drawn_where_values_are_missing(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    plots.save_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert_drawn(tmp_path / "curves.png")


@pytest.mark.parametrize("text", ["step,train_loss\n1,2\n", "epoch,train_loss\n", "epoch,seconds\n1,2\n"])
def test_a_file_without_curves_is_an_error_that_lists_its_columns(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv: .* it has \['"):
        plots.save_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_calibration_of_logits_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="calibration needs probabilities"):
        plots.save_calibration(np.array([[1], [0]]), np.array([[3.0], [-2.0]]), ["AF"], tmp_path / "calibration.png")


def test_shapes_that_disagree_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"both must be \(N, 3\)"):
        plots.save_roc(np.eye(2), np.eye(2), ("N", "S", "V"), tmp_path / "roc.png")


def test_drawing_does_not_load_pyplot(tmp_path):
    lines = [
        "import sys, numpy, plots",
        f"plots.save_roc(numpy.eye(2), numpy.eye(2), 'NS', {str(tmp_path / 'roc.png')!r})",
        "assert 'matplotlib.pyplot' not in sys.modules",
    ]
    folder = Path(plots.__file__).parent
    subprocess.run([sys.executable, "-c", "; ".join(lines)], cwd=folder, check=True)
    assert_drawn(tmp_path / "roc.png")


# ------------------------------------------------------------------------------------------------ a prepared dataset


def prepared(rng, n_rows, n_leads, n_classes, kind="record", task="multilabel", n_folds=5, scale="zscore"):
    """Return what figures take of data.Dataset, from memory: float16 rows of 5 s or of a beat, half of them padded."""
    n_samples = 500 if kind == "record" else 187
    fs = 100.0 if kind == "record" else 360.0
    rows = np.sin(np.arange(n_samples) / 5 + rng.random((n_rows, n_leads, 1))).astype(np.float16)
    valid = np.tile([0, n_samples], (n_rows, 1))
    valid[: n_rows // 2, 1] = 150
    targets, _, classes = example(rng, n_rows, n_classes, task)
    if task == "multilabel":
        targets[: n_rows // 4] = 0
    leads = [[f"lead {k}", "II"] for k in range(n_leads)]
    recipe = Recipe(fs=fs, leads=leads, window={"kind": kind, "samples": n_samples}, scale={"kind": scale})
    return SimpleNamespace(
        recipe=recipe,
        task=task,
        classes=classes,
        labels=targets,
        record=np.array([f"folder/{row // 4:03d}.hea" for row in range(n_rows)], "S"),
        fold=np.array([row % n_folds for row in range(n_rows)], "S"),
        valid=valid,
        lead_mask=(rng.random((n_rows, n_leads)) < 0.8).astype(np.uint8),
        signals=lambda chosen: rows[chosen],
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n_classes", [2, 71])
def test_the_balance_of_classes_is_drawn(rng, tmp_path, task, n_classes):
    plots.save_class_balance(prepared(rng, 400, 1, n_classes, task=task, n_folds=12), tmp_path / "balance.png")
    assert_drawn(tmp_path / "balance.png")


def test_the_balance_counts_rows_of_each_class_and_of_none(rng, tmp_path, monkeypatch):
    dataset = prepared(rng, 40, 1, 3)
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    plots.save_class_balance(dataset, tmp_path / "balance.png")
    left, right = figures[0].axes
    without = int((dataset.labels.sum(axis=1) == 0).sum())
    assert without >= 10
    assert [bar.get_width() for bar in left.patches] == [40, *dataset.labels.sum(axis=0), without]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["all rows", *dataset.classes, "none of them"]
    fold_0 = [bar.get_width() for bar in right.patches[:5]]
    assert fold_0[0] == 8 / 40
    np.testing.assert_allclose(fold_0[1:4], dataset.labels[::5].sum(axis=0) / dataset.labels.sum(axis=0))


def test_a_class_and_a_fold_without_rows_are_drawn_without_a_warning(rng, tmp_path):
    dataset = prepared(rng, 5, 1, 3, task="multiclass")
    dataset.labels = np.tile(np.array([0, 1, 0], np.uint8), (5, 1))
    plots.save_class_balance(dataset, tmp_path / "balance.png")
    assert_drawn(tmp_path / "balance.png")


@pytest.mark.parametrize("n_leads", [1, 2, 12])
@pytest.mark.parametrize("kind", ["record", "beat"])
def test_samples_are_drawn_for_any_number_of_leads(rng, tmp_path, kind, n_leads):
    dataset = prepared(rng, 40, n_leads, 3, kind, scale="minmax" if kind == "beat" else "none")
    plots.save_samples(dataset, tmp_path / "samples.png")
    assert_drawn(tmp_path / "samples.png")


def test_one_still_sample_is_drawn_without_a_warning(rng, tmp_path):
    dataset = prepared(rng, 1, 2, 3)
    dataset.signals = lambda rows: np.zeros((1, 2, 500), np.float16)
    plots.save_samples(dataset, tmp_path / "samples.png")
    assert_drawn(tmp_path / "samples.png")


def test_samples_say_what_they_are_and_shade_the_padding(rng, tmp_path, monkeypatch):
    dataset = prepared(rng, 40, 2, 3)
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    plots.save_samples(dataset, tmp_path / "samples.png", n_rows=6, seed=3)
    rows = plots._choose(dataset, 6, 3)
    assert len(figures[0].axes) == 6
    for axes, row in zip(figures[0].axes, rows):
        names = [name for name, there in zip(dataset.classes, dataset.labels[row]) if there]
        title = f"{row // 4:03d}.hea, fold {row % 5}: {', '.join(names) or 'no class'}"
        assert axes.get_title() == title
        assert [patch.get_x() for patch in axes.patches] == ([1.5] if row < 20 else [])
        time_s = axes.lines[0].get_xdata()
        assert time_s[0] == 0 and time_s[-1] == pytest.approx(4.99)
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["lead 0", "lead 1"]


def test_samples_take_the_classes_in_turn_each_row_once_and_follow_their_seed(rng):
    dataset = prepared(rng, 400, 1, 5, task="multiclass")
    rows = plots._choose(dataset, 12, 0)
    assert sorted(np.bincount(dataset.labels[rows].argmax(axis=1))) == [2, 2, 2, 3, 3]
    assert len(set(dataset.record[rows])) == 12, "there are 100 records to take them from"
    np.testing.assert_array_equal(rows, plots._choose(dataset, 12, 0))
    assert set(rows) != set(plots._choose(dataset, 12, 1))
    few = prepared(rng, 3, 1, 5, task="multiclass")
    assert sorted(plots._choose(few, 12, 0)) == [0, 1, 2]


def test_of_many_classes_the_most_frequent_are_shown(rng):
    dataset = prepared(rng, 100, 1, 4, task="multiclass")
    dataset.labels = np.eye(4, dtype=np.uint8)[np.repeat([0, 1, 2, 3], [5, 40, 5, 50])]
    assert sorted(dataset.labels[plots._choose(dataset, 2, 0)].argmax(axis=1)) == [1, 3]
