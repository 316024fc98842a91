"""OpenSignals text files of BITalino and biosignalsplux devices: a line of JSON, then columns of codes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

import pqrst
from formats import Signal, Tracing

MAGIC = "# OpenSignals Text File Format"
# Volts of the supply and gain of the sensor, from the makers' data sheets: V = (code / 2^bits - 1 / 2) * supply / gain.
SENSORS = {"ECGBIT": (3.3, 1100.0), "ECG": (3.0, 1000.0), "ECGBITREV": (3.3, 1100.0)}


def parse(path: Path, fs: float | None) -> Tracing:
    """Read the channels that have an ECG sensor, in mV.

    Raises
    ------
    pqrst.FormatError
        A damaged header or table, or no channel with an ECG sensor.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    head, mark, rows = text.partition("# EndOfHeader")
    lines = head.split("\n")
    try:
        devices: dict[str, dict[str, Any]] = json.loads(lines[1].lstrip("# "))
        table = np.loadtxt(io.StringIO(rows), ndmin=2)
        signals: list[Signal] = []
        first = 0
        for device in devices.values():
            columns, sensors = list(device["column"]), list(device["sensor"])
            for channel, sensor in enumerate(sensors):
                if sensor.upper() not in SENSORS:
                    continue
                supply, gain = SENSORS[sensor.upper()]
                place = len(columns) - len(sensors) + channel  # the channels stand behind nSeq and digital lines
                bits = list(device["resolution"])[-len(sensors) :][channel]
                values = (table[:, first + place] / 2.0**bits - 0.5) * supply / gain * 1000
                signals.append(Signal("ECG", values, float(device["sampling rate"])))
            first += len(columns)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise pqrst.FormatError(f"{path}: not an OpenSignals file that can be read: {error}") from error
    if not mark or not signals:
        found = ", ".join(str(sensor) for device in devices.values() for sensor in device["sensor"])
        raise pqrst.FormatError(f"{path}: has no ECG sensor: its sensors are {found}")
    if len(signals) > 1:
        signals = [signal._replace(name=f"ECG{number}") for number, signal in enumerate(signals, 1)]
    when = next(iter(devices.values()))
    return Tracing(signals, start_time=str(when.get("time", "")).partition(".")[0])
