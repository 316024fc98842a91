"""Read any recording into a `pqrst.Record`. Only this file chooses a reader by format.

A locator is a path, or `path#row` for a file that holds many recordings.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

import pqrst
from recipe import TWELVE_LEADS, ecg_leads

if TYPE_CHECKING:
    import pandas as pd

TIMES = ("time", "time_s", "t", "time (s)", "time [s]", "seconds")
FLAC_FORMATS = {508, 516, 524}
TO_MV = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "nv": 1e-6}
CODE_TEST_LEADS = ("I", "II", "III", "aVL", "aVF", "aVR", "V1", "V2", "V3", "V4", "V5", "V6")
CODE_FS = 400.0
CPSC_FS = 500.0
SLAB = 64  # recordings read at once from an HDF5 file; more if one compressed chunk holds more


SUFFIXES = (".hea", ".csv", ".mat", ".hdf5", ".h5")
HDF5 = (".hdf5", ".h5")
TABLES = {"unified_label_mapping.csv", "records.csv", "reference.csv", "reference-v3.csv", "exams.csv"}  # no recordings


class Info(NamedTuple):
    """Rate, size and format of a recording, without its signal."""

    fs: float
    n_samples: int  # at most: padding is recognised only when the signal is read
    n_bytes: int  # size of its files; another size means that the source has changed
    native: bool  # `pqrst.prepare` can read it directly from its path


def info(path: str | Path, units_per_mv: float | None = None, fs: float | None = None) -> Info:
    """Return the `Info` of a recording; arguments and errors as in `read`."""
    if str(path).endswith(".hea"):  # first, and without a Path: of most datasets all recordings are such
        return _wfdb_info(str(path), units_per_mv)
    file, row = _split(path)
    if row is not None:
        n_rows, n_samples, _ = _tracings(file, file.stat().st_mtime_ns)
        if row >= n_rows:
            raise ValueError(f"{file}: has {n_rows} recordings, no row {row}")
        return Info(CODE_FS, n_samples, file.stat().st_size // n_rows, False)
    if _is_wfdb(file):
        return _wfdb_info(str(file), units_per_mv)
    record = read(file, fs=fs)
    return Info(record.fs, record.n_samples, file.stat().st_size, False)


def _wfdb_info(path: str, units_per_mv: float | None) -> Info:
    header = pqrst.header(path)
    if not header.n_samples:
        raise ValueError(f"{path}: has no samples, or its data file is missing")
    if header.n_bytes is None:
        for name in header.files:
            (Path(path).parent / name).stat()
    native = not FLAC_FORMATS.intersection(header.formats) and (
        units_per_mv is None or set(header.gains) == {units_per_mv}
    )
    return Info(header.fs, header.n_samples, header.n_bytes or 0, native)


def read(path: str | Path, units_per_mv: float | None = None, fs: float | None = None) -> pqrst.Record:
    """Read one recording.

    Parameters
    ----------
    path : one of
        a WFDB header, with or without `.hea`;
        a `.mat` file of CPSC 2018 or 2019;
        a `.csv` file in mV, with a column for each lead (lead names, or lead1 to lead12) and perhaps `time` (s); other
        columns (by `recipe.ecg_leads`), and text under a name that is not known for a lead, are left out, with a line
        in the record's warnings;
        `.hdf5#row` of CODE, in mV, returned without its padding
    units_per_mv : scale of the stored values, if the header's gains are wrong or there is no header: 1000 for uV
    fs : sampling rate in Hz of a CSV file without times

    Returns
    -------
    pqrst.Record: signal (L, T) float32, voltages in mV, invalid samples NaN.

    Raises
    ------
    FileNotFoundError
        The header or a data file does not exist.
    ValueError
        The file is damaged or of an unknown format (then often pqrst.FormatError); the message names the file.
    """
    file, row = _split(path)
    units: float | NDArray[np.float64] = 1.0  # per mV; the format's reader divides the stored values by them
    if row is not None:
        record = _read_code(file, row)
    elif _is_wfdb(file):
        header = pqrst.header(file)
        units = np.array(header.gains)[:, None]
        record = _read_flac(file, header) if FLAC_FORMATS.intersection(header.formats) else pqrst.read(file)
    else:
        record = _read_csv(file, fs) if file.suffix == ".csv" else _read_mat(file)
    if units_per_mv is not None:
        record.signal[:] = record.signal * (units / units_per_mv)  # in place, in the memory of the record
    return record


def below(folder: Path, recursive: bool = False) -> list[Path]:
    """List the recordings in a folder, in order: each by its header where it has one, those of an HDF5 file by row."""
    files = sorted(folder.rglob("*") if recursive else folder.glob("*"))
    headers = {path.with_suffix("") for path in files if path.suffix == ".hea"}
    found: list[Path] = []
    for path in files:
        if path.suffix in HDF5:
            found += rows_of(path)
        elif path.suffix == ".hea" or (
            path.suffix in SUFFIXES and path.with_suffix("") not in headers and path.name.lower() not in TABLES
        ):
            found.append(path)
    return found


def rows_of(path: Path) -> list[Path]:
    """List the recordings in an HDF5 file: `path#row`."""
    n_rows, _, _ = _tracings(path, path.stat().st_mtime_ns)
    return [Path(f"{path}#{row}") for row in range(n_rows)]


def _split(path: str | Path) -> tuple[Path, int | None]:
    name, mark, row = str(path).rpartition("#")
    return (Path(name), int(row)) if mark and row.isdigit() else (Path(path), None)


def _is_wfdb(path: Path) -> bool:
    return path.suffix not in (".csv", ".mat") or path.with_suffix(".hea").exists()


# ------------------------------------------------------------------------------------------------ formats


def _read_flac(path: Path, header: pqrst.Header) -> pqrst.Record:
    import wfdb  # slow to import, and only FLAC needs it

    try:
        record = wfdb.rdrecord(str(path.with_suffix("")))
    except Exception as error:  # wfdb and its decoder raise many types of errors
        raise pqrst.FormatError(f"{path}: cannot decode its FLAC data: {error}") from error
    units = [unit.lower() for unit in record.units]
    factors = np.array([TO_MV.get(unit, 1.0) for unit in units])
    names = ["mV" if unit in TO_MV else original for unit, original in zip(units, record.units, strict=True)]
    signal = (record.p_signal * factors).T.astype(np.float32)
    return pqrst.Record(signal, header.fs, record.sig_name, units=names, name=str(path))


@lru_cache(maxsize=64)
def _tracings(path: Path, changed: int) -> tuple[int, int, int]:
    """Return the numbers of recordings, of samples and of recordings per slab of a CODE file.

    `changed` is the time stamp of the file, so that the cache forgets a file that has changed.
    """
    try:
        with h5py.File(path, "r") as file:
            n_rows, n_samples, n_leads = file["tracings"].shape
            slab = max(SLAB, (file["tracings"].chunks or (1,))[0])
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError) as error:
        raise pqrst.FormatError(f"{path}: not an HDF5 file with tracings (n, samples, leads): {error}") from error
    if n_leads != len(TWELVE_LEADS):
        raise pqrst.FormatError(f"{path}: has {n_leads} leads, expected 12")
    return n_rows, n_samples, slab


@lru_cache(maxsize=1)
def _slab(path: Path, changed: int, number: int) -> NDArray[Any]:
    """Return one slab of recordings (N, T, 12), so that recordings of one compressed chunk are decompressed once."""
    _, _, n = _tracings(path, changed)
    try:
        with h5py.File(path, "r") as file:
            rows: NDArray[Any] = file["tracings"][number * n : (number + 1) * n]
    except OSError as error:
        raise pqrst.FormatError(f"{path}: rows from {number * n} on cannot be read: {error}") from error
    return rows


@lru_cache(maxsize=64)
def _code_leads(path: Path, changed: int) -> tuple[str, ...]:
    """Return the leads in order. The publisher documents two orders; the signal shows which one holds.

    The right order places aVR where the signal equals -(I + II) / 2.
    """
    x = _slab(path, changed, 0)[:SLAB].astype(np.float64)  # (N, T, 12)
    avr = -(x[..., 0] + x[..., 1]) / 2
    usual_error, code_test_error = (np.abs(x[..., place] - avr).sum() for place in (3, 5))
    return CODE_TEST_LEADS if code_test_error < min(usual_error, 0.1 * np.abs(avr).sum()) else TWELVE_LEADS


def _read_code(path: Path, row: int) -> pqrst.Record:
    changed = path.stat().st_mtime_ns
    n, leads = _tracings(path, changed)[2], _code_leads(path, changed)
    signal = _slab(path, changed, row // n)[row % n].T.astype(np.float32)
    inside = np.flatnonzero((signal != 0).any(axis=0))
    if len(inside) == 0:
        raise ValueError(f"{path}#{row}: is empty, all zeros")
    signal = np.ascontiguousarray(signal[:, inside[0] : inside[-1] + 1])
    return pqrst.Record(signal, CODE_FS, leads, name=f"{path}#{row}")


def _read_mat(path: Path) -> pqrst.Record:
    from scipy.io import loadmat  # slow to import, and only these files need it

    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # SciPy raises many types of errors
        raise pqrst.FormatError(f"{path}: not a MATLAB file: {error}") from error
    leads: tuple[str, ...]
    if "ECG" in content and "data" in (content["ECG"].dtype.names or ()):
        signal, leads = np.asarray(content["ECG"]["data"].item(), np.float64), TWELVE_LEADS
    elif "ecg" in content:
        signal, leads = np.asarray(content["ecg"], np.float64)[None], ("ECG",)
    else:
        raise pqrst.FormatError(f"{path}: has neither ECG.data nor ecg, and no .hea file beside it")
    if signal.ndim != 2 or len(signal) != len(leads):
        raise pqrst.FormatError(f"{path}: has the shape {signal.shape}, expected {len(leads)} leads")
    return pqrst.Record(np.ascontiguousarray(signal, np.float32), CPSC_FS, leads, name=str(path))


def _read_csv(path: Path, fs: float | None) -> pqrst.Record:
    table = _csv_table(path)
    time = next((_numbers(path, table, name) for name in table.columns if name.lower() in TIMES), None)
    if time is not None:
        if len(time) < 2 or not (np.diff(time) > 0).all():
            raise pqrst.FormatError(f"{path}: column time (s) does not rise, or has fewer than 2 values")
        fs = float((len(time) - 1) / (time[-1] - time[0]))
        fs = round(fs) if abs(fs - round(fs)) < 0.01 * fs else fs  # times are rounded to a few digits
    if fs is None:
        flags = """--inference.fs 500, or --data.arguments '{"fs": 500}'"""
        raise pqrst.FormatError(f"{path}: has no column time (s): its rate must be given, {flags}")
    others = [name for name in table.columns if name.lower() not in TIMES]
    if not others:
        raise pqrst.FormatError(f"{path}: has no columns besides time")
    leads = _csv_leads(table, others)
    if not leads:
        raise pqrst.FormatError(f"{path}: no column is an ECG lead: {', '.join(others)}")
    columns = {name: _numbers(path, table, name) for name in leads}
    numbered = [re.fullmatch(r"lead_?(\d+)", name.lower()) for name in leads]
    if any(numbered):
        numbers = [int(match[1]) if match else 0 for match in numbered]
        if sorted(numbers) != list(range(1, 13)):
            raise pqrst.FormatError(f"{path}: columns {', '.join(leads)}; expected lead1 to lead12, or lead names")
        columns = {TWELVE_LEADS[n - 1]: values for n, values in zip(numbers, columns.values(), strict=True)}
    left_out = [name for name in others if name not in leads]
    warnings = [f"{path}: columns that are no ECG leads are left out: {', '.join(left_out)}"] if left_out else []
    signal = np.stack(list(columns.values()))
    return pqrst.Record(signal, fs, list(columns), name=str(path), warnings=warnings)


def _csv_table(path: Path) -> pd.DataFrame:
    """Read a table with one column of each name."""
    import pandas as pd  # slow to import, and only these files need it

    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except (ValueError, UnicodeDecodeError) as error:  # errors of pandas are subclasses of ValueError
        raise pqrst.FormatError(f"{path}: not a table of numbers: {error}") from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    if len(table.columns) == 1 and (separator := re.search(r"[;\t]", table.columns[0])):
        raise pqrst.FormatError(f"{path}: its columns are separated by {separator[0]!r}, expected commas")
    if not table.columns.is_unique:
        name = table.columns[table.columns.duplicated()][0]
        raise pqrst.FormatError(f"{path}: several columns are called {name}")
    return table


def _csv_leads(table: pd.DataFrame, names: list[str]) -> list[str]:
    """Choose the columns that are ECG leads by their names; text under a name that is not known is none."""
    import pandas as pd

    known = ecg_leads(["I", *names])[1:]  # beside a lead that is known, others count only if they are known too
    chosen = [
        name
        for name, is_known in zip(names, known, strict=True)
        if is_known or pd.to_numeric(table[name], errors="coerce").notna().any()
    ]
    return [name for name, is_lead in zip(chosen, ecg_leads(chosen), strict=True) if is_lead]


def _numbers(path: Path, table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Return a column of a table as numbers, NaN where a cell is empty."""
    try:
        return table[name].to_numpy(np.float64)
    except (ValueError, TypeError) as error:
        raise pqrst.FormatError(f"{path}: not a table of numbers: column {name}: {error}") from error
