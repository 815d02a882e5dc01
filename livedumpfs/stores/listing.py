# SPDX-License-Identifier: GPL-2.0-or-later
"""Listing: what a store has, without reading an image."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.stores.record import DumpRecord
from livedumpfs.stores.store import INDEX, Store
from livedumpfs.thread import needing_threads

KINDS: Final = ("", "qemu", "qemu-attached", "guest", "ledger", "threads")
"""Names that machines of one computer share."""
_THREADS: Final = 16
"""That read records: a far store answers late."""


@dataclass(frozen=True)
class StoredDump:
    """A dump, or an image that another program has put there."""

    name: str
    record: DumpRecord | None
    """None: there is none, or `problem` says why it cannot be read."""
    size: int
    """Bytes of the image; 0: not known."""
    written_ns: int
    """When its index was written, ns since the epoch."""
    problem: str = ""

    @property
    def taken_ns(self) -> int:
        """The snapshot instant, ns since the epoch; where it is not known, when it was written."""
        return self.record.instant_ns if self.record and self.record.instant_ns else self.written_ns

    @property
    def verdict(self) -> str:
        """The record's; "unknown" without one."""
        return self.record.verdict if self.record else "unknown"

    @property
    def group(self) -> tuple[str, str] | None:
        """Whose dump it is: the computer, and the machine's identity, or its name if that is more
        than a kind; None: it is not known."""
        record = self.record
        if record is None or not (record.identity or record.machine not in KINDS):
            return None
        return record.host, record.identity or record.machine


@dataclass(frozen=True)
class StoreTotals:
    """Of a whole store."""

    dumps: int
    chunks: int
    chunk_bytes: int
    """As they are stored."""
    image_bytes: int
    """Of all dumps together, as if each were a file without holes."""

    @property
    def ratio(self) -> float:
        """How many times less the store takes than its images would; 0: it has no chunk."""
        return self.image_bytes / self.chunk_bytes if self.chunk_bytes else 0.0


def list_dumps(store: Store) -> list[StoredDump]:
    """All, the oldest first. What is wrong with one is its `problem`. TargetError: the store cannot
    be read; MachineError EAGAIN: there are no threads."""
    listed = {
        one.name.removesuffix(INDEX): one.changed_ns
        for one in store.objects.names("", deep=False)
        if one.name.endswith(INDEX)
    }
    with ThreadPoolExecutor(_THREADS) as pool, needing_threads("read the store"):
        found = list(pool.map(lambda one: _look_at(store, *one), listed.items()))
    there = (one for one in found if one)
    return sorted(there, key=lambda one: (one.taken_ns, one.name))


def _look_at(store: Store, name: str, written_ns: int) -> StoredDump | None:
    """None: it is gone, as `forget` takes dumps out meanwhile."""
    try:
        record = store.record(name)
        size = record.image_size if record else store.index(name).size
    except TargetError as error:
        if error.errno == errno.ENOENT:
            return None
        return StoredDump(name, None, 0, written_ns, error.message)
    except InvalidDump as error:
        return StoredDump(name, None, 0, written_ns, error.message)
    return StoredDump(name, record, size, written_ns)


def totals(store: Store, dumps: list[StoredDump]) -> StoreTotals:
    """Counts all chunks, which takes a while in a large store. TargetError."""
    sizes = [size for _, size in store.chunks.every()]
    images = sum(one.size for one in dumps)
    return StoreTotals(len(dumps), len(sizes), sum(sizes), images)
