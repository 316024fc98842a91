"""What every script needs: one-line errors, files written whole, folders held, tables, nearest names, ranks."""

from __future__ import annotations

import difflib
import fcntl
import io
import os
import platform
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn


class Stop(Exception):
    """Something that the user can mend: one line on standard error, exit status 2."""


class InUse(Stop):
    """Another process holds the folder."""


def run(main: Callable[[], Any]) -> NoReturn:
    """Run a script's main; a `Stop`, or an error that a file or an argument causes, ends in one line and status 2."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (Stop, ValueError, OSError) as error:
        if rank()[0] == 0:
            print("error: " + one_line(error), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def one_line(error: Exception) -> str:
    """Say in one line what went wrong and with which file."""
    named = isinstance(error, OSError) and error.filename
    return " ".join((f"{error.filename}: {error.strerror}" if named else str(error)).split())  # type: ignore[attr-defined]


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Give a temporary name to write under, which becomes `path` when all is written: a kill leaves no half file.

    Raises
    ------
    Stop
        The file cannot be written, for example because the disk is full. Nothing is left behind.
    """
    temporary = temporary_beside(path)
    try:
        with writing(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is written, e.g. a full disk, into a Stop that names it."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # h5py and torch raise either
        inner = re.search(r"error message = '([^']*)'", str(error))  # in the long message of HDF5
        reason = inner[1] if inner else getattr(error, "strerror", None) or error
        raise Stop(f"{path}: cannot be written: {reason}") from error


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, which replaces the folder `path` whole when all is written, or not at all."""
    temporary, old = temporary_beside(path), temporary_beside(path)
    try:
        with writing(path):
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                path.replace(old)
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def temporary_beside(path: Path) -> Path:
    """Return a name beside `path` that no other process takes."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


# ------------------------------------------------------------------------------------------------ folders in use

LOCK = ".lock"


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder while one process, or one job of torchrun by its rank 0, writes to it.

    The file `.lock` in it is locked (flock), which ends with the process however it ends, and names the holder. A
    folder that was made for this and is still empty afterwards is removed.

    Raises
    ------
    InUse
        Another process holds the folder; the message names it.
    """
    if rank()[0] > 0:
        yield
        return
    path, new = folder / LOCK, not folder.exists()
    with _locked(path) as file:
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        name = f"process {os.getpid()} on {platform.node()} since {started}: {shlex.join(sys.argv)}"
        with suppress(OSError):  # on a full disk the holder has no name
            file.truncate(0)
            file.write(name.encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is locked: who waits for this file sees that it is gone
            if new:
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _locked(path: Path) -> io.FileIO:
    """Open and lock a file that nobody else has locked, and that is still there then."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+b", buffering=0)
        except FileNotFoundError:  # its holder has removed the folder between the two lines
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
            file.close()  # its holder has removed it between the two lines
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().decode() or "another process"
            file.close()
            raise InUse(f"{path.parent}: is in use by {holder}") from error
        except OSError as error:  # a file system that has no locks
            print(f"warning: {path.parent} cannot be locked: {error.strerror}", file=sys.stderr)
            return file


# ------------------------------------------------------------------------------------------------ names and processes


def cell(text: str) -> str:
    """Return a text for a cell of a CSV file: a spreadsheet would take one that begins with = + - @ for a formula."""
    return f"'{text}" if len(text) > 1 and text[0] in "=+-@\t\r" else text


def markdown(text: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, first column to the left, numbers to the right."""
    lines = [[*map(markdown, header)], [":--", *["--:"] * (len(header) - 1)]]
    lines += [[*map(markdown, row)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def check_each_once(paths: Sequence[str | Path], named: str) -> None:
    """Stop where two of these paths lead to the same place."""
    places = [Path(path).resolve() for path in paths]
    if twice := next((str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1), ""):
        raise Stop(f"{named}: {twice} is given twice")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `; did you mean X?` with the nearest valid name, or nothing where none is near.

    Of a dotted name whose section exists, only the last part is compared: a long section makes any two names alike.
    """
    section = name[: name.rfind(".") + 1]
    inside = [word for word in valid if word.startswith(section)] if section else []
    section = section if inside else ""
    tails = {word[len(section) :].lower(): word for word in inside or valid}
    near = difflib.get_close_matches(name[len(section) :].lower(), tails, n=1)
    return f"; did you mean {tails[near[0]]}?" if near else ""


def rank() -> tuple[int, int]:
    """Return this process's number and how many processes share the work, as torchrun says: (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
