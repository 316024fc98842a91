"""What stands at the head of every table, for a figure means nothing without it; and how memory is measured."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import pqrst

REPOSITORY = Path(__file__).resolve().parent.parent


def describe() -> str:
    """Processor, SIMD level, commit, date and versions, in two lines."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "wfdb", "h5py"))
    return (
        f"{processor}, {os.cpu_count()} cores, level {pqrst.simd()}; commit {commit}, {time.strftime('%Y-%m-%d')}\n"
        f"Python {platform.python_version()}, {versions}"
    )


def peak_memory(pid: int) -> float:
    """Largest resident memory of a process so far; not its rusage, which inherits the parent's."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0.0
