"""Formats other than WFDB and tables, against independent readers, the formulas of specifications, or a writer."""

import base64
import datetime
import json
import re
import struct

import h5py
import numpy as np
import pytest
from layouts import TWELVE

import pqrst
import readers
from formats import mat5, scp

FS = 500.0


@pytest.fixture
def x(rng):
    """(12, 1000) whole microvolts that keep the laws of Einthoven and Goldberger."""
    signal = np.round(rng.normal(0, 300, (12, 1000))) * 2
    signal[2] = signal[1] - signal[0]
    signal[3] = -(signal[0] + signal[1]) / 2
    signal[4] = signal[0] - signal[1] / 2
    signal[5] = signal[1] - signal[0] / 2
    return signal


def mv(microvolts):
    return (microvolts / 1000).astype(np.float32)


def close(record, microvolts):
    np.testing.assert_allclose(record.signal, microvolts / 1000, rtol=1e-6, atol=1e-7)


# ------------------------------------------------------------------------------------------------ real samples


def sample(real_data, name):
    path = real_data / "formats" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


def test_edf_equals_an_independent_reader(real_data):
    pyedflib = pytest.importorskip("pyedflib")
    path = sample(real_data, "EDFmontage0.edf")
    record = readers.read(path)
    with pyedflib.EdfReader(str(path)) as file:
        labels = file.getSignalLabels()
        to_mv = {"uV": 1e-3, "mV": 1, "V": 1e3}
        for lead, values in zip(record.leads, record.signal):
            k = labels.index(lead)
            assert file.getSampleFrequency(k) == record.fs == 200
            expected = file.readSignal(k) * to_mv[file.getPhysicalDimension(k)]
            np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)
        others = [
            f"{name} ({file.getSampleFrequency(k):g} Hz)" for k, name in enumerate(labels) if name not in record.leads
        ]
        assert record.warnings == [f"{path}: leads of another rate or length are left out: {', '.join(others)}"]
    assert (len(record.leads), record.start_time) == (10, "14:27:00 02/10/2008")


def test_dicom_equals_the_formula_of_the_standard(real_data):
    pydicom = pytest.importorskip("pydicom")
    path = sample(real_data, "anonymous_ecg.dcm")
    record = readers.read(path)
    group = pydicom.dcmread(path).WaveformSequence[0]
    codes = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12).T
    close(record, codes * 1.25)
    assert (record.fs, record.n_samples, record.leads) == (1000, 10000, tuple(TWELVE))
    assert record.warnings == [f"{path}: other multiplex groups are left out: MEDIAN BEAT"]
    assert record.start_time == "10:59:19 25/01/2013"
    assert record.comments == ["read as 12 leads, 1000 Hz, uV"]


@pytest.mark.parametrize("name", ["aecg-subject1_0.xml", "ecg_hl7.xml"])
def test_aecg_equals_its_digits(real_data, name):
    path = sample(real_data, name)
    text = path.read_text()
    rhythm = text[: text.index("<derivation")] if "<derivation" in text else text
    found = re.findall(
        r'code="MDC_ECG_LEAD_(\w+)".*?<scale value="([\d.]+)" unit="uV".*?<digits>(.*?)</digits>', rhythm, re.S
    )
    expected = {lead: np.array(digits.split(), float) * float(scale) for lead, scale, digits in found}
    record = readers.read(path)
    assert (record.fs, list(record.leads), record.start_time) == (500, list(expected), "09:10:00 22/11/2002")
    close(record, np.stack(list(expected.values())))


def test_kardia_equals_its_blocks(real_data):
    for name, leads in (("1_lead.atc", TWELVE[:1]), ("6_lead.atc", TWELVE[:6])):
        path = sample(real_data, name)
        raw, record = path.read_bytes(), readers.read(path)
        assert (record.fs, list(record.leads)) == (300, list(leads))
        for k, values in enumerate(record.signal):
            at = raw.index(b"ecg" + (b" " if k == 0 else str(k + 1).encode()) + struct.pack("<I", 18000))
            codes = np.frombuffer(raw, "<i2", 9000, at + 8)
            np.testing.assert_allclose(values, codes * 500e-6, rtol=1e-6)
        # the codes of III are those of II - I to a unit or two
        if len(leads) == 6:
            np.testing.assert_allclose(record.signal[2], record.signal[1] - record.signal[0], atol=0.01)


def test_opensignals_equals_the_formula_of_the_sensor(real_data):
    path = sample(real_data, "opensignals-OSmontage1A.txt")
    record = readers.read(path)
    codes = np.loadtxt(path)[:, 6]  # A3, with the ECG sensor
    np.testing.assert_allclose(record.signal[0], (codes / 1024 - 0.5) * 3.3 / 1100 * 1000, rtol=1e-6, atol=1e-7)
    assert (record.fs, record.leads, record.units) == (100, ("ECG",), ("mV",))


