"""Time infer.py's way from a recording to beats, by the bundled model, on one thread: half an hour and a day.

    python benchmarks/infer.py

Interpreter and imports are timed apart, in a process of their own. The recordings are simulated, two leads at 250 Hz;
the day repeats half an hour.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # read when NumPy loads

import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import wfdb

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bundle
import infer
import readers
from recipe import TWELVE_LEADS
from simulate import simulate_patient, simulate_record

FS = 250
HALF_HOUR_S = 1800.0


def write(folder: Path) -> None:
    rng = np.random.default_rng(5)
    signal, _, _ = simulate_record(rng, simulate_patient(rng), (), HALF_HOUR_S, FS)
    two = signal[[TWELVE_LEADS.index("II"), TWELVE_LEADS.index("V1")]].T
    for name, times in (("half_hour", 1), ("day", 48)):
        whole = np.tile(two, (times, 1))
        wfdb.wrsamp(name, FS, ["mV"] * 2, ["MLII", "V1"], whole, fmt=["212"] * 2, write_dir=str(folder))


def main() -> None:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import infer"], cwd=Path(infer.__file__).parent, check=True)
    print(f"interpreter and imports: {time.perf_counter() - start:.2f} s")
    trained = bundle.load(infer.PRETRAINED)
    with tempfile.TemporaryDirectory() as folder:
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(Path(folder),))
        writer.start()  # apart, as it takes more memory than what is measured
        writer.join()
        for path in (Path(folder) / "half_hour.hea", Path(folder) / "day.hea"):
            times = []
            for _ in range(3):
                start = time.perf_counter()
                said = infer.predict_record(readers.read(path), trained, "beats.pt")
                said.to_text()
                times.append(time.perf_counter() - start)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{path.stem}: {said.duration_s / 3600:.1f} h, {len(said.scores):,} beats, "
                f"median of {len(times)}: {statistics.median(times):.2f} s; peak of the process {peak:,.0f} MiB"
            )


if __name__ == "__main__":
    main()
