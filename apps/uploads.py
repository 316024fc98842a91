"""An uploaded recording: the parts of a form, checked, and read by readers.py out of a folder of their own.

No name and no path of a request is used before it is checked, and a header may name only files of the same request.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from starlette.datastructures import FormData, UploadFile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pqrst
import readers
import script
from formats import FASTEST, SLOWEST
from recipe import Recipe
from script import Stop, nearest

MAX_FILES = 16
MAX_FIELDS, MAX_FIELD_BYTES = 8, 4096
MAX_HEADER_BYTES = 1 << 20
MAX_CSV_BYTES = 16 << 20
MAX_LEADS = 64
MAX_VALUES = 48_000_000  # leads x samples of a record: two leads for a day at 250 Hz are 43 million
MAX_DURATION_S = 26 * 3600.0
FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
FIELDS = ("fs", "leads", "run")


class Upload(NamedTuple):
    """What a request to predict holds."""

    files: dict[str, UploadFile]  # by their checked names
    main: str  # which of them is the recording: its header, or a CSV
    fs: float | None  # Hz
    leads: str  # as infer.py takes it: MLII=ECG1,V1=zeros
    run: str | None


def parsed(form: FormData) -> Upload:
    """Check the names and fields of a form; Stop where one is wrong."""
    files: dict[str, UploadFile] = {}
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            file = value.filename or ""
            if not FILE_NAME.fullmatch(file):
                raise Stop(
                    f"file name {file[:100]!r}: must be a bare name of ascii letters, digits, '.', '_' and '-', "
                    "at most 100 of them"
                )
            if file in files:
                raise Stop(f"file {file}: is uploaded twice")
            files[file] = value
        elif name not in FIELDS:
            raise Stop(
                f"field {name[:100]!r}: unknown{nearest(name, FIELDS)}; fields are {', '.join(FIELDS)} and files"
            )
        elif name in fields:
            raise Stop(f"field {name}: is given twice")
        elif value:
            fields[name] = value
    return Upload(files, _recording_of(files), _rate_of(fields.get("fs")), fields.get("leads", ""), fields.get("run"))


def _recording_of(files: dict[str, UploadFile]) -> str:
    """Choose the file that is the recording."""
    headers = [name for name in files if name.lower().endswith(".hea")]
    tables = [name for name in files if name.lower().endswith(".csv")]
    if len(headers) > 1:  # those of segments, and the one that lists them
        headers = [name for name in headers if _lists_segments(files[name])]
    if len(headers) == 1:
        return headers[0]
    if len(files) == len(tables) == 1:
        return tables[0]
    given = ", ".join(sorted(files)) or "no file"
    raise Stop(f"files: one recording was expected, a .hea with its signal files or one .csv; given: {given}")


def _lists_segments(file: UploadFile) -> bool:
    start = file.file.read(MAX_HEADER_BYTES).decode("latin-1")
    file.file.seek(0)
    line = next((line for line in start.splitlines() if line.strip() and not line.startswith("#")), "")
    return "/" in line.split(" ")[0]


def _rate_of(text: str | None) -> float | None:
    """Read the field fs."""
    if text is None:
        return None
    try:
        fs = float(text)
    except ValueError:
        fs = 0.0
    if not SLOWEST <= fs <= FASTEST:
        raise Stop(f"fs {text[:40]!r}: must be a rate in Hz from {SLOWEST:g} to {FASTEST:g}")
    return fs


class Received(NamedTuple):
    """A record, and the folder that its name and its messages begin with; it is gone by then."""

    record: pqrst.Record
    folder: str


def read(upload: Upload) -> Received:
    """Read the recording of an upload.

    Raises
    ------
    Stop
        It cannot be read, names other files, or is larger than the limits; the message names no folder.
    """
    with tempfile.TemporaryDirectory(prefix="ecg-") as name:
        folder = Path(name)
        for file, content in upload.files.items():
            with (folder / file).open("xb") as target:
                shutil.copyfileobj(content.file, target, 1 << 20)
        path = folder / upload.main
        try:
            _check(path, list(upload.files))
            record = readers.read(path, fs=upload.fs)
            _check_size(upload.main, len(record.leads), record.n_samples, record.fs)
        except (Stop, ValueError, OSError) as error:
            raise Stop(without(name, script.one_line(error))) from error
        except StopIteration as error:  # a fault of a reader; a future that it is raised in would never be done
            raise RuntimeError("a reader has met its end") from error
        return Received(record, name)


def without(folder: str, text: str) -> str:
    """Take a folder out of a message or an answer."""
    return text.replace(f"{folder}/", "").replace(folder, "")


def _check(path: Path, names: Sequence[str]) -> None:
    """Stop where a recording is too large, or asks for what was not uploaded, before its signal is read."""
    n_bytes = path.stat().st_size
    if path.suffix.lower() == ".csv":
        if n_bytes > MAX_CSV_BYTES:
            raise Stop(f"{path.name}: has {n_bytes:,} bytes; a CSV may have {MAX_CSV_BYTES:,}, WFDB files more")
        return
    if n_bytes > MAX_HEADER_BYTES:
        raise Stop(f"{path.name}: has {n_bytes:,} bytes; a header may have {MAX_HEADER_BYTES:,}")
    header = pqrst.header(path)
    if others := [name for name in header.files if name not in names]:
        raise Stop(f"{path.name}: names {others[0][:100]!r}, which is not uploaded with it")
    if readers.FLAC_FORMATS.intersection(header.formats):
        raise Stop(f"{path.name}: its signals are compressed with FLAC, which is not accepted here; use format 16")
    _check_size(path.name, len(header.leads), header.n_samples or 0, header.fs)


def _check_size(name: str, n_leads: int, n_samples: int, fs: float) -> None:
    """Stop where a record is larger than the limits."""
    if n_leads > MAX_LEADS:
        raise Stop(f"{name}: has {n_leads} leads; at most {MAX_LEADS} are accepted")
    if n_leads * n_samples > MAX_VALUES:
        raise Stop(f"{name}: has {n_leads} x {n_samples:,} samples; at most {MAX_VALUES:,} in all are accepted")
    if n_samples > MAX_DURATION_S * fs:
        raise Stop(f"{name}: lasts {n_samples / fs / 3600:.1f} hours; at most {MAX_DURATION_S / 3600:g} are accepted")


def check_rows(record: pqrst.Record, recipe: Recipe) -> None:
    """Stop where a recording would become more rows than fit: its beats are few, its windows at the recipe's rate."""
    n_values = len(recipe.leads) * record.n_samples / record.fs * recipe.fs
    if not recipe.of_beats and n_values > MAX_VALUES:
        hours = MAX_VALUES / len(recipe.leads) / recipe.fs / 3600
        raise Stop(f"{record.name}: too long for this model, which takes at most {hours:.1f} hours")
