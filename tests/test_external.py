"""External validation, against infer.py's own predictions and counts by hand."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import wfdb
from sklearn.metrics import cohen_kappa_score

import bundle
import evaluate
import external
import infer
import pqrst
from beats import WINDOW_S, match_beats
from script import Stop

CLASSES = ("N", "S", "V", "F", "Q")
SYMBOLS = {"N": 0, "A": 1, "V": 2}


def unpaced(folder):
    return [path for path in sorted(folder.glob("*.hea")) if path.stem not in ("102", "104", "107", "217")]


@pytest.fixture
def run_of(tmp_path):
    """Copy a run, so that its reports are not in the way of others."""
    return lambda run: shutil.copytree(run, tmp_path / "runs" / run.name)


def report_of(run, *words):
    evaluate.main([str(run), *map(str, words)])
    name = words[words.index("--data.name") + 1]
    place = run / f"report-{name}{'-detected' if 'detected' in words else ''}"
    return json.loads((place / "metrics.json").read_text()), place


def test_detected_beats_are_those_of_infer_and_the_others_are_missed_or_false(beat_run, run_of, mitdb_like, capsys):
    beat_run = run_of(beat_run)
    words = ("--data.name", "mitdb", "--data.raw", mitdb_like, "--evaluation.r_peaks", "detected")
    tree, place = report_of(beat_run, *words)
    counts = np.zeros((6, 6), np.int64)
    for header in unpaced(mitdb_like):
        prediction = infer.predict(header, beat_run)
        marks = pqrst.read_annotations(header, "atr")
        truth = [(sample, SYMBOLS[symbol]) for sample, symbol in zip(marks.sample, marks.symbol) if symbol in SYMBOLS]
        annotated, of_class = np.array([s for s, _ in truth]), np.array([c for _, c in truth])
        record = pqrst.read(header)
        pairs = match_beats(annotated, prediction.samples, WINDOW_S * record.fs)
        np.add.at(counts, (of_class[pairs[:, 0]], prediction.beat_classes[pairs[:, 1]]), 1)
        np.add.at(counts, (np.delete(of_class, pairs[:, 0]), 5), 1)
        np.add.at(counts, (5, np.delete(prediction.beat_classes, pairs[:, 1])), 1)
    assert tree["counts"] == counts.tolist()
    assert "where infer.py finds them" in capsys.readouterr().out
    patients = pd.read_csv(place / "patients.csv")
    assert patients["rows"].sum() == counts.sum()


def test_annotated_beats_are_scored_like_the_rows_of_a_prepared_dataset(beat_run, run_of, mitdb_like):
    beat_run = run_of(beat_run)
    tree, place = report_of(beat_run, "--data.name", "mitdb", "--data.raw", mitdb_like)
    counts = np.array(tree["counts"])
    assert counts[5].sum() == counts[:, 5].sum() == 0
    assert tree["r_peaks"] == "annotated" and tree["recordings"] == len(unpaced(mitdb_like))
    evaluate.main([str(beat_run)])
    predictions = pd.read_csv(beat_run / "report/predictions.csv")
    patients = pd.read_csv(place / "patients.csv")
    for patient, rows in predictions.groupby("patient"):
        alone = patients[patients["patient"].astype(str) == str(patient)].iloc[0]
        assert alone["rows"] == len(rows)
        assert alone["accuracy"] == pytest.approx((rows["target"] == rows["decided"]).mean(), abs=1e-5)


def test_leads_of_other_names_are_scored_if_it_is_said_what_they_are(beat_run, run_of, mitdb_like, tmp_path):
    """As the leads of SVDB, which are called ECG1 and ECG2; a recording with others is a line in failures.csv."""
    beat_run = run_of(beat_run)
    raw = shutil.copytree(mitdb_like, tmp_path / "raw")
    for header in raw.glob("*.hea"):
        other = {" V1\n": " ECG2\n", " V5\n": " ECG2\n", " MLII\n": " X\n" if header.stem == "119" else " ECG1\n"}
        text = header.read_text()
        for name, new in other.items():
            text = text.replace(name, new)
        header.write_text(text)
    words = ("--data.name", "mitdb", "--data.raw", raw)
    with pytest.raises(Stop, match="nothing could be scored; first: 101.hea: .*has leads ECG1, ECG2"):
        report_of(beat_run, *words)
    renamed, place = report_of(beat_run, *words, "--inference.leads", "MLII=ECG1,V1=ECG2")
    assert "119.hea has no lead ECG1, its leads are X, ECG2" in (place / "failures.csv").read_text()
    found = pd.read_csv(place / "patients.csv", index_col="patient", dtype={"patient": str})
    named, _ = report_of(beat_run, "--data.name", "mitdb", "--data.raw", mitdb_like)
    assert renamed["recordings"] == named["recordings"] - 1
    expected = pd.read_csv(place / "patients.csv", index_col="patient", dtype={"patient": str})
    pd.testing.assert_frame_equal(found, expected.drop("119"))


def test_recordings_are_scored_by_their_findings(demo_run, run_of, demo_folder, capsys):
    demo_run = run_of(demo_run)
    tree, _ = report_of(demo_run, "--data.name", "demo", "--data.raw", demo_folder)
    assert tree["recordings"] == len(list(demo_folder.glob("*.hea"))) == tree["n_rows"]
    header = min(demo_folder.glob("*.hea"))
    trained = bundle.load(demo_run / "best.pt")
    logits = external.logits_of(pqrst.read(header), trained, None, None, 8)[1]
    np.testing.assert_allclose(infer.predict(header, demo_run).scores[0], 1 / (1 + np.exp(-logits[0])), rtol=1e-5)


def test_scores_equal_scikit_learn_and_ignore_what_is_not_there(rng):
    y, p = rng.integers(0, 3, 400), rng.integers(0, 3, 400)
    counts = np.zeros((6, 6), np.int64)
    np.add.at(counts, (y, p), 1)
    found = external.beat_scores(counts)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(y, p))
    assert found["accuracy"] == pytest.approx((y == p).mean())
    assert found["se"][1] == pytest.approx((p[y == 1] == 1).mean())
    assert found["precision"][2] == pytest.approx((y[p == 2] == 2).mean())
    assert np.isnan(found["se"][3:]).all()
    j = found["se"][1] + found["se"][2] + found["precision"][1] + found["precision"][2]
    assert external.j_kappa(found, CLASSES) == pytest.approx(found["kappa"] / 2 + j / 8)
    assert external.j_kappa(found, ("N", "V", "F", "Q", "X")) is None


def test_intervals_hold_the_spread_of_patients(rng):
    """Of many patients with one chance of success the interval of the accuracy is the normal one."""
    counts = np.zeros((200, 4, 4), np.int64)
    right = rng.binomial(50, 0.9, 200)
    counts[:, 0, 0], counts[:, 0, 1] = right, 50 - right
    pooled, intervals = external.with_intervals(counts, ("N", "S", "V"))
    half = 1.96 * np.std(right / 50) / np.sqrt(200)
    assert pooled["accuracy"] == pytest.approx(right.mean() / 50)
    np.testing.assert_allclose(intervals["accuracy"], [pooled["accuracy"] - half, pooled["accuracy"] + half], atol=2e-3)
    assert external.with_intervals(counts[:1], ("N", "S", "V"))[1]["accuracy"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.name", "mitdb", "--data.raw", "nowhere"], "nowhere: no such folder"),
        (["--data.name", "mitdbb", "--data.raw", "."], "data.name = 'mitdbb': no such dataset"),
        (["--data.name", "cinc2017", "--data.raw", "."], "cinc2017 tells labels of rows of kind record or window"),
    ],
)
def test_what_cannot_be_scored_stops(beat_run, words, message):
    with pytest.raises(Stop, match=message):
        evaluate.main([str(beat_run), *words])


def test_classes_that_the_run_does_not_know_stop(beat_run, demo_folder):
    with pytest.raises(Stop, match="knows classes N, S, V, F, Q|tells labels of rows of kind"):
        evaluate.main([str(beat_run), "--data.name", "demo", "--data.raw", str(demo_folder)])


def test_a_folder_is_scored_whose_labels_have_other_names(demo_run, demo_folder, tmp_path):
    """`AFIB` is what the run calls AF, and `banana` is nothing that it knows."""
    records = sorted(demo_folder.glob("*.hea"))[:12]
    lines = ["record,label"]
    for number, header in enumerate(records):
        for path in (header, header.with_suffix(".dat")):
            shutil.copy(path, tmp_path)
        lines.append(f"{header.name},{'AFIB' if number % 2 else 'banana'}")
    (tmp_path / "unified_label_mapping.csv").write_text("\n".join(lines))
    run = shutil.copytree(demo_run, tmp_path / "run")
    evaluate.main([str(run), "--data.name", "folder", "--data.raw", str(tmp_path)])
    tree = json.loads((run / "report-folder/metrics.json").read_text())
    assert tree["scored_classes"] == ["AF"] and tree["lacking"] == ["banana"] and tree["n_rows"] == 12
    (af,) = (each for each in tree["per_class"] if each["class"] == "AF")
    assert af["support"] == 6
    text = (run / "report-folder/report.md").read_text()
    assert "Scored: AF." in text and "the run does not know: banana" in text


def test_what_is_found_in_ventricular_flutter_is_not_false(beat_run, run_of, mitdb_like, tmp_path):
    """Beats of a stretch of ten seconds lose their marks; between [ and ] they are nobody's error."""
    beat_run, raw = run_of(beat_run), tmp_path / "raw"
    raw.mkdir()
    for suffix in (".hea", ".dat"):
        shutil.copy(mitdb_like / f"101{suffix}", raw / f"101{suffix}")
    marks = pqrst.read_annotations(mitdb_like / "101", "atr")
    kept = [(s, c) for s, c in zip(marks.sample.tolist(), marks.symbol) if not 7200 <= s < 10800]
    assert len(kept) < len(marks.sample) - 5
    false = {}
    for name, more in (("plain", []), ("flutter", [(7150, "["), (10850, "]")])):
        beats = sorted([*kept, *more])
        wfdb.wrann("101", "atr", np.array([s for s, _ in beats]), [c for _, c in beats], write_dir=str(raw))
        tree, _ = report_of(beat_run, "--data.name", "mitdb", "--data.raw", raw, "--evaluation.r_peaks", "detected")
        false[name] = sum(tree["counts"][5])
    assert false["plain"] > 5 and false["flutter"] <= false["plain"] - (len(marks.sample) - len(kept)) + 1