def test_nothing_of_a_patient_is_kept(real_data):
    for path in sorted((real_data / "formats").glob("*")):
        try:
            record = readers.read(path)
        except ValueError:
            continue
        told = json.dumps([record.comments, record.warnings, record.start_time])
        assert not re.search(r"test file|Anonymous|642341|SBJ|19710123|cb7e7daa|788bfcc8", told), path


# ------------------------------------------------------------------------------------------------ EDF


def edf(path, signals, **more):
    edfio = pytest.importorskip("edfio")
    made = [
        edfio.EdfSignal(values, fs, label=name, physical_dimension=unit, physical_range=(-5000, 5000))
        for name, values, fs, unit in signals
    ]
    patient = edfio.Patient(code="X123", name="Jane_Doe", birthdate=datetime.date(1970, 1, 1))
    edfio.Edf(made, patient=patient, **more).write(path)
    return path


def test_the_ecg_leads_of_edf_are_read_at_their_rate(tmp_path, x):
    leads = [("ECG I", x[0], 500, "uV"), ("ECG II", x[1], 500, "uV"), ("RESP", x[2][:50], 25, "")]
    path = edf(tmp_path / "r.edf", leads)
    record = readers.read(path)
    np.testing.assert_allclose(record.signal, x[:2] / 1000, atol=1.01e-4)  # 10 mV in 16 bits
    assert (record.fs, record.leads, record.units) == (500, ("ECG I", "ECG II"), ("mV", "mV"))
    assert record.warnings == [f"{path}: signals that are no ECG leads are left out: RESP"]
    assert "Doe" not in str([record.comments, record.start_time]) and "X123" not in str(record.comments)
    assert readers.read(path, fs=250).fs == 250
    information = readers.info(path)
    assert information[:4] == (500, 1000, path.stat().st_size, False)
    assert information[4:] == ("EDF", ("ECG I", "ECG II"), ("mV", "mV"))


def test_an_edf_without_a_unit_needs_the_users_word(tmp_path, x):
    path = edf(tmp_path / "r.edf", [("I", x[0], 500, "")])
    with pytest.raises(
        pqrst.FormatError, match=r"voltage: I in no unit; tell it with --inference.units_per_mv 1000, or --data"
    ):
        readers.read(path)
    np.testing.assert_allclose(readers.read(path, units_per_mv=1000).signal, x[:1] / 1000, atol=1.01e-4)


def test_an_edf_whose_samples_are_cut_off_is_refused(tmp_path, x):
    path = edf(tmp_path / "r.edf", [("I", x[0], 500, "uV")])
    whole = path.read_bytes()
    path.write_bytes(whole[: 256 * 2 + 7])
    with pytest.raises(
        pqrst.FormatError, match=r"r.edf: (has no samples|not EDF or BDF that can be read|signal: has no)"
    ):
        readers.read(path)


def test_gaps_of_edf_are_nan(tmp_path, x):
    pytest.importorskip("edfio")
    path = edf(tmp_path / "r.edf", [("I", x[0], 500, "uV")], data_record_duration=0.5)
    raw = path.read_bytes()
    assert readers.read(path).n_samples == 1000
    from edfio import Edf, EdfAnnotation, EdfSignal

    made = Edf([EdfSignal(x[0], 500, label="I", physical_dimension="uV", physical_range=(-5000, 5000))],
               annotations=[EdfAnnotation(0, None, "start")], data_record_duration=0.5)  # fmt: skip
    made.write(path)
    raw = (
        path.read_bytes()
        .replace(b"EDF+C", b"EDF+D")
        .replace(b"+1\x14\x14", b"+3\x14\x14")
        .replace(b"+1.5\x14", b"+3.5\x14")
    )
    path.write_bytes(raw)
    record = readers.read(path)
    assert record.n_samples == 2000
    assert np.isnan(record.signal[0, 500:1500]).all() and np.isfinite(record.signal[0, [0, 499, 1500, 1999]]).all()
    np.testing.assert_allclose(record.signal[0, 1500:], x[0, 500:] / 1000, atol=1.01e-4)


# ------------------------------------------------------------------------------------------------ XML


