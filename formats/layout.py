"""How a text with numbers is laid out: what separates its columns, where its rows begin, what stands above them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pqrst

SEPARATORS = (",", ";", "\t", "|", "  ", " ")  # two blanks: names may have one, as `rdsamp` writes them
HEAD = 2**18  # bytes in which the rows begin
SAMPLE = 40  # rows that tell the layout
EMPTY = {"", "-", "nan", "na", "n/a", "null", "none", "inf", "-inf", "#n/a"}  # in small letters; `rdsamp` writes -
VOLTS = {"v": "V", "mv": "mV", "uv": "uV", "µv": "uV", "μv": "uV", "nv": "nV", "volt": "V", "volts": "V",
         "millivolt": "mV", "millivolts": "mV", "microvolt": "uV", "microvolts": "uV"}  # fmt: skip
SECONDS = {"s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3,
           "millisecond": 1e-3, "milliseconds": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microseconds": 1e-6,
           "ns": 1e-9, "nanoseconds": 1e-9, "min": 60.0, "minutes": 60.0}  # fmt: skip
NO_VOLTS = {"adu", "raw", "counts"}
OTHERS = {"#", "sample #", "bpm", "%", "mmhg"}  # what else stands in a row of units
CLOCKS = {"hh:mm:ss", "hh:mm:ss.mmm", "mm:ss.mmm", "hh:mm:ss.sss", "mm:ss"}
RATE = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:hz|hertz)\b", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NUMBER_WITH_COMMA = re.compile(r"[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?")
CLOCK = re.compile(r"[\[ ]*(\d+:)?\d{1,2}:\d{1,2}([.,]\d+)?[\] ]*")
STAMP = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}[T ]+\d{1,2}:\d{2}.*")


@dataclass
class Layout:
    """How a text is laid out."""

    separator: str
    decimal: str
    first: int  # line of the first row, from 0
    names: list[str]
    units: list[str]  # as written, "" where none is
    preamble: list[list[str]]  # the lines above the heading
    index: bool = False  # a first column that the heading does not count
    trailing: bool = False  # rows end with a separator


def text_of(path: Path) -> str:
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        at = raw.find(b"\0")
        if at >= 0:
            raise pqrst.FormatError(f"{path}: not a table: byte {at} is NUL, which no text has")
        encoding = "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def layout_of(path: Path, text: str) -> Layout:
    """Find the layout under which the rows are numbers, and the heading has as many names as they have columns."""
    lines = text[:HEAD].split("\n")
    if len(text) > HEAD:
        lines = lines[:-1]
    if not any(line.strip() for line in lines):
        raise pqrst.FormatError(f"{path}: not a table: the file is empty")
    found: list[tuple[float, int, Layout]] = []
    reasons: list[tuple[float, str]] = []
    for separator in SEPARATORS:
        for decimal in ".,":
            result = _try(lines, separator, decimal)
            if isinstance(result, Layout):
                found.append((_misfits(lines, result), -len(result.names), result))
            elif result:
                reasons.append(result)
    if found:
        return min(found, key=lambda each: each[:2])[2]
    raise pqrst.FormatError(f"{path}: {max(reasons)[1] if reasons else 'not a table of numbers'}")


def cells_of(line: str, separator: str) -> list[str]:
    """Split a line; cells may be quoted with either quote."""
    if not separator.strip(" "):
        return re.split(rf"\s{{{len(separator)},}}", line.strip())
    cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return [cell.strip().strip("'").strip() for cell in cells]


def _kind(cell: str, decimal: str) -> str:
    """Tell what a cell is: number, clock, stamp, empty or text."""
    if cell.lower() in EMPTY:
        return "empty"
    if (NUMBER if decimal == "." else NUMBER_WITH_COMMA).fullmatch(cell):
        return "number"
    if CLOCK.fullmatch(cell):
        return "clock"
    return "stamp" if STAMP.fullmatch(cell.strip("[] ")) else "text"


def _rows_below(lines: Sequence[str], separator: str, decimal: str) -> tuple[int, list[str]] | None:
    """Return the number of cells and the kind of each column in the last lines, if most of these agree."""
    last = [cells_of(line, separator) for line in lines[-SAMPLE:] if line.strip()]
    last = last[len(last) // 2 :] if len(last) < SAMPLE else last
    counts = [len(row) for row in last]
    n = max(set(counts), key=counts.count)
    kinds: list[str] = []
    for column in range(n):
        here = [_kind(row[column], decimal) for row in last if len(row) == n]
        here = [kind for kind in here if kind != "empty"]
        kinds.append(max(set(here), key=here.count) if here else "empty")
    return (n, kinds) if "number" in kinds else None


def _try(lines: list[str], separator: str, decimal: str) -> Layout | tuple[float, str] | None:
    """Lay the lines out with this separator; or say why they cannot be, and how near it came."""
    below = _rows_below(lines, separator, decimal)
    if below is None:
        return None
    n, kinds = below
    first = next(
        (
            number
            for number, line in enumerate(lines)
            if line.strip() and not line.startswith("#") and _is_row(cells_of(line, separator), kinds, decimal)
        ),
        None,
    )
    if first is None:
        return None
    above = [(number, cells_of(line.lstrip("# "), separator)) for number, line in enumerate(lines[:first])]
    above = [(number, cells) for number, cells in above if any(cells)]
    share = kinds.count("number") / n
    units: list[str] = []
    if above and len(above[-1][1]) > 1 and _are_units(above[-1][1]):
        units = above.pop()[1]
    heading = above[-1] if above else None
    named = bool(heading and len(heading[1]) == n and heading[1][-1])
    trailing = n > 1 and kinds[-1] == "empty" and not named and not cells_of(lines[first], separator)[-1]
    width = n - trailing
    if heading and _is_heading(heading[1], width):
        names = heading[1][:width]
        units = (units or [""] * len(names))[: len(names)]
        preamble = [cells for _, cells in above[:-1]]
        unnamed = len(names) == width - 1
        return Layout(separator, decimal, first, names, units, preamble, unnamed, trailing)
    if width == 1 and (above or separator == ","):
        preamble = [cells_of(lines[number].lstrip("# "), ",") for number, _ in above]
        return Layout(separator, decimal, first, ["ECG"], units or [""], preamble, False, trailing)
    if heading:
        line, cells = heading
        if len(cells) == width:
            return share, f"line {line + 1} is neither a row of names nor one of numbers"
        return (
            share,
            f"line {line + 1} has {_n(cells, 'name')}, line {first + 1} has {width} values{_hint(lines, first)}",
        )
    return share, f"line {first + 1} holds {width} values, expected a row of names, such as time,I,II"


def _n(cells: list[str], noun: str) -> str:
    return f"{len(cells)} {noun}{'' if len(cells) == 1 else 's'}"


def _hint(lines: list[str], first: int) -> str:
    """Say what may be wrong where names and values differ in number."""
    return ": decimal commas between commas cannot be told apart" if lines[first].count(",") > 1 else ""


def _is_row(cells: list[str], kinds: list[str], decimal: str) -> bool:
    """Tell whether cells are of the same kinds as the last rows."""
    here = [_kind(cell, decimal) for cell in cells]
    alike = all(
        kind in (wanted, "empty") or wanted in ("text", "empty") for kind, wanted in zip(here, kinds, strict=False)
    )
    return alike and "number" in here and len(cells) in (len(kinds), len(kinds) - 1)


def _is_heading(cells: list[str], width: int) -> bool:
    """Tell whether a line names the columns: no key with its value, as watches write above their numbers."""
    names = [cell for cell in cells if cell]
    fits = len(cells) in (width, width - 1) or (len(cells) > width and not any(cells[width:]))
    if not fits or not names or (width == 1 and set(",;:\t") & set(names[0])):
        return False
    return not any(_is_value(name) for name in names)


def _is_value(cell: str) -> bool:
    """Tell whether a cell is a number, a rate or a unit of voltage, and so no name; V is both."""
    unit = cell.strip("[]() ").lower()
    return bool(RATE.fullmatch(cell) or NUMBER.fullmatch(cell) or (unit in VOLTS and unit != "v"))


def _are_units(cells: list[str]) -> bool:
    """Tell whether a line has the units of the columns."""
    units = [cell for cell in cells if cell]
    each = [unit_of(cell) is not None or cell.strip("[]() ").lower() in OTHERS for cell in units]
    return all(each) and any(unit_of(cell) in {*VOLTS.values(), *NO_VOLTS} for cell in units)


def _misfits(lines: list[str], layout: Layout) -> float:
    """Return the share of cells in the first rows that are text."""
    rows = [
        cells_of(line, layout.separator) for line in islice(lines, layout.first, layout.first + SAMPLE) if line.strip()
    ]
    kinds = [_kind(cell, layout.decimal) for row in rows for cell in row]
    return kinds.count("text") / max(1, len(kinds))


def unit_of(text: str) -> str | None:
    """Return the unit that a word is: of volts, or of time as written; None if it is no unit."""
    word = text.strip("[]() ").lower()
    return VOLTS.get(word) or (word if word in SECONDS or word in CLOCKS or word in NO_VOLTS else None)
