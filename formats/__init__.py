"""Formats other than WFDB: one file for each, whose `parse(path, fs)` returns a `Tracing`. readers.py chooses.

What all of them have in common stands here: which signals are ECG leads, at one rate, with a unit and a name. Names,
birth dates and identifiers of patients are not read.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import pqrst
from recipe import ecg_leads

SLOWEST, FASTEST = 25.0, 50_000.0  # Hz, of an ECG; other rates need the user's word
TELL_RATE = """tell it with --inference.fs 500, or --data.arguments '{"fs": 500}'"""
TELL_UNIT = """tell it with --inference.units_per_mv 1000, or --data.arguments '{"units_per_mv": 1000}'"""
CHEST = tuple(f"V{number}" for number in range(1, 7))


class Signal(NamedTuple):
    """One signal as a file has it."""

    name: str
    samples: NDArray[Any]  # (T,) in `unit`
    fs: float | None = None  # Hz; None where the file does not tell
    unit: str | None = "mV"  # "" where the format has none and mV are usual, None where one is missing


class Tracing(NamedTuple):
    """What a file holds."""

    signals: list[Signal]
    rate_from: str = ""  # what tells the rate, where that is worth saying: `from column time`
    start_time: str = ""
    warnings: tuple[str, ...] = ()


def moment(stamp: str) -> str:
    """Return `20021122091000.000` as time and date of a WFDB header; "" of what is no such stamp."""
    if len(stamp) < 14 or not stamp[:14].isdigit():
        return ""
    return f"{stamp[8:10]}:{stamp[10:12]}:{stamp[12:14]} {stamp[6:8]}/{stamp[4:6]}/{stamp[:4]}"


def optional(name: str, path: Path, what: str) -> ModuleType:
    """Import a package of the extra `formats`; where it is not installed, one line says so."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise pqrst.FormatError(
            f'{path}: {what} needs {package}, which is not installed: pip install -e ".[formats]"'
        ) from error


def check_rate(path: str | Path, rate: float, rate_from: str = "") -> None:
    """Refuse a rate in Hz that no ECG has; one that the user gives is not checked."""
    if not SLOWEST <= rate <= FASTEST:
        where = f" {rate_from}" if rate_from else ""
        raise pqrst.FormatError(f"{path}: {rate:g} Hz{where} is no rate of an ECG; {TELL_RATE}")


def record_of(tracing: Tracing, path: Path, fs: float | None, units_per_mv: float | None) -> pqrst.Record:
    """Make a record of the ECG leads of a file.

    Parameters
    ----------
    tracing : what the file holds
    path : of the file, for messages
    fs : rate in Hz that the user gives, which wins over the file's
    units_per_mv : how many units of the values are 1 mV, if the user gives it; the file's units are then not looked at

    Raises
    ------
    pqrst.FormatError
        No ECG lead, or a rate that neither the file nor the user tells, or that no ECG has.
    """
    leads, warnings = _leads(tracing, path)
    leads = leads if units_per_mv else _in_volts(leads, path, warnings)
    rate = fs or leads[0].fs
    if rate is None:
        raise pqrst.FormatError(f"{path}: does not tell its sampling rate; {TELL_RATE}")
    if fs is None:
        check_rate(path, rate, tracing.rate_from)
    if fs and tracing.rate_from and leads[0].fs and abs(fs / leads[0].fs - 1) > 0.005:
        warnings.append(f"{path}: {leads[0].fs:g} Hz {tracing.rate_from} is not used, but {fs:g} Hz as asked")
    units = ["mV"] * len(leads) if units_per_mv else [lead.unit or "mV" for lead in leads]
    signal = np.stack([lead.samples for lead in leads])
    if units_per_mv:
        signal = signal / units_per_mv
    names = [lead.name for lead in leads]
    asked = " as asked" if fs else f" {tracing.rate_from}" if tracing.rate_from else ""
    told = "mV as asked" if units_per_mv else ", ".join(dict.fromkeys(units))
    if not units_per_mv and not all(lead.unit for lead in leads):
        told += ", as no unit is given"
    how = f"{len(names)} {'lead' if len(names) == 1 else 'leads'}, {rate:.10g} Hz{asked}, {told}"
    signal = np.ascontiguousarray(signal, np.float64 if signal.dtype != np.float32 else np.float32)
    try:
        return pqrst.Record(signal, rate, names, units, str(path), warnings, [f"read as {how}"], tracing.start_time)
    except ValueError as error:  # no samples, or a rate that is no number above 0
        raise pqrst.FormatError(f"{path}: {error}") from error


def _in_volts(leads: list[Signal], path: Path, warnings: list[str]) -> list[Signal]:
    """Keep the leads in units of voltage; there must be one."""
    volts, others = [], []
    for lead in leads:
        if lead.unit == "" or (lead.unit and pqrst.is_voltage(lead.unit)):
            volts.append(lead)
        else:
            others.append(f"{lead.name} in {lead.unit or 'no unit'}")
    if not volts:
        raise pqrst.FormatError(f"{path}: no lead is in a unit of voltage: {', '.join(others)}; {TELL_UNIT}")
    if others:
        warnings.append(f"{path}: leads in no unit of voltage are left out: {', '.join(others)}")
    return volts


def said(record: pqrst.Record) -> str:
    """Return how a file was read, of a record that `record_of` made; "" of others."""
    return next((line for line in record.comments if line.startswith("read as ")), "")


def _leads(tracing: Tracing, path: Path) -> tuple[list[Signal], list[str]]:
    """Return the signals that are ECG leads and share a rate, and warnings that name the others."""
    chosen = ecg_leads([signal.name for signal in tracing.signals])
    leads = [signal for signal, is_lead in zip(tracing.signals, chosen, strict=True) if is_lead]
    names = ", ".join(signal.name for signal in tracing.signals)
    if not leads:
        raise pqrst.FormatError(f"{path}: no signal is an ECG lead: {names or 'there is none'}")
    warnings = list(tracing.warnings)
    others = [signal.name for signal, is_lead in zip(tracing.signals, chosen, strict=True) if not is_lead]
    if others:
        warnings.append(f"{path}: signals that are no ECG leads are left out: {', '.join(others)}")
    shapes = Counter((lead.fs, len(lead.samples)) for lead in leads)
    shape = max(shapes, key=lambda each: (shapes[each], each[0] or 0, each[1]))
    if left := [f"{lead.name} ({lead.fs:g} Hz)" for lead in leads if (lead.fs, len(lead.samples)) != shape]:
        warnings.append(f"{path}: leads of another rate or length are left out: {', '.join(left)}")
    return [lead for lead in leads if (lead.fs, len(lead.samples)) == shape], warnings


def with_derived(signals: Sequence[Signal]) -> list[Signal]:
    """Add III, aVR, aVL and aVF, by Einthoven and Goldberger, where only I, II and the chest leads are stored."""
    by_name = {signal.name: signal for signal in signals}
    if {"III", "aVR", "aVL", "aVF"} & set(by_name) or not {"I", "II", *CHEST} <= set(by_name):
        return list(signals)
    one, two = by_name["I"], by_name["II"]
    if (one.fs, one.unit, len(one.samples)) != (two.fs, two.unit, len(two.samples)):
        return list(signals)
    i, ii = one.samples.astype(np.float64), two.samples.astype(np.float64)
    derived = {"III": ii - i, "aVR": -(i + ii) / 2, "aVL": i - ii / 2, "aVF": ii - i / 2}
    added = [one._replace(name=name, samples=samples) for name, samples in derived.items()]
    rest = [signal for signal in signals if signal.name not in ("I", "II")]
    return [one, two, *added, *rest]
