"""Try an installed wheel where there are only Python and NumPy: `make wheel` and cibuildwheel run this."""

import tempfile
from pathlib import Path

import numpy as np

import pqrst


def main() -> None:
    x = np.sin(2 * np.pi * 10 * np.arange(5000) / 500.0)  # 10 Hz passes, its mean does not
    passed = pqrst.bandpass(x + 3.0, 500, 0.5, 40)
    assert np.abs(passed[1000:-1000] - x[1000:-1000]).max() < 0.05
    with tempfile.TemporaryDirectory() as folder:
        np.round(1000 * x).astype("<i2").tofile(Path(folder, "r.dat"))
        Path(folder, "r.hea").write_text("r 1 500 5000\nr.dat 16 1000/mV 16 0 0 0 0 II\n")
        record = pqrst.read(Path(folder, "r"))
    assert np.abs(record.signal[0] - x).max() < 1e-3
    names = [path.name for path in Path(pqrst.__file__).parent.glob("pqrst*")]
    assert "pqrst.pyi" in names and "pqrst-stubs" in names, names
    print(f"pqrst of {pqrst.__file__}: level {pqrst.simd()}")


if __name__ == "__main__":
    main()
