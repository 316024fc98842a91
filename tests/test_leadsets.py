"""Subsets of leads: which there are, that a hidden lead is what a recording without it gives, and what is refused."""

import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import write_record

import bundle
import evaluate
import infer
import leadsets
import pqrst
import readers
from answers import SCORES, numbered
from batches import Batches
from recipe import TWELVE_LEADS, Recipe
from runs import settings_of
from script import Stop


def recipe_of(*slots, **more):
    return Recipe(leads=slots, window={"length_s": 10}, **more)


def without_refusal(trained):
    """The same network, of recordings that lack leads too."""
    return replace(trained, recipe=trained.recipe.model_copy(update={"missing": "zeros"}))


@pytest.fixture
def copied(demo_run, tmp_path):
    return shutil.copytree(demo_run, tmp_path / "run")


def test_twelve_leads_have_the_sets_of_the_challenge_and_each_alone():
    subsets = leadsets.subsets_of(Recipe())
    assert {name: [TWELVE_LEADS[k] for k in kept] for name, kept in subsets.items()} == {
        "all 12 leads": list(TWELVE_LEADS),
        "6 limb leads": ["I", "II", "III", "aVR", "aVL", "aVF"],
        "3 leads: I, II, V2": ["I", "II", "V2"],
        "2 leads: I, II": ["I", "II"],
        **{f"lead {lead}": [lead] for lead in TWELVE_LEADS},
    }
    assert next(iter(subsets)) == "all 12 leads"


@pytest.mark.parametrize(
    ("slots", "subsets"),
    [
        ((["MLII", "II"], ["V1"]), {"all 2 leads": [0, 1], "lead MLII": [0], "lead V1": [1]}),
        ((["I"], ["II"]), {"all 2 leads": [0, 1], "lead I": [0], "lead II": [1]}),
        (
            (["V2"], ["MLII", "II"], ["I"], ["V5"]),
            {
                "all 4 leads": [0, 1, 2, 3], "3 leads: I, II, V2": [0, 1, 2], "2 leads: I, II": [1, 2],
                "lead V2": [0], "lead MLII": [1], "lead I": [2], "lead V5": [3],
            },
        ),
        ((["I"], ["zeros"], ["V5"]), {"all 2 leads": [0, 2], "lead I": [0], "lead V5": [2]}),
        ((["V5", "I"], ["V5", "II"]), {
            "all 2 leads": [0, 1], "lead V5 (slot 1)": [0], "lead V5 (slot 2)": [1],
        }),
    ],
)  # fmt: skip
def test_a_set_is_there_where_each_of_its_leads_has_a_slot(slots, subsets):
    assert leadsets.subsets_of(recipe_of(*slots)) == subsets


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (recipe_of(["I"]), "have one lead, of which none can be left out"),
        (recipe_of(["I"], ["zeros"]), "have one lead"),
        (recipe_of(["I"], ["II"], scale={"kind": "zscore", "over": "record"}), "recipe.scale.over: record"),
    ],
)
def test_rows_that_cannot_be_without_a_lead_are_refused(recipe, message):
    with pytest.raises(Stop, match=f"^--leads: .*{message}"):
        leadsets.subsets_of(recipe)


@pytest.mark.parametrize("leads", [("I", "II"), ("V2", "I", "II"), TWELVE_LEADS[:6], ("V6",), TWELVE_LEADS])
def test_a_hidden_lead_is_what_a_recording_without_it_gives(demo_run, demo_folder, tmp_path, leads):
    """Also of I and II alone, from which a reader could compute the other limb leads."""
    trained, dataset, rows = evaluate.open_run(demo_run, settings_of(demo_run))
    trained, row = without_refusal(trained), rows[:1]
    assert trained.recipe.scale.over == "lead"
    whole = readers.read(demo_folder / dataset.record[row[0]].decode())
    signal = np.round(whole.signal.astype(np.float64), 3)[[whole.leads.index(lead) for lead in leads]]
    header = write_record(tmp_path, "few", signal, int(whole.fs), leads)
    fed = infer.feed(readers.read(header), trained)
    _, of_recording = bundle.score(trained, infer.batches_of(fed.prepared, fed.context, len(trained.classes), 1))
    kept = [k for k, slot in enumerate(trained.recipe.leads) if slot[0] in leads]
    (batch,) = leadsets.batches_of(dataset, row, kept, 1)
    np.testing.assert_array_equal(batch.signal, fed.prepared.rows)
    np.testing.assert_array_equal(bundle.score(trained, [batch])[1], of_recording)
    assert (batch.signal == 0).all(axis=2).sum() == 12 - len(leads)


@pytest.mark.parametrize("over", ["lead", "dataset", "record"])
@pytest.mark.parametrize("kind", ["zscore", "minmax", "none"])
def test_rows_without_leads_are_whole_rows_with_zeros_but_where_leads_are_scaled_by_each_other(rng, over, kind):
    scale = {"kind": kind, "over": over}
    if over == "dataset":
        scale |= {"center": [0.1] * 3, "spread": [0.5] * 3}
    recipe = recipe_of(["I"], ["II"], ["V2"], missing="zeros", scale=scale)
    signal = (rng.normal(size=(3, 1000)) * [[1], [2], [3]]).astype(np.float32)
    whole, few = (
        pqrst.prepare([pqrst.Record(signal[:n], 100.0, ["I", "II", "V2"][:n])], recipe.chain()).rows for n in (3, 2)
    )
    whole[:, 2] = 0
    refused = kind != "none" and over == "record"
    assert np.array_equal(whole, few) is not refused
    with pytest.raises(Stop, match="recipe.scale.over") if refused else nullcontext():
        leadsets.subsets_of(recipe)