def muse(signals, rate="500", exponent="0", extra=""):
    leads = "".join(
        f"<LeadData><LeadID>{name}</LeadID><LeadSampleCountTotal>{len(values)}</LeadSampleCountTotal>"
        "<LeadAmplitudeUnitsPerBit>2</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>"
        f"<WaveFormData>\n{base64.encodebytes((values / 2).astype('<i2').tobytes()).decode()}</WaveFormData></LeadData>"
        for name, values in signals
    )
    median = "<Waveform><WaveformType>Median</WaveformType><SampleBase>100</SampleBase></Waveform>"
    return (
        f'<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>{extra}'
        "<PatientDemographics><PatientLastName>Doe</PatientLastName></PatientDemographics><TestDemographics>"
        "<AcquisitionTime>10:20:30</AcquisitionTime><AcquisitionDate>01-02-2020</AcquisitionDate></TestDemographics>"
        f"{median}<Waveform><WaveformType>Rhythm</WaveformType><SampleBase>{rate}</SampleBase>"
        f"<SampleExponent>{exponent}</SampleExponent>{leads}</Waveform></RestingECG>"
    )


def test_muse_gives_twelve_leads_of_the_eight_that_are_stored(tmp_path, x):
    eight = [(TWELVE[k], x[k]) for k in (0, 1, *range(6, 12))]
    path = tmp_path / "r.xml"
    path.write_text(muse(eight))
    record = readers.read(path)
    assert (record.fs, record.leads, record.start_time) == (500, tuple(TWELVE), "10:20:30 01/02/2020")
    close(record, x)
    path.write_text(muse([*eight, ("III", x[2])], "5", "2"))
    record = readers.read(path)
    assert (record.fs, record.leads) == (500, ("I", "II", *TWELVE[6:], "III"))


PHILIPS = """<?xml version="1.0"?><restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo>
<documenttype>SierraECG</documenttype><documentversion>1.03</documentversion></documentinfo><patient><generalpatientdata>
<name><lastname>Doe</lastname></name></generalpatientdata></patient><dataacquisition><signalcharacteristics>
<samplingrate>500</samplingrate><resolution>5</resolution><numberchannelsallocated>12</numberchannelsallocated>
<acquisitiontype>STD-12</acquisitiontype></signalcharacteristics></dataacquisition><waveforms><parsedwaveforms
dataencoding="Base64" compressmethod="XLI" numberofleads="12" leadlabels="I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"
durationperchannel="2000">
{}</parsedwaveforms></waveforms></restingecgdata>"""


def xli(samples):
    """One lead as Philips compresses it: second differences, high bytes first, each byte a 10-bit code."""
    second = 2 * samples[1:-1] - samples[:-2] - samples[2:]
    codes = np.concatenate([samples[:2], second[1:] + 64, [64]]).astype(">i2").tobytes()
    packed = "".join(f"{byte:010b}" for byte in codes[::2] + codes[1::2])
    packed += "0" * (-len(packed) % 8)
    raw = bytes(int(packed[k : k + 8], 2) for k in range(0, len(packed), 8))
    return struct.pack("<ihh", len(raw), 0, second[0]) + raw


def test_philips_is_read_by_its_package(tmp_path, x):
    pytest.importorskip("sierraecg")
    codes = np.round(x[:, :200] / 80).astype(np.int64) * 2  # even, so that no half is rounded
    i, ii = codes[0], codes[1]
    codes[2] = ii - i
    codes[3], codes[4], codes[5] = -(i + ii) // 2, (i - codes[2]) // 2, (ii + codes[2]) // 2
    stored = codes.copy()  # the limb leads as what is left of their laws
    stored[2:6] = 0
    path = tmp_path / "r.xml"
    path.write_text(PHILIPS.format(base64.b64encode(b"".join(map(xli, stored))).decode()))
    record = readers.read(path)
    assert (record.fs, record.leads, record.units) == (500, tuple(TWELVE), ("mV",) * 12)
    close(record, 5.0 * codes)
    path.write_text(PHILIPS.format("").replace("XLI", "other"))
    with pytest.raises(pqrst.FormatError, match="has no waveform with XLI compression"):
        readers.read(path)


BOMB = '<!DOCTYPE x [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><RestingECG>&b;</RestingECG>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "not XML that is read: .*Entit"),
        (
            '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><RestingECG>&a;</RestingECG>',
            "not XML that is read: .*Entit",
        ),
        ("<RestingECG>", "not XML that is read"),
        ("", "not XML that is read"),
        ("<html></html>", "is XML with html at its root; what is read: AnnotatedECG"),
        ("<RestingECG/>", "has no rhythm waveform: it has none at all"),
        ("<AnnotatedECG/>", "has no series"),
        ("<AnnotatedECG><component><series/></component></AnnotatedECG>", "no signal is an ECG lead: there is none"),
        ("<restingecgdata/>", "has no waveform with XLI compression"),
        (muse([("I", np.zeros(9))], "x"), "is damaged: could not convert string to float: 'x'"),
        (muse([("I", np.zeros(9))], "2"), "2 Hz is no rate of an ECG"),
        (muse([("I", np.zeros(9))]).replace(">9<", ">900000000000<"), "lead I has 9 samples, expected 900000000000"),
        (muse([("I", np.zeros(9))]).replace("AAAA", "A?AA"), "is damaged: its Base64 is damaged"),
    ],
)
def test_hostile_and_damaged_xml_is_one_line(tmp_path, text, message):
    path = tmp_path / "r.xml"
    path.write_text(text)
    with pytest.raises(pqrst.FormatError, match=message) as caught:
        readers.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


