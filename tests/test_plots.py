import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import plots
from metrics import scores_of

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
    assert not list(path.parent.glob("*.part.*"))


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


@pytest.mark.parametrize(
    "text",
    [
        "epoch,train_loss,validation_loss,validation_macro_f1,lr,seconds\n1,1,1.1,.3,1e-4,3\n2,.7,.9,.5,1e-3,3\n",
        "epoch,train_loss,validation_loss,validation_macro_f1,lr\n1,1,,,0\n2,.7,.9,.5,0\n",  # epoch 1 not validated
        "epoch,train_loss,validation_loss,validation_macro_f1,lr\n1,1,1.1,.3,1e-4\n",  # one epoch
        "epoch,train_loss\n1,1\n2,0.5\n",
        "epoch,train_loss,note\n1,nan,first\n2,0.5,second\n",
    ],
)
def test_training_curves_are_drawn_from_the_file_alone(tmp_path, text):
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
