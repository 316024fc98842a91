"""Trained networks kept in memory, and the rows of concurrent requests scored together.

kept = Models(Path("runs"))
name, trained = kept.choose("mitdb", record)
fed = infer.feed(record, trained)
logits = await scorer.logits(trained, fed)              # (N, K)
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bundle
import infer
import pqrst
import runs
from apps.jobs import Missing
from batches import Batch
from bundle import Bundle
from script import Stop, nearest

MAX_MODELS = 8  # networks in memory; the one that was asked for longest ago makes room
MAX_ROWS = 256  # scored together
MAX_PIECES = 512  # of requests that wait for the network
WAIT_S = 0.002  # for rows of other requests, where others are on their way
BUNDLED = "bundled"  # name of the model of beats that comes with the scripts


class Models:
    """Trained networks by their checkpoints, read again where a file has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept: OrderedDict[Path, tuple[tuple[int, int], Bundle | Stop]] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> dict[str, Path]:
        """Return the runs with a best checkpoint by name, the newest first; `bundled` is the bundled model's alone."""
        return {folder.name: folder for folder in runs.newest(self.root) if folder.name != BUNDLED}

    def folder(self, run: str) -> Path:
        """Look up a run by its name; Missing where there is none, with the nearest name."""
        names = self.names() | {BUNDLED: infer.PRETRAINED}
        if run not in names:
            raise Missing(f"run {run[:100]!r}: there is none of that name{nearest(run[:100], names)}")
        return names[run]

    def choose(self, run: str | None, record: pqrst.Record | None) -> tuple[str, Bundle]:
        """Return the name and the network of a run; of None the newest that fits the record, as infer.py chooses."""
        path = None if run is None else self.folder(run)
        chosen, trained = infer.find_bundle(path, record, self.root, self.load)
        return BUNDLED if chosen in (str(infer.PRETRAINED), infer.PRETRAINED.name) else Path(chosen).name, trained

    def load(self, path: Path) -> Bundle:
        """Return the network of a checkpoint; Stop as bundle.load, each time until the file changes."""
        try:
            status = path.stat()
        except OSError as error:
            raise Stop(f"{path}: no such checkpoint") from error
        stamp = status.st_mtime_ns, status.st_ino
        with self._lock:  # requests that come while a network is read wait for it
            known = self._kept.get(path)
            if known is None or known[0] != stamp:
                try:
                    known = stamp, bundle.load(path)
                except Stop as error:
                    known = stamp, error
                self._kept[path] = known
            self._kept.move_to_end(path)
            while len(self._kept) > MAX_MODELS:
                self._kept.popitem(last=False)
        if isinstance(known[1], Stop):
            raise Stop(str(known[1]).replace(f"{self.root}/", ""))
        return known[1]


class Piece(NamedTuple):
    """Rows of one request, and where its logits go."""

    trained: Bundle
    batch: Batch
    logits: Future[NDArray[np.float32]]


class Scorer:
    """A thread that scores the rows of all requests of one network in one call."""

    def __init__(self, on_batch: Callable[[int], object] = lambda n_rows: None) -> None:
        self.coming = 0  # requests that are being read and prepared: worth waiting for
        self._on_batch = on_batch
        self._pieces: queue.Queue[Piece | None] = queue.Queue(MAX_PIECES)
        self._thread = threading.Thread(target=self._work, name="scorer", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Pieces that wait."""
        return self._pieces.qsize()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.is_alive()

    async def logits(self, trained: Bundle, fed: infer.Fed) -> NDArray[np.float32]:
        """Return the logits (N, K) of the rows of a record.

        A long record goes in pieces, one after the other, so that others get their turn.

        Raises
        ------
        queue.Full
            MAX_PIECES of other requests wait.
        """
        parts = []
        for batch in infer.batches_of(fed.prepared, fed.context, len(trained.classes), MAX_ROWS):
            piece = Piece(trained, batch, Future())
            self._pieces.put_nowait(piece)
            parts.append(await asyncio.wrap_future(piece.logits))
        return np.concatenate(parts) if parts else np.zeros((0, len(trained.classes)), np.float32)

    def close(self) -> None:
        """Score what waits, and end the thread."""
        self._pieces.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._pieces.get()) is not None:
            pieces, last = self._gathered(first)
            groups: dict[int, list[Piece]] = {}
            for piece in pieces:
                if piece.logits.set_running_or_notify_cancel():
                    groups.setdefault(id(piece.trained), []).append(piece)
            for group in groups.values():
                self._score(group)
            if last:
                return

    def _gathered(self, first: Piece) -> tuple[list[Piece], bool]:
        """Collect what else waits, and what comes within WAIT_S; and tell whether the end has come."""
        pieces, n_rows, until = [first], len(first.batch.rows), time.monotonic() + WAIT_S
        while n_rows < MAX_ROWS:
            left = until - time.monotonic() if self.coming > 0 else 0.0
            try:
                piece = self._pieces.get(timeout=left) if left > 0 else self._pieces.get_nowait()
            except queue.Empty:
                if left <= 0:
                    break
                continue
            if piece is None:
                return pieces, True
            pieces.append(piece)
            n_rows += len(piece.batch.rows)
        return pieces, False

    def _score(self, group: list[Piece]) -> None:
        """Score pieces of one network, and give each its share."""
        whole = group[0].batch
        if len(group) > 1:
            columns = zip(*(piece.batch for piece in group), strict=True)
            whole = Batch(*(np.concatenate(column) for column in columns))
        try:
            _, logits = bundle.score(group[0].trained, [whole])
        except Exception as error:  # out of memory and the like: each request says so
            for piece in group:
                piece.logits.set_exception(error)
            return
        self._on_batch(len(logits))
        ends = np.cumsum([len(piece.batch.rows) for piece in group])
        for piece, part in zip(group, np.split(logits, ends[:-1]), strict=True):
            piece.logits.set_result(part)
