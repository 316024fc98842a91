"""Changed recordings: the noise has the level that is stated, and unchanged ones give evaluate.py's own scores."""

import argparse
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.signal import butter, sosfiltfilt

import bundle
import config
import evaluate
import index
import pqrst
import preprocess
import robustness
from answers import SCORES
from config import Settings
from data import Dataset
from recipe import Bandpass, Recipe
from runs import settings_of
from script import Stop
from sources import SOURCES

ROUNDING = 0.01  # of macro scores: a last bit of float16 in some rows may turn a decision


def heart(n_leads=2, fs=360.0, seconds=30):
    """A train of narrow waves, another height in each lead, with an offset."""
    time_s = np.arange(round(seconds * fs)) / fs
    beat = np.exp(-(((time_s % 0.8) - 0.4) ** 2) / (2 * 0.02**2))
    return pqrst.Record(np.outer(1 + np.arange(n_leads), beat) + 0.3, fs, ["MLII", "V1", "V5"][:n_leads], name="h")


def seeded(name):
    return np.random.default_rng([robustness.SEED, *name.encode()])


@pytest.fixture
def copied(tmp_path):
    """Copy a run, so that its reports are not in the way of others."""
    return lambda run: shutil.copytree(run, tmp_path / "runs" / run.name)


@pytest.mark.parametrize("snr_db", robustness.SNR_DB)
@pytest.mark.parametrize("fs", [100.0, 360.0])
def test_noise_has_the_stated_level_in_each_lead(snr_db, fs):
    record = heart(fs=fs)
    noisy = robustness.with_noise(record, seeded("a"), snr_db, Bandpass())
    noise = noisy.signal.astype(np.float64) - record.signal
    sections = butter(3, [0.5, 40], "bandpass", fs=fs, output="sos")
    filtered = sosfiltfilt(sections, record.signal.astype(np.float64))
    np.testing.assert_allclose(10 * np.log10((filtered**2).mean(axis=1) / (noise**2).mean(axis=1)), snr_db, atol=0.1)


def test_each_kind_of_noise_has_a_third_of_the_power(rng):
    noise = robustness.unit_noise(1, 360 * 600, 360.0, rng)[0]
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(len(noise), 1 / 360)
    share = power / power.sum()
    assert share[hz < 0.6].sum() == pytest.approx(1 / 3, abs=0.02)
    assert share[np.abs(hz - 50) < 0.1].sum() == pytest.approx(1 / 3, abs=0.02)


def test_noise_is_the_same_for_a_recording_and_another_for_another():
    change = robustness.changes_of(Recipe(), [360.0])[0][1]
    one, again, other = (change.apply(heart(), seeded(name)).signal for name in ("100", "100", "101"))
    assert np.array_equal(one, again)
    assert abs(np.corrcoef(one[0] - heart().signal[0], other[0] - heart().signal[0])[0, 1]) < 0.2


def test_noise_leaves_gaps_and_what_is_no_voltage_alone():
    signal = heart().signal.copy()
    signal[0, 100:200] = np.nan
    record = pqrst.Record(signal, 360.0, ["MLII", "RESP"], ["mV", "NU"], "h")
    noisy = robustness.with_noise(record, seeded("a"), 6, Bandpass()).signal
    assert np.array_equal(np.isnan(noisy), np.isnan(signal)) and np.array_equal(noisy[1], signal[1])


def test_a_lead_that_is_off_is_zeros_in_its_slot_alone():
    recipe = Recipe(leads=[["V1"], ["II", "MLII"]], window={"length_s": 10}, missing="error")
    names = {change.name: change for change in robustness.changes_of(recipe, [360.0])[0]}
    assert [name for name in names if name.endswith("off")] == ["lead V1 off", "lead II off"]
    record = heart()
    rows = pqrst.prepare([names["lead II off"].apply(record, seeded("a"))], recipe.chain()).rows
    whole = pqrst.prepare([record], recipe.chain()).rows
    assert not rows[:, 1].any() and np.array_equal(rows[:, 0], whole[:, 0])
    one_lead = Recipe(leads=[["II"]])
    assert not [each for each in robustness.changes_of(one_lead, [360.0])[0] if each.name.endswith("off")]


