"""Read any recording into a `pqrst.Record`. Only this file chooses a reader by format.

A locator is a path, or `path#row` for a file that holds many recordings.
"""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import pqrst
from formats import Signal, Tracing, check_rate, record_of
from recipe import ecg_leads

FLAC_FORMATS = {508, 516, 524}
HDF5 = (".hdf5", ".h5")
TABLES = {"unified_label_mapping.csv", "records.csv", "reference.csv", "reference-v3.csv", "exams.csv"}  # no recordings

# By suffix: what the format is called, and the file of formats/ that reads it.
FORMATS = {
    ".csv": ("CSV", "table"),
    ".tsv": ("CSV", "table"),
    ".txt": ("text", "table"),
    ".mat": ("MATLAB", "matlab"),
    ".edf": ("EDF", "edf"),
    ".bdf": ("BDF", "edf"),
    ".dcm": ("DICOM", "dicom"),
    ".xml": ("XML", "xml"),
    ".scp": ("SCP-ECG", "scp"),
    ".ecg": ("ISHNE", "ishne"),
    ".ishne": ("ISHNE", "ishne"),
    ".atc": ("Kardia", "kardia"),
    ".hdf5": ("CODE", "code"),
    ".h5": ("CODE", "code"),
}
# By the bytes at a place: of files without a known suffix, and of text that is no table.
MAGIC = (
    (0, b"# OpenSignals", "opensignals"),
    (128, b"DICM", "dicom"),
    (0, b"0       ", "edf"),
    (0, b"\xffBIOSEMI", "edf"),
    (0, b"ISHNE1.0", "ishne"),
    (0, b"ALIVE\0", "kardia"),
    (0, b"MATLAB ", "matlab"),
)
XML_ROOTS = (b"<AnnotatedECG", b"<RestingECG", b"<restingecgdata")
SUFFIXES = (".hea", *FORMATS)


class Info(NamedTuple):
    """Rate, size and format of a recording, without its signal."""

    fs: float
    n_samples: int  # at most: padding is recognised only when the signal is read
    n_bytes: int  # size of its files; another size means that the source has changed
    native: bool  # `pqrst.prepare` can read it directly from its path
    format: str
    leads: tuple[str, ...]  # () where only the signal tells
    units: tuple[str, ...]


