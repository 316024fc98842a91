"""Any recording to a `pqrst.Record`: the only place that chooses by format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import pqrst

FLAC_FORMATS = {508, 516, 524}
TO_MV = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "nv": 1e-6}


def is_native(info: pqrst.Header) -> bool:
    """Whether `pqrst.prepare` can read the recording by itself, from its path."""
    return not FLAC_FORMATS.intersection(info.formats)


def read(path: str | Path) -> pqrst.Record:
    """Read one recording.

    Parameters
    ----------
    path : a WFDB header, with or without `.hea`

    Returns
    -------
    pqrst.Record: signal (L, T) float32, voltages in mV, invalid samples NaN.

    Raises
    ------
    FileNotFoundError
        The header or a data file is not there.
    pqrst.FormatError
        The file is damaged or of an unknown format; the message names it.
    """
    info = pqrst.header(path)
    return pqrst.read(path) if is_native(info) else _read_flac(Path(path), info)


def detect(record: pqrst.Record) -> NDArray[np.int64]:
    """R peaks from all leads that hold a voltage: the centres of training and of prediction alike."""
    voltages = np.array([unit == "mV" for unit in record.units])
    if not voltages.any():
        raise ValueError(f"{record.name}: no lead holds a voltage; units are {', '.join(record.units)}")
    return pqrst.rpeaks(record.signal[voltages], record.fs)


def _read_flac(path: Path, info: pqrst.Header) -> pqrst.Record:
    import wfdb  # slow to import, and only FLAC needs it

    try:
        record = wfdb.rdrecord(str(path.with_suffix("")))
    except Exception as error:  # wfdb and its decoder raise whatever they like
        raise pqrst.FormatError(f"{path}: cannot decode its FLAC data: {error}") from error
    units = [unit.lower() for unit in record.units]
    factors = np.array([TO_MV.get(unit, 1.0) for unit in units])
    names = ["mV" if unit in TO_MV else original for unit, original in zip(units, record.units, strict=True)]
    signal = (record.p_signal * factors).T.astype(np.float32)
    return pqrst.Record(signal, info.fs, record.sig_name, units=names, name=str(path))