# ------------------------------------------------------------------------------------------------ ISHNE, ATC


def ishne(x, rate=500, n_samples=None, n_leads=None):
    n = len(x)
    head = (
        struct.pack("<4ihh", 0, n_samples or x.shape[1], 522, 522, 1, 0)[:18]
        + b"Jane".ljust(40, b"\0")
        + b"Doe".ljust(40, b"\0")
    )
    head += b"X123".ljust(20, b"\0") + struct.pack("<hh3h3h3h3h", 1, 1, 1, 1, 1970, 5, 6, 2020, 7, 6, 2020, 10, 20, 30)
    head += (
        struct.pack("<h", n_leads or n) + struct.pack("<12h", *([5, 6] + [-9] * 10)) + struct.pack("<12h", *[0] * 12)
    )
    head += struct.pack("<12h", *([2000, 2000] + [0] * 10)) + struct.pack("<h40sh", 0, b"digital", rate)
    head = head.ljust(522 - 10, b"\0")
    return b"ISHNE1.0" + b"\0\0" + head + (x.T / 2).astype("<i2").tobytes()


def test_ishne_is_read_by_its_header(tmp_path, x):
    path = tmp_path / "r.ecg"
    path.write_bytes(ishne(x[:2]))
    record = readers.read(path)
    assert (record.fs, record.leads, record.start_time) == (500, ("I", "II"), "10:20:30 05/06/2020")
    close(record, x[:2])
    assert "Doe" not in str([record.comments, record.warnings])
    for content, message in (
        (ishne(x[:2])[:300], "not ISHNE"),
        (ishne(x[:2])[:-9], "has 997 samples for each lead, expected 1000"),
        (ishne(x[:2], n_samples=2**31 - 1), "has 1000 samples for each lead, expected 2147483647"),
        (ishne(x[:2], n_leads=-1), "is damaged: -1 leads"),
        (ishne(x[:2], rate=0), "does not tell its sampling rate"),
    ):
        path.write_bytes(content)
        with pytest.raises(pqrst.FormatError, match=message):
            readers.read(path)


def atc(x):
    def block(name, content):
        body = name + struct.pack("<I", len(content)) + content
        return body + struct.pack("<I", sum(body))

    content = block(b"info", b"2020-06-05T10:20:30".ljust(264, b"\0")) + block(
        b"fmt ", struct.pack("<BHHBH", 1, 300, 2000, 0, 0)
    )
    for k, values in enumerate(x):
        content += block(b"ecg " if k == 0 else f"ecg{k + 1}".encode(), (values / 2).astype("<i2").tobytes())
    return b"ALIVE\0\0\0" + struct.pack("<I", 3) + content


def test_damaged_kardia_files_are_refused(tmp_path, x):
    path = tmp_path / "r.atc"
    whole = atc(x[:3])
    path.write_bytes(whole)
    record = readers.read(path)
    close(record, x[:3])
    assert (record.fs, record.leads, record.start_time) == (300, ("I", "II", "III"), "10:20:30 05/06/2020")
    for content, message in (
        (whole[:-7], "block ecg3 at byte .* is cut off"),
        (whole[:400] + b"\x55" + whole[401:], "block ecg at byte .* is damaged: its sum is wrong"),
        (whole[:16] + b"\xff\xff\xff\xff" + whole[20:], "block info at byte 12 is cut off"),
        (whole[:12], "has no format or no lead; its blocks are none"),
        (b"PK" + whole, "not ATC"),
    ):
        path.write_bytes(content)
        with pytest.raises(pqrst.FormatError, match=message):
            readers.read(path)


# ------------------------------------------------------------------------------------------------ SCP-ECG


def scp_section(number, content):
    content += b"\0" * (len(content) % 2)
    return struct.pack("<HHIBB6x", 0, number, len(content) + 16, 20, 20) + content


