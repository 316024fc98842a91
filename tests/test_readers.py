"""Formats other than WFDB, and the corrections made while reading."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_record
from layouts import TWELVE, run, twelve, write_mat, write_table

import pqrst
import readers


def test_the_signal_tells_which_order_of_leads_codetest_has(tmp_path, rng):
    x = twelve(rng, 4096)
    order = ["I", "II", "III", "aVL", "aVF", "aVR", "V1", "V2", "V3", "V4", "V5", "V6"]
    noted = x[[TWELVE.index(lead) for lead in order]]
    for name, signal in (("usual", x), ("noted", noted), ("noise", rng.normal(size=x.shape))):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            file["tracings"] = signal.T[None].astype(np.float32)
        record = readers.read(f"{tmp_path}/{name}.hdf5#0")
        assert list(record.leads) == (order if name == "noted" else list(TWELVE))
        np.testing.assert_array_equal(record.signal, signal.astype(np.float32))


@pytest.mark.parametrize("name", ["a.hdf5", "a.H5"])
def test_a_file_of_many_recordings_is_read_by_the_row(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(pqrst.FormatError, match=rf"{name}: may hold many recordings; name one by its row, {name}#0$"):
        readers.read(tmp_path / name)


def test_a_number_sign_in_a_name_is_a_row_of_hdf5_alone(tmp_path, rng):
    write_record(tmp_path, "ward_7", rng.normal(size=(1, 500)), 250, ["II"])
    for suffix in (".hea", ".dat"):
        (tmp_path / f"ward_7{suffix}").rename(tmp_path / f"ward#7{suffix}")
    header = tmp_path / "ward#7.hea"
    header.write_text(header.read_text().replace("ward_7", "ward#7"))
    assert readers.complete(tmp_path / "ward#7") == header
    assert readers.read(tmp_path / "ward#7").n_samples == readers.read(header).n_samples == 500
    assert readers.native_rate(header) == 250
    assert readers.file_and_row("a/exams.H5#12") == (Path("a/exams.H5"), 12)
    for name in ("a#1.csv", "a.csv#1", "ward#2/a.hea", "a.hdf5#x"):
        assert readers.file_and_row(name) == (Path(name), None)


def test_a_gain_that_is_set_right_leaves_all_else_of_a_record(tmp_path, rng):
    x = twelve(rng, 1000)
    write_mat(tmp_path, "a", x, "4880/mV", ["# Dx: 1"])
    header = tmp_path / "a.hea"
    lines = header.read_text().splitlines()
    lines[1] = lines[1].replace(lines[1].split()[6], "1", 1)  # a wrong checksum
    header.write_text("\n".join(lines) + "\n")
    record = readers.read(header, units_per_mv=1000)
    np.testing.assert_allclose(record.signal, np.round(1000 * x) / 1000, rtol=1e-6)
    assert record.comments == ["Dx: 1"]
    assert len(record.warnings) == 1


def test_a_csv_and_a_record_of_the_same_signal_are_equal(tmp_path, rng):
    x = np.round(twelve(rng, 2500), 3)
    write_record(tmp_path, "a", x, 250, TWELVE)
    rows = np.column_stack([np.arange(2500) / 250, x.T])
    np.savetxt(tmp_path / "b.csv", rows, delimiter=",", header="time," + ",".join(TWELVE), comments="", fmt="%.4f")
    a, b = readers.read(tmp_path / "a.hea"), readers.read(tmp_path / "b.csv")
    assert (a.fs, a.leads) == (b.fs, b.leads)
    np.testing.assert_allclose(a.signal, b.signal, atol=1e-6)


def test_numbered_leads_of_a_csv_without_times_are_found_by_number(tmp_path, rng):
    x = np.round(twelve(rng, 1000), 3)
    order = sorted(range(12), key=lambda n: f"lead{n + 1}")  # 1, 10, 11, 12, 2, ...
    heading = ",".join(f"lead{n + 1}" for n in order)
    (tmp_path / "raw").mkdir()
    np.savetxt(tmp_path / "raw/a.csv", x[order].T, delimiter=",", header=heading, comments="", fmt="%.3f")
    record = readers.read(tmp_path / "raw/a.csv", fs=250)
    assert (record.fs, tuple(record.leads)) == (250, tuple(TWELVE[n] for n in order))
    np.testing.assert_array_equal(record.signal, x[order].astype(np.float32))
    write_table(tmp_path / "raw/unified_label_mapping.csv", [["record", "label", "fold"], ["a", "x", "1"]])
    words = ["--data.split", "official", "--recipe.fs", "250", "--recipe.bandpass", "null"]
    words += ["--recipe.scale.kind", "none", "--recipe.dtype", "float32"]
    words += ["--data.arguments", '{"fs": 250, "units_per_mv": 2}']
    dataset = run("folder", tmp_path / "raw", tmp_path / "out", *words)
    assert dataset.valid.tolist() == [[0, 1000]]
    np.testing.assert_array_equal(dataset.signals(np.array([0]))[0, :, :1000], (x / 2).astype(np.float32))


def test_r_peaks_are_sought_in_ecg_leads_alone(demo_folder):
    import beats

    record = pqrst.read(min(demo_folder.glob("*.hea")), leads=["II", "V2"])
    expected = beats.detect(record)
    label = np.sin(2 * np.pi * 3 * np.arange(record.signal.shape[1]) / record.fs)[None] ** 9 * 50
    both = pqrst.Record(np.concatenate([record.signal, label]), record.fs, ["II", "V2", "RESP"])
    np.testing.assert_array_equal(beats.detect(both), expected)
    with pytest.raises(ValueError, match="no signal is an ECG lead: RESP, hr"):
        beats.detect(pqrst.Record(np.ones((2, 1000)), 100.0, ["RESP", "hr"], name="r"))


def test_names_of_leads_as_recordings_have_them():
    from recipe import ecg_leads

    ecg = "I II III aVR AVL avf V1 V6 v4r MLII MLI MLIII MV2 CM5 V ECG ECG1 ECG_3 ECG-2 ch1 X Y Z Vx vz D1 DII lead12 1"
    for name in [*ecg.split(), "ECG I", "Lead aVL", "ECG lead II", "-aVR", "ecg_ii", "record s, signal 0"]:
        assert ecg_leads([name]) == [True], name
    others = "label hr HR heart_rate SpO2 RESP ABP ART PLETH CVP GSR marker Event Fp2-F4 C4-A1 noise1 Accelerometer_X"
    for name in others.split():
        assert ecg_leads(["II", name]) == [True, False], name
