import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

import figures
import plots
import runs
from metrics import report_markdown, scores_of
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


def drawn(monkeypatch, draw, *arguments):
    """Return the figure that a function of plots saves, and the texts that it draws with their boxes in pixels."""
    saved, texts = [], []
    draw_text = Text.draw

    def record(text, renderer, *more, **options):
        if text.get_visible() and text.get_text().strip():
            texts.append(text)
        return draw_text(text, renderer, *more, **options)

    def keep(figure, path, **options):
        saved.append(figure)
        Path(path).touch()

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", keep)
        draw(*arguments)
        (figure,) = saved
        patch.setattr(Text, "draw", record)
        figure.draw_without_rendering()
    return figure, [(text, text.get_window_extent()) for text in dict.fromkeys(texts)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n_classes", [2, 71])
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


def drawn_curves(metrics_csv, tmp_path, monkeypatch):
    """Panel -> the lines in it, each (x, y)."""
    figure, _ = drawn(monkeypatch, plots.save_curves, metrics_csv, tmp_path / "curves.png")
    return {axes.get_ylabel(): [line.get_xydata().T for line in axes.lines] for axes in figure.axes}


def test_the_curves_of_a_real_run_show_losses_scores_and_the_learning_rate(beat_run, tmp_path, monkeypatch):
    """The file that train.py has written, not a table made for the test."""
    table = pd.read_csv(beat_run / "metrics.csv")
    panels = drawn_curves(beat_run / "metrics.csv", tmp_path, monkeypatch)
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
    figure, _ = drawn(monkeypatch, plots.save_class_balance, dataset, tmp_path / "balance.png")
    left, right = figure.axes
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


@pytest.mark.parametrize("n_leads", [1, 12])
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
    figure, _ = drawn(monkeypatch, plots.save_samples, dataset, tmp_path / "samples.png", 6, 3)
    rows = plots._choose(dataset, 6, 3)
    assert len(figure.axes) == 6
    for axes, row in zip(figure.axes, rows):
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


# ------------------------------------------------------------------------------------------------ what a reader sees

LONG = "statement about ischaemia in the leads"  # 38 letters, longer than a name in a figure
# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB: what people with each colour blindness see.
COLOUR_BLIND = {
    "none": np.eye(3),
    "protan": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deutan": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritan": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}


def overlap(one, other):
    """Whether two boxes share more than half a pixel in both directions; a border is shared."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return width > 0.5 and height > 0.5


def assert_readable(figure, texts):
    """Every text is inside the figure and outside of all axes, where lines and bars are, and no two overlap."""
    assert_apart(figure, texts)
    for text, box in texts:
        over = any(overlap(box, axes.bbox) for axes in figure.axes)
        assert not over, f"{text.get_text()!r} is written over a drawing"


def assert_apart(figure, texts):
    """Every text is inside the figure, and no two overlap."""
    for text, box in texts:
        words = text.get_text()
        assert box.x0 >= 0 and box.y0 >= 0, f"{words!r} leaves the figure"
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, f"{words!r} leaves the figure"
    for (text, box), (other, other_box) in itertools.combinations(texts, 2):
        assert not overlap(box, other_box), f"{text.get_text()!r} and {other.get_text()!r} overlap"


def many(rng, n_classes, task):
    """targets, scores, classes with long names, of which the last but one has no row."""
    targets, scores, _ = example(rng, 300, n_classes, task)
    targets[targets[:, -2] == 1, -1] = 1
    targets[:, -2] = 0
    return targets, scores, [f"{k} {LONG} {k}" for k in range(n_classes)]


@pytest.mark.parametrize("n_classes", [2, 5, 27, 71])
@pytest.mark.parametrize("task", TASKS)
def test_no_text_of_a_report_overlaps_or_leaves_the_figure(rng, tmp_path, monkeypatch, task, n_classes):
    targets, scores, classes = many(rng, n_classes, task)
    report = scores_of(targets, scores, classes, task)
    assert_readable(*drawn(monkeypatch, plots.save_f1, report, tmp_path / "f1.png"))
    for draw in (plots.save_roc, plots.save_pr, plots.save_calibration):
        assert_readable(*drawn(monkeypatch, draw, targets, scores, classes, tmp_path / "curve.png"))
    figure, texts = drawn(monkeypatch, plots.save_confusion, report, tmp_path / "confusion.png")
    cells = {text: axes for axes in figure.axes for text in axes.texts}
    assert_readable(figure, [(text, box) for text, box in texts if text not in cells])
    for text, box in texts:
        if text in cells:
            corners = np.add(text.get_position(), [[-0.5], [0.5]])
            (left, top), (right, bottom) = cells[text].transData.transform(corners)
            assert left <= box.x0 and box.x1 <= right and box.height < top - bottom, f"{text} leaves its cell"


@pytest.mark.parametrize("n_classes", [2, 5, 27, 71])
def test_no_text_of_a_class_balance_overlaps_or_leaves_the_figure(rng, tmp_path, monkeypatch, n_classes):
    dataset = prepared(rng, 300, 1, n_classes, n_folds=20)
    dataset.labels, _, dataset.classes = many(rng, n_classes, "multilabel")
    dataset.fold = np.array([f"fold {row % 20}" for row in range(300)], "S")
    assert_readable(*drawn(monkeypatch, plots.save_class_balance, dataset, tmp_path / "balance.png"))


@pytest.mark.parametrize("n_leads", [1, 2, 3, 12])
@pytest.mark.parametrize("kind", ["record", "beat"])
def test_no_text_of_samples_overlaps_or_leaves_the_figure(rng, tmp_path, monkeypatch, kind, n_leads):
    dataset = prepared(rng, 40, n_leads, 5, kind)
    dataset.labels, dataset.classes = dataset.labels | 1, [f"{k} {LONG} {k}" for k in range(5)]
    dataset.record = np.array([f"a long name of a recording {row}" for row in range(40)], "S")
    assert_readable(*drawn(monkeypatch, plots.save_samples, dataset, tmp_path / "samples.png"))


def lab(linear):
    """CIE L*a*b* of linear RGB (3,), 0..1."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(linear, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", COLOUR_BLIND)
