"""Shared by the benchmarks: the lines above every table, the memory of a process, checks of folders and processes."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import pqrst
from script import Stop

REPOSITORY = Path(__file__).resolve().parent.parent


def describe() -> str:
    """Return two lines: processor, cores, SIMD level, commit and date; then the versions of Python and the packages."""
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
    """Return the largest resident memory of a process so far, bytes; 0 where /proc does not say.

    The maximum that rusage gives is not used: a child process inherits it from its parent.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0.0


def check_folder(folder: Path, advice: str) -> None:
    """Raise `Stop` with the advice where the folder does not exist."""
    if not folder.is_dir():
        raise Stop(f"{folder}: no such folder; {advice}")


def reason(errors: str, status: int) -> str:
    """Return why a process failed: the last line of its standard error, or its exit status if that is empty."""
    lines = errors.strip().splitlines()
    return lines[-1] if lines else f"exit status {status}"