def scp_file(sections):
    """A file with its pointers; sections 0 to 11 in order."""
    bodies = [scp_section(number, content) for number, content in sections.items()]
    size = 16 + 10 * (len(bodies) + 1)
    pointers, at = struct.pack("<HII", 0, size, 7), 6 + size
    for number, body in zip(sections, bodies):
        pointers += struct.pack("<HII", number, len(body), at + 1)
        at += len(body)
    content = scp_section(0, pointers) + b"".join(bodies)
    return struct.pack("<HI", 0, len(content) + 6) + content


def scp_leads(numbers, n, flags=4):
    return struct.pack("<BB", len(numbers), flags) + b"".join(struct.pack("<IIB", 1, n, number) for number in numbers)


def huffman(values):
    """The default table's bits of integers, written from the standard."""
    bits = ""
    for value in values:
        if value == 0:
            bits += "0"
        elif abs(value) <= 8:
            bits += "1" * abs(value) + "0" + ("1" if value < 0 else "0")
        elif -128 <= value < 128:
            bits += "1" * 9 + "0" + f"{value & 0xFF:08b}"
        else:
            bits += "1" * 10 + f"{value & 0xFFFF:016b}"
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[k : k + 8], 2) for k in range(0, len(bits), 8))


def differences(codes, order):
    if order == 0:
        return codes
    return np.concatenate([codes[:order], np.diff(codes, order)])


def scp_rhythm(codes, order=0, bimodal=0, packed=True):
    data = [huffman(differences(row, order)) if packed else row.astype("<i2").tobytes() for row in codes]
    head = struct.pack("<HHBB", 2000, 2000, order, bimodal) + struct.pack(f"<{len(data)}H", *map(len, data))
    return head + b"".join(data)


