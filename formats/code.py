"""HDF5 files of CODE: tracings (n, samples, 12), in mV, padded with zeros. A recording is a row, `path#row`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

import pqrst
from formats import Signal, Tracing
from recipe import TWELVE_LEADS

TEST_LEADS = ("I", "II", "III", "aVL", "aVF", "aVR", "V1", "V2", "V3", "V4", "V5", "V6")
FS = 400.0
SLAB = 64  # recordings read at once; more if one compressed chunk holds more


class Shape(NamedTuple):
    """What a file holds."""

    n_rows: int
    n_samples: int  # of each, with its padding
    slab: int  # recordings read at once


def shape_of(path: Path) -> Shape:
    """Return the sizes of a file; pqrst.FormatError where it is none of CODE."""
    return _shape(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _shape(path: Path, changed: int) -> Shape:
    """Return the sizes of a file.

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
    return Shape(n_rows, n_samples, slab)


@lru_cache(maxsize=1)
def _slab(path: Path, changed: int, number: int) -> NDArray[Any]:
    """Return one slab of recordings (N, T, 12), so that recordings of one compressed chunk are decompressed once."""
    n = _shape(path, changed).slab
    try:
        with h5py.File(path, "r") as file:
            rows: NDArray[Any] = file["tracings"][number * n : (number + 1) * n]
    except OSError as error:
        raise pqrst.FormatError(f"{path}: rows from {number * n} on cannot be read: {error}") from error
    return rows


@lru_cache(maxsize=64)
def _leads(path: Path, changed: int) -> tuple[str, ...]:
    """Return the leads in order. The publisher documents two orders; the signal shows which one holds.

    The right order places aVR where the signal equals -(I + II) / 2.
    """
    x = _slab(path, changed, 0)[:SLAB].astype(np.float64)  # (N, T, 12)
    avr = -(x[..., 0] + x[..., 1]) / 2
    usual_error, code_test_error = (np.abs(x[..., place] - avr).sum() for place in (3, 5))
    return TEST_LEADS if code_test_error < min(usual_error, 0.1 * np.abs(avr).sum()) else TWELVE_LEADS


def parse_row(path: Path, row: int) -> Tracing:
    """Read one recording, without its padding.

    Raises
    ------
    pqrst.FormatError
        A damaged file, no such row, or one that is all zeros.
    """
    changed = path.stat().st_mtime_ns
    shape, leads = shape_of(path), _leads(path, changed)
    if row >= shape.n_rows:
        raise pqrst.FormatError(f"{path}: has {shape.n_rows} recordings, no row {row}")
    n = shape.slab
    signal = _slab(path, changed, row // n)[row % n].T.astype(np.float32)
    inside = np.flatnonzero((signal != 0).any(axis=0))
    if len(inside) == 0:
        raise pqrst.FormatError(f"{path}#{row}: is empty, all zeros")
    signal = np.ascontiguousarray(signal[:, inside[0] : inside[-1] + 1])
    return Tracing([Signal(lead, samples, FS) for lead, samples in zip(leads, signal, strict=True)])
