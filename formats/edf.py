"""EDF, EDF+ and BDF, https://www.edfplus.info/specs: the package edfio reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pqrst
from formats import Signal, Tracing, optional
from formats.times import LONGEST

ONSET = re.compile(rb"\+(\d+(?:\.\d+)?)\x14\x14")  # of a data record, by which its annotations begin


def parse(path: Path, fs: float | None) -> Tracing:
    """Read the signals of a file, each at its own rate and with its own unit, and not who the patient is.

    A recording with gaps (EDF+D, BDF+D) has NaN where nothing was recorded.

    Raises
    ------
    pqrst.FormatError
        A damaged file, or gaps that are longer than all that was recorded.
    """
    edfio = optional("edfio", path, "EDF")
    with path.open("rb") as file:
        start = file.read(8)
    if start not in (b"0       ", b"\xffBIOSEMI"):
        raise pqrst.FormatError(f"{path}: not EDF or BDF: its header does not begin as these do")
    try:
        content = (edfio.read_bdf if start[0] == 0xFF else edfio.read_edf)(path)
        begin_s = None if content.is_continuous else _begin(path, content)
        signals = [_signal(signal, begin_s) for signal in content.signals]
    except (pqrst.FormatError, MemoryError):
        raise
    except Exception as error:  # edfio raises many types of errors
        raise pqrst.FormatError(f"{path}: not EDF or BDF that can be read: {str(error).splitlines()[0]}") from error
    return Tracing(signals, start_time=_start(content))


def _signal(signal: Any, begin_s: NDArray[np.float64] | None) -> Signal:
    values, rate = np.asarray(signal.data, np.float64), float(signal.sampling_frequency)
    if begin_s is not None:
        of_records = values.reshape(len(begin_s), -1)
        places = np.round(begin_s * rate).astype(np.int64)
        values = np.full(places[-1] + of_records.shape[1], np.nan)
        for place, of_record in zip(places, of_records, strict=True):
            values[place : place + len(of_record)] = of_record
    return Signal(signal.label, values, rate, signal.physical_dimension.strip() or None)


def _begin(path: Path, content: Any) -> NDArray[np.float64]:
    """Return where each data record begins, s from the first."""
    stored = content._timekeeping_signal.digital.reshape(content.num_data_records, -1)
    found = [ONSET.match(record.tobytes()) for record in stored]
    begin_s = np.array([float(match[1]) for match in found if match])
    if len(begin_s) != len(found) or (np.diff(begin_s) <= 0).any():
        raise pqrst.FormatError(f"{path}: has gaps, and the times of its data records do not rise")
    begin_s -= begin_s[0]
    recorded = len(begin_s) * content.data_record_duration
    if begin_s[-1] > LONGEST * recorded:
        raise pqrst.FormatError(
            f"{path}: has gaps that are {begin_s[-1] / recorded:.0f} times as long as what is recorded"
        )
    return begin_s


def _start(content: Any) -> str:
    """Return time and date as a WFDB header has them; without the date where it was removed."""
    try:
        return f"{content.starttime:%H:%M:%S} {content.startdate:%d/%m/%Y}"
    except Exception:  # edfio has an error of its own for it
        return ""
