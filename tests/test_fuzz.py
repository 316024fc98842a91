"""Damaged files of every format: whatever the bytes are, they are read, or refused in one line that names the file.

PQRST_FUZZ_EXAMPLES=20000 pytest tests/test_fuzz.py    # a longer search
"""

import base64
import io
import os
import struct

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_formats import PHILIPS, atc, ishne, muse, scp_file, scp_leads, scp_rhythm, xli

import readers

X = np.round(200 * np.sin(np.arange(120) / 5)) * 2
EXAMPLES = int(os.environ.get("PQRST_FUZZ_EXAMPLES", 40))
MOST_SAMPLES = 1_000_000  # no small file makes a large record


def edf():
    edfio = pytest.importorskip("edfio")
    buffer = io.BytesIO()
    signals = [edfio.EdfSignal(X, 120, label=name, physical_dimension="uV") for name in ("I", "II")]
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(0, None, "x")]).write(buffer)
    return buffer.getvalue()


def dicom():
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    source, unit, channel, group, content = (Dataset() for _ in range(5))
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = "2:1", "MDC", "Lead I"
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
    channel.ChannelSourceSequence, channel.ChannelSensitivityUnitsSequence = [source], [unit]
    channel.ChannelSensitivity, channel.ChannelBaseline = "2", "0"
    channel.WaveformBitsStored = 16
    group.ChannelDefinitionSequence, group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = (
        [channel],
        1,
        len(X),
    )
    group.SamplingFrequency, group.WaveformBitsAllocated, group.WaveformSampleInterpretation = "500", 16, "SS"
    group.WaveformOriginality, group.WaveformData = "ORIGINAL", (X / 2).astype("<i2").tobytes()
    content.WaveformSequence, content.Modality = [group], "ECG"
    content.SOPClassUID, content.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.3"
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, content, enforce_file_format=True)
    return buffer.getvalue()


def mat():
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, {"data": np.stack([X, X]), "fs": 500, "leads": np.array(["I", "II"], dtype=object), "units": "uV"})
    return buffer.getvalue()


def hdf5(**variables):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in variables.items():
            file[name] = values
    return buffer.getvalue()


def aecg():
    lead = '<component><sequence><code code="MDC_ECG_LEAD_I"/><value><origin value="0" unit="uV"/>'
    lead += f"<scale value='2' unit='uV'/><digits>{' '.join(f'{value:g}' for value in X / 2)}</digits>"
    lead += "</value></sequence></component>"
    clock = '<component><sequence><code code="TIME_ABSOLUTE"/><value><head value="20200102030405"/>'
    clock += '<increment value="0.002" unit="s"/></value></sequence></component>'
    inside = f"<component><sequenceSet>{clock}{lead}</sequenceSet></component>"
    return f"<AnnotatedECG><component><series>{inside}</series></component></AnnotatedECG>".encode()


def opensignals():
    head = '{"a": {"sensor": ["ECGBIT"], "column": ["nSeq", "A1"], "sampling rate": 100, "resolution": [4, 10]}}'
    rows = "\n".join(f"{k % 16}\t{int(500 + value)}\t" for k, value in enumerate(X / 4))
    return f"# OpenSignals Text File Format\n# {head}\n# EndOfHeader\n{rows}\n".encode()


def philips():
    leads = b"".join(xli(np.round(X / 40).astype(np.int64)) for _ in range(12))
    return PHILIPS.format(base64.b64encode(leads).decode()).encode()


def table():
    return b"time,I,II\n" + b"".join(b"%.3f,%.2f,%.2f\n" % (k / 250, value, -value) for k, value in enumerate(X / 100))


FILES = {
    "a.csv": table, "a.edf": edf, "a.dcm": dicom, "a.mat": mat, "b.mat": lambda: hdf5(ecg=X[:, None], fs=[[500.0]]),
    "a.hdf5#0": lambda: hdf5(tracings=np.ones((2, 120, 12), np.float32)), "a.xml": lambda: muse([("I", X)]).encode(),
    "b.xml": aecg, "c.xml": philips, "a.ecg": lambda: ishne(np.stack([X, X])), "a.atc": lambda: atc([X]),
    "a.scp": lambda: scp_file({2: struct.pack("<H", 19999), 3: scp_leads((1, 2), 120),
                               6: scp_rhythm(np.stack([X, X]).astype(np.int64), 1)}),
    "a.txt": opensignals,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_whole_file_is_read(tmp_path, name):
    (tmp_path / name.partition("#")[0]).write_bytes(FILES[name]())
    record = readers.read(tmp_path / name)
    assert record.signal.shape[1] >= 100 and record.fs >= 100


changes = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert", "drop"]), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=6,
)


@pytest.mark.filterwarnings("ignore")  # of the libraries, about what is damaged
@pytest.mark.parametrize("name", FILES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=changes, fs=st.sampled_from([None, 500.0]))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, name, changes, fs):
    content = FILES[name]()
    for kind, place, some in changes:
        at = int(place * len(content))
        if kind == "set":
            content = content[:at] + some + content[at + len(some) :]
        elif kind == "cut":
            content = content[: max(at, 1)]
        elif kind == "insert":
            content = content[:at] + some + content[at:]
        else:
            content = content[:at] + content[at + len(some) :]
    path = tmp_path_factory.mktemp("fuzz") / name
    path.with_name(name.partition("#")[0]).write_bytes(content)
    try:
        record = readers.read(path, fs=fs)
    except ValueError as error:
        assert path.name.partition("#")[0] in str(error)
    else:
        assert record.signal.size < MOST_SAMPLES
