"""Prints pqrst.pyi: signatures and docstrings of the extension, by pybind11-stubgen (`make stubs`)."""

import subprocess
import sys
import tempfile
from pathlib import Path

HEADER = """# Made by `make stubs`; do not edit.
# mypy: disable-error-code="overload-cannot-match,overload-overlap,type-arg"
"""


def stub() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pybind11_stubgen", "pqrst", "-o", folder, "--numpy-array-use-type-var"]
        subprocess.run(command, check=True, capture_output=True)
        raw = Path(folder, "pqrst.pyi").read_text()
        path = Path(folder, "formatted.pyi")
        path.write_text(HEADER + raw)
        settings = Path(__file__).resolve().parent.parent / "pyproject.toml"
        subprocess.run([sys.executable, "-m", "ruff", "format", "-q", "--config", str(settings), str(path)], check=True)
        return path.read_text()


if __name__ == "__main__":
    print(stub(), end="")