TAGS = (
    struct.pack("<BH", 1, 4)
    + b"Doe\0"
    + struct.pack("<BHHBB", 25, 4, 2020, 5, 6)
    + struct.pack("<BHBBB", 26, 3, 10, 20, 30)
    + b"\xff\0\0"
)
EIGHT = (1, 2, 3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("table", ["default", "own", "none"])
def test_scp_is_decoded_whatever_its_code(tmp_path, x, order, table):
    codes = (x[[0, 1, *range(6, 12)]] / 2).astype(np.int64)
    sections = {1: TAGS, 3: scp_leads(EIGHT, 1000)}
    if table == "default":
        sections[2] = struct.pack("<H", 19999)
    if table == "own":  # the default table, spelled out: 0, then each size with its sign, then 8 and 16 bits
        rows = [(1, 1, 1, 0, 0)]
        for size in range(1, 9):
            ones = (1 << size) - 1  # the first bit is the lowest
            rows += [(size + 2, size + 2, 1, size, ones), (size + 2, size + 2, 1, -size, ones | 1 << (size + 1))]
        rows += [(10, 18, 1, 0, (1 << 9) - 1), (10, 26, 1, 0, (1 << 10) - 1)]
        sections[2] = struct.pack("<HH", 1, len(rows)) + b"".join(struct.pack("<BBBhI", *row) for row in rows)
    sections[6] = scp_rhythm(codes, order, packed=table != "none")
    if table == "none" and order:
        sections[6] = struct.pack("<HHBB", 2000, 2000, order, 0) + struct.pack("<8H", *[2000] * 8)
        sections[6] += b"".join(differences(row, order).astype("<i2").tobytes() for row in codes)
    path = tmp_path / "r.scp"
    path.write_bytes(scp_file(dict(sorted(sections.items()))))
    record = readers.read(path)
    assert (record.fs, record.leads, record.start_time) == (500, tuple(TWELVE), "10:20:30 06/05/2020")
    close(record, x)
    assert "Doe" not in str([record.comments, record.warnings])


def test_the_reference_beat_of_scp_is_added_again(tmp_path, rng):
    beat = np.round(300 * np.exp(-0.5 * ((np.arange(200) - 80) / 6) ** 2)).astype(np.int64)
    rhythm = rng.integers(-20, 20, (1, 1000))
    centers = [100, 500, 940]
    full = rhythm.copy()
    for center in centers:
        t = np.arange(center - 80, min(center + 120, 1000))
        full[0, t] += beat[t - center + 80]
    table = struct.pack("<HHH", 400, 81, 4)
    table += b"".join(struct.pack("<HIII", 0, c - 80 + 1, c + 1, min(c + 119, 999) + 1) for c in centers)
    table += struct.pack("<HIII", 1, 1, 300, 400)  # a beat of another type keeps its samples
    beats = struct.pack("<HHBB", 1000, 2000, 1, 0) + struct.pack("<H", len(huffman(differences(2 * beat, 1))))
    sections = {
        2: struct.pack("<H", 19999),
        3: scp_leads((2,), 1000, 5),
        4: table,
        5: beats + huffman(differences(2 * beat, 1)),
    }
    path = tmp_path / "r.scp"
    path.write_bytes(scp_file({**sections, 6: scp_rhythm(rhythm)}))
    np.testing.assert_allclose(readers.read(path).signal, 0.002 * full, rtol=1e-6, atol=1e-7)


def test_scp_that_is_damaged_or_keeps_less_is_refused(tmp_path, x, real_data):
    codes = (x[:2] / 2).astype(np.int64)
    good = {2: struct.pack("<H", 19999), 3: scp_leads((1, 2), 1000), 6: scp_rhythm(codes)}
    whole = scp_file(good)
    path = tmp_path / "r.scp"
    for content, message in (
        (scp_file({**good, 6: scp_rhythm(codes, bimodal=1)}), "has bimodal compression"),
        (scp_file({**good, 3: scp_leads((1, 2), 9000)}), "SCP-ECG sections are damaged: .*"),
        (scp_file({**good, 3: scp_leads((1, 2), 2**31)}), "SCP-ECG sections are damaged: a lead of 2147483648 samples"),
        (scp_file({**good, 2: struct.pack("<H", 500)}), "500 Huffman tables in 2 bytes"),
        (scp_file({3: good[3]}), "has no rhythm: its sections are 3"),
        (scp_file({**good, 3: scp_leads((1, 2), 1000, 5)}), "has a reference beat subtracted, and no section 4 and 5"),
        (whole[:-50], "section 6 is cut off"),
        (whole[:20], "not SCP-ECG"),
        (b"\xff" * 100, "not SCP-ECG"),
    ):
        path.write_bytes(content)
        with pytest.raises(pqrst.FormatError, match=message):
            readers.read(path)
    with pytest.raises(pqrst.FormatError, match="62.SCP: its SCP-ECG sections are damaged: 3 leads in a section of 12"):
        readers.read(sample(real_data, "62.SCP"))


def test_the_default_table_of_scp_is_complete():
    share = sum(2.0 ** -len(prefix) for prefix in scp.default_table())
    assert share == 1


# ------------------------------------------------------------------------------------------------ MATLAB


def test_a_mat_file_says_rate_leads_and_unit_or_the_user_does(tmp_path, x):
    from scipy.io import savemat

    path = tmp_path / "mine.mat"
    savemat(path, {"ecg": x[0][:, None] / 1000})
    with pytest.raises(pqrst.FormatError, match="does not tell its sampling rate"):
        readers.read(path)
    for fs in (250, 1000):
        record = readers.read(path, fs=fs)
        assert (record.fs, record.leads) == (fs, ("ECG",))
    close(record, x[:1])
    assert record.comments == ["read as 1 lead, 1000 Hz as asked, mV, as no unit is given"]
    names = np.array(["I", "II"], dtype=object)
    for rows in (x[:2], x[:2].T):
        savemat(path, {"data": rows, "Fs": 360, "lead_names": names, "units": "uV", "age": 77})
        record = readers.read(path)
        assert (record.fs, record.leads) == (360, ("I", "II"))
        close(record, x[:2])
        assert record.comments == ["read as 2 leads, 360 Hz from variable fs, uV"]
    assert readers.read(path, fs=100).fs == 100
    savemat(path, {"val": (x[:3]).astype(np.int16)})
    record = readers.read(path, units_per_mv=1000, fs=500)
    assert record.leads == ("1", "2", "3")
    close(record, x[:3])


def test_mat_v73_is_hdf5_with_its_axes_turned(tmp_path, x):
    path = tmp_path / "r.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["ecg"] = (x[:2] / 1000).T  # MATLAB's (2, n)
        file["fs"] = np.array([[250.0]])
        unit = file.create_dataset("units", data=np.array([[ord("m")], [ord("V")]], np.uint16))
        unit.attrs["MATLAB_class"] = np.bytes_("char")
    raw = bytearray(path.read_bytes())
    raw[:19] = b"MATLAB 7.3 MAT-file"
    path.write_bytes(raw)
    record = readers.read(path)
    assert (record.fs, record.leads) == (250, ("1", "2"))
    close(record, x[:2])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"age": 5}, "has no variable that is known for a signal, such as ecg or data: age"),
        ({"a": np.zeros(9), "b": np.zeros(9)}, "such as ecg or data: a, b"),
        ({"ecg": np.zeros((3, 4, 5))}, "such as ecg or data"),
        ({"ecg": np.zeros((2, 9)), "leads": "I"}, r"ecg has the shape \(2, 9\), expected 1 leads"),
    ],
)
def test_a_mat_file_without_one_signal_is_refused(tmp_path, variables, message):
    from scipy.io import savemat

    savemat(tmp_path / "r.mat", variables)
    with pytest.raises(pqrst.FormatError, match=message):
        readers.read(tmp_path / "r.mat", fs=500)


