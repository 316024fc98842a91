"""ATC files of AliveCor Kardia devices: blocks with a name, a length and a sum of their bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

import pqrst
from formats import Signal, Tracing

MAGIC = b"ALIVE"
BLOCKS = {"ecg ": "I", "ecg2": "II", "ecg3": "III", "ecg4": "aVR", "ecg5": "aVL", "ecg6": "aVF"}


def parse(path: Path, fs: float | None) -> Tracing:
    """Read the leads of a recording; `info`, which names the recording and the device, is left out.

    Raises
    ------
    pqrst.FormatError
        Another kind of file, a block that is cut off or has a wrong sum, or no lead.
    """
    raw = path.read_bytes()
    if not raw.startswith(MAGIC):
        raise pqrst.FormatError(f"{path}: not ATC: it does not begin with {MAGIC.decode()}")
    blocks: dict[str, bytes] = {}
    position = 12  # behind the magic and the version
    while position + 8 <= len(raw):
        name, length = struct.unpack_from("<4sI", raw, position)
        end = position + 8 + length
        label = name.decode("latin-1")
        if end + 4 > len(raw):
            raise pqrst.FormatError(f"{path}: block {label.strip()} at byte {position} is cut off")
        if struct.unpack_from("<I", raw, end)[0] != sum(raw[position:end]) & 0xFFFFFFFF:
            raise pqrst.FormatError(f"{path}: block {label.strip()} at byte {position} is damaged: its sum is wrong")
        blocks[label] = raw[position + 8 : end]
        position = end + 4
    if len(blocks.get("fmt ", b"")) < 5 or not set(BLOCKS) & set(blocks):
        raise pqrst.FormatError(f"{path}: has no format or no lead; its blocks are {', '.join(blocks) or 'none'}")
    _, rate, nanovolts = struct.unpack_from("<BHH", blocks["fmt "])
    signals = [
        Signal(lead, np.frombuffer(blocks[name], "<i2").astype(np.float64) * nanovolts, float(rate), "nV")
        for name, lead in BLOCKS.items()
        if name in blocks
    ]
    when = blocks.get("info", b"")[:19].decode("latin-1")
    start = f"{when[11:19]} {when[8:10]}/{when[5:7]}/{when[:4]}" if when[4:5] == "-" else ""
    return Tracing(signals, start_time=start)
