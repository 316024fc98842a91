"""Every file that the fuzzer starts from or has found, read from Python: values or the documented errors."""

from pathlib import Path

import numpy as np
import pytest

import pqrst

CORPUS = Path(__file__).parent / "corpus"
RECORDS = sorted((CORPUS / "records").iterdir())
ANNOTATIONS = sorted((CORPUS / "annotations").iterdir())


def name_of(path):
    return path.name


def attempt(call):
    """What `call` returns, None where it refuses; UnicodeError is a ValueError too, but none of ours."""
    try:
        return call()
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError, pqrst.FormatError)
        assert str(error)
        return None


@pytest.mark.parametrize("path", RECORDS, ids=name_of)
def test_record(path, tmp_path):
    # as fuzz/targets.cpp takes an input apart
    *headers, data = (path.read_bytes().split(b"\x1e", 3) + [b""] * 3)[:4]
    for name, content in zip("rst", headers):
        (tmp_path / f"{name}.hea").write_bytes(content)
    (tmp_path / "a.dat").write_bytes(data)
    (tmp_path / "b.dat").write_bytes(data[len(data) // 2 :])

    info = attempt(lambda: pqrst.header(tmp_path / "r"))
    record = attempt(lambda: pqrst.read(tmp_path / "r", max_samples=1 << 14))
    if record is None:
        return
    assert record.signal.shape == (len(record.leads), record.n_samples)
    assert info is None or info.n_samples == record.n_samples
    last = attempt(lambda: pqrst.read(tmp_path / "r", start=record.n_samples - 1, max_samples=1 << 14))
    np.testing.assert_array_equal(last.signal, record.signal[:, -1:])
    strict = attempt(lambda: pqrst.read(tmp_path / "r", strict=True, max_samples=1 << 14))
    assert (strict is None) == bool(record.warnings)


@pytest.mark.parametrize("path", ANNOTATIONS, ids=name_of)
def test_annotations(path, tmp_path):
    (tmp_path / "r.atr").write_bytes(path.read_bytes())
    found = attempt(lambda: pqrst.read_annotations(tmp_path / "r", "atr"))
    assert found is None or len(found) == len(found.symbol) == len(found.aux)


def test_a_record_name_is_at_most_as_long_as_a_file_name(tmp_path):
    (tmp_path / "a.dat").write_bytes(bytes(2))
    (tmp_path / "r.hea").write_text("n" * 255 + " 1 250\na.dat 16\n")
    assert pqrst.read(tmp_path / "r").leads == ("record " + "n" * 255 + ", signal 0",)
    (tmp_path / "r.hea").write_text("n" * 256 + " 1 250\na.dat 16\n")
    with pytest.raises(pqrst.FormatError, match="line 1: record name of 256 bytes: must be at most 255"):
        pqrst.read(tmp_path / "r")