def test_variables_of_mat_files_equal_those_of_scipy(tmp_path, rng):
    from scipy.io import loadmat, savemat

    path = tmp_path / "r.mat"
    kinds = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    content = {f"v_{kind}": rng.integers(0, 100, (3, 5)).astype(kind) for kind in kinds}
    content |= {
        "one": 7.5,
        "text": "mV",
        "rows": np.array(["I", "aVR"]),
        "empty": np.zeros((0, 3)),
        "cube": np.zeros((2, 3, 4)),
    }
    content |= {
        "cells": np.array(["I", "II", 5.0], dtype=object),
        "inner": {"data": np.eye(4), "sex": "Male", "deep": {"a": 1}},
    }
    for compressed in (False, True):
        savemat(path, content, do_compression=compressed)
        found, expected = mat5.variables(path), loadmat(path, squeeze_me=True)
        assert list(found) == [name for name in expected if not name.startswith("__")]
        for name in [f"v_{kind}" for kind in kinds] + ["one", "cube"]:
            np.testing.assert_array_equal(found[name], expected[name])
        assert found["empty"].size == 0
        assert (found["text"], found["rows"]) == ("mV", ["I", "aVR"])
        assert [str(cell) for cell in found["cells"]] == ["I", "II", "5.0"]
        np.testing.assert_array_equal(found["inner"]["data"], np.eye(4))
        assert (found["inner"]["sex"], found["inner"]["deep"]["a"]) == ("Male", 1)
    for kind in ("f8", "f4", "i4", "i2", "u2", "u1"):
        savemat(path, {"ecg": content[f"v_{kind}"], "name": "II"}, format="4")
        found = mat5.variables(path)
        np.testing.assert_array_equal(found["ecg"], content[f"v_{kind}"])
        assert found["name"] == "II"


def test_a_small_mat_file_does_not_fill_the_memory(tmp_path, monkeypatch):
    from scipy.io import savemat

    monkeypatch.setattr(mat5, "MOST_BYTES", 1_000_000)
    savemat(tmp_path / "r.mat", {"ecg": np.zeros((1, 500_000))}, do_compression=True)
    assert (tmp_path / "r.mat").stat().st_size < 10_000
    with pytest.raises(pqrst.FormatError, match="a variable has more than 1000000 bytes"):
        readers.read(tmp_path / "r.mat", fs=500)


def test_a_mat_file_that_claims_to_be_huge_is_refused(tmp_path):
    from scipy.io import savemat

    path = tmp_path / "r.mat"
    savemat(path, {"ecg": np.zeros((1, 7))}, do_compression=False)
    raw = path.read_bytes()
    shape = struct.pack("<ii", 1, 7)
    assert raw.count(shape) == 1
    path.write_bytes(raw.replace(shape, struct.pack("<ii", 2**15, 2**30)))
    with pytest.raises(pqrst.FormatError, match=r"a variable has the shape .*, too large for a recording"):
        readers.read(path, fs=500)
    path.write_bytes(raw[:150])
    with pytest.raises(pqrst.FormatError, match="not a MATLAB file that can be read"):
        readers.read(path, fs=500)


# ------------------------------------------------------------------------------------------------ the choice


