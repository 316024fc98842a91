"""Tables of numbers as text: CSV and its relatives, as notebooks, loggers, watches and `rdsamp -c` write them.

The layout is told from the rows themselves: which character separates the columns, whether decimals have a comma, where
the rows begin, what stands above them. pandas reads the numbers. What cannot be told is an error that names the line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import pqrst
from formats import Signal, Tracing
from formats.times import Grid, grid, resolution_of
from recipe import TWELVE_LEADS, ecg_leads

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = (",", ";", "\t", "|", " ")
HEAD = 2**18  # bytes in which the rows begin
SAMPLE = 40  # rows that tell the layout
MOST_COLUMNS = 256
EMPTY = {"", "-", "nan", "na", "n/a", "null", "none", "inf", "-inf", "#n/a"}  # in small letters; `rdsamp` writes -
VOLTS = {"v": "V", "mv": "mV", "uv": "uV", "µv": "uV", "μv": "uV", "nv": "nV", "volt": "V", "volts": "V",
         "millivolt": "mV", "millivolts": "mV", "microvolt": "uV", "microvolts": "uV"}  # fmt: skip
SECONDS = {"s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3,
           "millisecond": 1e-3, "milliseconds": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microseconds": 1e-6,
           "ns": 1e-9, "nanoseconds": 1e-9, "min": 60.0, "minutes": 60.0}  # fmt: skip
OTHERS = {"#", "sample #", "adu", "bpm", "%", "mmhg"}  # what else stands in a row of units
CLOCKS = {"hh:mm:ss", "hh:mm:ss.mmm", "mm:ss.mmm", "hh:mm:ss.sss", "mm:ss"}
TIME = re.compile(
    r"(elapsed|relative|absolute|unix|epoch|sample)?[ _]*(time|timestamp|date ?time|t|epoch|unix)( ?stamp)?"
)
RATE = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:hz|hertz)\b", re.IGNORECASE)
RATE_KEY = re.compile(r"(sampl(e|ing)[ _]*)?(rate|freq(uency)?|fs|hz)([ _]*\(?hz\)?)?", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NUMBER_WITH_COMMA = re.compile(r"[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?")
CLOCK = re.compile(r"[\[ ]*(\d+:)?\d{1,2}:\d{1,2}([.,]\d+)?[\] ]*")
STAMP = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}[T ]+\d{1,2}:\d{2}.*")
# The unit of a count of seconds since 1970 tells itself for all times from 1973 to 5138.
EPOCHS = ((1e8, 1.0), (1e11, 1e-3), (1e14, 1e-6), (1e17, 1e-9))


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


def parse(path: Path, fs: float | None) -> Tracing:
    """Read a table with a column for each lead, and perhaps one with times.

    Parameters
    ----------
    path : of the file: UTF-8, UTF-16 or Windows-1252, any line ends
    fs : rate that the user gives, Hz

    Raises
    ------
    pqrst.FormatError
        A layout that cannot be told, rows of several lengths, cells that are no numbers, times that tell no rate.
    """
    text = _text(path)
    layout = _layout(path, text)
    table = _table(path, text, layout)
    columns = _named(path, layout, table)
    rate, unit, lead = _preamble(layout.preamble)
    times = [name for name, column in columns.items() if _is_time(name, column.unit)]
    steady, rate_from, warnings = None, "", []
    if times:
        what = f"{path}: column {times[0]}"
        try:
            steady = _grid(what, columns[times[0]], layout, text, fs)
            rate, rate_from = steady.fs, f"from column {times[0]}"
        except pqrst.FormatError as error:
            if fs is None:
                raise
            warnings.append(f"{error}; it is not used")
    elif rate:
        rate_from = "from the lines above the table"
    names = _leads(path, {name: column for name, column in columns.items() if name not in times})
    chosen: list[Signal] = []
    gaps = steady if steady and (fs is None or abs(fs / steady.fs - 1) <= 0.005) else None
    for name, new in names.items():
        values = _numbers(path, text, layout, columns[name])
        new = lead if lead and new == "ECG" and len(names) == 1 else new
        chosen.append(Signal(new, gaps.spread(values) if gaps else values, rate, columns[name].unit or unit))
    if gaps and gaps.n_samples > len(gaps.place):
        missing = (gaps.n_samples - len(gaps.place)) / gaps.fs
        warnings.append(f"{path}: column {times[0]} has gaps of {missing:.3g} s in all; they are NaN")
    left = [name or "(no name)" for name in columns if name not in names and name not in times]
    if left:
        warnings.append(f"{path}: columns that are no ECG leads are left out: {', '.join(left)}")
    return Tracing(chosen, rate_from, warnings=tuple(warnings))


# ------------------------------------------------------------------------------------------------ the layout


def _text(path: Path) -> str:
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


def _layout(path: Path, text: str) -> Layout:
    """Find the layout under which the rows are numbers, and the heading has as many names as they have columns."""
    lines = text[:HEAD].split("\n")
    if len(text) > HEAD:
        lines = lines[:-1]
    if not any(line.strip() for line in lines):
        raise pqrst.FormatError(f"{path}: not a table: the file is empty")
    found: list[tuple[float, int, Layout]] = []
    reasons: list[tuple[float, str]] = []
    for separator in SEPARATORS:
        for decimal in ".," if separator != "," else ".":
            result = _try(lines, separator, decimal)
            if isinstance(result, Layout):
                found.append((_misfits(lines, result), -len(result.names), result))
            elif result:
                reasons.append(result)
    alone = _try(lines, ";", ",") if not found else None  # a column of numbers with a decimal comma
    if isinstance(alone, Layout) and alone.preamble:
        return alone
    if found:
        return min(found, key=lambda each: each[:2])[2]
    raise pqrst.FormatError(f"{path}: {max(reasons)[1] if reasons else 'not a table of numbers'}")


def _cells(line: str, separator: str) -> list[str]:
    """Split a line; cells may be quoted with either quote."""
    line = line.strip() if separator == " " else line
    if separator == " ":
        return line.split()
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
    last = [_cells(line, separator) for line in lines[-SAMPLE:] if line.strip()]
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
            if line.strip() and not line.startswith("#") and _is_row(_cells(line, separator), kinds, decimal)
        ),
        None,
    )
    if first is None:
        return None
    above = [(number, _cells(line.lstrip("# "), separator)) for number, line in enumerate(lines[:first])]
    above = [(number, cells) for number, cells in above if any(cells)]
    share = kinds.count("number") / n
    trailing = kinds[-1] == "empty" and n > 1
    units: list[str] = []
    if above and len(above[-1][1]) > 1 and _are_units(above[-1][1]):
        units = above.pop()[1]
    heading = above[-1] if above else None
    width = n - trailing
    if heading and _is_heading(heading[1], width):
        names = heading[1][:width]
        units = (units or [""] * len(names))[: len(names)]
        preamble = [cells for _, cells in above[:-1]]
        unnamed = len(names) == width - 1
        return Layout(separator, decimal, first, names, units, preamble, unnamed, trailing)
    if width == 1 and (above or separator == ","):
        preamble = [_cells(lines[number].lstrip("# "), ",") for number, _ in above]
        return Layout(separator, decimal, first, ["ECG"], units or [""], preamble, False, trailing)
    if heading:
        line, cells = heading
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
    return bool(RATE.search(cell) or NUMBER.fullmatch(cell) or (unit in VOLTS and unit != "v"))


def _are_units(cells: list[str]) -> bool:
    """Tell whether a line has the units of the columns."""
    units = [cell for cell in cells if cell]
    each = [_unit(cell) is not None or cell.strip("[]() ").lower() in OTHERS for cell in units]
    return all(each) and any(_unit(cell) in VOLTS.values() for cell in units)


def _misfits(lines: list[str], layout: Layout) -> float:
    """Return the share of cells in the first rows that are text."""
    rows = [
        _cells(line, layout.separator) for line in islice(lines, layout.first, layout.first + SAMPLE) if line.strip()
    ]
    kinds = [_kind(cell, layout.decimal) for row in rows for cell in row]
    return kinds.count("text") / max(1, len(kinds))


def _unit(text: str) -> str | None:
    """Return the unit that a word is: of volts, or of time as written; None if it is no unit."""
    word = text.strip("[]() ").lower()
    return VOLTS.get(word) or (word if word in SECONDS or word in CLOCKS else None)


def _preamble(lines: list[list[str]]) -> tuple[float | None, str, str]:
    """Return rate, unit and lead that the lines above the heading give, as watches write them, in any language."""
    rate, unit, lead = None, "", ""
    for cells in lines:
        words = [word.strip() for cell in cells for word in re.split(r"[:=]", cell) if word.strip()]
        for key, value in zip(["", *words], words, strict=False):
            if (match := RATE.fullmatch(value)) or (RATE_KEY.fullmatch(key) and (match := NUMBER.fullmatch(value))):
                rate = float((match[1] if match.re is RATE else match[0]).replace(",", "."))
            unit = VOLTS.get(value.lower(), unit)
            if key and ecg_leads([last := value.split()[-1], "I"])[0] and not last.isdigit():
                lead = last
    return rate, unit, lead


# ------------------------------------------------------------------------------------------------ the columns


class Column(NamedTuple):
    """One column of the table."""

    number: int
    values: Any  # pandas.Series
    unit: str  # volts as a record has them, times as written; "" where none is given


def _table(path: Path, text: str, layout: Layout) -> pd.DataFrame:
    """Read the rows."""
    import pandas as pd  # slow to import, and only these files need it

    n = len(layout.names) + layout.index + layout.trailing
    if n > MOST_COLUMNS:
        raise pqrst.FormatError(f"{path}: has {n} columns, expected one for each lead, and a sample in each row")
    body = _body(text, layout)
    _check_lengths(path, body, layout, n)
    try:
        return pd.read_csv(
            io.StringIO(body),
            sep=r"\s+" if layout.separator == " " else layout.separator,
            decimal=layout.decimal,
            header=None,
            names=list(range(n)),
            skipinitialspace=True,
            na_values=sorted(EMPTY | {word.upper() for word in EMPTY}),
            comment="#",
            index_col=False,
            low_memory=False,
        )
    except (ValueError, OverflowError) as error:  # errors of pandas are subclasses of ValueError
        raise pqrst.FormatError(f"{path}: not a table of numbers: {error}") from error


def _body(text: str, layout: Layout) -> str:
    start = 0
    for _ in range(layout.first):
        start = text.index("\n", start) + 1
    return text[start:]


def _check_lengths(path: Path, body: str, layout: Layout, n: int) -> None:
    """Refuse rows with more or fewer cells than the first, which pandas fills up."""
    if layout.separator == " " or '"' in body:
        lines = body.split("\n")
        wrong = next((k for k, line in enumerate(lines) if line.strip() and _length(line, layout) != n), None)
    else:
        raw = np.frombuffer(body.encode(), np.uint8)
        ends = np.append(np.flatnonzero(raw == 10), len(raw))
        marks = np.flatnonzero(raw == ord(layout.separator))
        counts = np.diff(np.searchsorted(marks, ends), prepend=0)
        lengths = np.diff(ends, prepend=-1) - 1
        some = np.flatnonzero((lengths > 0) & (counts != n - 1))
        lines = body.split("\n") if len(some) else []
        wrong = next((int(k) for k in some if lines[k].strip() and not lines[k].startswith("#")), None)
    if wrong is not None:
        cells, line = _length(lines[wrong], layout), layout.first + wrong + 1
        what = "value" if cells == 1 else "values"
        raise pqrst.FormatError(f"{path}: line {line} has {cells} {what}, expected {n} as in line {layout.first + 1}")


def _length(line: str, layout: Layout) -> int:
    return len(line.split()) if layout.separator == " " else len(next(csv.reader([line], delimiter=layout.separator)))


def _named(path: Path, layout: Layout, table: pd.DataFrame) -> dict[str, Column]:
    """Give the columns their names and units; an index without a name is left out."""
    columns: dict[str, Column] = {}
    first = 1 if layout.index else 0
    if layout.index and not _counts(table[0]):
        line = layout.first + 1
        raise pqrst.FormatError(f"{path}: line {line} has {len(layout.names) + 1} values for {len(layout.names)} names")
    for number, (name, unit) in enumerate(zip(layout.names, layout.units, strict=True), first):
        values = table[number]
        plain, own = _name_and_unit(name)
        if not plain:
            if _counts(values) or values.isna().all():
                continue
            raise pqrst.FormatError(f"{path}: column {number + 1} has no name; its first value is {values.iloc[0]}")
        if plain in columns:
            raise pqrst.FormatError(f"{path}: several columns are called {plain}")
        columns[plain] = Column(number, values, own or _unit(unit) or "")
    return columns


def _name_and_unit(heading: str) -> tuple[str, str]:
    """Split `I (mV)`, `Time[ms]`, `ecg_uv`, `time_ms` into name and unit."""
    if (match := re.fullmatch(r"(.*?)[\s_]*[\[(]([^\])]*)[\])]", heading)) and (unit := _unit(match[2])):
        return match[1].strip() or heading, unit
    if (match := re.fullmatch(r"(.+?)[ _](mv|uv|µv|μv|mV|uV|µV|μV|s|sec|ms|us|ns)", heading)) and (
        unit := _unit(match[2])
    ):
        return (match[1] if unit in VOLTS.values() else heading), unit
    return heading, ""


def _counts(values: Any) -> bool:
    """Tell whether a column counts the rows."""
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    return bool(len(numbers) > 1 and (np.diff(numbers) == 1).all())


def _is_time(name: str, unit: str) -> bool:
    plain = _name_and_unit(name)[0].lower()
    plain = re.sub(r"[ _](s|sec|ms|us|ns)$", "", plain)
    return bool(TIME.fullmatch(plain)) or plain in SECONDS or (unit in SECONDS or unit in CLOCKS)


def _leads(path: Path, columns: dict[str, Column]) -> dict[str, str]:
    """Choose the columns that are ECG leads by their names, and say what a record calls them.

    Text under a name that is not known is no lead. lead1 to lead12 are the twelve leads in their usual order.
    """
    import pandas as pd

    if not columns:
        raise pqrst.FormatError(f"{path}: has no columns besides time")
    known = ecg_leads(["I", *columns])[1:]  # beside a lead that is known, others count only if they are known too
    chosen = [
        name
        for (name, column), is_known in zip(columns.items(), known, strict=True)
        if is_known or pd.to_numeric(column.values, errors="coerce").notna().any()
    ]
    leads = [name for name, is_lead in zip(chosen, ecg_leads(chosen), strict=True) if is_lead]
    if not leads:
        raise pqrst.FormatError(f"{path}: no column is an ECG lead: {', '.join(columns)}")
    numbered = [re.fullmatch(r"lead_?(\d+)", name.lower()) for name in leads]
    if not any(numbered):
        return {name: name for name in leads}
    numbers = [int(match[1]) if match else 0 for match in numbered]
    if sorted(numbers) != list(range(1, 13)):
        raise pqrst.FormatError(f"{path}: columns {', '.join(leads)}; expected lead1 to lead12, or lead names")
    return {name: TWELVE_LEADS[n - 1] for name, n in zip(leads, numbers, strict=True)}


def _numbers(path: Path, text: str, layout: Layout, column: Column) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where a cell is empty."""
    import pandas as pd

    if column.values.dtype.kind in "iuf":
        return np.asarray(column.values, np.float64)
    cells = column.values.astype("string").str.strip()
    numbers = pd.to_numeric(cells.str.replace(layout.decimal, "."), errors="coerce")
    wrong = np.flatnonzero(numbers.isna() & cells.notna() & ~cells.str.lower().isin(EMPTY))
    if len(wrong):
        name = layout.names[column.number - layout.index]
        rows = [
            k for k, line in enumerate(_body(text, layout).split("\n")) if line.strip() and not line.startswith("#")
        ]
        line = layout.first + rows[wrong[0]] + 1
        raise pqrst.FormatError(f"{path}: line {line}: column {name}: {cells.iloc[wrong[0]]!r} is no number")
    return np.asarray(numbers.to_numpy(np.float64, na_value=np.nan))


