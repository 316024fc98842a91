"""Compile a file of `export.py --format torch` for examples/predict.cpp, which predicts without Python.

python export.py runs/demo --format torch
python examples/native.py runs/demo/best.pt2 demo.pt2
make native
build/native/predict demo.pt2 demo/sim00001_1.hea

The compiled file runs on machines like this one. Refused are networks of beats and others that want numbers beside the
signal, which are made in Python, and those that are asked about pieces of a row.
"""

import json
import sys
from pathlib import Path

import torch
from torch._inductor import aoti_compile_and_package

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from decide import thresholds_of
from export import METADATA
from recipe import flatten


def plain(value: object) -> str:
    """Return a value as C++ splits it: a line for each entry of a list, tabs between the entries of an entry."""
    if isinstance(value, list | tuple):
        return "\n".join("\t".join(map(plain, entry)) if isinstance(entry, list) else plain(entry) for entry in value)
    return "" if value is None else str(value)


def main(exported: Path, compiled: Path) -> None:
    files = {METADATA: ""}
    program = torch.export.load(exported, extra_files=files)
    said = json.loads(files[METADATA])
    if said["crops"] or "context" in said["inputs"]:
        sys.exit(f"error: {exported}: its network wants numbers beside the signal, or is asked about pieces of a row")
    said["thresholds"] = thresholds_of(said["task"], len(said["classes"]), said["thresholds"])
    inductor = {"aot_inductor.metadata": {key: plain(value) for key, value in flatten(said).items()}}
    aoti_compile_and_package(program, package_path=str(compiled), inductor_configs=inductor)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