def test_recordings_of_any_leads_get_an_answer_of_a_network_that_does_without(demo_run, demo_folder, tmp_path):
    trained = bundle.load(demo_run / "best.pt")
    whole = readers.read(sorted(demo_folder.rglob("*.hea"))[0])
    header = write_record(tmp_path, "two", whole.signal[:2].astype(np.float64), int(whole.fs), whole.leads[:2])
    with pytest.raises(ValueError, match="III"):
        infer.predict_record(readers.read(header), trained, "run")
    prediction = infer.predict_record(readers.read(header), without_refusal(trained), "run")
    assert np.isfinite(prediction.scores).all()
    assert any(warning.endswith("are missing: 10 of 12 are zeros") for warning in prediction.warnings)


def test_rows_that_lack_all_leads_of_a_set_count_as_nothing_found(demo_run):
    trained, dataset, rows = evaluate.open_run(demo_run, settings_of(demo_run))
    dataset.lead_mask = dataset.lead_mask.copy()
    dataset.lead_mask[rows[:2], 1] = 0
    _, units = numbered(dataset, rows, dataset.units(rows))
    answer = leadsets.answer_of(trained, dataset, rows, units, [1], 3)
    assert answer.unscored == 2 and not answer.scores[:2].any() and not answer.decided[:2].any()
    assert answer.scores[2:].any(axis=1).all()
    dataset.lead_mask[rows, 1] = 0
    assert leadsets.answer_of(trained, dataset, rows, units, [1], 3).unscored == len(answer.scores)


def test_hiding_leads_leaves_the_stored_rows_alone(demo_run):
    _, dataset, rows = evaluate.open_run(demo_run, settings_of(demo_run))
    before = Batches(dataset)[rows].signal
    assert not np.concatenate([batch.signal for batch in leadsets.batches_of(dataset, rows, [], 4)]).any()
    np.testing.assert_array_equal(Batches(dataset)[rows].signal, before)


def test_the_flag_writes_a_table_and_a_picture(copied, capsys):
    evaluate.main([str(copied), "--leads", "--evaluation.batch_size", "7"])
    place = copied / "report-leads"
    assert {path.name for path in place.iterdir()} == {"leads.csv", "leads.png", "report.md"}
    text = (place / "report.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert "infer.py refuses a recording that lacks a lead" in text
    table = pd.read_csv(place / "leads.csv").set_index("leads")
    assert list(table.index) == list(leadsets.subsets_of(Recipe()))
    report = evaluate.evaluate_run(copied, settings_of(copied))
    for score in SCORES:
        assert table.loc["all 12 leads", score] == pytest.approx(getattr(report, score), abs=1e-5)
        assert (table[f"{score}_from"] <= table[score]).all() and (table[score] <= table[f"{score}_to"]).all()
        others = table.iloc[1:]
        assert (others[f"{score}_low"] <= others[f"{score}_high"]).all()
        differences = others[score] - table[score].iloc[0]
        np.testing.assert_allclose(others[f"{score}_difference"], differences, atol=2e-6)
    assert (table["without_score"] == 0).all()
    evaluate.main([str(copied), "--leads", "--evaluation.split", "validation"])
    assert (copied / "report-validation-leads" / "leads.csv").exists()


def test_beats_have_subsets_too_and_the_report_says_what_stays(beat_run, tmp_path, capsys):
    run = shutil.copytree(beat_run, tmp_path / "run")
    evaluate.main([str(run), "--leads"])
    text = capsys.readouterr().out
    assert "| all 2 leads |" in text and "| lead MLII |" in text and "| lead V1 |" in text
    assert "The beats, and the numbers beside the rows, are those of recordings with all leads." in text


def test_a_network_for_any_leads_needs_no_note():
    assert leadsets.notes_of(Recipe(missing="zeros")) == []
    assert "infer.py refuses a recording that lacks a lead" in leadsets.notes_of(Recipe())[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}"], "--leads: is of one run"),
        (["--robustness"], "--leads and --robustness: give one of them at a time"),
        (["--data.raw", "x"], "--leads and --data.raw: give one of them at a time"),
        (["--explain", "1"], "--leads and --explain: give one of them at a time"),
        (["--training.augmentation.lead_subset", "1.5"], "lead_subset = '1.5': .* less than or equal to 1"),
    ],
)
def test_what_does_not_go_with_leads_is_said_in_a_line(demo_run, words, message):
    with pytest.raises(Stop, match=message) as refused:
        evaluate.main([str(demo_run), *(word.format(run=demo_run) for word in words), "--leads"])
    assert "\n" not in str(refused.value)
    assert not (demo_run / "report-leads").exists()