def info(path: str | Path, units_per_mv: float | None = None, fs: float | None = None) -> Info:
    """Return the `Info` of a recording; arguments and errors as in `read`."""
    if str(path).endswith(".hea"):  # first, and without a Path: of most datasets all recordings are such
        return _wfdb_info(str(path), units_per_mv, fs)
    file, row = file_and_row(path)
    if row is not None:
        from formats import code

        shape = code.shape_of(file)
        if row >= shape.n_rows:
            raise pqrst.FormatError(f"{file}: has {shape.n_rows} recordings, no row {row}")
        return Info(fs or code.FS, shape.n_samples, file.stat().st_size // shape.n_rows, False, "CODE", (), ("mV",))
    if header := _header_of(file):
        return _wfdb_info(str(header), units_per_mv, fs)
    record = read(file, units_per_mv, fs)
    kind = FORMATS.get(file.suffix.lower(), ("",))[0] or _module_of(file)
    return Info(record.fs, record.n_samples, file.stat().st_size, False, kind, record.leads, record.units)


def _wfdb_info(path: str, units_per_mv: float | None, fs: float | None) -> Info:
    header = pqrst.header(path)
    if not header.n_samples:
        raise ValueError(f"{path}: has no samples, or its data file is missing")
    if header.n_bytes is None:
        for name in header.files:
            (Path(path).parent / name).stat()
    rate, n_samples = _rate_of(header), header.n_samples
    native = (
        not FLAC_FORMATS.intersection(header.formats)
        and (units_per_mv is None or set(header.gains) == {units_per_mv})
        and fs in (None, header.fs)
        and rate == header.fs
    )
    if rate != header.fs:
        n_samples = round(n_samples * rate / header.fs)
    if fs is None:
        check_rate(path, rate)
    return Info(fs or rate, n_samples, header.n_bytes or 0, native, "WFDB", header.leads, header.units)


def _rate_of(header: pqrst.Header) -> float:
    """Return the rate at which `read` gives a WFDB record: where leads differ, that which the ECG leads share."""
    counts = header.samps_per_frame
    if len(set(counts)) == 1:
        return header.fs
    of_ecg = {n for n, is_lead in zip(counts, ecg_leads(header.leads), strict=True) if is_lead}
    return header.fs * of_ecg.pop() if len(of_ecg) == 1 else header.fs


def read(path: str | Path, units_per_mv: float | None = None, fs: float | None = None) -> pqrst.Record:
    """Read one recording.

    Parameters
    ----------
    path : a WFDB header, with or without `.hea`, or a file beside it that it names; a file of another format in
        `FORMATS`, known by its suffix or, without one, by its first bytes; `.hdf5#row` of CODE. What each holds, and
        how it is read, stands in formats/. Of signals with several rates or other names the ECG leads are read; what is
        left out is a line in the record's warnings.
    units_per_mv : scale of the stored values, if the file gives a wrong one or none: 1000 for uV
    fs : sampling rate in Hz, which wins over what the file says

    Returns
    -------
    pqrst.Record: signal (L, T) float32, voltages in mV, invalid samples NaN.

    Raises
    ------
    FileNotFoundError
        The header or a data file does not exist.
    ValueError
        The file is damaged or of an unknown format, or tells no rate (then often pqrst.FormatError); the message names
        the file.
    """
    file, row = file_and_row(path)
    if row is not None:
        from formats import code

        return record_of(code.parse_row(file, row), Path(path), fs, units_per_mv)
    if header := _header_of(file):
        return _read_wfdb(header, units_per_mv, fs)
    if file.suffix.lower() in HDF5:
        raise pqrst.FormatError(f"{path}: may hold many recordings; name one by its row, {file.name}#0")
    parse = partial(importlib.import_module(f"formats.{_module_of(file)}").parse, file, fs)
    tracing: Tracing = parse()
    return record_of(tracing, file, fs, units_per_mv)


def native_rate(path: Path) -> float | None:
    """Return the rate of a WFDB record by its header, Hz; None of other formats."""
    header = None if file_and_row(path)[1] is not None else _header_of(path)
    return _rate_of(pqrst.header(header)) if header else None


def read_annotations(path: str | Path, extension: str) -> pqrst.Annotations:
    """Read the annotations of a WFDB record; their positions are samples of what `read` gives without `fs`."""
    return pqrst.read_annotations(path, extension, _rate_of(pqrst.header(path)))


def below(folder: Path, recursive: bool = False) -> list[Path]:
    """List the recordings in a folder, in order: each by its header where it has one, those of an HDF5 file by row."""
    files = sorted(folder.rglob("*") if recursive else folder.glob("*"))
    headers = {path.with_suffix("") for path in files if path.suffix.lower() == ".hea"}
    found: list[Path] = []
    for path in files:
        kind = path.suffix.lower()
        if kind == ".hea":
            found.append(path)
        elif kind not in FORMATS or path.with_suffix("") in headers or path.name.lower() in TABLES:
            continue
        elif kind in HDF5:
            found += rows_of(path)
        elif kind not in (".txt", ".xml") or _is_recording(path):
            found.append(path)
    return found


def rows_of(path: Path) -> list[Path]:
    """List the recordings in an HDF5 file: `path#row`."""
    from formats import code

    return [Path(f"{path}#{row}") for row in range(code.shape_of(path).n_rows)]


def complete(path: Path) -> Path:
    """Return the path of a recording that is named without `.hea`."""
    known = path.suffix.lower() in SUFFIXES or file_and_row(path)[1] is not None or path.is_file()
    return path if known else path.with_name(path.name + ".hea")


# ------------------------------------------------------------------------------------------------ the choice


def file_and_row(path: str | Path) -> tuple[Path, int | None]:
    """Split `exams.hdf5#7` into the file and the number of the recording in it; of any other path that is None."""
    name, mark, row = str(path).rpartition("#")
    is_row = mark and row.isdigit() and name.lower().endswith(HDF5)  # other files may be called a#1.csv or a.csv#1
    return (Path(name), int(row)) if is_row else (Path(path), None)


def _header_of(path: Path) -> Path | None:
    """Return the WFDB header of a recording; None if the path names one of another format."""
    if path.suffix.lower() == ".hea":
        return path
    if not path.is_file() and (path.suffix.lower() not in FORMATS or path.with_name(path.name + ".hea").is_file()):
        return path.with_name(path.name + ".hea")
    header = path.with_suffix(".hea")
    if header.is_file() and path.suffix != ".csv" and path.name in pqrst.header(header).files:
        return header
    return None


def _module_of(path: Path) -> str:
    """Return the name of the file of formats/ that reads a recording: by its suffix, else by its first bytes."""
    kind = path.suffix.lower()
    if kind in FORMATS and kind != ".txt":
        return FORMATS[kind][1]
    start = _start(path)
    for place, mark, module in MAGIC:
        if start[place:].startswith(mark):
            return module
    if kind == ".txt":
        return "table"
    if any(root in start for root in XML_ROOTS):
        return "xml"
    if kind == ".dat":
        header = path.with_suffix(".hea").name
        raise pqrst.FormatError(f"{path}: is read by the header of its WFDB record, and {header} does not name it")
    raise pqrst.FormatError(f"{path}: is of no format that is read: WFDB and {', '.join(FORMATS)}")


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _is_recording(path: Path) -> bool:
    """Tell whether a file of text or XML, which may be anything, is a recording."""
    start = _start(path)
    if path.suffix.lower() == ".xml":
        return any(root in start for root in XML_ROOTS)
    lines = [line for line in start.decode("latin-1").splitlines()[1:-1] if line.strip()]
    numbers = set("0123456789.,;+-eE \t:|")
    return start.startswith(b"# OpenSignals") or bool(lines and set(lines[-1]) <= numbers)


# ------------------------------------------------------------------------------------------------ WFDB


def _read_wfdb(path: Path, units_per_mv: float | None, fs: float | None) -> pqrst.Record:
    header = pqrst.header(path)
    left_out: list[str] = []
    if FLAC_FORMATS.intersection(header.formats):
        record = _read_flac(path, header)
    elif _rate_of(header) != header.fs:
        chosen = ecg_leads(header.leads)
        leads = [lead for lead, is_lead in zip(header.leads, chosen, strict=True) if is_lead]
        left_out = [lead for lead, is_lead in zip(header.leads, chosen, strict=True) if not is_lead]
        record = pqrst.read(path, leads=leads)
    else:
        record = pqrst.read(path)
    if units_per_mv is not None:
        gains = np.array([header.gains[header.leads.index(lead)] for lead in record.leads])
        record.signal[:] = record.signal * (gains[:, None] / units_per_mv)  # in place, in the memory of the record
    if fs is None:
        check_rate(path, record.fs)
    if not left_out and fs in (None, record.fs):
        return record
    told = [f"{path}: leads of another rate are left out: {', '.join(left_out)}"] if left_out else []
    return pqrst.Record(
        record.signal, fs or record.fs, list(record.leads), list(record.units), record.name,
        [*record.warnings, *told], record.comments, record.start_time,
    )  # fmt: skip


def _read_flac(path: Path, header: pqrst.Header) -> pqrst.Record:
    import wfdb  # slow to import, and only FLAC needs it

    try:
        record = wfdb.rdrecord(str(path.with_suffix("")), smooth_frames=False)
    except Exception as error:  # wfdb and its decoder raise many types of errors
        raise pqrst.FormatError(f"{path}: cannot decode its FLAC data: {error}") from error
    rates = [record.fs * n for n in header.samps_per_frame]
    read = zip(record.sig_name, record.e_p_signal, rates, record.units, strict=True)
    tracing = Tracing([Signal(*signal) for signal in read], start_time=header.start_time)
    return record_of(tracing, path, None, None)
