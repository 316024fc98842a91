"""Tables of numbers as text: CSV and its relatives, as notebooks, loggers, watches and `rdsamp -c` write them.

layout.py tells the layout from the rows themselves, pandas reads the numbers. What cannot be told is an error that
names the line.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import pqrst
from formats import FASTEST, SLOWEST, Signal, Tracing
from formats.layout import (
    CLOCK,
    CLOCKS,
    EMPTY,
    HEAD,
    NUMBER,
    RATE,
    SAMPLE,
    SECONDS,
    STAMP,
    VOLTS,
    Layout,
    cells_of,
    layout_of,
    text_of,
    unit_of,
)  # fmt: skip
from formats.times import LONGEST, MOST_GAPS, Grid, grid, resolution_of
from recipe import TWELVE_LEADS, ecg_leads

if TYPE_CHECKING:
    import pandas as pd

MOST_COLUMNS = 256
COUNTER = re.compile(r"(sample|frame|index|seq|unnamed: 0)( ?#| ?number| ?no\.?| ?index)?")
TIME = re.compile(
    r"(elapsed|relative|absolute|unix|epoch|sample)?[ _]*(time|timestamp|date ?time|t|epoch|unix)( ?stamp)?"
)
RATE_KEY = re.compile(r"(sampl(e|ing)[ _]*)?(rate|freq(uency)?|fs|hz)([ _]*\(?hz\)?)?", re.IGNORECASE)
# The unit of a count of seconds since 1970 tells itself for all times from 1973 to 5138.
EPOCHS = ((1e8, 1.0), (1e11, 1e-3), (1e14, 1e-6), (1e17, 1e-9))


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
    text = text_of(path)
    try:
        layout = layout_of(path, text)
        table = _table(path, text, layout)
    except csv.Error as error:
        raise pqrst.FormatError(f"{path}: not a table of numbers: {error}") from error
    columns = _named(path, layout, table)
    rate, unit, lead = _preamble(layout.preamble)
    times = [name for name, column in columns.items() if _is_time(name, column.unit)]
    times = times or [name for name, column in columns.items() if _has_stamps(column)]
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
    counters = [name for name, column in columns.items() if COUNTER.fullmatch(name.lower()) and name not in times]
    place = None if times or not counters else _counted(columns[counters[0]].values)
    if place is not None and (fs or rate):
        times, steady = [counters[0]], Grid(fs or rate or 0, place)
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
    body, blank = _body(text, layout), not layout.separator.strip(" ")
    body = "\n".join(line.strip() for line in body.split("\n")) if blank else body
    _check_lengths(path, body, layout, n)
    try:
        return pd.read_csv(
            io.StringIO(body),
            sep={" ": r"\s+", "  ": r"\s{2,}"}.get(layout.separator, layout.separator),
            engine="python" if layout.separator == "  " else "c",
            decimal=layout.decimal,
            header=None,
            names=list(range(n)),
            skipinitialspace=True,
            na_values=sorted(EMPTY | {word.upper() for word in EMPTY}),
            comment="#",
            index_col=False,
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
    if not layout.separator.strip(" ") or '"' in body:
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
    return len(cells_of(line, layout.separator))


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
        columns[plain] = Column(number, values, own or unit_of(unit) or "")
    return columns


def _name_and_unit(heading: str) -> tuple[str, str]:
    """Split `I (mV)`, `Time[ms]`, `ecg_uv`, `time_ms` into name and unit."""
    if (match := re.fullmatch(r"(.*?)[\s_]*[\[(]([^\])]*)[\])]", heading)) and (unit := unit_of(match[2])):
        return match[1].strip() or heading, unit
    if (match := re.fullmatch(r"(.+?)[ _](mv|uv|µv|μv|mV|uV|µV|μV|s|sec|ms|us|ns)", heading)) and (
        unit := unit_of(match[2])
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
    if (numbers.isna() & cells.notna() & ~cells.str.lower().isin(EMPTY)).any():
        name = layout.names[column.number - layout.index]
        raise pqrst.FormatError(f"{path}: {_first_wrong(text, layout, column, name)}")
    return np.asarray(numbers.to_numpy(np.float64, na_value=np.nan))


def _first_wrong(text: str, layout: Layout, column: Column, name: str) -> str:
    """Say which cell of a column is the first that is no number."""
    cells = [str(cell).strip() for cell in column.values]
    lines = [k for k, line in enumerate(_body(text, layout).split("\n")) if line.strip() and not line.startswith("#")]
    number = re.compile(NUMBER.pattern.replace(r"\.", re.escape(layout.decimal)))
    wrong = next((k for k, cell in enumerate(cells) if cell.lower() not in EMPTY and not number.fullmatch(cell)), None)
    if wrong is None:
        return f"column {name}: a number has more digits than can be read"
    return f"line {layout.first + lines[wrong] + 1}: column {name}: {cells[wrong]!r} is no number"


# ------------------------------------------------------------------------------------------------ times


def _grid(what: str, column: Column, layout: Layout, text: str, fs: float | None) -> Grid:
    """Find the rate and the gaps of a column of times; `fs` gives an end to doubts about its unit."""
    seconds, resolution = _seconds(what, column, layout, text)
    found = grid(seconds, resolution, what)
    if not SLOWEST <= found.fs <= FASTEST and not column.unit and fs is None:
        raise pqrst.FormatError(
            f"{what} would be {found.fs:g} Hz in seconds, no rate of an ECG: call it time_ms, or give the rate"
        )
    return found


def _has_stamps(column: Column) -> bool:
    """Tell whether a column holds dates and times of day, whatever it is called."""
    first = str(column.values.iloc[0]).strip("[] '")
    return bool(column.values.dtype.kind not in "iuf" and (STAMP.fullmatch(first) or CLOCK.fullmatch(first)))


def _counted(values: Any) -> NDArray[np.int64] | None:
    """Return the place of each sample by a column that counts them, if it leaves some out; else None."""
    if values.dtype.kind not in "iu":
        return None
    place = values.to_numpy(np.int64) - int(values.iloc[0])
    steps = np.diff(place)
    counts = len(steps) and (steps >= 1).all() and np.mean(steps > 1) <= MOST_GAPS
    return place if counts and len(values) <= place[-1] < LONGEST * len(values) else None


def _seconds(what: str, column: Column, layout: Layout, text: str) -> tuple[NDArray[np.float64], float]:
    """Return times in seconds from the first, and what they are rounded to."""
    import pandas as pd

    values = column.values
    last = [cells_of(line, layout.separator) for line in text[-HEAD:].split("\n")[1:] if line.strip()][-SAMPLE * 5 :]
    written = [cells[column.number].replace(layout.decimal, ".") for cells in last if len(cells) > column.number]
    if values.dtype.kind in "iuf":
        unit = SECONDS.get(column.unit)
        first = float(values.iloc[0])
        if unit is None:
            unit = next((scale for least, scale in reversed(EPOCHS) if abs(first) >= least), 1.0)
        numbers = np.asarray(values)
        return (numbers - numbers[0]).astype(np.float64) * unit, resolution_of(written) * unit
    if NUMBER.fullmatch(str(values.iloc[0]).strip()):
        name = layout.names[column.number - layout.index]
        raise pqrst.FormatError(f"{what}: {_first_wrong(text, layout, column, name)}")
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