def test_half_the_rate_goes_no_lower_than_the_filters_allow():
    changes, notes = robustness.changes_of(Recipe(), [500.0, 100.0, 80.5])
    (half,) = [change for change in changes if change.name == "half the rate"]
    rates = [half.apply(heart(fs=fs), seeded("a")).fs for fs in (500.0, 100.0, 80.5)]
    assert rates == [250.0, 81.0, 80.5]
    assert "recordings at 80.5, 100 Hz go to 81 Hz" in notes[0]
    changes, notes = robustness.changes_of(Recipe(bandpass=None), [500.0])
    assert not notes and "half the rate" in [change.name for change in changes]
    assert "half the rate" not in [change.name for change in robustness.changes_of(Recipe(), [81.0])[0]]


def test_beats_of_a_slower_recording_are_where_they_were(mitdb_like):
    data = Settings(data={"name": "mitdb", "raw": mitdb_like}).data
    recipe = Recipe(leads=[["MLII"], ["V1"]], missing="zeros", window={"kind": "beat", "length_s": 0.7},
                    context=["rr_previous_s", "view"])  # fmt: skip
    found = index.build_index(SOURCES["mitdb"], data, recipe, mitdb_like)
    item = found.items[0]
    record = index.open_recording(item, found)
    as_it_is = index.read_labels(item, found, recipe)
    slow = robustness.slower(record, seeded("a"), 81)
    there = index.read_labels(item, found, recipe, slow)
    np.testing.assert_allclose(there.beats.sample / 180, as_it_is.beats.sample / 360, atol=0.5 / 180 + 1e-9)
    np.testing.assert_allclose(there.context[:, 0], as_it_is.context[:, 0], atol=1 / 180 + 1e-6)
    noisy = index.read_labels(item, found, recipe, robustness.with_noise(record, seeded("a"), 6, Bandpass()))
    assert np.array_equal(noisy.context[:, 0], as_it_is.context[:, 0], equal_nan=True)
    assert not np.array_equal(noisy.context, as_it_is.context, equal_nan=True)  # the view sees the signal


def answers_of(settings, trained, dataset, rows):
    """The scores of evaluate.py, and those of recordings as they are, with much noise, and with twice the gain."""
    found = robustness.open_raw(settings, dataset)
    bar = robustness.tqdm(disable=True)
    places = robustness.places_of(found, dataset, rows, bar)
    within, first, units = robustness.units_of(dataset, places)
    assert np.array_equal(within, rows)
    changes, _ = robustness.changes_of(dataset.recipe, [500.0])
    changes.append(robustness.Change("flooded", partial(robustness.with_noise, snr_db=-20, band=Bandpass())))
    size = settings.evaluation.batch_size
    answers = {
        change.name: robustness.answer_of(change, places, found, trained, units, size, bar)
        for change in changes
        if change.name in ("as recorded", "flooded", "gain x2")
    }
    return evaluate.score_split(trained, dataset, rows, settings), first, answers


@pytest.mark.parametrize("run", ["demo_run", "beat_run"])
def test_recordings_as_they_are_give_the_scores_of_evaluate_to_the_bit(run, request):
    run = request.getfixturevalue(run)
    settings = settings_of(run)
    (first, scores), own_first, answers = answers_of(settings, *evaluate.open_run(run, settings))
    assert np.array_equal(first, own_first)
    assert np.array_equal(scores, answers["as recorded"].scores) and len(scores) > 3
    assert answers["as recorded"].unscored == 0


