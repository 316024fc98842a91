"""Uploaded files -> a record. Their names are used bare, in a folder that is gone when the record is read.

record = files.read((("holter.hea", header), ("holter.dat", data)))
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pqrst
import readers
import script
from formats import TELL_RATE, TELL_UNIT
from script import Stop

Files = tuple[tuple[str, bytes], ...]  # name and content

KINDS = (
    "a .hea with the files that it names, a .mat, a CSV with lead1 to lead12 in mV and perhaps time, or another format"
)


def stored(files: Files, folder: Path) -> Path:
    """Write uploaded files under their bare names, and return the path of the recording that they are.

    Raises
    ------
    Stop
        No file, a name that is none, two files of one name, not exactly one recording, or a file of many.
    """
    names = [name.replace("\\", "/").rpartition("/")[2] for name, _ in files]
    for name, (given, _) in zip(names, files, strict=True):
        if name in ("", ".", "..") or not name.isprintable():
            raise Stop(f"{given!r} is no name of a file; rename it and upload it again")
        if names.count(name) > 1:
            raise Stop(f"{name}: two files have this name; upload one of them")
    headers = [name for name in names if name.lower().endswith(".hea")]
    recordings = headers or names
    if len(recordings) != 1:
        several = f"{len(recordings)} recordings were uploaded ({', '.join(recordings)})"
        found = several if names else "nothing was uploaded"
        raise Stop(f"{found}; upload {KINDS}")
    if recordings[0].lower().endswith(readers.HDF5):
        raise Stop(f"{recordings[0]}: may hold many recordings, and none can be chosen here; upload one as WFDB or CSV")
    for name, (_, content) in zip(names, files, strict=True):
        (folder / name).write_bytes(content)
    return folder / recordings[0]


def read(files: Files, fs: float | None = None, units_per_mv: float | None = None) -> pqrst.Record:
    """Read uploaded files; what is wrong with them is a Stop that names a file as it was uploaded."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return readers.read(stored(files, Path(folder)), units_per_mv, fs)
        except (ValueError, OSError) as error:
            text = bare(script.one_line(error), folder)
            if isinstance(error, FileNotFoundError) and ".hea" in text:
                text += "; upload the header together with the files that it names"
            raise Stop(text) from error


def bare(text: str, folder: str | Path) -> str:
    """Take out of a message the temporary folder, and the options of a command line."""
    text = text.replace(f"{folder}/", "")
    text = text.replace(TELL_RATE, "give the sampling rate in the side bar")
    return text.replace(TELL_UNIT, "give the units per mV in the side bar")
