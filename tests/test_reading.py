"""WFDB records, headers and annotations against the wfdb package, small independent encoders, and damaged files."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from conftest import write_record
from hypothesis import given, settings
from hypothesis import strategies as st

import pqrst

TO_MV = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "nv": 1e-6}
INVALID = {
    16: -(2**15), 61: -(2**15), 160: -(2**15), 24: -(2**23), 32: -(2**31), 80: -(2**7), 212: -(2**11), 310: -(2**9),
    311: -(2**9),
}  # fmt: skip
FORMATS = [8, *INVALID]


def same(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


# ------------------------------------------------------------------------------------------- real recordings

FOLDERS = [
    "cinc2017", "cinc2020", "cinc2021", "code-15", "cpsc2019-wfdb", "cpsc2021", "ludb", "mitdb", "nstdb", "ptb-xl",
    "ptb-xl-2k", "svdb", "wfdb-formats",
]  # fmt: skip

# wfdb averages the code of a missing sample into its frame as if it were an amplitude; the WFDB library (meansamp,
# rgetvec) makes a frame with a missing sample a missing frame.
INVALID_IN_FRAME = "a frame holds the code of a missing sample: NaN, where wfdb averages the code"
DEPARTURES = {
    "wfdb-formats/multi-segment/041s/041s02.hea": INVALID_IN_FRAME,
    "wfdb-formats/multi-segment/041s/041s.hea": INVALID_IN_FRAME,
}

# What wfdb refuses, or reads and pqrst refuses: the shape that pqrst gives, or its error. Data files that are not there
# are FileNotFoundError in both.
FORMATS_DIR = "wfdb-formats/"
WFDB_DIFFERS = {
    # format 0: nothing is stored, so all samples are invalid; wfdb has "invalid syntax in signal line"
    FORMATS_DIR + "headers-only/null.hea": (2, 1800),
    # absolute paths are never opened
    FORMATS_DIR + "headers-only/6144d.hea": (pqrst.FormatError, "'/dev/rmt0' refused"),
    FORMATS_DIR + "headers-only/ahatape.hea": (pqrst.FormatError, "'/dev/nrmt0' refused"),
    FORMATS_DIR + "flac_3_constant.hea": (pqrst.FormatError, r"format 508 \(FLAC\)"),
    # a layout segment has no samples of its own
    FORMATS_DIR + "multi-segment/p000878/3269321_layout.hea": (pqrst.FormatError, "has no samples"),
}  # fmt: skip
MISSING_DATA = {
    FORMATS_DIR + name + ".hea": missing
    for name, missing in {
        "1003": "1003.dat", "237s/237s": "missing.hea", "drive02": "drive02.dat", "drive02-no-len": "drive02.dat",
        "headers-only/16": "-", "headers-only/16l": "data0", "headers-only/16x3": "-", "headers-only/8": "-",
        "headers-only/8l": "data0", "headers-only/S0003": "S0003.mat", "n16": "n16.dat",
        "multi-segment/p000878/p000878-2137-10-26-16-57": "3269321_0003.hea",
        "n8_evoked_raw_95_F1_R9": "n8_evoked_raw_95_F1_R9.dat", "wave_4": "wave_4.dat",
    }.items()
}  # fmt: skip


def reference(record, units=None):
    """The physical values of wfdb (T, L), voltages to mV in float64, rounded once: (L, T) float32."""
    factors = np.array([TO_MV.get(unit.lower(), 1.0) for unit in units or record.units])
    return (record.p_signal * factors).astype(np.float32).T


def read_with_wfdb(path, tmp_path):
    """wfdb refuses a record name with an extension (Georgia 2020, `E00001.mat 12 500 ...`): a copy goes without."""
    header = path.read_bytes()
    if not header.startswith(f"{path.stem}.mat ".encode()):
        return wfdb.rdrecord(str(path.with_suffix("")))
    shutil.copy(path.with_suffix(".mat"), tmp_path)
    (tmp_path / path.name).write_bytes(header.replace(f"{path.stem}.mat".encode(), path.stem.encode(), 1))
    return wfdb.rdrecord(str(tmp_path / path.stem))


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_real_record_equals_wfdb_value_for_value(real_data, tmp_path, folder):
    paths = sorted((real_data / folder).rglob("*.hea"))
    if not paths:
        pytest.skip(f"no records in {real_data / folder}")
    for path in paths:
        key = path.relative_to(real_data).as_posix()
        if key in WFDB_DIFFERS or key in MISSING_DATA:
            continue  # the tests below
        expected = read_with_wfdb(path, tmp_path)
        record = pqrst.read(path, frames="mean")
        values = reference(expected)
        if key in DEPARTURES:
            differ = ~((values == record.signal) | (np.isnan(values) & np.isnan(record.signal)))
            assert differ.any(), f"{key}: no longer departs"
            assert np.isnan(record.signal[differ]).all(), key
            values[differ] = np.nan
        assert same(record.signal, values), key
        assert record.fs == expected.fs, key
        assert list(record.leads) == expected.sig_name, key
        assert record.n_samples == expected.sig_len, key
        assert record.comments == expected.comments, key
        assert record.warnings == [], key
        units = ["mV" if unit.lower() in TO_MV else unit for unit in expected.units]
        assert list(record.units) == units, key
        header, record = pqrst.header(path), pqrst.read(path)
        assert (header.fs, header.leads, header.units) == (record.fs, record.leads, record.units), key
        assert (header.n_samples, header.comments, header.start_time) == (
            record.n_samples, record.comments, record.start_time,
        ), key  # fmt: skip


def test_no_folder_of_real_records_is_left_out(real_data):
    folders = {path.relative_to(real_data).parts[0] for path in real_data.rglob("*.hea")}
    assert folders <= set(FOLDERS)


@pytest.mark.parametrize("key", WFDB_DIFFERS)
def test_records_that_wfdb_refuses_are_read_or_named(real_data, key):
    if not (real_data / key).exists():
        pytest.skip(f"no {key}")
    expected = WFDB_DIFFERS[key]
    if isinstance(expected[0], int):
        assert pqrst.read(real_data / key).signal.shape == expected
    else:
        with pytest.raises(expected[0], match=expected[1]):
            pqrst.read(real_data / key)


@pytest.mark.parametrize("key", MISSING_DATA)
def test_headers_without_data_name_the_file_that_is_missing(real_data, key):
    if not (real_data / key).exists():
        pytest.skip(f"no {key}")
    with pytest.raises(FileNotFoundError, match=MISSING_DATA[key]) as error:
        pqrst.read(real_data / key)
    assert Path(key).name in str(error.value)
    pqrst.header(real_data / key)  # the header alone can be read


def test_frames_with_a_missing_sample_are_the_only_departure(real_data):
    path = real_data / "wfdb-formats/multi-segment/041s/041s02"
    if not path.with_suffix(".hea").exists():
        pytest.skip("no 041s")
    stored = wfdb.rdrecord(str(path), physical=False, smooth_frames=False).e_d_signal[1].reshape(-1, 4)
    assert np.array_equal(np.isnan(pqrst.read(path).signal[1]), (stored == -2048).any(axis=1))


def test_segments_that_are_there_are_read_without_those_that_are_not(real_data):
    path = real_data / "wfdb-formats/multi-segment/p000878/p000878-2137-10-26-16-57"
    if not path.with_suffix(".hea").exists():
        pytest.skip("no p000878")
    record = pqrst.read(path, stop=7500)
    assert record.leads == ("PLETH", "II", "V", "ABP")
    assert record.units == ("NU", "mV", "mV", "mmHg")
    assert record.n_samples == 52725000
    assert np.isnan(record.signal[:, :3750]).all()  # the gap
    assert np.isnan(record.signal[2:]).all()  # leads of no segment
    expected = wfdb.rdrecord(str(path), sampfrom=0, sampto=7500)
    assert [expected.sig_name.index(lead) for lead in record.leads] == [0, 1, 2, 3]
    assert same(record.signal, reference(expected, record.units))


def test_every_real_annotation_file_equals_wfdb(real_data):
    ludb = ["i", "ii", "iii", "avr", "avl", "avf", *[f"v{k}" for k in range(1, 7)]]
    n_files = 0
    for path in sorted(real_data.rglob("*")):
        extension = path.suffix[1:]
        if extension not in ["atr", *ludb] or not path.is_file():
            continue
        expected = wfdb.rdann(str(path.with_suffix("")), extension)
        found = pqrst.read_annotations(path.with_suffix(""), extension)
        assert found.sample.dtype == np.int64
        for name in ("sample", "subtype", "chan", "num"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), (path, name)
        assert found.symbol == expected.symbol, path
        assert found.aux == [note.rstrip("\0") for note in expected.aux_note], path
        n_files += 1
    if n_files == 0:
        pytest.skip("no annotation files")


# ------------------------------------------------------------------------------------------- encoders


def encode(fmt, codes):
    """Signal file bytes of flat codes, written from signal(5) alone."""
    codes = [int(code) for code in codes]
    if fmt in (8, 16, 24, 32):
        return b"".join(code.to_bytes(fmt // 8, "little", signed=True) for code in codes)
    if fmt == 61:
        return b"".join(code.to_bytes(2, "big", signed=True) for code in codes)
    if fmt == 80:
        return bytes(code + 128 for code in codes)
    if fmt == 160:
        return b"".join((code + 32768).to_bytes(2, "little") for code in codes)
    out = b""
    if fmt == 212:
        for k in range(0, len(codes), 2):
            pair = [code & 0xFFF for code in codes[k : k + 2]]
            if len(pair) == 1:
                out += pair[0].to_bytes(2, "little")
            else:
                out += bytes([pair[0] & 0xFF, pair[0] >> 8 | pair[1] >> 8 << 4, pair[1] & 0xFF])
        return out
    for k in range(0, len(codes), 3):
        group = [code & 0x3FF for code in codes[k : k + 3]]
        n_bytes = {1: 2, 2: 4 if fmt == 310 else 3, 3: 4}[len(group)]
        a, b, c = group + [0] * (3 - len(group))
        word_310 = (a << 1 | (c & 31) << 11) | (b << 1 | c >> 5 << 11) << 16
        word_311 = a | b << 10 | c << 20
        word = word_310 if fmt == 310 else word_311
        out += word.to_bytes(4, "little")[:n_bytes]
    return out


def write(folder, name, header, **files):
    for file, content in files.items():
        (folder / file.replace("_dat", ".dat")).write_bytes(content)
    (folder / f"{name}.hea").write_bytes(header if isinstance(header, bytes) else header.encode())
    return folder / name


def codes_of(fmt, rng, n_leads, n_samples):
    """Codes (L, T) over the whole range of the format, some of them the invalid one."""
    if fmt == 8:
        return np.cumsum(rng.integers(-128, 128, (n_leads, n_samples)), axis=1) + 5
    low = INVALID[fmt]
    codes = rng.integers(low, -low, (n_leads, n_samples))
    codes[rng.random(codes.shape) < 0.1] = low
    return codes


def expected_mv(fmt, codes, gain, baseline):
    values = ((codes.astype(np.float64) - baseline) / gain).astype(np.float32)
    if fmt != 8:
        values[codes == INVALID[fmt]] = np.nan
    return values


def stored(fmt, codes, initial=5):
    flat = codes if fmt != 8 else np.diff(codes, prepend=initial, axis=1)
    return encode(fmt, flat.T.ravel())


def checksum(codes):
    return (int(codes.sum()) + 32768) % 65536 - 32768


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("n_leads", [1, 2, 3])
def test_every_length_of_every_format_is_read_exactly(rng, tmp_path, fmt, n_leads):
    for n_samples in [*range(1, 21), 5461, 5462, 5463, 16385]:  # the last: around the decoder's chunks
        codes = codes_of(fmt, rng, n_leads, n_samples)
        lines = [f"r {n_leads} 360 {n_samples}"]
        lines += [f"r.dat {fmt} 200(3)/mV 12 0 5 {checksum(row)} 0 L{k}" for k, row in enumerate(codes)]
        path = write(tmp_path, "r", "\n".join(lines) + "\n", r_dat=stored(fmt, codes))
        record = pqrst.read(path, strict=True)
        assert same(record.signal, expected_mv(fmt, codes, 200, 3)), n_samples
        assert record.warnings == []
        start = n_samples // 3
        for stop in {start + 1, n_samples}:
            assert same(pqrst.read(path, start=start, stop=stop).signal, record.signal[:, start:stop])
        backwards = record.leads[::-1]
        assert same(pqrst.read(path, leads=backwards).signal, record.signal[::-1].copy())
        unknown = write(tmp_path, "u", f"u {n_leads}\n" + "\n".join(lines[1:]), r_dat=stored(fmt, codes))
        # two samples left over in format 310 take as many bytes as three: the file alone has one more
        more = int(fmt == 310 and n_leads == 1 and n_samples % 3 == 2)
        assert pqrst.header(unknown).n_samples == n_samples + more
        assert same(pqrst.read(unknown, stop=n_samples).signal, record.signal)


@pytest.mark.parametrize("fmt", [16, 24, 32, 80, 212])  # those that it writes
def test_what_wfdb_writes_is_read_as_wfdb_reads_it(rng, tmp_path, fmt):
    codes = codes_of(fmt, rng, 2, 101)
    wfdb.wrsamp(
        "w", fs=250, units=["mV", "uV"], sig_name=["II", "V 1"], d_signal=codes.T.astype(np.int64), fmt=[str(fmt)] * 2,
        adc_gain=[200.0, 3.5], baseline=[1, -7], comments=["Age: 60", "note"], write_dir=str(tmp_path),
    )  # fmt: skip
    expected = wfdb.rdrecord(str(tmp_path / "w"))
    record = pqrst.read(tmp_path / "w.hea", strict=True)
    assert same(record.signal, reference(expected))
    assert (record.leads, record.units, record.comments) == (("II", "V 1"), ("mV", "mV"), ["Age: 60", "note"])
    assert pqrst.header(tmp_path / "w").formats == [fmt]


# Exact in float32 or not: whole and binary fractions, decimals, what wfdb.wrsamp chooses, and the edges of the range.
GAINS = [
    1.0, 3.0, 10.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 4880.0, 65535.0, 2000000.0, 16777215.0, 16777216.0, 16777217.0,
    -1000.0, -7.0, 0.5, 204.75, 204.8, 39.8, 4.88, 44.9629231183, 970.0212556928553, 9259.25925925926, 0.1, 2.0**-23,
    2.0**-24, 2.0**-25, 2.0**-126, 2.0**140, 1e-30, 1e30, 1e-300, 1e300,
]  # fmt: skip
BASELINES = [
    0,
    1,
    -3,
    1024,
    -32768,
    32767,
    2**23,
    2**24 - 32768,
    2**24 - 32767,
    -(2**24) + 32768,
    2**31,
    -(2**40),
    2**53,
]


@pytest.mark.parametrize("unit", ["mV", "uV", "V", "mmHg"])
def test_every_code_becomes_the_float32_of_the_float64_formula(tmp_path, unit):
    codes = np.arange(-(2**15), 2**15)
    pairs = [(gain, 0) for gain in GAINS] + [(gain, b) for gain in (1000.0, -7.0, 204.8) for b in BASELINES]
    lines = [f"r.dat 16 {gain!r}({b})/{unit} 16 0 0 0 0 {gain}_{b}" for gain, b in pairs]
    content = np.repeat(codes.astype("<i2"), len(pairs)).tobytes()
    signal = pqrst.read(write(tmp_path, "r", f"r {len(pairs)} 500 65536\n" + "\n".join(lines), r_dat=content)).signal
    for row, (gain, baseline) in zip(signal, pairs, strict=True):
        with np.errstate(over="ignore"):
            expected = ((codes - np.float64(baseline)) / gain * TO_MV.get(unit.lower(), 1.0)).astype(np.float32)
            expected[0] = np.nan
            expected[np.isinf(expected)] = np.nan  # what float32 cannot hold
        assert np.array_equal(row.view(np.uint32), expected.view(np.uint32)), (gain, baseline)  # to the sign of a zero


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "baseline"), [(1000.0, 0), (200.0, -(2**23)), (44.9629231183, 11)])
def test_every_code_of_24_bits_too(tmp_path, gain, baseline):
    codes = np.arange(-(2**23), 2**23)
    content = codes.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    path = write(tmp_path, "r", f"r 1 500 {len(codes)}\nr.dat 24 {gain!r}({baseline})/mV\n", r_dat=content)
    expected = ((codes - float(baseline)) / gain).astype(np.float32)
    expected[0] = np.nan
    assert same(pqrst.read(path).signal, expected[None])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_windows_equal_slices_with_skew_frames_and_offset(data):
    fmt = data.draw(st.sampled_from(FORMATS))
    frames = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    skews = [data.draw(st.integers(0, 6)) * spf for spf in frames]
    n_frames, offset = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    leads = [codes_of(fmt, rng, 1, n_frames * spf)[0] for spf in frames]
    flat_parts = [np.diff(x, prepend=5) if fmt == 8 else x for x in leads]
    flat = np.concatenate([x.reshape(n_frames, -1) for x in flat_parts], axis=1).ravel()
    expected = []
    for codes, spf, skew in zip(leads, frames, skews, strict=True):
        groups = codes.reshape(n_frames, spf)
        mean = np.trunc(groups.sum(axis=1) / spf)
        row = ((mean - 2) / 100).astype(np.float32)
        if fmt != 8:
            row[(groups == INVALID[fmt]).any(axis=1)] = np.nan
        shift = min(skew // spf, n_frames)
        expected.append(np.concatenate([row[shift:], np.full(shift, np.nan, np.float32)]))
    lines = [f"r {len(frames)} 100 {n_frames}"] + [
        f"r.dat {fmt}x{spf}:{skew}+{offset} 100(2)/mV 12 0 5 {checksum(codes)} 0 L{k}"
        for k, (spf, skew, codes) in enumerate(zip(frames, skews, leads, strict=True))
    ]
    start = data.draw(st.integers(0, n_frames - 1))
    stop = data.draw(st.integers(start + 1, n_frames))
    with folder() as tmp_path:
        path = write(tmp_path, "r", "\n".join(lines), r_dat=bytes(offset) + encode(fmt, flat))
        assert same(pqrst.read(path, strict=True, frames="mean").signal, np.stack(expected))
        part = pqrst.read(path, start=start, stop=stop, frames="mean")
        assert same(part.signal, np.stack(expected)[:, start:stop])
        one = data.draw(st.integers(0, len(frames) - 1))
        spf = frames[one]
        row = ((leads[one] - 2) / 100).astype(np.float32)
        if fmt != 8:
            row[leads[one] == INVALID[fmt]] = np.nan
        row = np.concatenate([row[skews[one] :], np.full(min(skews[one], len(row)), np.nan, np.float32)])
        full = pqrst.read(path, leads=[f"L{one}"], strict=True)
        assert (full.fs, full.n_samples) == (100 * spf, n_frames * spf)
        assert same(full.signal[0], row)
        start = data.draw(st.integers(0, len(row) - 1))
        stop = data.draw(st.integers(start + 1, len(row)))
        assert same(pqrst.read(path, leads=[f"L{one}"], start=start, stop=stop).signal[0], row[start:stop])


@contextmanager
def folder():
    """tmp_path for hypothesis, which runs one test function many times."""
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)


def test_skew_counts_samples_of_the_signal_rounded_to_frames(tmp_path):
    # header(5) has samples, the WFDB library rounds them to frames, wfdb takes the number as frames
    path = write(tmp_path, "r", "r 1 100 4\nr.dat 16x2:4 1/mV 16 0 0 0 0 I\n", r_dat=encode(16, range(8)))
    assert same(pqrst.read(path, frames="mean").signal, np.array([[4, 6, np.nan, np.nan]], np.float32))
    assert same(pqrst.read(path).signal, np.array([[4, 5, 6, 7, *[np.nan] * 4]], np.float32))
    path = write(tmp_path, "s", "s 1 100 4\nr.dat 16x2:3 1/mV 16 0 0 0 0 I\n")
    assert same(pqrst.read(path, frames="mean").signal, np.array([[4, 6, np.nan, np.nan]], np.float32))


def test_frames_are_averaged_in_adc_units_towards_zero(tmp_path):
    path = write(tmp_path, "r", "r 1 100 2\nr.dat 16x2 1/mV 16 0 0 0 0 I\n", r_dat=encode(16, [1, 2, -1, -2]))
    mean = pqrst.read(path, frames="mean")
    assert (mean.signal.tolist(), mean.fs, mean.n_samples) == ([[1.0, -1.0]], 100.0, 2)
    assert same(mean.signal, reference(wfdb.rdrecord(str(path))))


def frames_of(tmp_path, *names_and_counts, codes=()):
    """A record of two frames at 15.5 Hz, whose leads have so many samples in each."""
    lines = [f"r.dat 16x{n} 1/mV 16 0 0 0 0 {name}\n" for name, n in names_and_counts]
    return write(tmp_path, "r", f"r {len(lines)} 15.5 2\n" + "".join(lines), r_dat=encode(16, codes))


def test_leads_that_share_a_rate_are_read_in_full(tmp_path):
    path = frames_of(tmp_path, ("I", 3), ("II", 3), codes=[1, 2, 3, 11, 12, 13, 4, 5, 6, 14, 15, 16])
    record, header = pqrst.read(path), pqrst.header(path)
    assert record.signal.tolist() == [[1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16]]
    assert (record.fs, record.n_samples, record.warnings) == (46.5, 6, [])
    assert (header.fs, header.n_samples, header.samps_per_frame) == (46.5, 6, [3, 3])
    expected = wfdb.rdrecord(str(path), smooth_frames=False)
    assert same(record.signal, np.stack(expected.e_p_signal).astype(np.float32))
    with pytest.raises(ValueError, match="frames all: expected full, mean or None"):
        pqrst.read(path, frames="all")


def test_of_leads_with_several_rates_those_of_one_are_read_in_full_and_all_are_averaged(tmp_path):
    path = frames_of(tmp_path, ("I", 3), ("RESP", 1), ("II", 3), codes=[1, 2, 3, 9, 4, 5, 6, 7, 8, 9, 9, 1, 2, 3])
    record = pqrst.read(path, leads=["II", "I"])
    assert (record.fs, record.signal.tolist(), record.warnings) == (46.5, [[4, 5, 6, 1, 2, 3], [1, 2, 3, 7, 8, 9]], [])
    record = pqrst.read(path)
    assert (record.fs, record.signal.tolist()) == (15.5, [[2, 8], [9, 9], [5, 2]])
    assert record.warnings == [
        f"{path}.hea: the leads differ in samples per frame: I (3), II (3) are averaged to the frame rate; "
        "leads of one rate alone are read in full"
    ]
    assert (pqrst.header(path).fs, pqrst.header(path).samps_per_frame) == (15.5, [3, 1, 3])
    assert pqrst.read(path, frames="mean").warnings == []
    with pytest.raises(
        ValueError, match=r"differ in samples per frame: I \(3\), II \(3\); read those of one rate alone"
    ):
        pqrst.read(path, frames="full")


def test_segments_are_read_in_full_where_all_have_the_rate_of_the_first(tmp_path):
    for name, n, codes in (("a", 2, [1, 2, 3, 4]), ("b", 2, [5, 6, 7, 8]), ("c", 1, [9, 10])):
        write(tmp_path, name, f"{name} 1 100 2\n{name}.dat 16x{n} 1/mV 16 0 0 0 0 I\n")
        (tmp_path / f"{name}.dat").write_bytes(encode(16, codes))
    path = write(tmp_path, "r", "r/3 1 100 6\na 2\n~ 2\nb 2\n")
    assert same(pqrst.read(path).signal, np.array([[1, 2, 3, 4, *[np.nan] * 4, 5, 6, 7, 8]], np.float32))
    assert same(pqrst.read(path, start=3, stop=9).signal, np.array([[4, *[np.nan] * 4, 5]], np.float32))
    assert (pqrst.header(path).fs, pqrst.header(path).n_samples) == (200, 12)
    path = write(tmp_path, "s", "s/2 1 100 4\na 2\nc 2\n")
    with pytest.raises(pqrst.FormatError, match="c.hea: lead I has 1 samples per frame, expected 2 as in the first"):
        pqrst.read(path)
    assert pqrst.read(path, frames="mean").signal.tolist() == [[1, 3, 9, 10]]


def test_several_files_hold_several_signals_each(rng, tmp_path):
    codes = rng.integers(-500, 500, (5, 7))
    header = "r 5 250 7\n" + "".join(
        f"{file} {fmt} 10/mV 12 0 0 0 0 L{k}\n"
        for k, (file, fmt) in enumerate([("a.dat", 212)] * 2 + [("sub/b.dat", 16)] + [("c.dat", 310)] * 2)
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.dat").write_bytes(encode(16, codes[2]))
    path = write(tmp_path, "r", header, a_dat=encode(212, codes[:2].T.ravel()), c_dat=encode(310, codes[3:].T.ravel()))
    full = (codes / 10).astype(np.float32)
    assert same(pqrst.read(path).signal, full)
    assert same(pqrst.read(path, leads=["L4", "L0", "L2"]).signal, full[[4, 0, 2]])
    assert pqrst.header(path).formats == [16, 212, 310]
    (tmp_path / "a.dat").unlink()  # only the files of the leads that are wanted
    assert same(pqrst.read(path, leads=["L2", "L3"], start=2).signal, full[2:4, 2:])


def test_differences_add_up_from_the_start_of_the_file_and_are_counted_once(tmp_path):
    codes = np.array([[3, 130, 2, -100]])
    path = write(tmp_path, "r", "r 1 250 4\nr.dat 8 1 12 0 5 0 0 I\n", r_dat=stored(8, codes))
    assert pqrst.read(path, start=2).signal.tolist() == [[2.0, -100.0]]
    assert pqrst.read(path, leads=["I", "I"]).signal.tolist() == [codes[0].tolist()] * 2
    path = write(tmp_path, "s", "s 1 250 4\nr.dat 8 1 12 5\n")  # the initial value is the ADC zero where it is missing
    assert pqrst.read(path).signal.tolist() == (codes - 5.0).tolist()


# ------------------------------------------------------------------------------------------- headers


def read_text(tmp_path, header, codes=(0, 100, 200)):
    return pqrst.read(write(tmp_path, "r", header, r_dat=encode(16, codes)))


def test_missing_fields_take_the_defaults_of_the_specification(tmp_path):
    record = read_text(tmp_path, "r 1\nr.dat 16\n")
    assert record.fs == 250
    assert record.signal.tolist() == [[0.0, 0.5, 1.0]]  # 200 ADC units per mV
    assert (record.units, record.calibrated, record.leads) == (("mV",), (False,), ("record r, signal 0",))
    no_gain = read_text(tmp_path, "r 1 100 0\nr.dat 16 0/mmHg 12 100\n")
    assert (no_gain.signal.tolist(), no_gain.calibrated) == ([[-0.5, 0.0, 0.5]], (False,))
    assert read_text(tmp_path, "r 1 100 3\nr.dat 16 100 12 50\n").signal.tolist() == [[-0.5, 0.5, 1.5]]
    assert read_text(tmp_path, "r 1 100 3\nr.dat 16 100 12 50\n").calibrated == (True,)
    negative = read_text(tmp_path, "r 1 100 3\nr.dat 16 -100(0) 12 50\n")
    assert negative.signal.tolist() == [[0.0, -1.0, -2.0]]


@pytest.mark.parametrize(
    ("unit", "factor", "name"),
    [
        ("V", 1e3, "mV"), ("v", 1e3, "mV"), ("mV", 1, "mV"), ("mv", 1, "mV"), ("MV", 1, "mV"), ("uV", 1e-3, "mV"),
        ("UV", 1e-3, "mV"), ("µV", 1e-3, "mV"), ("μv", 1e-3, "mV"), ("nV", 1e-6, "mV"), ("mmHg", 1, "mmHg"),
        ("degC/s", 1, "degC/s"),
    ],
)  # fmt: skip
def test_voltages_become_mv_with_one_rounding(tmp_path, unit, factor, name):
    record = read_text(tmp_path, f"r 1 100 3\nr.dat 16 3.7(11)/{unit} 12 0 0 0 0 I\n")
    expected = ((np.array([[0, 100, 200]], np.float64) - 11) / 3.7 * factor).astype(np.float32)
    assert same(record.signal, expected)
    assert record.units == (name,)


def test_bytes_that_are_not_utf8_are_latin1(tmp_path):
    header = "r 1 100 3\nr.dat 16 1/µV 12 0 0 0 0 Ableitung für I\n# Größe\n".encode("latin-1")
    record = read_text(tmp_path, header)
    assert (record.units, record.leads, record.comments) == (("mV",), ("Ableitung für I",), ["Größe"])


@pytest.mark.parametrize(
    "header",
    [
        "r 1 100 3\r\nr.dat 16 1/mV 16 0 0 0 0 I\r\n",
        "r 1 100 3\rr.dat 16 1/mV 16 0 0 0 0 I",
        "\n# first\n\nr 1 100 3\n# between\n\nr.dat 16 1/mV 16 0 0 0 0 I\nextra 16 lines are not read\n",
        "\ufeffr\t1\t100\t3\nr.dat\t16\t1/mV\t16\t0\t0\t0\t0\tI  \n",
        "r.mat 1 100 3 1/05/2000 \nr.dat 16+0 1.0(0)/mV 16.0 0 0 0 0 I\n",
        "r 1 1e2/360.5(12.5) 3\nr.dat 16 +1.(0)/mV 16 0 0 0 0 I\n",
        "r 1 100. 3 10:00\nr.dat 16x1:0+0 1 16 0 0 0 0 I\n",
        "r 1 100 12:30:00.5 3/4/2001\nr.dat 16+0:0x1 1 16 0 0 0 0 I\n",
    ],
)
def test_headers_in_the_wild_are_read(tmp_path, header):
    record = read_text(tmp_path, header)
    assert (record.fs, record.leads, record.signal.tolist()) == (100.0, ("I",), [[0.0, 100.0, 200.0]])


@pytest.mark.parametrize("text", ["10:00:00 25/4/1989", "15-May-2020 15:22:05", "25/04/1989", "0:0", "noon"])
def test_time_and_date_are_kept_as_they_are(tmp_path, text):
    assert read_text(tmp_path, f"r 1 100 3  {text} \nr.dat 16 1\n").start_time == text


def test_paths_may_have_the_suffix_or_not(tmp_path, monkeypatch):
    path = write(tmp_path, "r.1", "r 1 100 3\nr.dat 16 1\n", r_dat=encode(16, [1, 2, 3]))
    monkeypatch.chdir(tmp_path)
    for given_path in (path, str(path), f"{path}.hea", "r.1", "./r.1.hea"):
        assert pqrst.read(given_path).n_samples == pqrst.header(given_path).n_samples == 3


def test_null_signals_are_invalid_throughout(tmp_path):
    record = read_text(tmp_path, "r 2 100 3\nr.dat 16 1 16 0 0 0 0 I\n~ 0 1 16 0 0 0 0 II\n")
    assert record.signal[0].tolist() == [0.0, 100.0, 200.0]
    assert np.isnan(record.signal[1]).all()


def test_header_tells_what_it_can_without_data(tmp_path):
    path = write(tmp_path, "r", "r 2 100\nr.dat 516 1/V 16 0 0 0 0 I\ns.dat 212 0 12 0 0 0 0 II\n# Dx: 1\n")
    header = pqrst.header(path)
    assert (header.n_samples, header.formats, header.units) == (None, [212, 516], ("mV", "mV"))
    assert (header.calibrated, header.comments, header.start_time) == ((True, False), ["Dx: 1"], "")
    assert "2 leads" in repr(header)


# ------------------------------------------------------------------------------------------- checksums


def test_a_wrong_checksum_is_a_warning_that_names_file_and_lead(tmp_path):
    codes = np.arange(12).reshape(2, 6)
    header = f"r 2 100 6\nr.dat 16 1 16 0 0 {checksum(codes[0])} 0 I\nr.dat 16 1 16 0 0 7 0 II\n"
    path = write(tmp_path, "r", header, r_dat=stored(16, codes))
    record = pqrst.read(path)
    assert len(record.warnings) == 1
    assert all(word in record.warnings[0] for word in ("r.dat", "lead II", "51", "7", "r.hea"))
    assert record.signal.tolist() == codes.tolist()
    with pytest.raises(pqrst.FormatError, match=r"r\.dat: lead II has checksum 51, expected 7"):
        pqrst.read(path, strict=True)
    assert pqrst.read(path, start=1, strict=True).warnings == []  # a part says nothing about the whole
    assert pqrst.read(path, leads=["I"], strict=True).warnings == []


def test_checksums_that_are_all_zero_or_of_unknown_length_are_absent(tmp_path):
    assert read_text(tmp_path, "r 1 100 3\nr.dat 16 1 16 0 0 0 0 I\n").warnings == []
    assert read_text(tmp_path, "r 1 100 0\nr.dat 16 1 16 0 0 9 0 I\n").warnings == []
    assert len(read_text(tmp_path, "r 1 100 3\nr.dat 16 1 16 0 0 9 0 I\n").warnings) == 1


def test_a_zero_beside_another_checksum_is_a_checksum(tmp_path):
    codes = np.array([[1, 2], [3, 4]])
    lines = [f"r.dat 16 1 16 0 0 {value} 0 {lead}\n" for value, lead in ((0, "I"), (7, "II"))]
    record = pqrst.read(write(tmp_path, "r", "r 2 100 2\n" + "".join(lines), r_dat=stored(16, codes)))
    assert len(record.warnings) == 1
    assert "lead I has checksum 3, expected 0" in record.warnings[0]


def test_checksums_cover_what_skew_and_frames_leave_out(tmp_path):
    codes = np.arange(1, 13)
    header = "r 1 100 6\nr.dat 16x2:4 1 16 0 0 {} 0 I\n"
    path = write(tmp_path, "r", header.format(checksum(codes)), r_dat=encode(16, codes))
    assert pqrst.read(path, strict=True).warnings == []
    mean_of_frames = checksum(codes.reshape(6, 2).mean(axis=1).astype(int))
    assert len(pqrst.read(write(tmp_path, "r", header.format(mean_of_frames))).warnings) == 1


def test_a_lead_asked_for_twice_is_summed_up_once(tmp_path):
    codes = np.array([[5, 6, 7]])
    header = "r 1 100 3\nr.dat 16 1 16 0 0 {} 0 I\n"
    path = write(tmp_path, "r", header.format(checksum(codes)), r_dat=stored(16, codes))
    assert pqrst.read(path, leads=["I", "I"], strict=True).signal.tolist() == [[5.0, 6.0, 7.0]] * 2
    path = write(tmp_path, "r", header.format(1))
    assert len(pqrst.read(path, leads=["I", "I"]).warnings) == 1


# ------------------------------------------------------------------------------------------- truncated files


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_truncated_file_is_an_error_or_on_request_what_is_there(rng, tmp_path, fmt):
    codes = codes_of(fmt, rng, 2, 31)
    lines = [f"r.dat {fmt}+3 200(3)/mV 12 0 5 1 0 L{k}" for k in range(2)]
    content = bytes(3) + stored(fmt, codes)
    for size in range(len(content)):
        path = write(tmp_path, "r", "r 2 360 31\n" + "\n".join(lines), r_dat=content[:size])
        lengths = f"r.dat: has {size} bytes, expected {len(content)} for 31 x 2 samples"
        with pytest.raises(pqrst.FormatError, match=lengths):
            pqrst.read(path)
        with pytest.raises(pqrst.FormatError, match=lengths):
            pqrst.read(path, truncated=True, strict=True)
        n_there = max(n for n in range(32) if n == 0 or 3 + len(stored(fmt, codes[:, :n])) <= size)
        if n_there == 0:
            with pytest.raises(pqrst.FormatError, match=lengths):
                pqrst.read(path, truncated=True)
            continue
        record = pqrst.read(path, truncated=True)
        assert same(record.signal, expected_mv(fmt, codes[:, :n_there], 200, 3))
        assert record.n_samples == n_there
        assert len(record.warnings) == 1  # none on checksums
        assert lengths in record.warnings[0] and record.warnings[0].endswith(f"; {n_there} are read")
        assert same(pqrst.read(path, truncated=True, start=n_there - 1).signal, record.signal[:, -1:])


def test_files_that_are_long_enough_are_not_truncated(tmp_path):
    path = write(tmp_path, "r", "r 1 100 3\nr.dat 16 1 16 0 0 9 0 I\n", r_dat=encode(16, [1, 2, 3, 4]))
    record = pqrst.read(path, truncated=True)
    assert record.signal.tolist() == [[1.0, 2.0, 3.0]]
    assert len(record.warnings) == 1 and "checksum" in record.warnings[0]


def test_of_several_truncated_files_the_shortest_counts(tmp_path):
    header = "r 3 100 9\na.dat 16 1\nb.dat 16 1\nc.dat 16 1\n"
    content = {f"{name}_dat": encode(16, range(n)) for name, n in (("a", 5), ("b", 9), ("c", 4))}
    record = pqrst.read(write(tmp_path, "r", header, **content), truncated=True)
    assert record.signal.tolist() == [[0.0, 1.0, 2.0, 3.0]] * 3
    assert [text.split(": ")[0][-5:] for text in record.warnings] == ["a.dat", "c.dat"]


def test_segments_are_not_truncated(rng, tmp_path):
    write_segments(tmp_path, rng)
    (tmp_path / "b.dat").write_bytes((tmp_path / "b.dat").read_bytes()[:-1])
    with pytest.raises(pqrst.FormatError, match=r"b\.dat: has 17 bytes, expected 18"):
        pqrst.read(write(tmp_path, "m", "m/3 3 125\nl 0\na 5\nb 4\n"), truncated=True)


# ------------------------------------------------------------------------------------------- levels, long recordings


def in_process(code, **environment):
    """What a fresh interpreter prints, or None where it has no such SIMD level."""
    here = Path(pqrst.__file__).parent  # the same build
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, cwd=here
    )
    if "ImportError: PQRST_SIMD" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_simd_level_gives_the_same_bits(rng, tmp_path, fmt):
    codes = codes_of(fmt, rng, 7, 1237)
    gains = ["1000", "200(3)", "44.9629231183(-7)/uV", "0.3/V", "-5", "970.0212556928553", "1/mmHg"]
    lines = [f"r.dat {fmt}:{k} {gain} 12 0 5 {checksum(row)} 0 L{k}" for k, (gain, row) in enumerate(zip(gains, codes))]
    path = write(tmp_path, "r", f"r 7 360 {codes.shape[1]}\n" + "\n".join(lines), r_dat=stored(fmt, codes))
    signal = pqrst.read(path, strict=True).signal
    code = f"import pqrst; print(pqrst.read({str(path)!r}, strict=True).signal.tobytes().hex())"
    for level in ("baseline", "avx2", "avx512", "neon"):
        found = in_process(code, PQRST_SIMD=level)
        assert found is None or found.strip() == signal.tobytes().hex(), level


def test_samples_behind_4_gib_are_found(tmp_path):
    n_samples = 2**31 + 5  # of one lead; of all three 12 GiB, in a file with a hole
    codes = np.array([[1, 2], [3, 4], [5, 6]])
    with (tmp_path / "r.dat").open("wb") as file:
        file.seek((n_samples - 2) * 6)
        file.write(encode(16, codes.T.ravel()))
    path = write(tmp_path, "r", f"r 3 1000 {n_samples}\n" + "r.dat 16 1\n" * 3)
    assert pqrst.read(path, start=n_samples - 3).signal.tolist() == [[0, 1, 2], [0, 3, 4], [0, 5, 6]]
    assert pqrst.header(write(tmp_path, "u", "u 3 1000\n" + "r.dat 16 1\n" * 3)).n_samples == n_samples


@pytest.mark.parametrize("fmt", [16, 212])
def test_reading_takes_little_more_memory_than_the_result(tmp_path, fmt):
    n_samples = 4_000_000
    path = write(tmp_path, "r", f"r 3 1000 {n_samples}\n" + f"r.dat {fmt} 1\n" * 3)
    with (tmp_path / "r.dat").open("wb") as file:
        file.truncate(n_samples * 3 * 2)  # enough for either
    code = f"""
