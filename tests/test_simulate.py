"""The demo records: their physiology, their files compared with wfdb, and the same bytes for the same seed."""

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb
from conftest import REPOSITORY

import pqrst
import readers
import simulate
from recipe import TWELVE_LEADS as LEADS
from script import Stop
from simulate import CLASSES, FS

HALF_STEP_MV = 0.0005 + 1e-9  # digitising rounds to 1 uV: off by half of it, plus float arithmetic


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def labels_of(row):
    return tuple(name for name in CLASSES if row[name] == "1")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A set of 90 patients; also its rows of records.csv."""
    folder = tmp_path_factory.mktemp("demo")
    simulate.write_demo(folder, n_patients=90, seed=3)
    with (folder / "records.csv").open(newline="") as file:
        return folder, list(csv.DictReader(file))


@pytest.fixture(scope="module")
def annotations(demo):
    """R peaks and symbols of each record, read by wfdb."""
    folder, rows = demo
    read = [wfdb.rdann(str(folder / row["record"]), "atr") for row in rows]
    return [(annotation.sample, np.array(annotation.symbol)) for annotation in read]


def clean(labels, n_patients=25, duration_s=10.0, seed=0):
    """(patient, signal, r_peaks, symbols) of noise-free records of patients 0, 1, ..., who all get these labels."""
    for number in range(n_patients):
        patient = simulate.simulate_patient(np.random.default_rng([seed, number, 0]))
        rng = np.random.default_rng([seed, number, 1])
        yield patient, *simulate.simulate_record(rng, patient, labels, duration_s, FS, noise=0)


def dipole(patient, signal):
    """The heart vector (3, T) that explains the independent leads; exact for a clean signal."""
    return np.linalg.pinv(patient.projection) @ signal[simulate.INDEPENDENT]


def mean_beat(signal, r_peaks, symbols, before_s=0.5, after_s=0.5):
    """(rows, samples) mean over the beats that are no PVC, do not follow one, and lie inside the record."""
    before, after = round(before_s * FS), round(after_s * FS)
    usual = (symbols != "V") & (np.roll(symbols, 1) != "V") & (np.roll(symbols, -1) != "V")
    usual &= (r_peaks >= before) & (r_peaks < signal.shape[1] - after)
    return np.mean([signal[:, r - before : r + after] for r in r_peaks[usual]], axis=0)


def usual_intervals_s(r_peaks, symbols):
    """RR intervals without a PVC at either end."""
    usual = (symbols[1:] != "V") & (symbols[:-1] != "V")
    return np.diff(r_peaks)[usual] / FS


# --- the files ---


def test_the_same_seed_gives_the_same_bytes_for_one_and_two_workers(tmp_path):
    simulate.write_demo(tmp_path / "one", n_patients=10, seed=5, workers=1)
    simulate.write_demo(tmp_path / "two", n_patients=10, seed=5, workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_another_seed_gives_other_recordings(tmp_path):
    for seed in (1, 2):
        simulate.write_demo(tmp_path / str(seed), n_patients=1, seed=seed)
    assert (tmp_path / "1" / "sim00001_1.dat").read_bytes() != (tmp_path / "2" / "sim00001_1.dat").read_bytes()


def test_a_patient_does_not_depend_on_how_many_there_are(tmp_path):
    simulate.write_demo(tmp_path / "few", n_patients=2, seed=5)
    simulate.write_demo(tmp_path / "more", n_patients=4, seed=5)
    few, more = files(tmp_path / "few"), files(tmp_path / "more")
    assert all(more[name] == content for name, content in few.items() if name != "records.csv")


def test_a_patient_and_its_records_draw_from_different_generators():
    draws = [np.random.default_rng([7, 3, k]).random() for k in range(4)]
    assert len(set(draws)) == 4
    # no record may use k = 0: (seed, number) is the same key as (seed, number, 0), the key of the patient
    assert np.random.default_rng([7, 3]).random() == draws[0]


def test_header_and_signal_files_equal_those_of_wfdb(demo, tmp_path):
    folder, rows = demo
    for row in rows[:3]:
        record = wfdb.rdrecord(str(folder / row["record"]), physical=False)
        wfdb.wrsamp(
            row["record"],
            fs=record.fs,
            units=record.units,
            sig_name=record.sig_name,
            d_signal=record.d_signal.astype(np.int64),
            fmt=record.fmt,
            adc_gain=record.adc_gain,
            baseline=record.baseline,
            comments=record.comments,
            write_dir=str(tmp_path),
        )
        for suffix in (".hea", ".dat"):
            name = row["record"] + suffix
            assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_every_checksum_is_right(demo):
    folder, rows = demo
    for row in rows[:20]:
        record = wfdb.rdrecord(str(folder / row["record"]), physical=False)
        assert record.calc_checksum() == record.checksum


def test_wfdb_reads_what_was_simulated(demo):
    folder, rows = demo
    for row in rows[:12]:
        number, k = int(row["patient"].removeprefix("sim")), int(row["record"][-1])
        patient = simulate.simulate_patient(np.random.default_rng([3, number, 0]))
        rng = np.random.default_rng([3, number, k])
        labels = simulate.draw_labels(rng, patient)
        signal, r_peaks, symbols = simulate.simulate_record(rng, patient, labels, 10.0, FS)
        record = wfdb.rdrecord(str(folder / row["record"]))
        assert (record.fs, tuple(record.sig_name), set(record.units)) == (FS, LEADS, {"mV"})
        error = np.abs(record.p_signal.T - signal).max(axis=1)
        assert (error[simulate.INDEPENDENT] <= HALF_STEP_MV).all()
        # The others are computed from rounded leads and rounded once more: aVL = I - II/2 by 1/2 + 1/4 + 1/2 of a step.
        assert (error <= 2.5 * HALF_STEP_MV).all()
        annotation = wfdb.rdann(str(folder / row["record"]), "atr")
        assert (annotation.sample == r_peaks).all()
        assert annotation.symbol == symbols
        assert annotation.fs == FS
        assert labels == labels_of(row)


def test_limb_leads_obey_einthoven_and_goldberger_as_digitised(demo):
    folder, rows = demo
    for row in rows[:30]:
        one, two, three, avr, avl, avf = wfdb.rdrecord(str(folder / row["record"]), physical=False).d_signal.T[:6]
        assert (three == two - one).all()
        for lead, twice in ((avr, -(one + two)), (avl, 2 * one - two), (avf, 2 * two - one)):
            assert (np.abs(2 * lead - twice) <= 1).all()  # half a step


def test_the_header_names_patient_and_labels_as_records_csv_does(demo):
    folder, rows = demo
    assert list(rows[0]) == ["record", "patient", "age", "sex", *CLASSES]
    for row in rows:
        comments = wfdb.rdheader(str(folder / row["record"])).comments
        fields = dict(comment.split(":", 1) for comment in comments)
        assert fields["Age"].strip() == row["age"]
        assert fields["Sex"].strip() == row["sex"]
        assert fields["Patient"].strip() == row["patient"]
        assert tuple(filter(None, fields["Labels"].strip().split(","))) == labels_of(row)
        assert "Simulated by simulate.py" in fields


def test_a_complete_set_is_replaced_only_on_request(tmp_path):
    simulate.write_demo(tmp_path, n_patients=3, seed=0)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="--overwrite"):
        simulate.write_demo(tmp_path, n_patients=1, seed=1)
    assert files(tmp_path) == before
    (tmp_path / "notes.txt").write_text("mine")
    rows = simulate.write_demo(tmp_path, n_patients=1, seed=1, overwrite=True)
    expected = {f"{row['record']}.{kind}" for row in rows for kind in ("hea", "dat", "atr")}
    assert set(files(tmp_path)) == expected | {"records.csv", "notes.txt"}


def test_records_csv_is_missing_while_the_set_is_incomplete(tmp_path, monkeypatch):
    simulate.write_demo(tmp_path, n_patients=1, seed=0)

    def fails(folder, seed, number):
        raise OSError("disk full")

    monkeypatch.setattr(simulate, "write_patient", fails)
    with pytest.raises(OSError, match="disk full"):
        simulate.write_demo(tmp_path, n_patients=1, seed=0, overwrite=True)
    assert not (tmp_path / "records.csv").exists()


def test_main_writes_the_set_and_counts_it(tmp_path, capsys):
    simulate.main(["--out", str(tmp_path / "new" / "demo"), "--patients", "2", "--seed", "4"])
    with (tmp_path / "new" / "demo" / "records.csv").open(newline="") as file:
        n_records = len(list(csv.DictReader(file)))
    assert f"wrote {n_records} records of 10 s at 500 Hz" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "value"), [("n_patients", 0), ("workers", 0), ("seed", -1)])
def test_a_number_out_of_range_is_refused_by_name(tmp_path, name, value):
    with pytest.raises(ValueError, match=name):
        simulate.write_demo(tmp_path / "none", **{name: value})
    assert not (tmp_path / "none").exists()


# --- labels ---


@pytest.mark.parametrize("pair", [sorted(pair) for pair in simulate.IMPOSSIBLE], ids="+".join)
def test_an_impossible_pair_is_refused(rng, pair):
    with pytest.raises(ValueError, match="impossible"):
        simulate.simulate_record(rng, simulate.simulate_patient(rng), pair, 10.0, FS)


@pytest.mark.parametrize(
    ("labels", "duration_s", "fs", "match"),
    [(["LAFB"], 10, 500, "LAFB"), ([], 0, 500, "duration_s"), ([], np.inf, 500, "duration_s"), ([], 10, 100, "fs")],
)
def test_a_wrong_argument_is_refused_by_name(rng, labels, duration_s, fs, match):
    with pytest.raises(ValueError, match=match):
        simulate.simulate_record(rng, simulate.simulate_patient(rng), labels, duration_s, fs)


def test_impossible_pairs_never_occur():
    for number in range(400):
        rng = np.random.default_rng(number)
        patient = simulate.simulate_patient(rng)
        for _ in range(5):
            labels = simulate.draw_labels(rng, patient)
            assert not any(pair <= set(labels) for pair in simulate.IMPOSSIBLE)
            assert list(labels) == sorted(labels, key=CLASSES.index)


def test_each_class_and_the_expected_combinations_occur_often_enough(demo):
    _, rows = demo
    given = [labels_of(row) for row in rows]
    assert 135 <= len(rows) <= 225  # 1 to 3 for each of 90
    for name in CLASSES:
        assert 0.08 <= np.mean([name in labels for labels in given]) <= 0.35, name
    assert 0.10 <= np.mean([not labels for labels in given]) <= 0.35  # normal
    for pair in ({"1dAVb", "RBBB"}, {"SB", "1dAVb"}, {"RBBB", "AF"}, {"LBBB", "AF"}):
        assert any(pair <= set(labels) for labels in given), pair


def test_a_patient_keeps_age_sex_and_block_in_all_records(demo):
    _, rows = demo
    for _, group in itertools.groupby(rows, key=lambda row: row["patient"]):
        assert len({(row["age"], row["sex"], row["RBBB"], row["LBBB"]) for row in group}) == 1


def test_records_of_one_patient_look_alike_and_of_two_do_not():
    beats = []
    for number in range(8):
        patient = simulate.simulate_patient(np.random.default_rng(number))
        pair = []
        for k in (1, 2):
            rng = np.random.default_rng([number, k])
            signal, r_peaks, symbols = simulate.simulate_record(rng, patient, (), 20.0, FS, noise=0)
            beat = mean_beat(signal[simulate.INDEPENDENT], r_peaks, np.array(symbols), 0.06, 0.06)
            pair.append(beat.ravel())
        beats.append(pair)
    same = [np.corrcoef(*pair)[0, 1] for pair in beats]
    other = [np.corrcoef(a[0], b[0])[0, 1] for a, b in itertools.combinations(beats, 2)]
    assert min(same) > 0.99
    assert np.median(other) < 0.97


# --- rhythm ---


def test_r_peaks_ascend_inside_the_record(annotations):
    for r_peaks, _ in annotations:
        assert r_peaks[0] >= 0
        assert r_peaks[-1] < 5000
        assert (np.diff(r_peaks) >= 0.3 * FS).all()  # no two beats within the refractory period
        assert r_peaks[0] < 2.5 * FS  # none is missing at the ends
        assert r_peaks[-1] > 5000 - 2.5 * FS


def test_the_heart_rate_is_that_of_the_class(demo, annotations):
    _, rows = demo
    tolerance = 1.06  # the range is that of the mean rate; a piece of 10 s with few beats departs from it
    for row, (r_peaks, symbols) in zip(rows, annotations, strict=True):
        labels = labels_of(row)
        rate = 60 / usual_intervals_s(r_peaks, symbols).mean()
        if "AF" in labels:
            assert 45 < rate < 175
        elif "SB" in labels:
            assert 38 / tolerance < rate < 55 * tolerance
        elif "ST" in labels:
            assert 105 / tolerance < rate < 150 * tolerance
        else:
            assert 60 / tolerance < rate < 95 * tolerance


def test_af_is_irregular_without_order_and_sinus_rhythm_is_not():
    def variation(labels):
        """Standard deviation over mean of RR, and the correlation of one interval with the next, by patient."""
        for _, _, r_peaks, symbols in clean(labels, 20, 120.0):
            rr = usual_intervals_s(r_peaks, np.array(symbols))
            yield rr.std() / rr.mean(), np.corrcoef(rr[1:], rr[:-1])[0, 1]

    sinus, af = np.array(list(variation(()))), np.array(list(variation(("AF",))))
    assert sinus[:, 0].max() < 0.11
    assert af[:, 0].min() > 0.09
    assert np.median(af[:, 0]) > 3 * np.median(sinus[:, 0])
    assert abs(np.median(af[:, 1])) < 0.1  # each interval independent of the last


def test_pvcs_come_early_in_some_records_and_the_pause_compensates(demo, annotations):
    _, rows = demo
    assert 0.07 < np.mean(["V" in symbols for _, symbols in annotations]) < 0.25
    n_checked = 0
    for row, (r_peaks, symbols) in zip(rows, annotations, strict=True):
        if row["AF"] == "1":
            continue
        usual_s = np.median(usual_intervals_s(r_peaks, symbols))
        for k in np.flatnonzero(symbols == "V"):
            if 0 < k < len(r_peaks) - 1:
                before_s, after_s = np.diff(r_peaks[k - 1 : k + 2]) / FS
                assert before_s < after_s
                assert before_s + after_s == pytest.approx(2 * usual_s, rel=0.2)  # breathing arrhythmia
                n_checked += 1
    assert n_checked >= 15


def test_symbols_say_block_and_pvc(demo, annotations):
    _, rows = demo
    for row, (_, symbols) in zip(rows, annotations, strict=True):
        usual = "R" if row["RBBB"] == "1" else "L" if row["LBBB"] == "1" else "N"
        assert set(symbols) <= {usual, "V"}
        assert usual in symbols


@pytest.mark.parametrize("labels", [(), ("RBBB",), ("LBBB",), ("1dAVb", "SB"), ("ST",), ("AF",)], ids=str)
def test_r_peaks_are_where_the_heart_vector_of_the_qrs_is_longest(labels):
    n_ectopic = 0
    for patient, signal, r_peaks, symbols in clean(labels, 25, 30.0):
        length = np.linalg.norm(dipole(patient, signal), axis=0)
        reach = round(0.08 * FS)  # a QRS to either side
        for r, symbol in zip(r_peaks, symbols, strict=True):
            start = max(r - reach, 0)
            around = length[start : r + reach + 1]
            # Within 4 ms, or on one of two peaks of a notched QRS where ST, f waves or breathing lift the other
            near = abs(start + np.argmax(around) - r) <= 2
            assert near or length[r] > 0.98 * around.max(), (symbol, r)
            n_ectopic += symbol == "V"
    assert n_ectopic > 0


def test_waves_of_beats_just_outside_the_record_reach_into_it():
    n_before = n_after = 0
    for patient, signal, r_peaks, symbols in clean(("SB",), 150):
        length = np.linalg.norm(dipole(patient, signal), axis=0)
        last_s = (signal.shape[1] - r_peaks[-1]) / FS
        rr_s = np.median(usual_intervals_s(r_peaks, np.array(symbols)))
        if -0.25 < r_peaks[0] / FS - rr_s < -0.12:  # an R peak before the record whose T wave is in the record
            t_wave = np.linalg.norm(patient.ventricles["normal"].vectors[5])
            assert length[: round(0.3 * FS)].max() > 0.6 * t_wave
            n_before += 1
        if 0.04 < rr_s - last_s < 0.08 and symbols[-1] != "V":  # an R peak after the record: its P wave is in it
            assert length[-round(0.15 * FS) :].max() > 0.03
            n_after += 1
    assert n_before >= 5
    assert n_after >= 2


def test_the_sampling_rate_changes_the_samples_and_not_the_heart():
    for labels in ((), ("AF", "RBBB")):
        at = {}
        for fs in (250.0, 500.0):
            rng = np.random.default_rng(11)
            at[fs] = simulate.simulate_record(rng, simulate.simulate_patient(rng), labels, 8.0, fs, noise=0)
        assert at[500.0][0].shape == (12, 4000)
        # the windows of beats are cut at other samples, where a wave's tail is below 1 uV
        np.testing.assert_allclose(at[500.0][0][:, ::2], at[250.0][0], rtol=0, atol=1e-3)
        assert np.abs(at[500.0][1] - 2 * at[250.0][1]).max() <= 1
        assert at[500.0][2] == at[250.0][2]


# --- waves ---


def qrs_width_s(patient, beat):
    """From the first to the last time that the heart vector, near R, reaches a fifth of its greatest length."""
    length = np.linalg.norm(dipole(patient, beat), axis=0)
    near = length[250 - 60 : 250 + 60]  # 120 ms to either side of R: P is over, T has not begun
    above = np.flatnonzero(near > 0.2 * near.max())
    return (above[-1] - above[0]) / FS


def test_rbbb_is_wide_with_a_late_r_in_v1_and_a_broad_s_in_i_and_v6():
    for patient, signal, r_peaks, symbols in clean(("RBBB",), 30):
        beat = mean_beat(signal, r_peaks, np.array(symbols))
        block = patient.ventricles["RBBB"]
        assert 0.12 <= block.qrs_s <= 0.16
        late = 250 + round((0.70 * block.qrs_s - block.peak_s) * FS)  # the right ventricle's turn; 250 is the R peak
        around = slice(late - 8, late + 9)
        i, v1, v6 = (beat[LEADS.index(lead)] for lead in ("I", "V1", "V6"))
        assert v1[around].max() > 0.2
        assert v6[around].min() < -0.1
        assert i[around].min() < 0
        assert v1[200:late].min() < v1[around].max() - 0.2  # rsR': down before the late R


def test_lbbb_is_wide_with_a_deep_s_in_v1_and_discordant_t_waves():
    notched = []
    for patient, signal, r_peaks, symbols in clean(("LBBB",), 30):
        beat = mean_beat(signal, r_peaks, np.array(symbols), 0.5, 0.6)
        block = patient.ventricles["LBBB"]
        assert 0.12 <= block.qrs_s <= 0.17
        start = 250 - round(block.peak_s * FS)
        end = start + round(block.qrs_s * FS)
        i, v1, v6 = (beat[LEADS.index(lead)] for lead in ("I", "V1", "V6"))
        assert v1[start:end].min() < -0.4
        assert abs(v1[start:end].min()) > 1.5 * v1[start:end].max()
        assert v6[start:end].max() > 0.3
        assert i[start:end].max() > 0.2
        assert v6[start:end].max() > 2 * abs(v6[start:end].min())  # no q, no S
        assert v1[end + 10 : 500].max() > 0.05  # T against the QRS
        assert v6[end + 10 : 500].min() < -0.02
        peaks = (np.diff(np.sign(np.diff(v6[start:end]))) < 0).sum()
        notched.append(peaks >= 2)
    assert np.mean(notched) > 0.7


def test_blocked_ventricles_and_pvcs_take_longer_than_normal_ones():
    width = {}
    for labels in ((), ("RBBB",), ("LBBB",)):
        width[labels] = [
            qrs_width_s(patient, mean_beat(signal, r_peaks, np.array(symbols)))
            for patient, signal, r_peaks, symbols in clean(labels)
        ]
        for name in ("normal", "RBBB", "LBBB", "PVC"):
            durations = [patient.ventricles[name].qrs_s for patient, *_ in clean(labels, 5)]
            assert max(durations) < 0.111 if name == "normal" else min(durations) > 0.12
    assert max(width[()]) < 0.095
    assert np.median(width["RBBB",]) > 1.4 * np.median(width[()])
    assert np.median(width["LBBB",]) > 1.4 * np.median(width[()])


def measured_pr_s(patient, beat):
    """From the first rise of P to the first of QRS in a mean beat of 0.5 s before R, as a reader would take it."""
    length = np.linalg.norm(dipole(patient, beat), axis=0)
    qrs = 250 - round(patient.ventricles["normal"].peak_s * FS)
    p_peak = qrs - 15 - np.argmax(length[qrs - 15 : 0 : -1] > 0.999 * length[20 : qrs - 15].max())
    p_onset = p_peak - np.argmax(length[p_peak:0:-1] < 0.1 * length[p_peak])
    return (qrs - p_onset) / FS


@pytest.mark.parametrize(("labels", "low_s", "high_s"), [(("SB",), 0.12, 0.2), (("SB", "1dAVb"), 0.2, 0.32)], ids=str)
def test_pr_intervals_measured_in_the_signal_are_on_their_side_of_200_ms(labels, low_s, high_s):
    reader_s = 0.012  # P begins before it reaches the reader's tenth of its height
    for patient, signal, r_peaks, symbols in clean(labels, 30, 20.0):
        pr_s = measured_pr_s(patient, mean_beat(signal, r_peaks, np.array(symbols)))
        assert low_s - reader_s <= pr_s <= high_s + reader_s
        if "1dAVb" in labels:
            assert pr_s == pytest.approx(patient.long_pr_s, abs=reader_s)


@pytest.mark.parametrize(("av_block", "conducted"), [("2:1", 1 / 2), ("Mobitz I", 3 / 4), ("Mobitz II", 2 / 3)])
def test_an_av_block_drops_beats_and_keeps_their_p_waves(rng, av_block, conducted):
    patient = simulate.with_tall_p(simulate.simulate_patient(rng), 0.6)
    args = (patient, (), 60.0, FS, 0)
    blocked, r_peaks, _ = simulate.simulate_record(np.random.default_rng(1), *args, av_block)
    _, atrial, _ = simulate.simulate_record(np.random.default_rng(1), *args, "2:1")
    assert abs(len(r_peaks) - conducted * 2 * len(atrial)) <= 3
    lead_v1 = blocked[LEADS.index("V1")]
    longest = int(np.argmax(np.diff(r_peaks)))
    between = lead_v1[r_peaks[longest] + round(0.45 * FS) : r_peaks[longest + 1] - round(0.36 * FS)]
    assert np.ptp(between) > 0.3  # mV


def test_a_block_that_cannot_be_is_refused(rng):
    patient = simulate.simulate_patient(rng)
    for labels, av_block in (((), "3:1"), (("AF",), "2:1")):
        with pytest.raises(ValueError, match="av_block"):
            simulate.simulate_record(rng, patient, labels, 10.0, FS, av_block=av_block)


def test_af_has_no_p_wave():
    height = {}
    for labels in ((), ("AF",)):
        heights = []
        for patient, signal, r_peaks, _ in clean(labels, 20, 60.0):
            still = [r for r, before in zip(r_peaks[1:], np.diff(r_peaks), strict=True) if before > 0.7 * FS]
            vector = dipole(patient, signal)
            windows = [vector[:, r - 150 : r - 30] for r in still if r - 150 >= 0]
            if len(windows) >= 10:  # f waves have no fixed phase to R: they vanish in the mean
                mean = np.mean(windows, axis=0)
                heights.append(np.linalg.norm(mean - mean[:, :5].mean(axis=1, keepdims=True), axis=0).max())
        assert len(heights) >= 5
        height[labels] = np.median(heights)
    assert height["AF",] < 0.4 * height[()]


def test_qt_shortens_with_the_heart_rate():
    def t_peak_s(labels):
        for patient, signal, r_peaks, symbols in clean(labels, 15, 20.0):
            beat = np.linalg.norm(dipole(patient, mean_beat(signal, r_peaks, np.array(symbols), 0.5, 0.45)), axis=0)
            if np.linalg.norm(patient.ventricles["normal"].vectors[5]) > 0.2:  # not a flat T
                yield np.argmax(beat[250 + 60 : 250 + 200]) / FS + 0.12

    slow, fast = list(t_peak_s(("SB",))), list(t_peak_s(("ST",)))
    assert np.median(slow) > np.median(fast) + 0.05


def test_amplitudes_are_plausible_and_nothing_clips(demo, annotations):
    folder, rows = demo
    for row, (r_peaks, symbols) in zip(rows, annotations, strict=True):
        signal = wfdb.rdrecord(str(folder / row["record"])).p_signal.T
        assert signal.shape == (12, 5000)
        assert np.isfinite(signal).all()
        assert np.abs(signal).max() < 8  # of 32.767 mV
        usual = r_peaks[(symbols != "V") & (r_peaks > 25) & (r_peaks < 4975)]
        height = [
            np.median([np.ptp(signal[LEADS.index(lead), r - 25 : r + 26]) for r in usual]) for lead in ("II", "V5")
        ]
        assert 0.5 < max(height) < 4.5  # R and S together


def test_r_waves_of_clean_records_are_between_half_and_three_millivolts():
    for _, signal, r_peaks, symbols in clean((), 40):
        beat = mean_beat(signal, r_peaks, np.array(symbols), 0.06, 0.06)
        assert 0.5 < max(beat[LEADS.index("II")].max(), beat[LEADS.index("V5")].max()) < 3


def test_noise_of_the_limb_leads_obeys_einthoven_too(rng):
    patient = simulate.simulate_patient(rng)
    signal, _, _ = simulate.simulate_record(rng, patient, (), 10.0, FS)
    one, two, three, avr, avl, avf = signal[:6]
    np.testing.assert_allclose(three, two - one, atol=1e-12)
    np.testing.assert_allclose(avr + avl + avf, 0, atol=1e-12)
    np.testing.assert_allclose(avl, one - two / 2, atol=1e-12)
    np.testing.assert_allclose(avf, two - one / 2, atol=1e-12)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--patients", "0"], "error: n_patients 0: must be at least 1"),
        (["--workers", "0"], "error: workers 0: must be at least 1"),
        (["--seed", "-1"], "error: seed -1: must be at least 0"),
    ],
)
def test_the_script_ends_in_one_line_and_status_2(tmp_path, words, message):
    script = str(Path(simulate.__file__))
    done = subprocess.run([sys.executable, script, "--out", str(tmp_path), *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, message + "\n")


def test_a_holter_strip_is_the_same_for_a_seed_and_holds_its_beats(tmp_path, capsys):
    simulate.main(["--holter", str(tmp_path / "a/strip.hea"), "--seed", "5"])
    assert "4 of them ventricular" in capsys.readouterr().out
    record, beats = pqrst.read(tmp_path / "a/strip.hea"), pqrst.read_annotations(tmp_path / "a/strip.hea", "atr")
    assert (record.fs, list(record.leads), record.signal.shape) == (250, ["MLII", "V1"], (2, 30000))
    assert simulate.is_simulated(record.comments)
    assert len(pqrst.rpeaks(record.signal, 250)) == pytest.approx(len(beats.sample), abs=1)
    for name in ("strip.hea", "strip.dat"):
        stored = (REPOSITORY / "examples" / name.replace("strip", "holter")).read_bytes().replace(b"holter", b"strip")
        assert (tmp_path / "a" / name).read_bytes() == stored, "examples/ holds what the script writes"


@pytest.mark.parametrize("suffix", [".hea", ".dat", ".atr"])
def test_a_holter_strip_replaces_nothing_unasked(tmp_path, suffix):
    kept = tmp_path / f"119{suffix}"
    kept.write_text("mine")
    with pytest.raises(
        Stop, match=rf"119{suffix}: already exists; choose another name, or replace it with --overwrite"
    ):
        simulate.main(["--holter", str(tmp_path / "119.hea")])
    assert files(tmp_path) == {kept.name: b"mine"}
    simulate.main(["--holter", str(tmp_path / "119.hea"), "--overwrite"])
    assert sorted(files(tmp_path)) == ["119.atr", "119.dat", "119.hea"] and kept.read_bytes() != b"mine"


@pytest.mark.parametrize("one", ["--samples", "--holter"])
def test_one_kind_of_recordings_is_made_at_a_time(tmp_path, capsys, one):
    with pytest.raises(SystemExit, match="2"):
        simulate.main([one, str(tmp_path / "x"), "--out", str(tmp_path / "y")])
    assert f"argument --out: not allowed with argument {one}" in capsys.readouterr().err
    assert not files(tmp_path)


# --- samples ---


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    simulate.main(["--samples", str(folder / "first")])
    return folder / "first"


def test_samples_have_the_same_bytes_on_every_run(samples, tmp_path):
    command = [sys.executable, simulate.__file__, "--samples", str(tmp_path / "second")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("wrote 7 samples to ")
    assert files(samples) == files(tmp_path / "second")
    assert len(files(samples)) == 7 * 4


def test_each_sample_carries_its_own_class_alone(samples):
    assert set(simulate.SAMPLES) == {"normal", *CLASSES}
    for name in simulate.SAMPLES:
        record = wfdb.rdrecord(str(samples / name))
        (labels,) = (comment for comment in record.comments if comment.startswith("Labels:"))
        assert labels.removeprefix("Labels:").split() == ([] if name == "normal" else [name])
        assert simulate.is_simulated(record.comments)
        assert (record.fs, record.sig_name, record.sig_len) == (FS, list(LEADS), 5000)


def test_the_beats_of_a_sample_have_the_rate_and_the_form_of_its_class(samples):
    for name in simulate.SAMPLES:
        beats = wfdb.rdann(str(samples / name), "atr")
        assert set(beats.symbol) == {{"RBBB": "R", "LBBB": "L"}.get(name, "N")}
        rr_s = np.diff(beats.sample) / FS
        bpm = 60 / rr_s.mean()
        assert (bpm < 60) == (name == "SB") and (bpm > 100) == (name == "ST"), (name, bpm)
        assert (np.abs(np.diff(rr_s)).mean() > 0.1) == (name == "AF")


def test_a_sample_as_csv_reads_as_its_record(samples):
    for name in simulate.SAMPLES:
        record, table = readers.read(samples / f"{name}.hea"), readers.read(samples / f"{name}.csv")
        heading = (samples / f"{name}.csv").read_text().split("\n")[0]
        assert heading == "time,lead1,lead2,lead3,lead4,lead5,lead6,lead7,lead8,lead9,lead10,lead11,lead12"
        assert (table.fs, list(table.leads), table.warnings) == (FS, list(record.leads), [])
        np.testing.assert_array_equal(table.signal, record.signal)


def test_samples_replace_nothing_unasked(samples, tmp_path):
    kept = tmp_path / "AF.csv"
    kept.write_text("mine")
    with pytest.raises(Stop, match=r"AF.csv: already exists; choose another folder, or .* --overwrite"):
        simulate.write_samples(tmp_path)
    assert files(tmp_path) == {"AF.csv": b"mine"}
    simulate.write_samples(tmp_path, overwrite=True)
    assert files(tmp_path) == files(samples)


def test_samples_that_cannot_be_written_are_one_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(Stop, match=r"taken: cannot be written: (Not a directory|File exists)"):
        simulate.write_samples(tmp_path / "taken")