def test_the_colours_of_ten_classes_differ_for_every_eye_and_are_seen_on_white(eye):
    """A distance of 2.3 is just noticeable; the default colours of matplotlib come as near as 4.6 for a protan."""
    rgb = np.array([to_rgba(figures.class_style(k)["color"])[:3] for k in range(10)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = [lab(COLOUR_BLIND[eye] @ colour) for colour in linear]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 15
    assert max(colour[0] for colour in seen) < 82, "white is 100"


def test_71_classes_differ_in_colour_or_line_style():
    styles = [figures.class_style(k) for k in range(71)]
    assert len({(style["color"], str(style["linestyle"])) for style in styles}) == 71


def test_a_class_has_one_colour_in_all_figures(rng, tmp_path, monkeypatch):
    """Also where a class is missing from a figure, where the order is by score, and where the rest is drawn in grey."""
    targets, scores, _ = example(rng, 2000, 27, "multilabel")
    classes = [f"class {k}" for k in range(27)]
    targets[:, 4] = 0  # no curve
    dataset = prepared(rng, 400, 1, 27)
    dataset.labels = targets[:400]
    colours = {name: set() for name in classes}
    for draw in (plots.save_roc, plots.save_pr, plots.save_calibration):
        figure, _ = drawn(monkeypatch, draw, targets, scores, classes, tmp_path / "curve.png")
        for text, line in zip(figure.legends[0].get_texts(), figure.legends[0].get_lines()):
            colours[text.get_text().split(" ", 1)[1]].add(to_rgba(line.get_color()))
    f1, _ = drawn(monkeypatch, plots.save_f1, scores_of(targets, scores, classes, "multilabel"), tmp_path / "f1.png")
    for name, bar in zip(classes, f1.axes[0].patches):
        colours[name].add(bar.get_facecolor())
    balance, _ = drawn(monkeypatch, plots.save_class_balance, dataset, tmp_path / "balance.png")
    for name, bar in zip(classes, balance.axes[0].patches[1:]):
        colours[name].add(bar.get_facecolor())
    samples, _ = drawn(monkeypatch, plots.save_samples, dataset, tmp_path / "samples.png")
    for axes, row in zip(samples.axes, plots._choose(dataset, 12, 0)):
        bars = [line for line in axes.lines if not line.get_clip_on()]
        for k, bar in zip(np.flatnonzero(dataset.labels[row]), bars, strict=True):
            colours[classes[k]].add(to_rgba(bar.get_color()))
    assert all(len(found) == 1 for found in colours.values()), colours
    assert len(set.union(*colours.values())) == 10


@pytest.mark.parametrize("task", TASKS)
def test_a_class_without_rows_has_a_dash_in_every_figure_and_table(tmp_path, monkeypatch, task):
    """Class S has no row, and one row is decided to be of it: a precision of 0 says nothing about it either."""
    targets = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]])
    scores = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.1, 0.7], [0.7, 0.1, 0.2]])
    classes = ["N", "S", "V"]
    report = scores_of(targets, scores, classes, task)
    f1, _ = drawn(monkeypatch, plots.save_f1, report, tmp_path / "f1.png")
    assert [text.get_text() for text in f1.axes[0].texts] == ["0.50, 2 rows", "–, 0 rows", "0.67, 2 rows"]
    confusion, _ = drawn(monkeypatch, plots.save_confusion, report, tmp_path / "confusion.png")
    cells = np.reshape([text.get_text() for text in confusion.axes[1].texts], (3, -1))
    assert cells[1].tolist() == (["–"] * 3 if task == "multiclass" else ["0.75", "0.25", "–", "–"])
    assert "–" not in cells[[0, 2]]
    assert confusion.axes[1].images[0].get_array().mask.sum() == (cells == "–").sum(), "not drawn as a fraction of 0"
    for draw in (plots.save_roc, plots.save_pr, plots.save_calibration):
        figure, _ = drawn(monkeypatch, draw, targets, scores, classes, tmp_path / "curve.png")
        assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "– S"
    (line,) = [line for line in report_markdown(report).splitlines() if line.startswith("| S | 0 | 1 |")]
    assert line.split(" | ")[3:8] == ["–"] * 4 + ["–" if task == "multilabel" else "– |"]