import resource, pqrst
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
record = pqrst.read({str(path)!r})
print(peak() - before)"""
    unit = 1 if sys.platform == "darwin" else 1024
    grown = int(in_process(code)) * unit
    assert grown < n_samples * 3 * 4 + 4 * 2**20


# ------------------------------------------------------------------------------------------- segments


def write_segments(tmp_path, rng):
    """Two segments with other formats, gains and orders of leads; (2, 5) and (3, 4)."""
    a, b = rng.integers(-400, 400, (2, 5)), rng.integers(-400, 400, (3, 4))
    lines = [f"a.dat 16 100(7)/mV 16 0 0 {checksum(a[k])} 0 {lead}" for k, lead in enumerate(["II", "V"])]
    write(tmp_path, "a", "a 2 125 5\n" + "\n".join(lines), a_dat=stored(16, a))
    lines = [f"b.dat 212 50/uV 16 0 0 {checksum(b[k])} 0 {lead}" for k, lead in enumerate(["V", "X", "II"])]
    write(tmp_path, "b", "b 3 125 4\n" + "\n".join(lines), b_dat=stored(212, b))
    layout = "l 3 125 0\n~ 0 1/mV 12 0 0 0 0 II\n~ 0 1/mV 12 0 0 0 0 ABP\n~ 0 1/mV 12 0 0 0 0 V\n"
    write(tmp_path, "l", layout)
    full = np.full((3, 14), np.nan, np.float32)
    full[[0, 2], 2:7] = ((a - 7) / 100).astype(np.float32)
    full[[2, 0], 10:] = (b[[0, 2]] / 50 * 1e-3).astype(np.float32)
    return full


def test_variable_layout_is_put_together_by_lead_names_with_nan_in_gaps(rng, tmp_path):
    full = write_segments(tmp_path, rng)
    path = write(tmp_path, "m", "m/5 3 125 14\nl 0\n~ 2\na 5\n~ 3\nb 4\n# info\n")
    record = pqrst.read(path, strict=True)
    assert (record.leads, record.units, record.comments) == (("II", "ABP", "V"), ("mV", "mV", "mV"), ["info"])
    assert same(record.signal, full)
    assert pqrst.header(path).formats == [16, 212]
    for start in range(14):
        for stop in range(start + 1, 15):
            assert same(pqrst.read(path, start=start, stop=stop).signal, full[:, start:stop])
    assert same(pqrst.read(path, leads=["V", "II"], start=3).signal, full[[2, 0], 3:])


def test_fixed_layout_is_put_together_in_order(rng, tmp_path):
    codes = rng.integers(-400, 400, (2, 9))
    for name, fmt, part in [("a", 16, codes[:, :5]), ("b", 212, codes[:, 5:])]:
        lines = [f"{name}.dat {fmt} 100 16 0 0 {checksum(part[k])} 0 {lead}" for k, lead in enumerate(["I", "II"])]
        write(tmp_path, name, f"{name} 2 125 {part.shape[1]}\n" + "\n".join(lines))
        (tmp_path / f"{name}.dat").write_bytes(stored(fmt, part))
    path = write(tmp_path, "m", "m/4 2 125 16\na 5\nb 4\n~ 2\na 5\n")
    values = (codes / 100).astype(np.float32)
    gap = np.full((2, 2), np.nan, np.float32)
    full = np.concatenate([values, gap, values[:, :5]], axis=1)
    assert same(pqrst.read(path, strict=True).signal, full)
    (tmp_path / "b.dat").write_bytes(stored(212, codes[:, 5:] ^ 1))
    with pytest.raises(pqrst.FormatError, match=r"b\.dat: lead I has checksum"):
        pqrst.read(path, strict=True)
    assert len(pqrst.read(path).warnings) == 2
    (tmp_path / "b.hea").unlink()
    assert same(pqrst.read(path, stop=5).signal, full[:, :5])
    assert pqrst.header(path).n_samples == 16


@pytest.mark.parametrize(
    ("master", "words"),
    [
        ("m/2 3 125 14\nl 0\n", "has 1 segment lines, expected 2"),
        ("m/0 3 125 14\n", "number of segments 0: must be at least 1"),
        ("m/3 3 125 15\nl 0\na 5\nb 4\n", "says 15 samples, its segments have 9"),
        ("m/2 3 125 6\nl 0\na 6\n", "segment a has 6 samples, .*a.hea has 5"),
        ("m/2 4 125 5\nl 0\na 5\n", "says 4 signals, .*l.hea has 3"),
        ("m/2 2 125\na 5\nb 4\n", "has 3 signals, expected 2"),
        ("m/2 3 250 5\nl 0\na 5\n", "another fs"),
        ("m/2 3 125 5\nl 0\nm 5\n", "has segments itself"),
        ("m/1 3 125 5\n~ 5\n", "only gaps"),
        ("m/2 3 125\nl 0\n../a 5\n", "refused"),
        ("m/2 3 125\nl 0\n/a 5\n", "refused"),
        ("m/2 3 125\nl 0\n~ 9223372036854775807\n", "no signal file stores"),
        ("m/3 3 125\nl 0\n~ 9223372036854775807\n~ 5\n", "longer than any file"),
        ("m/2 3 125\nl 0\n~ -5\n", "must be at least 0"),
    ],
)
def test_segments_that_do_not_fit_are_refused(rng, tmp_path, master, words):
    write_segments(tmp_path, rng)
    with pytest.raises(pqrst.FormatError, match=words):
        pqrst.read(write(tmp_path, "m", master))


def test_a_missing_segment_is_named_with_its_record(rng, tmp_path):
    write_segments(tmp_path, rng)
    path = write(tmp_path, "m", "m/2 3 125\nl 0\nc 5\n")
    with pytest.raises(FileNotFoundError, match=r"c\.hea: no such file \(segment of .*m\.hea\)"):
        pqrst.read(path)


def test_values_that_no_file_stores_are_limited(rng, tmp_path):
    full = write_segments(tmp_path, rng)
    path = write(tmp_path, "m", "m/5 3 125 14\nl 0\n~ 2\na 5\n~ 3\nb 4\n")
    unstored = int(np.isnan(full).sum())
    assert same(pqrst.read(path, max_samples=unstored).signal, full)
    with pytest.raises(pqrst.FormatError, match=f"more than {unstored - 1} values that no signal file stores"):
        pqrst.read(path, max_samples=unstored - 1)
    repeated = write(tmp_path, "n", "n/101 3 125\nl 0\n" + "a 5\n" * 100)
    with pytest.raises(pqrst.FormatError, match="no signal file stores"):
        pqrst.read(repeated, max_samples=1000)


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "no record line"),
        ("# only a comment\n", "no record line"),
        ("r\n", "number of signals '': expected a whole number"),
        ("r x 100 3\n", "number of signals 'x'"),
        ("r -1 100 3\n", "number of signals -1: must be at least 0"),
        ("r 0 100 3\n", "has no leads"),
        ("r 2 100 3\nr.dat 16 1\n", "has 1 signal lines, expected 2"),
        ("r 999999999999 100 3\nr.dat 16 1\n", "has 1 signal lines, expected 999999999999"),
        ("r 1 0 3\nr.dat 16 1\n", "fs '0': expected a finite number above 0"),
        ("r 1 -5 3\nr.dat 16 1\n", "fs '-5'"),
        ("r 1 nan 3\nr.dat 16 1\n", "fs 'nan'"),
        ("r 1 inf 3\nr.dat 16 1\n", "fs 'inf'"),
        ("r 1 1e999 3\nr.dat 16 1\n", "fs '1e999'"),
        ("r 1 fast 3\nr.dat 16 1\n", "fs 'fast': expected a number in Hz"),
        ("r 1 100/x 3\nr.dat 16 1\n", "counter frequency 'x'"),
        ("r 1 100/50(2 3\nr.dat 16 1\n", "counter frequency"),
        ("r 1 100 -3\nr.dat 16 1\n", "number of samples -3"),
        ("r 1 100 99999999999999999999\nr.dat 16 1\n", "number of samples"),
        ("r 1 100 3\nr.dat\n", "line 2: format is missing"),
        ("r 1 100 3\nr.dat mV 1\n", "line 2: format 'mV'"),
        ("r 1 100 3\nr.dat 17 1 12 0 0 0 0 II\n", "lead II has format 17, which is unknown; expected 0, 8, 16"),
        ("r 1 100 3\nr.dat 516 1\n", r"format 516 \(FLAC\)"),
        ("r 1 100 3\nr.dat 99999999999 1\n", "format"),
        ("r 1 100 3\nr.dat 16x0 1\n", "samples per frame 0: must be at least 1"),
        ("r 1 100 3\nr.dat 16x2x2 1\n", "once"),
        ("r 1 100 3\nr.dat 16: 1\n", "skew ''"),
        ("r 1 100 3\nr.dat 16+-2 1\n", "byte offset -2"),
        ("r 1 100 3\nr.dat 16 mV\n", "ADC gain 'mV': expected gain"),
        ("r 1 100 3\nr.dat 16 nan\n", "ADC gain 'nan'"),
        ("r 1 100 3\nr.dat 16 200(1\n", "ADC gain"),
        ("r 1 100 3\nr.dat 16 200(1.5)\n", "baseline '1.5'"),
        ("r 1 100 3\nr.dat 16 200 x\n", "ADC resolution 'x'"),
        ("r 1 100 3\nr.dat 16 200 12 0 0 x\n", "checksum 'x'"),
        ("r 1 100 4\nr.dat 16 1\n", r"r\.dat: has 6 bytes, expected 8 for 4 x 1 samples of format 16"),
        ("r 1 100 3\nr.dat 16+1 1\n", "has 6 bytes, expected 7"),
        ("r 1 100 9223372036854775807\nr.dat 16 1\n", "has 6 bytes, expected more than any file"),
        ("r 1 100 3\nr.dat 16x9223372036854775807 1\n", "expected more than any file"),
        ("r 1 100 3\nr.dat 16+9223372036854775807 1\n", "expected more than any file"),
        ("r 2 100 3\nr.dat 16x9223372036854775807 1\nr.dat 16 1\n", "more samples per frame than any file"),
        ("r 1 100\nr.dat 16+7 1\n", "has no samples"),
        ("r 1 100\nr.dat 16x4 1\n", "has no samples"),
        ("r 1 100\n~ 0 1\n", "has no samples"),
        ("r 1 100 9223372036854775807\n~ 0 1\n", "no signal file stores"),
        ("r 2 100 3\nr.dat 16 1\nr.dat 212 1\n", "differs in format or byte offset"),
        ("r 2 100 1\nr.dat 16 1\nr.dat 16+2 1\n", "differs in format or byte offset"),
        ("r 3 100 1\nr.dat 16 1\ns.dat 16 1\n./r.dat 16 1\n", "given twice"),
        ("r 1 100 3\n/etc/passwd 16 1\n", "'/etc/passwd' refused"),
        ("r 1 100 3\n../r.dat 16 1\n", r"'\.\./r\.dat' refused"),
        ("r 1 100 3\nx/../../r.dat 16 1\n", "refused"),
        ("r 1 100 3\n..\\r.dat 16 1\n", "refused"),
        ("r 1 100 3\nr\0.dat 16 1\n", "refused"),
        ("r 1 100 3\n. 16 1\n", "not a regular file"),
    ],
)
def test_what_is_wrong_in_a_header_is_named(tmp_path, header, words):
    write(tmp_path, "s", "", s_dat=encode(16, [1]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(pqrst.FormatError, match=words) as error:
        read_text(tmp_path, header)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB: nothing was allocated


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.hea: no such header file"):
        pqrst.read(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"none\.hea: no such header file"):
        pqrst.header(tmp_path / "none.hea")
    path = write(tmp_path, "r", "r 1 100 3\nx.dat 16 1\n")
    with pytest.raises(FileNotFoundError, match=r"x\.dat: no such file \(signals of .*r\.hea\)"):
        pqrst.read(path)
    with pytest.raises(FileNotFoundError, match=r"r\.atr: no such annotation file"):
        pqrst.read_annotations(path, "atr")


def test_pipes_are_not_opened(tmp_path):
    path = write(tmp_path, "r", "r 1 100 3\nx.dat 16 1\n")
    os.mkfifo(tmp_path / "x.dat")
    with pytest.raises(pqrst.FormatError, match="not a regular file"):
        pqrst.read(path)


def test_leads_that_the_record_does_not_have_are_named_with_those_it_has(tmp_path):
    path = write(tmp_path, "r", "r 1 100 3\nr.dat 16 1 16 0 0 0 0 MLII\n", r_dat=encode(16, [1, 2, 3]))
    with pytest.raises(ValueError, match=r"V1 is not in .*requested \[MLII, V1\], the record has \[MLII\]"):
        pqrst.read(path, leads=["MLII", "V1"])
    with pytest.raises(ValueError, match="leads: is empty"):
        pqrst.read(path, leads=[])


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (3, None), (4, None), (0, 0), (2, 1), (0, 4), (1, 2**62)])
def test_ranges_outside_the_record_are_refused(tmp_path, start, stop):
    path = write(tmp_path, "r", "r 1 100 3\nr.dat 16 1\n", r_dat=encode(16, [1, 2, 3]))
    with pytest.raises(ValueError, match=r"expected 0 <= start < stop <= 3, the length of"):
        pqrst.read(path, start=start, stop=stop)
    with pytest.raises(ValueError, match="stop -1: expected None or an index"):
        pqrst.read(path, stop=-1)


# ------------------------------------------------------------------------------------------- Record


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_records_are_made_of_arrays(rng, dtype):
    x = rng.standard_normal((3, 50)).astype(dtype)
    record = pqrst.Record(x, 250, ["I", "II", "V1"], name="mine")
    assert same(record.signal, x.astype(np.float32))
    assert (record.fs, record.leads, record.units) == (250.0, ("I", "II", "V1"), ("mV",) * 3)
    assert (record.calibrated, record.n_samples, record.name) == ((True,) * 3, 50, "mine")
    x[:] = 0
    assert record.signal.any()  # its own copy
    units = pqrst.Record(x + 2, 250, ["I", "II", "V1"], units=["uV", "V", "NU"])
    assert units.units == ("mV", "mV", "NU")
    assert units.signal[:, 0].tolist() == [np.float32(0.002), 2000.0, 2.0]
    strided = pqrst.Record(np.arange(12.0).reshape(2, 6)[:, ::2], 1, ["a", "b"])
    assert strided.signal.tolist() == [[0, 2, 4], [6, 8, 10]]


def test_the_signal_array_is_not_copied_and_outlives_its_record():
    record = pqrst.Record(np.ones((2, 1000)), 250, ["I", "II"])
    first, second = record.signal, record.signal
    assert np.shares_memory(first, second)
    del record, second
    assert first.sum() == 2000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros(5), 250, ["I"]), "signal: expected shape"),
        ((np.zeros((1, 2, 3)), 250, ["I"]), "signal: expected shape"),
        ((np.zeros((0, 5)), 250, []), "signal: has no leads"),
        ((np.zeros((1, 0)), 250, ["I"]), "signal: has no samples"),
        ((np.zeros((1, 5), np.int16), 250, ["I"]), "signal: expected float32 or float64, got int16"),
        ((np.zeros((1, 5), complex), 250, ["I"]), "signal: expected float32"),
        ((np.zeros((1, 5)), 0, ["I"]), "fs"),
        ((np.zeros((1, 5)), float("nan"), ["I"]), "fs"),
        ((np.zeros((1, 5)), float("inf"), ["I"]), "fs"),
        ((np.zeros((2, 5)), 250, ["I"]), "leads: 1 names"),
        ((np.zeros((1, 5)), 250, ["I"], ["mV", "mV"]), "units: 2 names"),
        ((np.zeros((1, 5)), 250, ["I"], []), "units: is empty"),
    ],
)
def test_arrays_that_are_no_record_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        pqrst.Record(*arguments)


# ------------------------------------------------------------------------------------------- annotations


def word(code, number=0):
    return (code << 10 | number & 0x3FF).to_bytes(2, "little")


def skip(interval):
    high, low = interval >> 16 & 0xFFFF, interval & 0xFFFF
    return word(59) + high.to_bytes(2, "little") + low.to_bytes(2, "little")


def aux(text):
    text = text if isinstance(text, bytes) else text.encode()
    return word(63, len(text)) + text + b"\0" * (len(text) % 2)


END = b"\0\0"


def annotations(tmp_path, content):
    (tmp_path / "r.atr").write_bytes(content)
    return pqrst.read_annotations(tmp_path / "r", "atr")


def test_symbols_are_those_of_the_wfdb_table(tmp_path):
    content = b"".join(word(code, 10) for code in range(1, 50))
    found = annotations(tmp_path, content + END)
    table = {int(row.label_store): row.symbol for row in wfdb.io.annotation.ann_labels}
    assert found.symbol == [table.get(code, f"[{code}]") for code in range(1, 50)]
    assert found.sample.tolist() == list(range(10, 500, 10))
    assert len(found) == 49


def test_num_and_chan_stay_while_subtype_is_of_one_annotation(tmp_path):
    content = (
        word(1, 5) + word(60, 0xFF) + word(61, 0x80) + word(62, 200) + word(1, 5) + word(61, 3) + word(1, 5)
        + word(62, 1) + word(60, 2) + aux("(N") + END
    )  # fmt: skip
    found = annotations(tmp_path, content)
    assert found.num.tolist() == [-1, -1, 2]
    assert found.chan.tolist() == [200, 200, 1]
    assert found.subtype.tolist() == [-128, 3, 0]
    assert found.aux == ["", "", "(N"]


def test_skips_go_both_ways_and_beyond_32_bits(tmp_path):
    far = 2**31 - 1
    content = skip(1000) + word(1, 3) + skip(-500) + word(5) + (skip(far) * 4) + word(1, 7) + skip(-(2**31)) + word(1)
    found = annotations(tmp_path, content + END)
    assert found.sample.tolist() == [1003, 503, 503 + 4 * far + 7, 503 + 4 * far + 7 - 2**31]


def test_a_skip_in_front_of_a_field_moves_the_next_annotation_only(tmp_path):
    found = annotations(tmp_path, word(1, 5) + skip(100) + word(61, 4) + word(1, 5) + END)
    assert (found.sample.tolist(), found.subtype.tolist()) == ([5, 110], [4, 0])


def test_aux_texts_lose_their_padding_and_nothing_else(tmp_path):
    texts = ["(AFIB", "(N", "", "a b", "x" * 255]
    content = b"".join(word(28, 1) + aux(text) for text in texts)
    assert annotations(tmp_path, content + END).aux == texts
    content = word(28, 1) + aux(b"(AB\0\0\0") + word(28, 1) + aux("gr\xfc\xdfe".encode("latin-1"))
    assert annotations(tmp_path, content + END).aux == ["(AB", "grüße"]


def test_the_end_mark_may_be_missing_and_ends_the_file_where_it_is(tmp_path):
    assert annotations(tmp_path, word(1, 5) + word(1, 6)).sample.tolist() == [5, 11]
    assert annotations(tmp_path, b"").sample.tolist() == []
    # wfdb goes on behind a null word; annot(5) has "A = I = 0: end of file"
    assert annotations(tmp_path, word(1, 5) + END + word(1, 6) + b"\0").sample.tolist() == [5]


@pytest.mark.parametrize(
    ("header", "note", "fs", "expected"),
    [
        ("r 1 360", "720", None, [1, 2, 3, 4]),  # of 1, 3, 5, 7: half a sample is rounded up
        ("r 1 360", "", None, [1, 3, 5, 7]),
        ("r 1 360", "360", None, [1, 3, 5, 7]),
        ("r 1 360", "720", 1440, [2, 6, 10, 14]),
        ("r 1 180x4", "", None, [4, 12, 20, 28]),  # frames of four samples
        ("r 1 180x4", "720", None, [1, 3, 5, 7]),
        ("r 1 180x4", "", 180, [1, 3, 5, 7]),
        ("", "720", None, [1, 3, 5, 7]),  # without a header nothing tells the record's rate
        ("", "720", 360, [1, 2, 3, 4]),
    ],
)
def test_positions_are_samples_of_the_record(tmp_path, header, note, fs, expected):
    if header:
        start, _, per_frame = header.partition("x")
        text = f"{start} 100\nr.dat 16{'x' + per_frame if per_frame else ''} 200/mV 12 0 0 0 0 I\n"
        (tmp_path / "r.hea").write_text(text)
    content = (word(22) + aux(f"## time resolution: {note}") if note else b"") + word(1, 1) + word(1, 2) * 3 + END
    (tmp_path / "r.atr").write_bytes(content)
    found = pqrst.read_annotations(tmp_path / "r", "atr", fs)
    assert found.sample.tolist() == expected
    assert found.fs == (float(note) if note else None)


def test_time_resolution_and_definitions_are_applied_and_left_out(tmp_path):
    content = b"".join(
        [
            word(22) + aux("## time resolution: 1250.5"),
            word(22) + aux("## annotation type definitions"),
            word(22) + aux("42 Xy a new beat"),
            word(22) + aux("1 M normal"),
            word(22) + aux("## end of definitions"),
            skip(-1) + word(0, 1),  # the place holder that the WFDB library writes behind
            word(22) + aux("a note of the recording"),
            word(42, 10) + word(1, 10) + word(22, 0) + aux("## later") + END,
        ]
    )
    found = annotations(tmp_path, content)
    assert found.fs == 1250.5
    assert found.symbol == ['"', "Xy", "M", '"']
    assert found.sample.tolist() == [0, 10, 20, 20]  # not rescaled
    assert found.aux == ["a note of the recording", "", "", "## later"]
    assert annotations(tmp_path, word(1, 5) + END).fs is None


def test_what_wfdb_writes_as_annotations_is_read_as_wfdb_reads_it(tmp_path, rng):
    sample = np.cumsum(rng.integers(0, 5000, 300)) + 1
    custom = pd.DataFrame({"label_store": [42], "symbol": ["&"], "description": ["second Q"]})
    wfdb.wrann(
        "r", "qrs", sample, symbol=list(rng.choice(["N", "V", "+", "/", "&"], 300)), subtype=rng.integers(-3, 4, 300),
        chan=rng.integers(0, 3, 300), num=rng.integers(0, 4, 300), custom_labels=custom, fs=360,
        aux_note=["(AFIB" if k % 7 == 0 else "" for k in range(300)], write_dir=str(tmp_path),
    )  # fmt: skip
    expected = wfdb.rdann(str(tmp_path / "r"), "qrs")
    found = pqrst.read_annotations(tmp_path / "r.hea", "qrs")
    assert found.fs == expected.fs == 360
    for name in ("sample", "subtype", "chan", "num"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert (found.symbol, found.aux) == (expected.symbol, expected.aux_note)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (word(1, 5) + b"\x01", r"r\.atr, byte 2: .* is cut off, expected 2 bytes, found 1"),
        (word(1, 5) + word(59) + b"\0\0\1", "byte 6: a skip is cut off"),
        (word(1, 5) + word(63, 9) + b"(AFIB", "byte 4: auxiliary text is cut off, expected 10 bytes, found 5"),
        (word(61, 1) + word(1, 5), "byte 0: a field .* without an annotation before it"),
        ((b"\0N" + bytes(14)) * 2, "AHA format"),
    ],
)
def test_damage_in_annotations_is_named_with_its_byte(tmp_path, content, words):
    with pytest.raises(pqrst.FormatError, match=words):
        annotations(tmp_path, content)


# ------------------------------------------------------------------------------------------- damage

HEADER = (
    b"r/3 3 125/60(1) 18 10:00:00 1/2/2003\nl 0\ns 9\n~ 9\n#x\n",
    b"s 3 125 9\ns.dat 212x2:2+3 200(10)/mV 12 1 5 11 0 II\ns.dat 212+3 0/uV 12 0 7 12 0 V 1\n"
    b"t.dat 8 5/NU 8 0 1 5 0 resp\n# Age: 60\n",
    b"l 3 125 0\n~ 0 1/mV 12 0 0 0 0 II\n~ 0 1/uV 12 0 0 0 0 V 1\n~ 0 1/NU 8 0 0 0 0 resp\n",
)
DATA = bytes(range(3 + 41))
ANNOTATIONS = (
    word(22) + aux("## time resolution: 360") + word(22) + aux("## annotation type definitions") + word(22)
    + aux("42 X new") + word(22) + aux("## end of definitions") + skip(70000) + word(1, 5) + word(61, 2) + word(62, 1)
    + word(60, 3) + aux("(AFIB") + skip(-20) + word(42, 1) + END
)  # fmt: skip


def read_all(tmp_path, headers, data, notes):
    """Whatever the bytes are: it is read, or ValueError, or FileNotFoundError, and nothing else."""
    for name, header in zip(["r", "s", "l"], headers, strict=True):
        (tmp_path / f"{name}.hea").write_bytes(header)
    (tmp_path / "s.dat").write_bytes(data)
    (tmp_path / "t.dat").write_bytes(data[:9])
    (tmp_path / "r.atr").write_bytes(notes)
    calls = [
        lambda: pqrst.read(tmp_path / "r", max_samples=10**6),
        lambda: pqrst.read(tmp_path / "s", max_samples=10**6),
        lambda: pqrst.read(tmp_path / "s", start=3, stop=7, max_samples=10**6),
        lambda: pqrst.header(tmp_path / "r"),
        lambda: pqrst.header(tmp_path / "s"),
        lambda: pqrst.read_annotations(tmp_path / "r", "atr"),
    ]
    n_read = 0
    for call in calls:
        try:
            result = call()
        except (ValueError, FileNotFoundError) as error:
            assert not isinstance(error, UnicodeError)
            assert str(error)
        else:
            n_read += 1
            if isinstance(result, pqrst.Record):
                assert result.signal.shape[1] <= result.n_samples
                assert len(result.leads) == len(result.units) == len(result.calibrated) == len(result.signal)
    return n_read


def test_files_cut_off_at_any_byte_never_crash(tmp_path):
    assert read_all(tmp_path, HEADER, DATA, ANNOTATIONS) == 6
    for k in range(3):
        for end in range(len(HEADER[k])):
            read_all(tmp_path, [h[:end] if i == k else h for i, h in enumerate(HEADER)], DATA, END)
    for end in range(len(DATA)):
        read_all(tmp_path, HEADER, DATA[:end], END)
    for end in range(len(ANNOTATIONS)):
        read_all(tmp_path, HEADER, DATA, ANNOTATIONS[:end])


def mutated(content):
    """Bytes replaced, removed or put in: any, or those that mean something in a header."""
    piece = st.one_of(
        st.binary(max_size=3),
        st.sampled_from([b"0", b"9", b"-", b"\n", b" ", b"/", b"x", b":", b"+", b"(", b"~", b"..", b"99999999999999"]),
    )
    edit = st.tuples(st.integers(0, len(content)), st.integers(0, 3), piece)

    def apply(edits):
        text = content
        for at, length, new in edits:
            text = text[:at] + new + text[at + length :]
        return text

    return st.lists(edit, max_size=4).map(apply)


@settings(max_examples=400, deadline=None)
@given(
    st.tuples(*[mutated(header) for header in HEADER]),
    st.binary(max_size=60),
    mutated(ANNOTATIONS),
)
def test_damaged_files_never_crash(headers, data, notes):
    with folder() as tmp_path:
        read_all(tmp_path, headers, data, notes)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_as_annotations_never_crash(content):
    with folder() as tmp_path:
        try:
            found = annotations(tmp_path, content)
        except pqrst.FormatError:
            return
        assert len(found) == len(found.symbol) == len(found.aux) == len(found.num) <= len(content)


# ------------------------------------------------------------------------------------------------ links and overflow


@pytest.fixture
def linked(tmp_path):
    """A record folder `home`, and `away`, where a signal file of it has gone; the link in `home` leads there."""
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir(), away.mkdir()
    write_record(home, "r", np.zeros((2, 100)), 100, ["I", "II"])
    (home / "r.dat").rename(away / "content")
    return home, away


def test_a_link_out_of_the_folder_is_followed_but_not_with_strict(linked):
    home, away = linked
    (home / "r.dat").symlink_to(away / "content")
    assert pqrst.read(home / "r").n_samples == 100
    with pytest.raises(pqrst.FormatError, match=r"home/r.dat: is a link out of the record's folder, to .*away/content"):
        pqrst.read(home / "r", strict=True)


def test_a_chain_of_links_is_followed_to_its_end(linked):
    home, away = linked
    (home / "inside").symlink_to(away / "content")
    (home / "r.dat").symlink_to("inside")
    assert pqrst.read(home / "r").n_samples == 100
    with pytest.raises(pqrst.FormatError, match="out of the record's folder"):
        pqrst.read(home / "r", strict=True)


def test_a_link_within_the_folder_and_a_folder_reached_by_a_link_are_fine(linked, tmp_path, monkeypatch):
    home, away = linked
    (away / "content").rename(home / "content")
    (home / "r.dat").symlink_to("content")
    (tmp_path / "alias").symlink_to(home)
    for path in (home / "r", tmp_path / "alias/r"):
        assert pqrst.read(path, strict=True).n_samples == 100
    monkeypatch.chdir(home)
    assert pqrst.read("r", strict=True).n_samples == 100


def test_a_segment_that_lies_elsewhere_is_refused_with_strict(linked):
    home, away = linked
    (away / "content").rename(home / "r.dat")
    (home / "r.hea").rename(away / "r.hea")
    (home / "r.hea").symlink_to(away / "r.hea")
    (home / "long.hea").write_text("long/1 2 100 100\nr 100\n")
    assert pqrst.read(home / "long").n_samples == 100
    with pytest.raises(pqrst.FormatError, match=r"r.hea: is a link out of the record's folder"):
        pqrst.read(home / "long", strict=True)
    assert pqrst.read(home / "r", strict=True).n_samples == 100, "the user has named this one"


def test_a_header_of_more_than_16_mib_is_refused(tmp_path):
    path = write_record(tmp_path, "r", np.zeros((1, 10)), 100, ["I"])
    with path.open("a") as file:
        file.write("#\n" * (8 << 20))
    with pytest.raises(pqrst.FormatError, match=r"r.hea: has \d+ bytes, more than any header \(16 MiB\)"):
        pqrst.header(path)


@pytest.mark.parametrize("gain", ["1e-36", "-1e-40", "1e-300"])
def test_values_beyond_float32_are_nan_with_a_warning(tmp_path, gain):
    path = write_record(tmp_path, "r", np.array([[0, 1.0, -2, 3], [0, 1, 2, 3]]), 100, ["I", "II"])
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], text[1].replace("1000.0(0)/mV", f"{gain}(0)/mV"), text[2]]) + "\n")
    record = pqrst.read(path)
    assert record.warnings == [f"{path}: lead I has 3 values that float32 cannot hold; they are NaN"]
    np.testing.assert_array_equal(record.signal, [[0, np.nan, np.nan, np.nan], [0, 1, 2, 3]])
    with pytest.raises(pqrst.FormatError, match="float32 cannot hold"):
        pqrst.read(path, strict=True)


def test_a_small_gain_whose_values_fit_says_nothing(tmp_path):
    path = write_record(tmp_path, "r", np.array([[0, 1.0, -2, 3]]), 100, ["I"])
    path.write_text(path.read_text().replace("1000.0(0)/mV", "1e-31(0)/mV"))
    record = pqrst.read(path)
    assert record.warnings == []
    np.testing.assert_allclose(record.signal, [[0, 1e34, -2e34, 3e34]], rtol=1e-6)


def test_an_array_beyond_float32_is_nan_with_a_warning():
    record = pqrst.Record(np.array([[1e39, 1, -1e300, np.inf]]), 100.0, ["I"], name="a", warnings=["first"])
    assert record.warnings == ["first", "a: lead I has 2 values that float32 cannot hold; they are NaN"]
    np.testing.assert_array_equal(record.signal, [[np.nan, 1, np.nan, np.nan]])
    volts = pqrst.Record(np.array([[1e37, 1]], np.float32), 100.0, ["I"], ["V"])
    np.testing.assert_array_equal(volts.signal, [[np.nan, 1000]])


def test_a_masked_array_is_no_signal():
    masked = np.ma.masked_array(np.ones((1, 10)), mask=np.eye(1, 10))
    with pytest.raises(TypeError, match="signal: is a masked array"):
        pqrst.Record(masked, 100.0, ["I"])
    with pytest.raises(TypeError, match=r"centers: is a masked array; leave out what is masked: x.compressed\(\)"):
        pqrst.segment(np.ones((1, 10)), np.ma.masked_array([1, 2], mask=[0, 1]), 4)


def test_the_size_of_a_record_is_that_of_its_files(tmp_path):
    path = write_record(tmp_path, "r", np.zeros((2, 100)), 100, ["I", "II"])
    assert pqrst.header(path).n_bytes == path.stat().st_size + (tmp_path / "r.dat").stat().st_size
    (tmp_path / "r.dat").unlink()
    assert pqrst.header(path).n_bytes is None
