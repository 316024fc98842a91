"""SCP-ECG, EN 1064 / ISO 11073-91064: the rhythm of sections 2 to 6."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import pqrst
from formats import Signal, Tracing, with_derived

LEADS = {1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 9: "V7", 10: "V2R", 11: "V3R",
         12: "V4R", 13: "V5R", 14: "V6R", 15: "V7R", 16: "X", 17: "Y", 18: "Z", 61: "III", 62: "aVR", 63: "aVL",
         64: "aVF", 65: "-aVR", 66: "V8", 67: "V9"}  # fmt: skip
HEADER = 16  # bytes of a section before its data
DEFAULT_TABLE = 19999


class Code(NamedTuple):
    """What a prefix stands for: a value, or one of so many further bits."""

    n_bits: int
    value: int
    switches: bool = False  # to the table of this number, from 1


Table = dict[str, Code]  # by prefix, as a text of 0 and 1


def default_table() -> Table:
    """Return the table that EN 1064 gives: 0, then each size with its sign, then 8 and 16 bits as they are."""
    table = {"0": Code(0, 0)}
    for size in range(1, 9):
        table["1" * size + "00"] = Code(0, size)
        table["1" * size + "01"] = Code(0, -size)
    return table | {"1" * 9 + "0": Code(8, 0), "1" * 10: Code(16, 0)}


def parse(path: Path, fs: float | None) -> Tracing:
    """Read the leads of a recording, and not who the patient is.

    III, aVR, aVL and aVF are computed where eight leads are stored. A reference beat that was subtracted is added.

    Raises
    ------
    pqrst.FormatError
        Another kind of file, a damaged one, or one with bimodal compression, which does not keep the signal.
    """
    raw = path.read_bytes()
    try:
        sections = _sections(path, raw)
        if 3 not in sections or 6 not in sections:
            raise pqrst.FormatError(f"{path}: has no rhythm: its sections are {', '.join(map(str, sections))}")
        return _tracing(path, sections)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, pqrst.FormatError):
            raise
        raise pqrst.FormatError(f"{path}: its SCP-ECG sections are damaged: {error}") from error


def _sections(path: Path, raw: bytes) -> dict[int, bytes]:
    """Return the data of each section that the pointers of section 0 name."""
    if len(raw) < 6 + HEADER or struct.unpack_from("<H", raw, 8)[0] != 0 or raw[14] > 30 or raw[14] < 10:
        raise pqrst.FormatError(f"{path}: not SCP-ECG: it does not begin with section 0")
    (length,) = struct.unpack_from("<I", raw, 10)
    found: dict[int, bytes] = {}
    for at in range(6 + HEADER, min(6 + length, len(raw)) - 9, 10):
        number, _, index = struct.unpack_from("<HII", raw, at)
        for start in (index - 1, index):  # the standard counts from 1, some writers from 0
            if number and 0 < start <= len(raw) - HEADER and struct.unpack_from("<H", raw, start + 2)[0] == number:
                (size,) = struct.unpack_from("<I", raw, start + 4)
                if start + size > len(raw):
                    raise pqrst.FormatError(f"{path}: section {number} is cut off: {size} bytes from byte {start} on")
                if size > HEADER:
                    found[number] = raw[start + HEADER : start + size]
                break
    return found


def _tracing(path: Path, sections: dict[int, bytes]) -> Tracing:
    leads = sections[3]
    n_leads, flags = leads[0], leads[1]
    if 2 + 9 * n_leads > len(leads):
        raise ValueError(f"{n_leads} leads in a section of {len(leads)} bytes")
    places = [struct.unpack_from("<IIB", leads, 2 + 9 * k) for k in range(n_leads)]
    lengths = [stop - start + 1 for start, stop, _ in places]
    nanovolts, microseconds, order, bimodal = struct.unpack_from("<HHBB", sections[6])
    if not n_leads or not nanovolts or not microseconds or order > 2:
        raise ValueError(f"{n_leads} leads, {nanovolts} nV, {microseconds} us, differences of order {order}")
    if bimodal:
        raise pqrst.FormatError(f"{path}: has bimodal compression, which keeps less than the signal and is not read")
    tables = _tables(sections.get(2))
    values = _decoded(sections[6], 6, order, lengths, tables)
    if flags & 1:
        _add_reference(path, sections, values, places, lengths, tables, nanovolts, microseconds)
    rate = round(1e6 / microseconds, 6)
    signals = [
        Signal(LEADS.get(number, f"lead {number}"), samples.astype(np.float64) * nanovolts, rate, "nV")
        for (_, _, number), samples in zip(places, values, strict=True)
    ]
    return Tracing(with_derived(signals), start_time=_start(sections.get(1, b"")))


def _tables(section: bytes | None) -> list[Table] | None:
    """Return the Huffman tables; None where samples are plain 16-bit numbers."""
    if section is None:
        return None
    (n,) = struct.unpack_from("<H", section)
    if n == DEFAULT_TABLE:
        return [default_table()]
    if 13 * n > len(section):
        raise ValueError(f"{n} Huffman tables in {len(section)} bytes")
    tables: list[Table] = []
    at = 2
    for _ in range(n):
        (n_codes,) = struct.unpack_from("<H", section, at)
        at += 2
        table: Table = {}
        for _ in range(n_codes):
            prefix, bits, keeps, value, code = struct.unpack_from("<BBBhI", section, at)
            at += 9
            if not 1 <= prefix <= 32 or not prefix <= bits <= prefix + 32:
                raise ValueError(f"a Huffman code of {bits} bits with {prefix} bits of prefix")
            table["".join(str(code >> k & 1) for k in range(prefix))] = Code(bits - prefix, value, not keeps)
        tables.append(table)
    return tables


def _decoded(
    section: bytes, first: int, order: int, lengths: list[int], tables: list[Table] | None
) -> list[NDArray[np.int64]]:
    """Return the samples of each lead of section 5 or 6, whose data begin with the bytes that each lead has."""
    n_bytes = struct.unpack_from(f"<{len(lengths)}H", section, first)
    at = first + 2 * len(lengths)
    found = []
    for size, length in zip(n_bytes, lengths, strict=True):
        if at + size > len(section) or not 0 < length <= 8 * size:
            raise ValueError(f"a lead of {length} samples in {size} bytes")
        data = section[at : at + size]
        codes = np.frombuffer(data[: size // 2 * 2], "<i2") if tables is None else _unpacked(data, length, tables)
        codes = codes[:length].astype(np.int64)
        if len(codes) < length:
            raise ValueError(f"a lead has {len(codes)} samples, expected {length}")
        if order == 2:  # the first two samples are stored as they are
            codes[1:] = np.cumsum(np.append(codes[1] - codes[0], codes[2:]))
        if order:
            codes = np.cumsum(codes)
        found.append(codes)
        at += size
    return found


def _unpacked(data: bytes, length: int, tables: list[Table]) -> NDArray[np.int64]:
    """Undo the Huffman code of one lead."""
    bits = "".join(f"{byte:08b}" for byte in data)
    table, at = tables[0], 0
    longest = [max(map(len, each)) for each in tables]
    limit = longest[0]
    values = np.empty(length, np.int64)
    for i in range(length):
        while True:
            n = next((n for n in range(1, limit + 1) if bits[at : at + n] in table), 0)
            if not n or at + n > len(bits):
                raise ValueError(f"bit {at} begins no Huffman code")
            code = table[bits[at : at + n]]
            at += n
            if not code.switches:
                break
            table, limit = tables[code.value - 1], longest[code.value - 1]
        if code.n_bits:
            if at + code.n_bits > len(bits):
                raise ValueError(f"the Huffman code at bit {at} is cut off")
            number = int(bits[at : at + code.n_bits], 2)
            at += code.n_bits
            values[i] = number - (1 << code.n_bits if number >> (code.n_bits - 1) else 0)
        else:
            values[i] = code.value
    return values


def _add_reference(
    path: Path,
    sections: dict[int, bytes],
    values: list[NDArray[np.int64]],
    places: list[tuple[int, int, int]],
    lengths: list[int],
    tables: list[Table] | None,
    nanovolts: int,
    microseconds: int,
) -> None:
    """Add the reference beat of section 5 where section 4 says that it was subtracted, in place."""
    if 4 not in sections or 5 not in sections:
        raise pqrst.FormatError(f"{path}: has a reference beat subtracted, and no section 4 and 5 that hold it")
    beat_ms, fiducial, n_beats = struct.unpack_from("<HHH", sections[4])
    unit, interval, order = struct.unpack_from("<HHB", sections[5])
    if interval != microseconds:
        raise pqrst.FormatError(f"{path}: its reference beat has another rate than the rhythm, which is not read")
    n = beat_ms * 1000 // interval
    beats = _decoded(sections[5], 6, order, [n] * len(lengths), tables)
    for k in range(n_beats):
        kind, begin, center, end = struct.unpack_from("<HIII", sections[4], 6 + 14 * k)
        if kind != 0:  # only beats of the reference's own type had it subtracted
            continue
        for (start, _, _), samples, beat in zip(places, values, beats, strict=True):
            t = np.arange(max(begin, start), min(end, start + len(samples) - 1) + 1)
            from_beat = t - center + fiducial - 1
            use = (from_beat >= 0) & (from_beat < len(beat))
            samples[t[use] - start] += np.round(beat[from_beat[use]] * (unit / nanovolts)).astype(np.int64)


def _start(section: bytes) -> str:
    """Return time and date as a WFDB header has them; no other tag of the section is looked at."""
    date = time = ""
    at = 0
    while at + 3 <= len(section) and section[at] != 255:
        tag, length = struct.unpack_from("<BH", section, at)
        value = section[at + 3 : at + 3 + length]
        if tag == 25 and length == 4:
            year, month, day = struct.unpack("<HBB", value)
            date = f"{day:02}/{month:02}/{year}"
        if tag == 26 and length == 3:
            time = f"{value[0]:02}:{value[1]:02}:{value[2]:02}"
        at += 3 + length
    return f"{time} {date}".strip()