def test_a_class_that_was_never_decided_has_a_dash_for_its_precision_alone():
    report = scores_of(np.eye(2), np.array([[0.9, 0.1], [0.8, 0.2]]), ["N", "S"], "multiclass")
    (line,) = [line for line in report_markdown(report).splitlines() if line.startswith("| S | 1 | 0 | ")][:1]
    assert line.split(" | ")[3:6] == ["–", "0.000", "0.000"]


def test_cells_without_numbers_have_a_scale_where_one_row_differs_from_none(rng, tmp_path, monkeypatch):
    targets, scores, classes = example(rng, 20_000, 21, "multiclass")
    report = scores_of(targets, scores, classes, "multiclass")
    figure, _ = drawn(monkeypatch, plots.save_confusion, report, tmp_path / "confusion.png")
    assert len(figure.axes) == 4, "a colour bar for each matrix"
    image = figure.axes[0].images[0]
    assert image.norm(0) == 0 and image.norm(image.get_array().max()) == 1
    assert image.norm(1) > 0.05
    assert (figure.axes[1].images[0].norm.vmin, figure.axes[1].images[0].norm.vmax) == (0, 1)


def test_long_names_that_differ_only_in_the_middle_remain_different():
    names = [f"{LONG} {k} {LONG}" for k in range(3)] + ["short", LONG + " I", LONG + " II"]
    shown = figures.plain_all(names)
    assert len(set(shown)) == len(names)
    assert shown[0].startswith("1: ") and shown[3] == "short"
    assert max(map(len, shown)) <= 40


def test_the_area_under_a_precision_recall_curve_is_the_average_precision(rng, tmp_path, monkeypatch):
    """A straight line between two points would lie above what any threshold gives."""
    targets, scores, classes = example(rng, 30, 2, "multilabel")
    figure, _ = drawn(monkeypatch, plots.save_pr, targets, scores, classes, tmp_path / "pr.png")
    for line in figure.axes[0].lines:
        x, y = line.get_path().vertices.T  # as it is drawn, with the corners of steps
        area = -np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)
        assert area == pytest.approx(float(line.get_label().split()[0]), abs=0.0006)  # the label has three decimals


def test_scores_are_drawn_from_0_to_1_and_a_loss_that_is_no_number_leaves_a_gap(tmp_path, monkeypatch):
    rows = ["1,0.9,0.7,0.95", "2,,0.6,", "3,0.8,0.5,0.96"]
    (tmp_path / "metrics.csv").write_text("\n".join(["epoch,train_loss,validation_loss,validation_accuracy", *rows]))
    figure, texts = drawn(monkeypatch, plots.save_curves, tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert_readable(figure, texts)
    loss, score = figure.axes
    assert score.get_ylim() == (-0.02, 1.02)
    assert score.lines[0].get_xdata().tolist() == [1, 3], "an epoch without a validation"
    assert np.isnan(loss.lines[0].get_ydata()[1])
