"""What every script needs: one-line errors, files written whole, the nearest valid name, the rank under torchrun."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn


class Stop(Exception):
    """Something that the user can mend: one line on standard error, exit status 2."""


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
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # h5py and torch raise either
        inner = re.search(r"error message = '([^']*)'", str(error))  # in the long message of HDF5
        reason = inner[1] if inner else getattr(error, "strerror", None) or error
        raise Stop(f"{path}: cannot be written: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


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
