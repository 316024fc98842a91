"""Prepare the records of a folder with wfdb, SciPy and h5py, as a user would in a first script.

    python benchmarks/plain.py RAW OUT.h5 [--records 2000] [--fs 500]

This is the reference of benchmarks/preprocess.py: the same records and the same steps, without any tuning. It prints
the seconds from the first record to the last.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import scipy.signal
import wfdb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import script

N_LEADS, DURATION_S = 12, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("raw", type=Path, help="folder with records.csv and the WFDB records it names")
    parser.add_argument("out", type=Path, help="HDF5 file to write")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--fs", type=int, default=500, help="rate of the rows, Hz")
    options = parser.parse_args()
    for name in ("records", "fs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    with (options.raw / "records.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        if "record" not in (rows.fieldnames or ()):
            raise script.Stop(f"{file.name}: has no column record")
        names = [row["record"] for row in islice(rows, options.records)]
    shape = (len(names), N_LEADS, round(DURATION_S * options.fs))
    with h5py.File(options.out, "w") as file:
        signals = file.create_dataset("signals", shape, "float16")
        started = time.perf_counter()
        for number, name in enumerate(names):
            record = wfdb.rdrecord(str(options.raw / name))
            sections = scipy.signal.butter(3, [0.5, 40.0], "bandpass", fs=record.fs, output="sos")
            x = scipy.signal.sosfiltfilt(sections, record.p_signal.T)  # (L, T)
            if record.fs != options.fs:
                ratio = Fraction(options.fs, round(record.fs))
                x = scipy.signal.resample_poly(x, ratio.numerator, ratio.denominator, axis=1)
            x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
            signals[number] = x.astype(np.float16)
        print(time.perf_counter() - started)


if __name__ == "__main__":
    script.run(main)
