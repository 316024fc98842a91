"""Recordings explained: the row that is meant, the text, the JSON, the pictures; what counts in a report."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from test_plots import assert_apart, assert_drawn, drawn

import attributions
import bundle
import evaluate
import explain
import importance
import infer
import readers
import runs
import sheet
from attributions import Attribution
from recipe import TWELVE_LEADS
from script import Stop

HOLTER = REPOSITORY / "examples" / "holter.hea"


@pytest.fixture(scope="module")
def holter():
    _, trained = infer.find_bundle(infer.PRETRAINED)
    return infer.feed(readers.read(HOLTER), trained), trained


@pytest.fixture(scope="module")
def strip(demo_run, demo_folder):
    trained = bundle.load(runs.checkpoint_of(demo_run))
    return infer.feed(readers.read(sorted(demo_folder.glob("*.hea"))[0]), trained), trained


def main(capsys, *words):
    explain.main([str(word) for word in words])
    return capsys.readouterr()


# ----------------------------------------------------------------------------------------------------------- which row


def test_what_is_explained_is_what_infer_says(holter):
    fed, trained = holter
    prediction = infer.predict(HOLTER, infer.PRETRAINED)
    for row in (0, 17):
        found = explain.explain(fed, trained, row=row)
        said = prediction.rows()[row]
        assert found.class_name == said["class"]
        assert 1 / (1 + np.exp(-found.output)) == pytest.approx(said["probability"], abs=1e-4)
        assert found.error < 0.01
        window = trained.recipe.window
        assert found.start_s == pytest.approx(said["time_s"] - window.before_s, abs=1e-9)


def test_the_row_is_the_one_that_speaks_most_for_a_class_or_the_least_certain_one(holter):
    fed, trained = holter
    scores = infer.predict(HOLTER, infer.PRETRAINED).scores
    before_s = trained.recipe.window.before_s
    v = explain.explain(fed, trained, "V")
    at = fed.prepared.start[scores[:, trained.classes.index("V")].argmax()] / fed.record.fs
    assert v.class_name == "V" and v.start_s + before_s == pytest.approx(at)
    least = explain.explain(fed, trained)
    at = fed.prepared.start[scores.max(axis=1).argmin()] / fed.record.fs
    assert least.start_s + before_s == pytest.approx(at)


def test_numbers_are_compared_with_the_median_beat_of_the_record(holter):
    fed, trained = holter
    found = explain.explain(fed, trained, row=3)
    context = fed.context.copy()
    context[3] = np.where(np.isfinite(context[3]), attributions.typical_of(fed.context), np.nan)
    same = fed._replace(context=context)
    assert explain.explain(same, trained, found.class_name, row=3).output == pytest.approx(found.baseline, abs=1e-4)


def test_the_beat_nearest_to_a_time_and_the_window_around_it_are_found(holter, strip):
    fed, _ = holter
    starts = fed.prepared.start / fed.record.fs
    assert explain.row_at(fed, float(starts[5] + 0.01)) == explain.row_at(fed, float(starts[5] - 0.01)) == 5
    assert explain.row_at(strip[0], 9.9) == 0
    with pytest.raises(Stop, match=r"--at 500: .*holter.hea lasts 120.0 s"):
        explain.row_at(fed, 500)


# -------------------------------------------------------------------------------------------------------------- output


def test_text_and_json_say_the_same(capsys, demo_run, demo_folder):
    record = sorted(demo_folder.glob("*.hea"))[0]
    out, err = main(capsys, record, "--run", demo_run, "--class", "AF")
    assert "not a medical device" in out and "model" in err
    tree = json.loads(main(capsys, record, "--run", demo_run, "--class", "AF", "--format", "json").out)
    assert [entry["lead"] for entry in tree["leads"]] == list(TWELVE_LEADS)
    total = sum(sum(entry["values"]) for entry in tree["leads"])
    assert total == pytest.approx(tree["output"] - tree["baseline"], rel=0.01, abs=1e-3)
    for entry in tree["leads"]:
        assert re.search(rf"^{entry['lead']} +{entry['adds']:.3f} +{100 * entry['share']:.1f}%$", out, re.M)
    assert tree["class"] == "AF" and tree["start_s"] == 0 and tree["error"] < 0.01


@pytest.mark.parametrize("method", ["occlusion", "expected"])
def test_other_methods_run_from_the_command_line(capsys, demo_run, demo_folder, method):
    record = sorted(demo_folder.glob("*.hea"))[0]
    out = main(capsys, record, "--run", demo_run, "--method", method).out
    assert ("need not sum up" in out) == (method == "occlusion")


def test_pictures_are_drawn(capsys, tmp_path, demo_run, demo_folder):
    record = sorted(demo_folder.glob("*.hea"))[0]
    main(capsys, record, "--run", demo_run, "--plot", tmp_path / "a.png", "--bars", tmp_path / "b.png")
    for name in "ab":
        assert_drawn(tmp_path / f"{name}.png")


def test_a_shade_stands_behind_its_stretch_of_its_lead(tmp_path, strip):
    fed, trained = strip
    values = np.zeros((12, 1000))
    values[6, 300:304] = 2.0  # V1, at 3 s for 40 ms
    values[7, 500:504] = -1.0
    found = Attribution("AF", "integrated", trained.recipe.leads, values, {}, 1.0, 0.0, 100.0)
    shades = explain.shades_of(found, fed)
    assert [shade.lead for shade in shades] == list(range(12))
    assert shades[6].values[75] == 1 and shades[7].values[125] == -0.5
    assert sum(np.count_nonzero(shade.values) for shade in shades) == 2
    explain.draw(tmp_path / "s.svg", found, fed)
    root = ElementTree.parse(tmp_path / "s.svg").getroot()
    colours = [sheet.FOR, sheet.AGAINST]
    texts = [path.get("style") or "" for path in root.iter("{http://www.w3.org/2000/svg}path")]
    drawn_ones = [text for text in texts if any(f"fill: {colour}" in text for colour in colours)]
    assert len(drawn_ones) == 2
    (green,) = (p for p in root.iter("{http://www.w3.org/2000/svg}path") if f"fill: {sheet.FOR}" in p.get("style", ""))
    x = np.array(re.findall(r"[ML] (\S+) \S+", green.get("d")), float) * 25.4 / 72
    assert [x.min(), x.max()] == pytest.approx([15 + 3 * 25, 15 + 3.04 * 25], abs=0.01)  # mm


# --------------------------------------------------------------------------------------------------------- what counts


def test_a_report_says_what_counts_for_each_class(tmp_path, demo_run):
    evaluate.main([str(demo_run), "--explain", "2"])
    text = (demo_run / "report" / "report.md").read_text()
    assert "## What counts" in text and "untrained network" in text
    missing = float(re.search(r"at\s+most\s+(\S+)%", text)[1])
    assert missing < 1
    table = pd.read_csv(demo_run / "report" / "importance.csv")
    assert set(table["name"]) == set(TWELVE_LEADS)
    assert (table.groupby("class")["share"].sum() - 1).abs().max() < 1e-5
    assert table["rows"].max() <= 2
    assert_drawn(demo_run / "report" / "importance.png")
    evaluate.main([str(demo_run)])
    assert not (demo_run / "report" / "importance.csv").exists(), "the report is replaced whole"


@pytest.mark.parametrize("n_classes", [1, 4, 30])
@pytest.mark.parametrize("n_names", [1, 12, 60])
def test_no_text_of_the_bars_overlaps(tmp_path, monkeypatch, rng, n_classes, n_names):
    found = [
        Attribution(
            f"a class with a long name {k}", "integrated", ("V1",), rng.normal(size=(1, 8)),
            {f"cluster_number_of_beats_{j}": rng.normal() for j in range(n_names - 1)}, 1.0, 0.0, 100.0,
        )
        for k in range(n_classes)
    ]  # fmt: skip
    table = importance.table_of(found)
    assert len(table) == n_classes * n_names
    assert_apart(*drawn(monkeypatch, lambda path: importance.draw(table, path), tmp_path / "b.png"))


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "RBB"], "class RBB: the model has .*; did you mean RBBB"),
        (["--at", "99"], "--at 99: .* lasts 10.0 s"),
        (["--plot", "out.jpg"], "out.jpg: a picture is one of png, svg, pdf"),
        (
            ["--plot", "out.png", "--bars", "./out.png"],
            "--plot out.png and --bars out.png: give each a file of its own",
        ),
    ],
)
def test_what_is_asked_wrongly_ends_in_one_line(demo_run, demo_folder, words, message):
    with pytest.raises(Stop, match=message):
        explain.main([str(sorted(demo_folder.glob("*.hea"))[0]), "--run", str(demo_run), *words])


def test_rows_that_are_not_there_are_named(strip):
    with pytest.raises(Stop, match="row 1: must be 0 to 0"):
        explain.explain(*strip, row=1)


def test_expected_gradients_of_the_bundled_network_say_what_they_lack():
    with pytest.raises(Stop, match=r"beats.pt.*no run there"):
        explain.main([str(HOLTER), "--run", str(infer.PRETRAINED), "--method", "expected"])


def test_rows_of_another_recipe_are_compared_with_nothing(demo_run, tmp_path):
    trained = bundle.load(runs.checkpoint_of(demo_run))
    assert explain.references_of(demo_run, trained.recipe).shape[1:] == (12, 1000)
    with pytest.raises(Stop, match="--method expected: .* was prepared with another recipe .*high_hz"):
        band = trained.recipe.bandpass.model_copy(update={"high_hz": 35.0})
        explain.references_of(demo_run, trained.recipe.model_copy(update={"bandpass": band}))


def test_rows_are_explained_of_one_run_alone(demo_run):
    for words, message in (
        (["--robustness"], "--robustness and --explain: give one of them at a time"),
        ([str(demo_run)], "--explain: is of one run"),
        (["--data.raw", "x"], "--explain and --data.raw: give one of them at a time"),
    ):
        with pytest.raises(Stop, match=message):
            evaluate.main([str(demo_run), *words, "--explain", "1"])
    with pytest.raises(Stop, match="--explain -1: must be at least 0"):
        evaluate.main([str(demo_run), "--explain", "-1"])
