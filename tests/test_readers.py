"""Formats other than WFDB, and the corrections made while reading."""

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I,II\n1,2\n", r"no column time \(s\): its rate must be given"),
        ("time,lead1,lead2\n0,1,2\n1,1,2\n", "columns lead1, lead2; expected lead1 to lead12"),
        ("time,lead1,II\n0,1,2\n1,1,2\n", "expected lead1 to lead12, or lead names"),
        ("time,I\n0,1\n0,2\n", "does not rise"),
        ("time,I\n0,x\n1,y\n", "not a table of numbers"),
        ("time\n0\n1\n", "no columns besides time"),
        ("", "not a table"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_name(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(pqrst.FormatError, match=message) as caught:
        readers.read(tmp_path / "a.csv")
    assert "a.csv" in str(caught.value)


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
