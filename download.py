"""Public datasets from their homes: a file is whole and checked, or not there under its name.

    from pathlib import Path
    from download import download

    download("mitdb", Path("data/mitdb"))

What an interrupted run has left (`NAME.part`) is where the next one goes on. One run at a time for a folder.
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

import config
from config import Stop

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

CHUNK = 2**16  # bytes; a reset connection takes with it what has come of a chunk, which 1 MiB might never complete
TIMEOUT_S = (10, 30)  # to connect; without a byte
WAITS_S = (1.0, 4.0, 15.0, 60.0)  # after each try that brought nothing; the fifth in a row is the last
NOTE = ".unpacked.json"  # beside where a zip was
MOST_FAILED = 20  # files in a row: the home has gone, and the list may have a million more


class Failed(Stop):
    """A file that cannot be had; others may be."""


class File(NamedTuple):
    """One entry of the home's list."""

    name: str  # path below the folder
    url: str
    algorithm: str = "sha256"
    digest: str | None = None  # None: of the list itself nobody says
    size: int | None = None  # bytes, where the list says so
    unpack: bool = False  # a zip that gives way to what it holds


@dataclass
class Part:
    """What is here of a file."""

    stream: BinaryIO
    hash: hashlib._Hash
    size: int = 0
    pieced: bool = False  # from more than one response

    def is_right(self, file: File) -> bool:
        return self.hash.hexdigest() == file.digest


def download(name: str, folder: Path, home: str | None = None, n_parallel: int = 4) -> None:
    """Fetch what is not yet in `folder` of a dataset.

    Parameters
    ----------
    name : key of HOMES
    folder : is made where it is missing; a file there whose checksum is right is not fetched again
    home : another address with the same files, for example of a mirror
    n_parallel : files at once, at least 1

    Raises
    ------
    Stop
        An unknown name, a home that does not answer, a list that cannot be used; files that could not be fetched, after
        all others have been.
    OSError
        A file that cannot be written; what is there of it stays for the next run.
    """
    if name not in HOMES:
        raise Stop(f"{name}: its home is not known ({', '.join(HOMES)}){config.nearest(name, HOMES)}")
    home = home or HOMES[name]
    if HOMES[name].startswith(ZENODO):
        table, files_of = File("zenodo.json", home), _zenodo
    else:
        home = home.rstrip("/") + "/"
        table, files_of = File("SHA256SUMS.txt", home + "SHA256SUMS.txt"), _sums
    with requests.Session() as session, tqdm(desc=name, total=0, unit="B", unit_scale=True, disable=None) as bar:
        session.headers["Accept-Encoding"] = "identity"  # else lengths and ranges are those of compressed bytes
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=n_parallel))
        fetcher = Fetcher(folder, session, bar)
        fetcher.fetch(table)
        sizes = [file.size or 0 for file in files_of(folder / table.name, home)]  # looks at all before one is fetched
        if not sizes:
            raise Stop(f"{table.url}: names no files")
        tqdm.write(f"{name}: {len(sizes):,} files from {home} to {folder}", file=sys.stderr)
        fetcher.expect(sum(sizes))
        fetcher.fetch_all(files_of(folder / table.name, home), n_parallel)
    failures, untried = fetcher.failures, len(sizes) - fetcher.n_tried
    if failures:
        more = f", {untried:,} were not tried" if untried else ""
        raise Stop(f"{name}: {len(failures):,} of {len(sizes):,} files failed{more}; first: {'; '.join(failures[:3])}")
    tqdm.write(f"{name}: {len(sizes):,} files are whole, {fetcher.n_fetched:,} bytes were fetched", file=sys.stderr)


# ------------------------------------------------------------------------------------------------ lists


def _sums(path: Path, home: str) -> Iterator[File]:
    """The files that SHA256SUMS.txt of a PhysioNet tree names; line by line, for some have a million."""
    with path.open(encoding="utf-8", errors="backslashreplace") as lines:
        for number, line in enumerate(lines, 1):
            match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *]?(.+)\n?", line)
            if not match:
                raise Failed(f"{path}: line {number} is no checksum with a path: {line[:60]!r}")
            _check_inside(match[2], path)
            yield File(match[2], urljoin(home, quote(match[2])), digest=match[1].lower())


