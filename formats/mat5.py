"""The variables of MATLAB files of version 4 and 5, whatever their bytes are.

SciPy reads these too, but a damaged file can end the whole process in its compiled part, and a small compressed one can
fill the memory. Numbers, texts, cells and structs are read; what else there is, is None.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import pqrst

MOST_BYTES = 2**30  # of one variable, decompressed
DEEPEST = 16  # cells and structs in one another
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1", 17: "u2",
         18: "u4"}  # fmt: skip
CODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
TYPES_OF_V4 = {0: "f8", 1: "f4", 2: "i4", 3: "i2", 4: "u2", 5: "u1"}
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR, NUMBERS = 1, 2, 4, range(6, 16)


class Element(NamedTuple):
    """A piece of the file: its type, its bytes, and where the next one begins."""

    kind: int
    data: bytes
    end: int


def variables(path: Path) -> dict[str, Any]:
    """Return all variables by name: arrays without axes of length 1, texts, lists for cells, dicts for structs.

    Raises
    ------
    pqrst.FormatError
        Another kind of file, or a damaged one.
    """
    raw = path.read_bytes()
    try:
        if raw[126:128] in (b"IM", b"MI"):
            return _variables(raw, "<" if raw[126:128] == b"IM" else ">")
        return _of_v4(raw)
    except (struct.error, ValueError, zlib.error, LookupError, OverflowError) as error:
        raise pqrst.FormatError(f"{path}: not a MATLAB file that can be read: {error}") from error


def _variables(raw: bytes, order: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    at = 128
    while at + 8 <= len(raw):
        element = _element(raw, at, order)
        if element.kind == COMPRESSED:
            inflater = zlib.decompressobj()
            content = inflater.decompress(element.data, MOST_BYTES)
            if inflater.unconsumed_tail:
                raise ValueError(f"a variable has more than {MOST_BYTES} bytes")
            inside = _element(content, 0, order)
        else:
            inside = element
        if inside.kind == MATRIX:
            name, value = _matrix(inside.data, order, 0)
            found[name] = value
        at = element.end
    return found


def _element(raw: bytes, at: int, order: str) -> Element:
    kind, size = struct.unpack_from(f"{order}II", raw, at)
    if kind >> 16:  # up to four bytes are held in the tag itself
        size, kind = kind >> 16, kind & 0xFFFF
        if size > 4:
            raise ValueError(f"a small element of {size} bytes at byte {at}")
        return Element(kind, raw[at + 4 : at + 4 + size], at + 8)
    start = at + 8
    if start + size > len(raw):
        raise ValueError(f"an element of {size} bytes at byte {at} is cut off")
    padded = size if kind == COMPRESSED else -(-size // 8) * 8
    return Element(kind, raw[start : start + size], start + padded)


def _numbers(element: Element, order: str) -> NDArray[Any]:
    kind = np.dtype(TYPES[element.kind]).newbyteorder(order)  # type: ignore[arg-type]
    return np.frombuffer(element.data[: len(element.data) // kind.itemsize * kind.itemsize], kind)


def _matrix(raw: bytes, order: str, depth: int) -> tuple[str, Any]:
    """Return name and value of an array."""
    if depth > DEEPEST:
        raise ValueError(f"cells and structs are more than {DEEPEST} deep")
    if not raw:
        return "", np.zeros(0)
    flags = _element(raw, 0, order)
    shape_of = _element(raw, flags.end, order)
    named = _element(raw, shape_of.end, order)
    kind = int(_numbers(flags, order)[0]) & 0xFF
    shape = [int(n) for n in _numbers(shape_of, order)]
    n = int(np.prod(shape, dtype=np.float64)) if all(length >= 0 for length in shape) else -1
    if n < 0 or n > MOST_BYTES:
        raise ValueError(f"a variable has the shape {tuple(shape)}, too large for a recording")
    return named.data.decode("latin-1"), _content(raw, named.end, kind, shape, n, order, depth)


def _content(raw: bytes, at: int, kind: int, shape: list[int], n: int, order: str, depth: int) -> Any:
    if kind in NUMBERS:
        values = _numbers(_element(raw, at, order), order)
        if len(values) != n:
            raise ValueError(f"a variable of shape {tuple(shape)} has {len(values)} values")
        return values.reshape(shape, order="F").squeeze()
    if kind == CHAR:
        text = _element(raw, at, order)
        coding = CODINGS[text.kind]
        coding += {"<": "-le", ">": "-be"}[order] if coding in ("utf-16", "utf-32") else ""
        letters = text.data.decode(coding, errors="replace")
        if len(shape) == 2 and shape[0] > 1 and len(letters) == n:  # a text in each row
            return ["".join(row).strip() for row in np.reshape(list(letters), shape, order="F")]
        return letters.strip("\0 ")
    if kind == CELL:
        cells: list[Any] = []
        for _ in range(n):
            element = _element(raw, at, order)
            cells.append(_matrix(element.data, order, depth + 1)[1])
            at = element.end
        return cells
    if kind == STRUCT and n == 1:
        length = _element(raw, at, order)
        names = _element(raw, length.end, order)
        step, at = int(_numbers(length, order)[0]), names.end
        if step < 1:
            raise ValueError(f"field names of {step} bytes")
        fields: dict[str, Any] = {}
        for start in range(0, len(names.data) // step * step, step):
            element = _element(raw, at, order)
            name = names.data[start : start + step].partition(b"\0")[0].decode("latin-1")
            fields[name] = _matrix(element.data, order, depth + 1)[1]
            at = element.end
        return fields
    return None


def _of_v4(raw: bytes) -> dict[str, Any]:
    """Return the variables of version 4, which has matrices of numbers and texts alone."""
    found: dict[str, Any] = {}
    at = 0
    while at + 20 <= len(raw):
        order = "<" if struct.unpack_from("<I", raw, at)[0] < 5000 else ">"
        kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5I", raw, at)
        machine, precision, sort = kind // 1000, kind // 10 % 10, kind % 10
        if machine > 1 or kind // 100 % 10 or precision not in TYPES_OF_V4 or sort > 2 or not 1 <= length < 256:
            raise ValueError("it begins like no version of the format")
        dtype = np.dtype(TYPES_OF_V4[precision]).newbyteorder(order)  # type: ignore[arg-type]
        start, size = at + 20 + length, rows * columns * dtype.itemsize
        if start + size * (2 if imaginary else 1) > len(raw):
            raise ValueError(f"a variable of {rows} x {columns} values at byte {at} is cut off")
        values = np.frombuffer(raw[start : start + size], dtype).reshape((rows, columns), order="F")
        name = raw[at + 20 : start].partition(b"\0")[0].decode("latin-1")
        found[name] = "".join(map(chr, values.ravel().astype(int) & 0xFF)) if sort == 1 else values.squeeze()
        at = start + size * (2 if imaginary else 1)
    if not found:
        raise ValueError("it holds no variable")
    return found
