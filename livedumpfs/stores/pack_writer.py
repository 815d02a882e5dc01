# SPDX-License-Identifier: GPL-2.0-or-later
"""PackWriter: collects chunks to packs, which threads of its own write."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Final

import numpy as np

from livedumpfs.errors import LivedumpError, TargetError
from livedumpfs.stores.objects import Objects
from livedumpfs.stores.pack_index import ITEM, GrowingTable, Spot, pack_items
from livedumpfs.thread import needing_threads, start_thread

FOLDER: Final = "packs/"
PACK: Final = ".pack"
INDEX: Final = ".index"
PACK_SIZE: Final = 16 << 20
"""Bytes from which on a pack is written."""
UPLOADS: Final = 4
"""Packs that are written at once. Then add() waits."""


class _Pack:
    """One that is collected, or written."""

    def __init__(self) -> None:
        self.name = FOLDER + os.urandom(16).hex()
        self.stored: dict[bytes, bytes] = {}
        self.size = 0
        self.over = threading.Event()
        """Set when it is written, or cannot be."""


class PackWriter:
    """Any number of threads may call. At most UPLOADS packs are in memory, and one for each thread
    that calls."""

    def __init__(self, objects: Objects, indexes: Objects) -> None:
        self._objects, self._indexes = objects, indexes
        self._guard = threading.Lock()
        self._room = threading.BoundedSemaphore(UPLOADS)
        self._open = _Pack()
        self._under_way: list[_Pack] = []
        self._table = GrowingTable()
        self._adding = threading.Lock()
        """To the table; held longer than the other."""
        self._error: LivedumpError | None = None

    def pending(self, identity: bytes) -> bytes | None:
        """The stored form of a chunk that is not written yet; None: it is none of these."""
        with self._guard:
            return self._pending(identity)

    def _pending(self, identity: bytes) -> bytes | None:
        for pack in (self._open, *self._under_way):
            if identity in pack.stored:
                return pack.stored[identity]
        return None

    def find(self, identity: bytes) -> list[Spot]:
        """Where a chunk is that was written; none: it is none of these."""
        return self._table.find(identity)

    def written(self) -> list[str]:
        """The packs."""
        return self._table.names()

    def forget(self) -> None:
        """Those that were written are read from their indexes again."""
        with self._adding:
            self._table = GrowingTable()

    def add(self, identity: bytes, stored: bytes) -> int:
        """Keep it, in the next pack. Returns its bytes; 0: another thread has added it just now.
        TargetError: one of the last packs could not be written; MachineError EAGAIN: no thread."""
        full = None
        with self._guard:
            self._expect_no_error()
            if self._pending(identity) is not None or self._table.find(identity):
                return 0
            self._open.stored[identity] = stored
            self._open.size += len(stored)
            if self._open.size >= PACK_SIZE:
                full = self._next()
        if full:
            self._begin(full)
        return len(stored)

    def _next(self) -> _Pack:
        full, self._open = self._open, _Pack()
        self._under_way.append(full)
        return full

    def _begin(self, pack: _Pack) -> None:
        self._room.acquire()
        thread = threading.Thread(
            target=self._write, args=(pack,), name="livedump-upload", daemon=True
        )
        try:
            with needing_threads(f"write to {self._objects.url}"):
                start_thread(thread)
        except LivedumpError as error:
            self._end(pack, error)
            raise

    def _write(self, pack: _Pack) -> None:
        failed: LivedumpError | None = None
        try:
            if self._error is None:
                self._put(pack)
        except LivedumpError as error:
            failed = error
        except BaseException as error:
            failed = TargetError(f"cannot write to {self._objects.url}: {error!r}")
        self._end(pack, failed)

    def _end(self, pack: _Pack, failed: LivedumpError | None) -> None:
        with self._guard:
            self._error = self._error or failed
            if self._error is None:
                self._under_way.remove(pack)
        self._room.release()
        pack.over.set()

    def _put(self, pack: _Pack) -> None:
        items = np.empty(len(pack.stored), ITEM)
        offset = 0
        for at, (identity, stored) in enumerate(pack.stored.items()):
            items[at] = (np.frombuffer(identity, np.uint8), offset, len(stored))
            offset += len(stored)
        self._objects.put(pack.name + PACK, b"".join(pack.stored.values()))
        self._objects.sync()  # a folder may write the two in another order
        self._indexes.put(pack.name + INDEX, pack_items(items, pack.size))
        with self._adding:
            self._table.add(pack.name, items)

    def flush(self) -> None:
        """Return when all is written. TargetError: something could not be, now or before."""
        with self._guard:
            last = self._next() if self._open.stored else None
            waiting = list(self._under_way)
        if last:
            self._begin(last)
        for pack in waiting:
            pack.over.wait()
        with self._guard:
            self._expect_no_error()

    def _expect_no_error(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """What was not flushed is dropped. Does not wait for a server that hangs."""
        with self._guard, suppress(LivedumpError):
            self._expect_no_error()
            self._error = TargetError(f"the store {self._objects.url} is closed")