def test_beats_that_noise_hides_from_the_detector_have_no_score(beat_run, prepared_beats, tmp_path):
    words = [*prepared_beats, "--data.dir", str(tmp_path / "detected"), "--recipe.centers", "rpeaks"]
    preprocess.main(words)
    settings, _ = config.load(argparse.ArgumentParser(), words)
    dataset = Dataset(*settings.data_dirs)
    trained = replace(bundle.load(beat_run / "best.pt"), recipe=dataset.recipe)
    rows = dataset.splits(settings.data.train, settings.data.validation, settings.data.test)["test"]
    (first, scores), own_first, answers = answers_of(settings, trained, dataset, rows)
    assert np.array_equal(first, own_first) and np.array_equal(scores, answers["as recorded"].scores)
    hidden = ~answers["flooded"].decided.any(axis=1)
    assert 0 < answers["flooded"].unscored == hidden.sum() < len(first)
    assert not answers["flooded"].scores[hidden].any()


def test_gain_changes_nothing_where_rows_are_scaled(demo_run):
    settings = settings_of(demo_run)
    _, _, answers = answers_of(settings, *evaluate.open_run(demo_run, settings))
    assert bundle.load(demo_run / "best.pt").recipe.scale.kind == "zscore"
    np.testing.assert_allclose(answers["gain x2"].scores, answers["as recorded"].scores, atol=2e-3)  # float16 rows


def test_a_recording_that_a_change_spoils_counts_as_nothing_found(demo_run):
    settings = settings_of(demo_run)
    trained, dataset, rows = evaluate.open_run(demo_run, settings)
    found = robustness.open_raw(settings, dataset)
    bar = robustness.tqdm(disable=True)
    places = robustness.places_of(found, dataset, rows, bar)
    _, first, units = robustness.units_of(dataset, places)
    spoilt = robustness.Change("cut", lambda record, _: robustness.changed(record, record.signal[:, :5]))
    answer = robustness.answer_of(spoilt, places, found, trained, units, 8, bar)
    assert answer.unscored == len(first) and not answer.scores.any() and not answer.decided.any()


def test_the_flag_writes_a_table_and_a_picture(demo_run, copied, capsys):
    run = copied(demo_run)
    words = [str(run), "--robustness", "--evaluation.batch_size", "7"]
    evaluate.main(words)
    place = run / "report-robustness"
    assert {path.name for path in place.iterdir()} == {"robustness.csv", "robustness.md", "robustness.png"}
    table = pd.read_csv(place / "robustness.csv").set_index("change")
    names = [*(f"noise, SNR {snr} dB" for snr in (24, 12, 6, 0)), "half the rate", "gain x0.5", "polarity inverted"]
    assert {"as recorded", *names, "lead I off", "lead V6 off"} <= set(table.index) and len(table) == 21
    assert capsys.readouterr().out.strip() == (place / "robustness.md").read_text().strip()
    report = evaluate.evaluate_run(run, settings_of(run))
    for score in SCORES:
        assert table.loc["as recorded", score] == pytest.approx(getattr(report, score), abs=1e-5)
        assert abs(table.loc["gain x0.5", f"{score}_difference"]) < ROUNDING
    evaluate.main([*words, "--data.limit", "30", "--evaluation.split", "validation"])
    assert "of the" in (run / "report-validation-robustness/robustness.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.raw", "nowhere"], "nowhere: no such folder; where are the recordings of demo"),
        (["--data.limit", "1"], "none of the .* recordings of the split is there"),
    ],
)
def test_recordings_that_are_not_there_stop_it_in_a_line(demo_run, words, message):
    with pytest.raises(Stop, match=message):
        evaluate.main([str(demo_run), "--robustness", *words])
    assert not (demo_run / "report-robustness").exists()


def test_two_runs_have_no_robustness(demo_run):
    with pytest.raises(Stop, match="--robustness: is of one run"):
        evaluate.main([str(demo_run), str(demo_run), "--robustness"])
