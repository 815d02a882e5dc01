# SPDX-License-Identifier: GPL-2.0-or-later
"""StoreImage: random access to the image that an index describes, chunk by chunk."""

from __future__ import annotations

import errno
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from livedumpfs.closing import Closing
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.stores.caibx import Index
from livedumpfs.stores.chunk import chunk_id
from livedumpfs.stores.chunk_check import check_chunks
from livedumpfs.stores.chunks import Chunks

CACHE: Final = 64 << 20
"""Bytes of chunks that are kept for the next read."""
AHEAD: Final = 2 << 20
"""Bytes that are loaded ahead of a reader that reads on where it was."""
THREADS: Final = 16
"""That load chunks beside the reader: a far store answers late, and a near one is decompressed on
several processors."""
Digests = npt.NDArray[np.uint8]
"""uint8[n, 32]: ids of chunks."""
_READERS: Final = 8
"""So many can read on at once, each at its own place."""
_BEGIN_MOST: Final = 256
"""Chunks that are asked for at once."""
_ZEROS_MOST: Final = 4 << 20
"""Bytes of the largest chunk whose id is computed to know one of zeros."""


class DamagedChunk(InvalidDump, OSError):
    """EIO: a chunk of the image is missing, or is another one."""


class StoreImage(Closing):
    """The bytes of an image; any number of threads may read. A chunk is loaded once for all that
    wait for it; a chunk of zeros is never loaded."""

    def __init__(
        self,
        index: Index,
        chunks: Chunks,
        *,
        cache: int = CACHE,
        ahead: int = AHEAD,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """`cache`, `ahead`: bytes, see CACHE and AHEAD. `on_close`: called by close()."""
        self.index, self.size = index, index.size
        self._chunks = chunks
        self._loads = _Loads(index, chunks, cache)
        self._ahead = min(ahead, cache // 2)
        self._zeros = _zero_chunks(index)
        self._last: deque[int] = deque(maxlen=_READERS)  # numbers of the chunks read last
        self._on_close = on_close

    def read(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length), fewer only at the end. TargetError; DamagedChunk."""
        data = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset` on; the number of bytes, fewer only at the end. TargetError;
        DamagedChunk."""
        length = min(len(view), self.size - offset)
        if length <= 0:
            return 0
        index = self.index
        first, last = index.find(offset), index.find(offset + length - 1)
        self._begin(first, last, offset + length)
        for number in range(first, last + 1):
            start, end = index.start(number), int(index.ends[number])
            low, high = max(start, offset), min(end, offset + length)
            part = view[low - offset : high - offset]
            if self._zeros[number]:
                np.frombuffer(part, np.uint8)[:] = 0
            else:
                data = self._loads.get(number, end - start)
                part[:] = memoryview(data)[low - start : high - start]
        return length

    def _begin(self, first: int, last: int, behind: int) -> None:
        """Let others load what this read, which ends at `behind`, needs after its first chunk, and
        what the next reads will if they read on."""
        reads_on = first in self._last or first - 1 in self._last
        self._last.append(last)
        ahead = self._ahead if reads_on else 0
        end = self._chunk_before(behind + ahead) + 1
        if end - first == 1:
            return
        # Half of it may be used up before more is asked for: this is looked at in each read.
        if last == first and self._is_there(self._chunk_before(behind + ahead // 2)):
            return
        wanted = (n for n in range(first + 1, end) if not self._zeros[n])
        self._loads.begin(itertools.islice(wanted, _BEGIN_MOST))

    def _chunk_before(self, offset: int) -> int:
        """That of the last byte before `offset` > 0."""
        return self.index.find(min(offset, self.size) - 1)

    def _is_there(self, number: int) -> bool:
        return bool(self._zeros[number]) or self._loads.is_there(number)

    def is_zero(self, offset: int, length: int) -> bool:
        """True when the index says that [offset, +length), length > 0, within the image, is zeros.
        Nothing is read."""
        first, last = self.index.find(offset), self.index.find(offset + length - 1)
        return bool(self._zeros[first : last + 1].all())

    def known_equal(
        self, offset: int, other: StoreImage, other_offset: int, length: int
    ) -> list[tuple[int, int]]:
        """[start, end) of parts of [offset, +length), counted from `offset`, in order, that the two
        indexes say to be equal: same chunk at the same place. Both must lie within their images."""
        a, b = self.index, other.index
        if a.digest != b.digest:
            return []
        starts_a, ids_a = _between(a, offset, length)
        starts_b, ids_b = _between(b, other_offset, length)
        _, in_a, in_b = np.intersect1d(starts_a[:-1], starts_b[:-1], True, return_indices=True)
        same = (ids_a[in_a] == ids_b[in_b]).all(axis=1)
        ends = zip(starts_a[in_a[same]].tolist(), starts_a[in_a[same] + 1].tolist(), strict=True)
        return [(max(0, start), min(length, end)) for start, end in ends]

    def check_rest(self) -> list[str]:
        """Read the chunks that no read has needed yet, as those of zeros: casync needs them. What
        is wrong with them, a sentence each."""
        rest = self.index.unique() - self._loads.seen
        needed = dict.fromkeys(rest, (self.index.sizes[2], self.index.digest))
        return list(check_chunks(self._chunks, needed).wrong.values())

    def close(self) -> None:
        """End its threads; harmless when done twice."""
        self._loads.close()
        on_close, self._on_close = self._on_close, lambda: None
        on_close()


def _between(index: Index, offset: int, length: int) -> tuple[npt.NDArray[np.int64], Digests]:
    """Edges and ids of the chunks that [offset, +length) lies in, the edges counted from there."""
    first, last = index.find(offset), index.find(offset + length - 1)
    edges = np.empty(last - first + 2, np.int64)
    edges[0] = index.start(first)
    edges[1:] = index.ends[first : last + 1]
    return edges - offset, index.ids[first : last + 1]


def _zero_chunks(index: Index) -> npt.NDArray[np.bool_]:
    """For each chunk: whether it is known to be zeros. Those of the largest size, and the last."""
    found = np.zeros(len(index), np.bool_)
    if not len(index):
        return found
    last = len(index) - 1
    lengths = {index.sizes[2], index.size - index.start(last)}
    for length in lengths:
        if length <= _ZEROS_MOST:
            zeros = np.frombuffer(chunk_id(bytes(length), index.digest), np.uint8)
            found |= (index.ids == zeros).all(axis=1)
    return found


class _Loads:
    """The chunks that are in memory, and those that are being loaded."""

    def __init__(self, index: Index, chunks: Chunks, most: int) -> None:
        self._index, self._chunks = index, chunks
        self._lock = threading.Lock()
        self._kept: LRUCache[bytes, bytes] = LRUCache(max(most, index.longest), len)
        self._coming: dict[bytes, Future[bytes]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self.seen: set[bytes] = set()

    def is_there(self, number: int) -> bool:
        """Whether the chunk is in memory, or being loaded."""
        identity = self._index.id(number)
        with self._lock:
            return identity in self._kept or identity in self._coming

    def begin(self, numbers: Iterable[int]) -> None:
        """Load these chunks, as far as they are not there, on other threads. Where there are none
        the reader loads them itself."""
        with suppress(RuntimeError), self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, "livedump-chunks")
            for number in numbers:
                identity = self._index.id(number)
                if identity not in self._kept and identity not in self._coming:
                    length = int(self._index.ends[number]) - self._index.start(number)
                    self._coming[identity] = self._pool.submit(self._load, identity, length)

    def get(self, number: int, length: int) -> bytes:
        """Chunk `number`, which has `length` bytes. DamagedChunk; TargetError."""
        data = self._get(self._index.id(number), length)
        if len(data) != length:
            raise DamagedChunk(
                f"chunk {self._index.id(number).hex()} has {len(data)} bytes, not the {length} of "
                "its index",
                errno=errno.EIO,
            )
        return data

    def _get(self, identity: bytes, length: int) -> bytes:
        with self._lock:
            kept: bytes | None = self._kept.get(identity)
            if kept is not None:
                return kept
            coming = self._coming.get(identity)
            mine: Future[bytes] = Future()
            if coming is None:
                self._coming[identity] = mine
        if coming is not None:
            return coming.result()
        try:
            mine.set_result(self._load(identity, length))
        except BaseException as error:
            mine.set_exception(error)
            raise
        return mine.result()

    def _load(self, identity: bytes, length: int) -> bytes:
        try:
            data = self._read(identity, length)
        except BaseException:
            with self._lock:
                self._coming.pop(identity, None)
            raise
        with self._lock:
            self._coming.pop(identity, None)
            self._kept[identity] = data
            self.seen.add(identity)
        return data

    def _read(self, identity: bytes, length: int) -> bytes:
        try:
            return self._chunks.get(identity, length, self._index.digest)
        except InvalidDump as error:
            raise DamagedChunk(error.message, errno=errno.EIO) from error
        except TargetError as error:
            if error.errno != errno.ENOENT:
                raise
            raise DamagedChunk(
                f"chunk {identity.hex()} is missing: {error.message}", errno=errno.EIO
            ) from error

    def close(self) -> None:
        """Harmless when done twice."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)