def test_a_file_is_known_by_its_suffix_and_else_by_its_first_bytes(tmp_path, x):
    for name, content, leads in (
        ("a", ishne(x[:2]), ("I", "II")),
        ("b.bin", atc(x[:1]), ("I",)),
        ("c.ATC", atc(x[:1]), ("I",)),
        ("d.dat", ishne(x[:2]), ("I", "II")),
        ("e.XML", muse([("V9", x[0])]).encode(), ("V9",)),
        ("f", muse([("V9", x[0])]).encode(), ("V9",)),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert readers.read(path).leads == leads
    (tmp_path / "g.dat").write_bytes(b"\1\2\3\4")
    with pytest.raises(
        pqrst.FormatError, match="g.dat: is read by the header of its WFDB record, and g.hea does not name it"
    ):
        readers.read(tmp_path / "g.dat")
    (tmp_path / "h.xyz").write_bytes(b"\1\2\3\4")
    with pytest.raises(pqrst.FormatError, match=r"h.xyz: is of no format that is read: WFDB and .csv, .*.atc"):
        readers.read(tmp_path / "h.xyz")
    for name in ("no.edf", "no.csv", "no.xyz", "no"):
        with pytest.raises(FileNotFoundError):
            readers.read(tmp_path / name)


def test_a_signal_file_beside_its_header_is_the_record(tmp_path):
    codes = np.arange(24, dtype="<i2") * 10
    (tmp_path / "a1.mat").write_bytes(b"\0" * 24 + codes.tobytes())
    lines = [f"a1.mat 16+24 1000/mV 16 0 0 0 0 {lead}\n" for lead in ("II", "V5")]
    (tmp_path / "a1.hea").write_text("a1 2 500 12\n" + "".join(lines))
    (tmp_path / "a1.csv").write_text("time,II\n0,7\n0.004,7\n0.008,7\n")
    expected = (codes.reshape(-1, 2).T / 1000).astype(np.float32)
    for name in ("a1.hea", "a1", "a1.mat"):
        record = readers.read(tmp_path / name)
        assert record.leads == ("II", "V5")
        np.testing.assert_array_equal(record.signal, expected)
        assert readers.info(tmp_path / name).format == "WFDB"
    assert readers.read(tmp_path / "a1.csv").signal.tolist() == [[7, 7, 7]]
    record = readers.read(tmp_path / "a1.hea", fs=250)
    assert (record.fs, record.n_samples) == (250, 12)
    assert readers.info(tmp_path / "a1.hea", fs=250)[:4] == (250, 12, readers.info(tmp_path / "a1.hea").n_bytes, False)
    (tmp_path / "a1.hea").write_text("a1 2 5 12\n" + "".join(lines))
    for act in (readers.read, readers.info):
        with pytest.raises(pqrst.FormatError, match="5 Hz is no rate of an ECG; tell it with --inference.fs 500"):
            act(tmp_path / "a1")
    assert readers.read(tmp_path / "a1", fs=500).fs == 500


def test_a_header_may_have_its_suffix_in_capitals(tmp_path):
    (tmp_path / "r.dat").write_bytes(np.arange(500, dtype="<i2").tobytes())
    (tmp_path / "R.HEA").write_text("R 1 250 500\nr.dat 16 1000/mV 16 0 0 0 0 I\n")
    assert readers.below(tmp_path) == [tmp_path / "R.HEA"]
    assert readers.read(tmp_path / "R.HEA").n_samples == readers.info(tmp_path / "R.HEA").n_samples == 500


def test_the_ecg_leads_of_a_record_are_read_at_their_own_rate(tmp_path):
    codes = np.arange(24, dtype="<i2")
    (tmp_path / "r.dat").write_bytes(codes.tobytes())
    lines = [
        "r.dat 16x4 1000/mV 16 0 0 0 0 II\n",
        "r.dat 16 1000/mV 16 0 0 0 0 RESP\n",
        "r.dat 16 1/bpm 16 0 0 0 0 HR\n",
    ]
    (tmp_path / "r.hea").write_text("r 3 125 4\n" + "".join(lines))
    record = readers.read(tmp_path / "r")
    assert (record.fs, record.leads, record.n_samples) == (500, ("II",), 16)
    expected = codes.reshape(4, 6)[:, :4].ravel() / 1000
    np.testing.assert_array_equal(record.signal[0], expected.astype(np.float32))
    assert record.warnings == [f"{tmp_path}/r.hea: leads of another rate are left out: RESP, HR"]
    information = readers.info(tmp_path / "r.hea")
    assert information[:2] == (500, 16) and not information.native
    import wfdb

    wfdb.wrann("r", "atr", np.array([1, 3]), ["N", "N"], fs=125, write_dir=str(tmp_path))
    assert readers.read_annotations(tmp_path / "r", "atr").sample.tolist() == [4, 12]


def test_a_folder_lists_what_can_be_read(tmp_path, x):
    (tmp_path / "deep").mkdir()
    for name in ("a.ecg", "b.EDF", "c.dcm", "deep/d.atc", "e.csv", "records.csv", "g.pdf"):
        (tmp_path / name).write_bytes(b"1,2\n")
    (tmp_path / "README.txt").write_text("Some words.\nOf no table.\n")
    (tmp_path / "f.txt").write_text("time I\n0 1\n0.004 2\n0.008 3\n")
    (tmp_path / "h.xml").write_text(muse([("I", x[0])]))
    (tmp_path / "i.xml").write_text("<svg/>")
    found = [path.relative_to(tmp_path).as_posix() for path in readers.below(tmp_path, recursive=True)]
    assert found == ["a.ecg", "b.EDF", "c.dcm", "deep/d.atc", "e.csv", "f.txt", "h.xml"]


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "edfio", None)
    (tmp_path / "r.edf").write_bytes(b"0       ")
    with pytest.raises(
        pqrst.FormatError, match=r'EDF needs edfio, which is not installed: pip install -e ".\[formats\]"'
    ):
        readers.read(tmp_path / "r.edf")