# ------------------------------------------------------------------------------------------------ times


def _grid(what: str, column: Column, layout: Layout, text: str, fs: float | None) -> Grid:
    """Find the rate and the gaps of a column of times; `fs` gives an end to doubts about its unit."""
    seconds, resolution = _seconds(what, column, layout, text)
    found = grid(seconds, resolution, what)
    if not 25 <= found.fs <= 50_000 and not column.unit and fs is None:
        raise pqrst.FormatError(
            f"{what} would be {found.fs:g} Hz in seconds, no rate of an ECG: call it time_ms, or give the rate"
        )
    return found


def _seconds(what: str, column: Column, layout: Layout, text: str) -> tuple[NDArray[np.float64], float]:
    """Return times in seconds from the first, and what they are rounded to."""
    import pandas as pd

    values = column.values
    last = [_cells(line, layout.separator) for line in text[-HEAD:].split("\n")[1:] if line.strip()][-SAMPLE * 5 :]
    written = [cells[column.number].replace(layout.decimal, ".") for cells in last if len(cells) > column.number]
    if values.dtype.kind in "iuf":
        unit = SECONDS.get(column.unit)
        first = float(values.iloc[0])
        if unit is None:
            unit = next((scale for least, scale in reversed(EPOCHS) if abs(first) >= least), 1.0)
        numbers = np.asarray(values)
        return (numbers - numbers[0]).astype(np.float64) * unit, resolution_of(written) * unit
    cells = values.astype("string").str.strip("[] '")
    resolution = resolution_of(
        [re.sub(r"^.*:", "", re.sub(r"(Z|[+-]\d\d:?\d\d)$", "", c.strip("[] "))) for c in written]
    )
    try:
        if CLOCK.fullmatch(str(cells.iloc[0])):
            parts = cells.str.replace(",", ".").str.split(":", expand=True).astype("float64").to_numpy()
            seconds = parts @ 60.0 ** np.arange(parts.shape[1] - 1, -1, -1)
            return _over_midnight(seconds) - seconds[0], resolution
        stamps = pd.to_datetime(cells, format="ISO8601" if cells.iloc[0][:4].isdigit() else "mixed", utc=True)
        return ((stamps - stamps.iloc[0]) / pd.Timedelta(1, "s")).to_numpy(np.float64), resolution
    except (ValueError, TypeError) as error:
        raise pqrst.FormatError(f"{what} cannot be read as times: {str(error).splitlines()[0]}") from error


def _over_midnight(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add a day after each midnight."""
    return seconds + 86400.0 * np.concatenate([[0], np.cumsum(np.diff(seconds) < -43200)])
