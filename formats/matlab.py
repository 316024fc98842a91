"""MATLAB files: the structs of CPSC 2018, the vectors of CPSC 2019, and what people save; v7.3 is HDF5."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import pqrst
from formats import Signal, Tracing, mat5
from recipe import TWELVE_LEADS

CPSC_FS = 500.0
SIGNALS = ("ecg", "signal", "signals", "data", "val", "x", "y")  # in small letters, in this order
RATES = ("fs", "sfreq", "freq", "frequency", "sampling_rate", "samplingrate", "sample_rate", "samplerate",
         "samplingfrequency", "sampling_frequency")  # fmt: skip
NAMES = ("leads", "lead_names", "leadnames", "sig_name", "channels", "labels")
UNITS = ("units", "unit")
TOLD = {*RATES, *NAMES, *UNITS}
MOST_VALUES = 2**30  # of one variable


def parse(path: Path, fs: float | None) -> Tracing:
    """Read the one variable that is a signal, with its rate, names of leads and unit where the file has them.

    Raises
    ------
    pqrst.FormatError
        Another kind of file, no signal or several, or one of more than two dimensions.
    """
    content = _content(path)
    inner = content.get("ECG")
    cpsc = isinstance(inner, dict) and {"sex", "age", "data"} <= set(inner)  # of 2018
    by_name = {name.lower(): value for name, value in (inner if isinstance(inner, dict) else content).items()}
    found = [name for name in SIGNALS if _is_signal(by_name.get(name))]
    found = found or [name for name, value in by_name.items() if _is_signal(value) and name not in TOLD]
    if not found or (found[0] not in SIGNALS and len(found) > 1):
        there = ", ".join(content) or "nothing"
        raise pqrst.FormatError(f"{path}: has no variable that is known for a signal, such as ecg or data: {there}")
    signal = np.atleast_2d(np.asarray(by_name[found[0]], np.float64))
    signal = signal.T if signal.shape[0] > signal.shape[1] else signal
    rate_name = next((name for name in RATES if _is_number(by_name.get(name))), "")
    rate = float(np.ravel(by_name[rate_name])[0]) if rate_name else None
    if rate is None and (cpsc or re.fullmatch(r"data_\d+", path.stem)):  # the files of 2019 are called so
        rate = CPSC_FS
    names = next((_words(by_name[name]) for name in NAMES if name in by_name), _usual_names(len(signal), cpsc))
    if len(names) != len(signal):
        raise pqrst.FormatError(f"{path}: {found[0]} has the shape {signal.shape}, expected {len(names)} leads")
    units = next((_words(by_name[name]) for name in UNITS if name in by_name), [])
    rows = zip(names, signal, strict=True)
    rate_from = f"from variable {rate_name}" if rate_name else ""
    unit = units[0] if units else "mV" if cpsc else ""
    return Tracing([Signal(name, row, rate, unit) for name, row in rows], rate_from)


def _usual_names(n: int, cpsc: bool) -> list[str]:
    """Name leads that the file does not name: by number, which `--inference.leads MLII=1` can map."""
    if cpsc and n == len(TWELVE_LEADS):
        return list(TWELVE_LEADS)
    return ["ECG"] if n == 1 else [str(k + 1) for k in range(n)]


def _content(path: Path) -> dict[str, Any]:
    """Return the variables of a file; structs are dicts, cells lists."""
    with path.open("rb") as file:
        start = file.read(128)
    if not start.startswith((b"MATLAB 7.3 MAT-file", b"\x89HDF")):
        return mat5.variables(path)
    try:
        with h5py.File(path, "r") as file:
            return {name: _from_hdf5(path, file, value) for name, value in file.items() if not name.startswith("#")}
    except (pqrst.FormatError, FileNotFoundError):
        raise
    except Exception as error:  # h5py raises many types of errors
        raise pqrst.FormatError(f"{path}: not a MATLAB file that can be read: {error}") from error


def _from_hdf5(path: Path, file: h5py.File, value: Any) -> Any:
    """Return a variable as it is in memory: MATLAB writes its axes in the other order, and text as numbers."""
    if isinstance(value, h5py.Group):
        return {name: _from_hdf5(path, file, each) for name, each in value.items()}
    if value.size > MOST_VALUES:
        raise pqrst.FormatError(f"{path}: {value.name[1:]} has the shape {value.shape}, too large for a recording")
    kind = value.attrs.get("MATLAB_class", b"")
    if kind == b"char":
        return "".join(chr(code) for code in np.ravel(value[()]))
    if kind == b"cell":
        return [_from_hdf5(path, file, file[reference]) for reference in np.ravel(value[()])]
    return value[()].T


def _is_signal(value: Any) -> bool:
    array = np.asarray(value) if isinstance(value, np.ndarray) else np.empty(0)
    return bool(array.dtype.kind in "iuf" and array.size > 1 and array.ndim in (1, 2))


def _is_number(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "iuf"


def _words(value: Any) -> list[str]:
    """Return the texts of a cell array, of a char array, or of a text with commas or blanks."""
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return [str(each).strip() for each in np.ravel(np.asarray(value, dtype=object))]
