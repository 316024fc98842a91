"""Download public datasets. A file gets its own name only when it is complete and checked.

    from pathlib import Path
    from download import download

    download("mitdb", Path("data/mitdb"))

An interrupted run leaves `NAME.part`, and the next run continues it. The folder is held meanwhile: a second run stops.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter
from tqdm import tqdm

import script
from script import Stop

PHYSIONET = "https://physionet.org/files"
ZENODO = "https://zenodo.org/api/records"
HOMES = {
    "mitdb": f"{PHYSIONET}/mitdb/1.0.0/",
    "svdb": f"{PHYSIONET}/svdb/1.0.0/",
    "ludb": f"{PHYSIONET}/ludb/1.0.1/",
    "ptbdb": f"{PHYSIONET}/ptbdb/1.0.0/",
    "ptbxl": f"{PHYSIONET}/ptb-xl/1.0.3/",
    "icentia11k": f"{PHYSIONET}/icentia11k-continuous-ecg/1.0/",
    "cinc2017": f"{PHYSIONET}/challenge-2017/1.0.0/",
    "cinc2020": f"{PHYSIONET}/challenge-2020/1.0.2/",
    "cinc2021": f"{PHYSIONET}/challenge-2021/1.0.3/",
    "mimic_iv_ecg": f"{PHYSIONET}/mimic-iv-ecg/1.0/",
    "code15": f"{ZENODO}/4916206",
    "codetest": f"{ZENODO}/3765780",
}

CHUNK = 2**16  # bytes; a reset connection loses the unfinished chunk, and a chunk of 1 MiB might never be finished
TIMEOUT_S = (10, 30)  # to connect; to wait for the next byte
WAITS_S = (1.0, 4.0, 15.0, 60.0)  # before each new try; the fifth try in a row without new bytes is the last
NOTE = ".unpacked.json"  # added to the name of a zip: the note that replaces it once it is unpacked
MOST_FAILED = 20  # files in a row, then give up: the home has probably gone, and a list may name a million files


class Failed(Stop):
    """A file that cannot be fetched; other files may still be."""


class File(NamedTuple):
    """One entry of the list of files."""

    name: str  # path below the folder
    url: str
    algorithm: str = "sha256"
    digest: str | None = None  # None for the list itself, whose checksum is not published
    size: int | None = None  # bytes, if the list states them
    unpack: bool = False  # a zip that is replaced by its contents


@dataclass
class Partial:
    """The part of a file that is on disk, with its running checksum."""

    stream: BinaryIO
    hash: hashlib._Hash
    size: int = 0
    pieced: bool = False  # the bytes come from more than one response

    def is_right(self, file: File) -> bool:
        return self.hash.hexdigest() == file.digest


def download(name: str, folder: Path, home: str | None = None, n_parallel: int = 4) -> None:
    """Fetch the files of a dataset that `folder` does not have yet.

    Parameters
    ----------
    name : key of HOMES
    folder : created if missing; a file in it whose checksum is right is not fetched again
    home : another address with the same files, for example a mirror
    n_parallel : number of files fetched at once, at least 1

    Raises
    ------
    Stop
        The name is unknown, another process holds the folder, the home does not answer, or its list cannot be used. If
        files fail, it is raised at the end: after all others were tried, or after MOST_FAILED failures in a row.
    OSError
        A file cannot be written. Its bytes so far stay for the next run.
    """
    if name not in HOMES:
        raise Stop(f"{name}: cannot be downloaded (possible: {', '.join(HOMES)}){script.nearest(name, HOMES)}")
    home = home or HOMES[name]
    if HOMES[name].startswith(ZENODO):
        table, files_of = File("zenodo.json", home), _zenodo
    else:
        home = home.rstrip("/") + "/"
        table, files_of = File("SHA256SUMS.txt", home + "SHA256SUMS.txt"), _sums
    with (
        script.hold(folder),
        requests.Session() as session,
        tqdm(desc=name, total=0, unit="B", unit_scale=True, disable=None) as bar,
    ):
        session.headers["Accept-Encoding"] = "identity"  # otherwise lengths and ranges would count compressed bytes
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=n_parallel))
        fetcher = Fetcher(folder, session, bar)
        fetcher.fetch(table)
        sizes = [file.size or 0 for file in files_of(folder / table.name, home)]  # checks every entry first
        if not sizes:
            raise Stop(f"{table.url}: names no files")
        tqdm.write(f"{name}: {len(sizes):,} files from {home} to {folder}", file=sys.stderr)
        fetcher.expect(sum(sizes))
        fetcher.fetch_all(files_of(folder / table.name, home), n_parallel)
    failures, untried = fetcher.failures, len(sizes) - fetcher.n_tried
    if failures:
        more = f", {untried:,} were not tried" if untried else ""
        raise Stop(f"{name}: {len(failures):,} of {len(sizes):,} files failed{more}; first: {'; '.join(failures[:3])}")
    tqdm.write(f"{name}: {len(sizes):,} files are complete, {fetcher.n_fetched:,} bytes were fetched", file=sys.stderr)


# ------------------------------------------------------------------------------------------------ lists


def _sums(path: Path, home: str) -> Iterator[File]:
    """Yield the files named in SHA256SUMS.txt of PhysioNet, line by line: some lists have a million lines."""
    with path.open(encoding="utf-8", errors="backslashreplace") as lines:
        for number, line in enumerate(lines, 1):
            match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *]?(.+)\n?", line)
            if not match:
                raise Failed(f"{path}: line {number} is not a checksum followed by a path: {line[:60]!r}")
            _check_inside(match[2], path)
            yield File(match[2], urljoin(home, quote(match[2])), digest=match[1].lower())


def _zenodo(path: Path, home: str) -> Iterator[File]:
    """Yield the files named in the description of a Zenodo record."""
    try:
        for entry in json.loads(path.read_text(encoding="utf-8"))["files"]:
            key, (algorithm, digest) = entry["key"], entry["checksum"].split(":")
            if algorithm not in ("md5", "sha256"):
                raise ValueError(f"{key}: unknown checksum algorithm {algorithm!r}")
            _check_inside(key, path)
            url = urljoin(home, entry["links"]["self"])
            yield File(key, url, algorithm, digest.lower(), int(entry["size"]), key.endswith(".zip"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failed(f"{path}: is not the description of a Zenodo record ({error!r})") from error


def _check_inside(name: str, origin: Path) -> None:
    """Raise Failed if the path `name`, found in the file `origin`, leaves the folder."""
    path = PureWindowsPath(name)  # Windows has the most ways to leave a folder: drives, both slashes
    if path.anchor or "\\" in name or "\0" in name or ".." in path.parts or not path.parts:
        raise Failed(f"{origin}: names {name!r}, which lies outside the folder")


# ------------------------------------------------------------------------------------------------ files


class Fetcher:
    """Fetch files into a folder, in several threads."""

    def __init__(self, folder: Path, session: requests.Session, bar: tqdm[Any]) -> None:
        self.folder, self.session, self.bar = folder, session, bar
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.reached = False  # whether the home has ever answered
        self.n_tried = self.n_failed_in_a_row = self.n_fetched = 0
        self.failures: list[str] = []

    def fetch_all(self, files: Iterator[File], n_parallel: int) -> None:
        with ThreadPoolExecutor(n_parallel) as pool:
            try:
                for worker in as_completed([pool.submit(self._work, files) for _ in range(n_parallel)]):
                    worker.result()
            finally:  # after an error or Ctrl-C, the other threads end at their next chunk
                self.stopping.set()

    def _work(self, files: Iterator[File]) -> None:
        while not self.stopping.is_set():
            with self.lock:
                file = next(files, None)
            if file is None:
                return
            failure = ""
            try:
                self.fetch(file)
            except CancelledError:
                return
            except Failed as error:
                failure = str(error)
                tqdm.write(failure, file=sys.stderr)
            with self.lock:
                self.n_tried += 1
                self.n_failed_in_a_row = self.n_failed_in_a_row + 1 if failure else 0
                self.failures += [failure] if failure else []
                self.bar.set_postfix_str(f"{self.n_tried:,} files", refresh=False)
            if self.n_failed_in_a_row >= MOST_FAILED:
                self.stopping.set()

    def fetch(self, file: File) -> None:
        """Fetch one file into the folder. Raise Failed if it cannot be fetched, OSError if it cannot be written."""
        path = self.folder / file.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if file.unpack and _is_unpacked(path, file):
                self.count(file.size or 0)
                return
            if not self._is_here(path, file):
                self._obtain(path, file)
            if file.unpack:
                self._unpack(path, file)
        except OSError as error:  # the error of a full disk names no file
            raise OSError(error.errno, error.strerror or str(error), error.filename or str(path)) from error

    def _is_here(self, path: Path, file: File) -> bool:
        if file.digest is None or not path.is_file():
            return False
        with path.open("rb") as stream:
            partial = self._read(stream, file)
        if not partial.is_right(file):
            self._forget(partial, file)
        return partial.is_right(file)

    def _obtain(self, path: Path, file: File) -> None:
        temporary = path.with_name(path.name + ".part")
        with temporary.open("ab+") as stream:
            stream.seek(0)
            partial = self._read(stream, file)
            if file.digest is None:  # without a checksum, pieces of two lists would go unnoticed
                self._clear(partial, file)
            try:
                self._gather(partial, file)
                if file.digest and partial.pieced and not partial.is_right(file):  # maybe of two versions
                    self._clear(partial, file)
                    self._gather(partial, file)
                if file.digest and not partial.is_right(file):
                    found = partial.hash.hexdigest()
                    self._clear(partial, file)
                    raise Failed(f"{file.url}: its {file.algorithm} should be {file.digest}, but is {found}")
            except Failed:
                if not partial.size:
                    stream.close()
                    temporary.unlink()
                raise
        temporary.replace(path)

    def _gather(self, partial: Partial, file: File) -> None:
        """Fetch all missing bytes of a file, in as many requests as needed."""
        furthest, idle = partial.size, 0
        while not (partial.size and partial.is_right(file)):
            try:
                return self._request(partial, file)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = _reason(error)
            # compare with the largest size so far: a server without ranges that always cuts early brings nothing new
            idle = 0 if partial.size > furthest else idle + 1
            furthest = max(furthest, partial.size)
            if not self.reached or idle > len(WAITS_S):  # never answered: offline, or a wrong address
                raise Failed(f"{file.url}: {reason}")
            self.stopping.wait(WAITS_S[max(idle, 1) - 1])
        return None

    def _request(self, partial: Partial, file: File) -> None:
        """Append the missing bytes of a file, as far as they arrive.

        Raise an error of requests or urllib3 if another try may help, and Failed if not.
        """
        self.count(0)
        wanted = {"Range": f"bytes={partial.size}-"} if partial.size else {}
        with self.session.get(file.url, headers=wanted, stream=True, timeout=TIMEOUT_S) as response:
            self.reached = True
            status, answer = response.status_code, f"{response.status_code} {response.reason}"
            rest = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {partial.size}-")
            if partial.size and not rest and status in (200, 206, 416):
                self._clear(partial, file)  # no ranges (200); another range (206); the file is shorter (416)
            if (status in (206, 408, 416, 429) and not rest) or status >= 500:
                raise requests.HTTPError(answer)
            if status != 200 and not rest:
                raise Failed(f"{file.url}: {answer}")
            partial.pieced = partial.size > 0
            length, before = response.headers.get("Content-Length", ""), partial.size
            to_come = int(length) if length.isdecimal() else 0
            self.expect(to_come, file)
            try:
                # not iter_content: it drops the last bytes before a cut, and unzips a file that is stored zipped
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    partial.stream.write(chunk)
                    self._add(partial, chunk)
            finally:
                with self.lock:
                    self.n_fetched += partial.size - before
                self.expect(partial.size - before - to_come, file)
        if partial.size < (file.size or 0):
            raise requests.ConnectionError(f"ended after {partial.size:,} of {file.size:,} bytes")

    def _read(self, stream: BinaryIO, file: File) -> Partial:
        """Read the bytes that the stream already holds."""
        partial = Partial(stream, hashlib.new(file.algorithm, usedforsecurity=False))
        while chunk := stream.read(CHUNK):
            self.expect(len(chunk), file)
            self._add(partial, chunk)
        return partial

    def _add(self, partial: Partial, chunk: bytes) -> None:
        partial.hash.update(chunk)
        partial.size += len(chunk)
        self.count(len(chunk))

    def _clear(self, partial: Partial, file: File) -> None:
        self._forget(partial, file)
        partial.stream.truncate(0)
        partial.hash, partial.size, partial.pieced = hashlib.new(file.algorithm, usedforsecurity=False), 0, False

    def _forget(self, partial: Partial, file: File) -> None:
        self.expect(-partial.size, file)
        self.count(-partial.size)

    def expect(self, n_bytes: int, file: File | None = None) -> None:
        """Add `n_bytes` to the total of the bar. A file whose size the list states is already in the total."""
        with self.lock:
            if file is None or file.size is None:
                self.bar.total = (self.bar.total or 0) + n_bytes

    def count(self, n_bytes: int) -> None:
        """Move the bar by `n_bytes`. Raise CancelledError if the threads must stop."""
        if self.stopping.is_set():
            raise CancelledError
        with self.lock:
            self.bar.update(n_bytes)

    def _unpack(self, path: Path, file: File) -> None:
        """Unpack a zip into its own folder, write a note of its contents, and remove the zip."""
        sizes = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    _check_inside(member.filename, path)
                    if not member.is_dir():
                        self._unpack_member(archive, member, path.parent / member.filename)
                        sizes[member.filename] = member.file_size
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
            raise Failed(f"{path}: cannot be unpacked: {error}") from error
        note = json.dumps({"digest": file.digest, "sizes": sizes}, indent=1)
        path.with_name(path.name + NOTE).write_text(note, encoding="utf-8")
        path.unlink()

    def _unpack_member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        with archive.open(member) as source, temporary.open("wb") as out:
            while chunk := source.read(CHUNK):  # the last read checks the CRC
                self.count(0)
                out.write(chunk)
        temporary.replace(path)


def _is_unpacked(path: Path, file: File) -> bool:
    """Return whether an earlier run unpacked the same zip and all its contents are still there."""
    try:
        note = json.loads(path.with_name(path.name + NOTE).read_text(encoding="utf-8"))
        sizes = {name: (path.parent / name).stat().st_size for name in note["sizes"]}
    except (FileNotFoundError, ValueError):  # ValueError: the note is incomplete
        return False
    return bool(note == {"digest": file.digest, "sizes": sizes})


def _reason(error: BaseException) -> str:
    """Return the message of the first error, around which requests and urllib3 wrap their own."""
    while error.__context__:
        error = error.__context__
    return str(error) or type(error).__name__
