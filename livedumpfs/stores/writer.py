# SPDX-License-Identifier: GPL-2.0-or-later
"""ImageWriter: one image on its way into a store, in whatever order its bytes come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from livedumpfs.closing import Closing
from livedumpfs.errors import InvalidDump
from livedumpfs.formats import table
from livedumpfs.formats.superblock import Superblock, VerdictWord, judge
from livedumpfs.stores.base_image import BaseImage
from livedumpfs.stores.caibx import Index, unique_ids
from livedumpfs.stores.granule_sums import GranulePlaces
from livedumpfs.stores.image_head import ImageHead
from livedumpfs.stores.objects import Bytes
from livedumpfs.stores.store import Store
from livedumpfs.stores.workers import Workers

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WrittenImage:
    """All chunks of the image are put; it is not published."""

    index: Index
    block: Superblock
    verdict: VerdictWord
    """As readers of the image will say it."""
    meta: dict[str, Any]
    """What the dump says of itself; see docs/formats.md."""
    new_chunks: int
    new_bytes: int
    """What the store has become larger by."""
    taken: int
    """Chunks that were taken from the base, without being read."""


class ImageWriter(Closing):
    """The head (all before the memory) is kept until the end; chunks of memory go to threads that
    hash and put them at once. What comes again replaces what came before.

    One thread calls. It holds the store's lock from before the first write until the image is
    published. After an exception the image is worth nothing, and what was put is left to gc.
    """

    def __init__(
        self,
        store: Store,
        *,
        since: BaseImage | None = None,
        begun: Callable[[Superblock], object] = lambda block: None,
        threads: int = 0,
    ) -> None:
        """`since`: has granules that the dump does not write, because they did not change.
        `begun`: called once it is known that the store can take the dump. `threads`: that hash; 0:
        one for each processor."""
        self._store, self._since, self._thread_count = store, since, threads
        self._size = store.about.chunk_size
        self._head = ImageHead(self._size, begun)
        self._workers: Workers | None = None

    def write(self, offset: int, data: Bytes) -> None:
        """Bytes for that place of the image. The writer keeps `data`, which must not change any
        more. Memory comes in whole chunks. InvalidDump, UsageError: no image that the store can
        take; TargetError: the store failed; MachineError EAGAIN: no thread."""
        if self._head.is_before_memory(offset):
            self._head.write(offset, data)
            return
        block = self._head.block
        assert block
        end = offset + len(data)
        if offset % self._size or (end % self._size and end != block.total_size):
            raise InvalidDump("the dump comes in parts of chunks")
        if not data or end > block.total_size:
            raise InvalidDump("the dump has memory behind its end")
        self._begun(block).give(offset // self._size, data)

    def _begun(self, block: Superblock) -> Workers:
        if self._workers is None:
            count = -(-block.total_size // self._size)
            granules = GranulePlaces(
                block.data_offset // self._size,
                block.granule_size // self._size,
                block.granule_count,
            )
            self._workers = Workers(self._store, count, self._thread_count, granules)
        return self._workers

    def finish(self) -> WrittenImage:
        """Put the head and the zeros. InvalidDump: the image is not whole: it is not sealed, or
        granules that it says it has saved did not come. Else as write()."""
        block = self._head.sealed()
        workers, entries = self._begun(block), self._head.entries(block)
        workers.wait()
        taken = self._take_unchanged(block, entries, workers)
        self._check(block, entries, (workers.given > 0) | taken)
        self._check_sums(entries, workers)
        size, end = self._size, block.data_offset
        for at in range(0, end, size):
            workers.give(at // size, self._head.bytes_at(at, size))
        self._put_zeros(block, workers, taken)
        workers.wait()
        return WrittenImage(
            Index.fixed(block.total_size, size, workers.ids, self._store.about.digest),
            block,
            _verdict(block, entries),
            self._head.meta(block),
            workers.new_chunks,
            workers.new_bytes,
            int(np.count_nonzero(taken)),
        )

    def _of_granules(self, block: Superblock, chosen: _Mask) -> _Mask:
        """The chunks of the chosen granules, of all chunks."""
        count = -(-block.total_size // self._size)
        first = block.data_offset // self._size
        found = np.zeros(count, np.bool_)
        found[first:] = np.repeat(chosen, block.granule_size // self._size)[: count - first]
        return found

    def _take_unchanged(self, block: Superblock, entries: table.Entries, workers: Workers) -> _Mask:
        """Chunks that did not come are those of the base, where both have the same checksum."""
        if self._since is None:
            return np.zeros(len(workers.given), np.bool_)
        base, left_out = self._since, workers.given == 0
        taken: _Mask = self._of_granules(block, base.unchanged(block, entries)) & left_out
        here = np.flatnonzero(taken)
        there = here + (base.block.data_offset - block.data_offset) // self._size
        workers.ids[here] = base.index.ids[there]
        if not base.checked:
            self._expect_kept(base.index.ids[there])
        return taken

    def _expect_kept(self, ids: npt.NDArray[np.uint8]) -> None:
        """InvalidDump: the store has lost chunks of the base, which this dump would have, too."""
        lost = [one for one in unique_ids(ids) if not self._store.chunks.has(one)]
        if lost:
            raise InvalidDump(
                f"the store has lost {len(lost)} chunks of the dump that this one counts from, the "
                f"first {lost[0].hex()}",
                hint="a dump of all memory puts them again",
            )

    def _check(self, block: Superblock, entries: table.Entries, there: _Mask) -> None:
        """What the table says is saved has come, or the base has it."""
        missing = self._of_granules(block, entries["state"] == table.SAVED) & ~there
        if missing.any():
            raise InvalidDump(
                f"chunks that the dump says it has saved did not come: {np.count_nonzero(missing)}"
            )

    def _check_sums(self, entries: table.Entries, workers: Workers) -> None:
        """What has come is what the host has read from the machine."""
        sums = workers.sums
        assert sums
        checked = sums.whole(workers.given) & (entries["state"] == table.SAVED)
        wrong = np.flatnonzero(checked & (entries["checksum"] != sums.values))
        if len(wrong):
            raise InvalidDump(
                f"granules came with other bytes than the dump says: {len(wrong)}, the first "
                f"{wrong[0]}"
            )

    def _put_zeros(self, block: Superblock, workers: Workers, taken: _Mask) -> None:
        """Holes, and what is lost or was not saved: what was never written reads as zeros."""
        first = block.data_offset // self._size
        empty = np.flatnonzero((workers.given[first:] == 0) & ~taken[first:]) + first
        if not len(empty):
            return
        last = len(workers.given) - 1
        short = block.total_size - last * self._size
        if empty[-1] == last and short < self._size:
            workers.give(last, bytes(short))
            empty = empty[:-1]
        if len(empty):
            workers.give(int(empty[0]), bytes(self._size))
            workers.wait()
            workers.ids[empty] = workers.ids[empty[0]]

    def close(self) -> None:
        """End the threads; harmless when done twice."""
        if self._workers:
            self._workers.close()


def _verdict(block: Superblock, entries: table.Entries) -> VerdictWord:
    states = np.bincount(entries["state"], minlength=table.LOST + 1)
    return judge(block, int(states[table.ARMED]), int(states[table.LOST]))