def _zenodo(path: Path, home: str) -> Iterator[File]:
    """The files that the description of a Zenodo record names."""
    try:
        for entry in json.loads(path.read_text(encoding="utf-8"))["files"]:
            key, (algorithm, digest) = entry["key"], entry["checksum"].split(":")
            if algorithm not in ("md5", "sha256"):
                raise ValueError(f"{key}: checksum of kind {algorithm!r}")
            _check_inside(key, path)
            url = urljoin(home, entry["links"]["self"])
            yield File(key, url, algorithm, digest.lower(), int(entry["size"]), key.endswith(".zip"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failed(f"{path}: is not the description of a Zenodo record ({error!r})") from error


def _check_inside(name: str, origin: Path) -> None:
    path = PureWindowsPath(name)  # of all systems the one with most ways out: drives, both slashes
    if path.anchor or "\\" in name or "\0" in name or ".." in path.parts or not path.parts:
        raise Failed(f"{origin}: names {name!r}, which lies outside the folder")


# ------------------------------------------------------------------------------------------------ files


class Fetcher:
    """Fetches files into a folder, in several threads."""

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
            finally:  # after an error, or Ctrl-C, the others end at their next chunk
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
        """Bring one file to its place; Failed where it cannot be had, OSError where it cannot be written."""
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
        except OSError as error:  # a full disk does not say which file it was
            raise OSError(error.errno, error.strerror or str(error), error.filename or str(path)) from error

    def _is_here(self, path: Path, file: File) -> bool:
        if file.digest is None or not path.is_file():
            return False
        with path.open("rb") as stream:
            part = self._read(stream, file)
        if not part.is_right(file):
            self._forget(part, file)
        return part.is_right(file)

    def _obtain(self, path: Path, file: File) -> None:
        temporary = path.with_name(path.name + ".part")
        with temporary.open("ab+") as stream:
            stream.seek(0)
            part = self._read(stream, file)
            if file.digest is None:  # nothing would tell if the pieces were of two lists
                self._clear(part, file)
            try:
                self._gather(part, file)
                if file.digest and part.pieced and not part.is_right(file):  # of two versions, maybe
                    self._clear(part, file)
                    self._gather(part, file)
                if file.digest and not part.is_right(file):
                    found = part.hash.hexdigest()
                    self._clear(part, file)
                    raise Failed(f"{file.url}: its {file.algorithm} should be {file.digest}, but is {found}")
            except Failed:
                if not part.size:
                    stream.close()
                    temporary.unlink()
                raise
        temporary.replace(path)

    def _gather(self, part: Part, file: File) -> None:
        """All bytes of a file, in as many requests as that takes."""
        furthest, idle = part.size, 0
        while not (part.size and part.is_right(file)):
            try:
                return self._request(part, file)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason = _reason(error)
            # against the furthest ever: a server without ranges that cuts at the same place brings nothing new
            idle = 0 if part.size > furthest else idle + 1
            furthest = max(furthest, part.size)
            if not self.reached or idle > len(WAITS_S):  # who was never reached is not there: waiting would hide it
                raise Failed(f"{file.url}: {reason}")
            self.stopping.wait(WAITS_S[max(idle, 1) - 1])
        return None

    def _request(self, part: Part, file: File) -> None:
        """Add the rest of a file, as far as it comes; an error of requests or urllib3 where another try may help."""
        self.count(0)
        wanted = {"Range": f"bytes={part.size}-"} if part.size else {}
        with self.session.get(file.url, headers=wanted, stream=True, timeout=TIMEOUT_S) as response:
            self.reached = True
            status, answer = response.status_code, f"{response.status_code} {response.reason}"
            rest = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
            if part.size and not rest and status in (200, 206, 416):
                self._clear(part, file)  # it knows no ranges; has sent another; has less than that
            if (status in (206, 408, 416, 429) and not rest) or status >= 500:
                raise requests.HTTPError(answer)
            if status != 200 and not rest:
                raise Failed(f"{file.url}: {answer}")
            part.pieced = part.size > 0
            length, before = response.headers.get("Content-Length", ""), part.size
            to_come = int(length) if length.isdecimal() else 0
            self.expect(to_come, file)
            try:
                # not iter_content: it drops the end of what came before a cut, and unzips what is stored zipped
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    part.stream.write(chunk)
                    self._add(part, chunk)
            finally:
                with self.lock:
                    self.n_fetched += part.size - before
                self.expect(part.size - before - to_come, file)
        if part.size < (file.size or 0):
            raise requests.ConnectionError(f"ended after {part.size:,} of {file.size:,} bytes")

    def _read(self, stream: BinaryIO, file: File) -> Part:
        """What is in a file already."""
        part = Part(stream, hashlib.new(file.algorithm, usedforsecurity=False))
        while chunk := stream.read(CHUNK):
            self.expect(len(chunk), file)
            self._add(part, chunk)
        return part

    def _add(self, part: Part, chunk: bytes) -> None:
        part.hash.update(chunk)
        part.size += len(chunk)
        self.count(len(chunk))

    def _clear(self, part: Part, file: File) -> None:
        self._forget(part, file)
        part.stream.truncate(0)
        part.hash, part.size, part.pieced = hashlib.new(file.algorithm, usedforsecurity=False), 0, False

    def _forget(self, part: Part, file: File) -> None:
        self.expect(-part.size, file)
        self.count(-part.size)

    def expect(self, n_bytes: int, file: File | None = None) -> None:
        """More bytes are to come, or fewer; those of a file whose size the list told are in the total already."""
        with self.lock:
            if file is None or file.size is None:
                self.bar.total = (self.bar.total or 0) + n_bytes

    def count(self, n_bytes: int) -> None:
        if self.stopping.is_set():
            raise CancelledError
        with self.lock:
            self.bar.update(n_bytes)

    def _unpack(self, path: Path, file: File) -> None:
        """Put what a zip holds beside it, note that, and remove the zip."""
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
    """Whether an earlier run has unpacked this very zip, and all it held is still there."""
    try:
        note = json.loads(path.with_name(path.name + NOTE).read_text(encoding="utf-8"))
        sizes = {name: (path.parent / name).stat().st_size for name in note["sizes"]}
    except (FileNotFoundError, ValueError):  # ValueError: half a note
        return False
    return bool(note == {"digest": file.digest, "sizes": sizes})


def _reason(error: BaseException) -> str:
    """What lies below the layers of requests and urllib3."""
    while error.__context__:
        error = error.__context__
    return str(error) or type(error).__name__
