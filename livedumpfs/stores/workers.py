# SPDX-License-Identifier: GPL-2.0-or-later
"""Workers: threads that hash the chunks of one image, and put those that the store has not."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.closing import Closing
from livedumpfs.stores.chunk import ID_SIZE
from livedumpfs.stores.granule_sums import GranulePlaces, GranuleSums
from livedumpfs.stores.objects import Bytes
from livedumpfs.stores.store import Store
from livedumpfs.thread import needing_threads, start_thread

_AHEAD: Final = 3
"""Pieces that each thread may have, the one at hand among them; give() waits for one to be done
then, and so does the pipe behind it."""
_MOST: Final = 16
_PATIENCE_S: Final = 2.0

_Piece = tuple[int, memoryview, int]
"""First chunk, bytes of whole chunks, number."""


class Workers(Closing):
    """One thread gives pieces; a chunk that is given again is replaced."""

    def __init__(
        self, store: Store, chunks: int, threads: int = 0, granules: GranulePlaces | None = None
    ) -> None:
        """For an image of so many chunks. `threads`: 0, one for each processor. `granules`: whose
        checksums are wanted. MachineError EAGAIN: no thread."""
        self.sums = GranuleSums(granules) if granules else None
        self.ids: npt.NDArray[np.uint8] = np.zeros((chunks, ID_SIZE), np.uint8)
        self.given: npt.NDArray[np.uint32] = np.zeros(chunks, np.uint32)
        """Number of the piece that had the chunk last; 0: it was never given."""
        self.new_chunks = self.new_bytes = 0
        self._chunks, self._size = store.chunks, store.about.chunk_size
        self._base = hashlib.new(store.about.digest)
        """Copied, which is quicker than a look-up by name."""
        # With packs the store's own tables know it as quickly, in less memory.
        self._known: set[bytes] | None = set() if store.about.layout == "castr" else None
        self._lock = threading.Lock()
        self._pieces = 0
        self._error: BaseException | None = None
        count = threads or min(_MOST, len(os.sched_getaffinity(0)))
        self._queue: queue.Queue[_Piece | None] = queue.Queue()
        self._room = threading.Semaphore(_AHEAD * count)
        # Daemon threads: a store that hangs must not keep an interrupted command alive.
        self._threads = [
            threading.Thread(target=self._run, name=f"livedump-store-{i}", daemon=True)
            for i in range(count)
        ]
        self._started = 0
        try:
            for thread in self._threads:
                with needing_threads("hash the dump"):
                    start_thread(thread)
                self._started += 1
        except BaseException:
            self.close()
            raise

    def give(self, first: int, data: Bytes) -> None:
        """Chunks from number `first` on; they must not change any more. Waits while the threads
        have enough to do. Raises what a thread has met: TargetError."""
        self._room.acquire()
        self._raise_error()
        self._pieces += 1
        view = memoryview(data).cast("B")
        with self._lock:
            self.given[first : first + -(-len(view) // self._size)] = self._pieces
        self._queue.put((first, view, self._pieces))

    def wait(self) -> None:
        """Return when all that was given is put. Raises as give()."""
        self._queue.join()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (piece := self._queue.get()) is not None:
            try:
                if self._error is None:
                    self._take(*piece)
            except BaseException as error:
                self._error = error
            finally:
                del piece  # its memory goes now
                self._room.release()
                self._queue.task_done()

    def _take(self, first: int, view: memoryview, number: int) -> None:
        size = self._size
        ids = b""
        for at in range(0, len(view), size):
            if self._error is not None:
                return
            ids += self._keep(view[at : at + size])
        found = np.frombuffer(ids, np.uint8).reshape(-1, ID_SIZE)
        span = slice(first, first + len(found))
        granule, sums = self.sums.of_piece(first, view, size) if self.sums else (0, [])
        with self._lock:
            if self.sums and sums:
                self.sums.keep(granule, sums, number)
            last = self.given[span] == number
            self.ids[span][last] = found[last]

    def _keep(self, chunk: memoryview) -> bytes:
        """Its id; it is in the store then."""
        digest = self._base.copy()
        digest.update(chunk)
        identity = digest.digest()
        if self._known is not None:
            with self._lock:
                if identity in self._known:
                    return identity
                self._known.add(identity)
        if not self._chunks.has(identity):
            added = self._chunks.put(identity, chunk)
            with self._lock:
                self.new_chunks += added > 0  # else another thread has added it just now
                self.new_bytes += added
        return identity

    def close(self) -> None:
        """End the threads, each when its chunk is put; one that hangs is left alone after a moment.
        Harmless when done twice."""
        if self._error is None:
            self._error = RuntimeError("closed")
        for _ in range(self._started):
            self._queue.put(None)
        end = time.monotonic() + _PATIENCE_S
        for thread in self._threads[: self._started]:  # so that no file of them stays unfinished
            thread.join(max(0.0, end - time.monotonic()))
        self._started = 0
