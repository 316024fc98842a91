"""ISHNE Holter files: Badilini 1998, The ISHNE Holter Standard Output File Format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

import pqrst
from formats import Signal, Tracing

MAGIC = b"ISHNE1.0"
FIXED = 522  # bytes before the variable part of the header
LEADS = {2: "X", 3: "Y", 4: "Z", 5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF",
         11: "V1", 12: "V2", 13: "V3", 14: "V4", 15: "V5", 16: "V6", 17: "ES", 18: "AS", 19: "AI"}  # fmt: skip


def parse(path: Path, fs: float | None) -> Tracing:
    """Read all leads of a Holter file, and not who the patient is.

    Raises
    ------
    pqrst.FormatError
        Another kind of file, a damaged header, or samples that are cut off.
    """
    with path.open("rb") as file:
        head = file.read(FIXED)
        if len(head) < FIXED or not head.startswith(MAGIC):
            raise pqrst.FormatError(f"{path}: not ISHNE: it does not begin with {MAGIC.decode()}")
        _, n_samples, _, offset = struct.unpack_from("<4i", head, 10)
        day, month, year, hour, minute, second = (
            *struct.unpack_from("<3h", head, 138),
            *struct.unpack_from("<3h", head, 150),
        )
        (n_leads,) = struct.unpack_from("<h", head, 156)
        if not 1 <= n_leads <= 12 or offset < FIXED or n_samples < 1:
            raise pqrst.FormatError(f"{path}: is damaged: {n_leads} leads of {n_samples} samples from byte {offset} on")
        numbers = struct.unpack_from(f"<{n_leads}h", head, 158)
        nanovolts = struct.unpack_from(f"<{n_leads}h", head, 206)
        (rate,) = struct.unpack_from("<h", head, 272)
        file.seek(0, 2)
        stored = (file.tell() - offset) // (2 * n_leads)
        # the standard has the samples of a lead; some writers count those of all leads, or bytes
        if stored not in (n_samples, n_samples // n_leads, n_samples // (2 * n_leads)):
            raise pqrst.FormatError(f"{path}: has {max(0, stored)} samples for each lead, expected {n_samples}")
        file.seek(offset)
        codes = np.fromfile(file, "<i2", stored * n_leads).reshape(stored, n_leads)
    signals = []
    for k, (number, resolution) in enumerate(zip(numbers, nanovolts, strict=True)):
        name = LEADS.get(number, f"ECG{k + 1}")
        values = codes[:, k].astype(np.float64) * (resolution or 1)
        signals.append(Signal(name, values, float(rate) if rate > 0 else None, "nV" if resolution > 0 else None))
    start = f"{hour:02}:{minute:02}:{second:02} {day:02}/{month:02}/{year}" if year > 0 else ""
    return Tracing(signals, start_time=start)
