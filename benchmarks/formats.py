"""Compare what readers.py reads of files in other formats than WFDB with independent readers.

    python benchmarks/formats.py FOLDER

Prints rate, leads, units, and the largest difference to what pyedflib and pydicom give, or the specification's own
formula (Kardia, OpenSignals, HL7 aECG).
"""

from __future__ import annotations

import argparse
import json
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pqrst
import readers
import script
from script import Stop

MV = {"uV": 1e-3, "mV": 1.0, "V": 1e3, "nV": 1e-6}
Signals = dict[str, NDArray[np.float64]]  # in mV, by the name that the file has


def edf(path: Path) -> Signals:
    import pyedflib

    with pyedflib.EdfReader(str(path)) as file:
        return {
            label: file.readSignal(k) * MV.get(file.getPhysicalDimension(k), 1.0)
            for k, label in enumerate(file.getSignalLabels())
        }


def dicom(path: Path) -> Signals:
    import pydicom

    content = pydicom.dcmread(path)
    values = pydicom.waveforms.multiplex_array(content, 0, as_raw=False)
    names = [
        c.ChannelSourceSequence[0].CodeMeaning.split(" (")[0]
        for c in content.WaveformSequence[0].ChannelDefinitionSequence
    ]
    return {name.removeprefix("Lead "): values[:, k] * 1e-3 for k, name in enumerate(names)}


def aecg(path: Path) -> Signals:
    text = path.read_text().partition("<derivation")[0]
    lead = r'"MDC_ECG_LEAD_(\w+)".*?<scale value="([\d.]+)" unit="(\w+)".*?<digits>(.*?)</digits>'
    found = re.findall(lead, text, re.DOTALL)
    return {name: np.array(digits.split(), float) * float(scale) * MV[unit] for name, scale, unit, digits in found}


def kardia(path: Path) -> Signals:
    raw, signals, at = path.read_bytes(), {}, 12
    names = dict(
        zip(("ecg ", "ecg2", "ecg3", "ecg4", "ecg5", "ecg6"), ("I", "II", "III", "aVR", "aVL", "aVF"), strict=True)
    )
    while at < len(raw):
        name, size = raw[at : at + 4].decode(), struct.unpack_from("<I", raw, at + 4)[0]
        if name in names:
            signals[names[name]] = np.frombuffer(raw, "<i2", size // 2, at + 8) * (500 * MV["nV"])
        at += size + 12
    return signals


def opensignals(path: Path) -> Signals:
    head = next(iter(json.loads(path.read_text().split("\n")[1][2:]).values()))
    column = head["column"].index("A" + str(head["channels"][head["sensor"].index("ECGBIT")]))
    return {"ECG": (np.loadtxt(path)[:, column] / 2.0**10 - 0.5) * 3.3 / 1100 * 1e3}


READERS: dict[str, Callable[[Path], Signals]] = {
    ".edf": edf, ".bdf": edf, ".dcm": dicom, ".xml": aecg, ".atc": kardia, ".txt": opensignals,
}  # fmt: skip


def row_of(path: Path) -> str:
    """Read one file both ways."""
    try:
        record = readers.read(path)
    except (ValueError, OSError) as error:
        return f"{path.name:32} refused: {script.one_line(error).removeprefix(f'{path}: ')}"
    said = f"{record.fs:>8g} {len(record.leads):>6} {'/'.join(dict.fromkeys(record.units)):>6}"
    if path.suffix.lower() not in READERS:
        return f"{path.name:32} {said} {'':>12}"
    expected = {pqrst.lead_name(name): values for name, values in READERS[path.suffix.lower()](path).items()}
    difference = max(
        float(np.abs(values - expected[pqrst.lead_name(lead)]).max())
        for lead, values in zip(record.leads, record.signal, strict=True)
    )
    return f"{path.name:32} {said} {difference:>12.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in readers.SUFFIXES)
    if not files:
        raise Stop(f"{folder}: no recording in it")
    print(f"{'':32} {'Hz':>8} {'leads':>6} {'unit':>6} {'differ by mV':>12}")
    for path in files:
        print(row_of(path))


if __name__ == "__main__":
    script.run(main)
