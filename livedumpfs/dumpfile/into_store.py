# SPDX-License-Identifier: GPL-2.0-or-later
"""From a dump that lies on a target to one in a store: as format `elf`, cut into chunks."""

from __future__ import annotations

import socket

import numpy as np

from livedumpfs.dumpfile.checksums import OnProgress
from livedumpfs.dumpfile.convert import convert_dump
from livedumpfs.dumpfile.destination import PIECE, Output
from livedumpfs.dumpfile.reader import DumpFile, read_dump
from livedumpfs.dumpfile.source import ImageSource
from livedumpfs.stores import DumpRecord, Index, Store, StoreImage
from livedumpfs.stores.receive import LOCK_WAIT_S, Published, dump_name
from livedumpfs.stores.workers import Workers

_HEAD_MOST = 512 << 20
"""More bytes than stand before the memory of any dump."""


class StoreOutput(Output):
    """The chunks of an image that comes from front to back."""

    def __init__(self, store: Store, most: int) -> None:
        """`most`: bytes that the image has at most. MachineError EAGAIN: no thread. The caller
        holds the store's lock."""
        super().__init__(-1, store.url)
        self.chunk_size, self._digest = store.about.chunk_size, store.about.digest
        self.workers = Workers(store, -(-most // self.chunk_size))
        self._room = max(PIECE, self.chunk_size)
        self._piece = np.zeros(self._room, np.uint8).data
        self._at = 0  # of the next byte, in the image

    def write(self, data: bytes | memoryview) -> None:
        """See Output. The bytes are copied."""
        view = memoryview(data).cast("B")
        while view:
            inside = self._at % self._room
            count = min(len(view), self._room - inside)
            self._piece[inside : inside + count] = view[:count]
            view = view[count:]
            self._go_on(count)

    def skip(self, length: int) -> None:
        """Zeros are chunks like others."""
        while length:
            count = min(length, self._room - self._at % self._room)
            self._go_on(count)
            length -= count

    def _go_on(self, count: int) -> None:
        self._at += count
        if self._at % self._room == 0:
            self.workers.give((self._at - self._room) // self.chunk_size, self._piece)
            self._piece = np.zeros(self._room, np.uint8).data

    def finish(self, size: int | None = None) -> None:
        """All chunks are put. TargetError."""
        inside = self._at % self._room
        if inside:
            self.workers.give((self._at - inside) // self.chunk_size, self._piece[:inside])
        self.workers.wait()

    @property
    def index(self) -> Index:
        """Of all that has come."""
        count = -(-self._at // self.chunk_size)
        return Index.fixed(self._at, self.chunk_size, self.workers.ids[:count], self._digest)

    def close(self) -> None:
        """End the threads."""
        self.workers.close()


def store_dump(dump: DumpFile, store: Store, progress: OnProgress | None = None) -> Published:
    """Put the dump into the store and publish it. It has a new id, and the instant and verdict that
    it had. TargetError EBUSY: gc works on the store; else as convert_dump."""
    with (
        store.lock(wait_s=LOCK_WAIT_S),
        StoreOutput(store, dump.arena_size + _HEAD_MOST) as output,
    ):
        convert_dump(dump, "elf", output, progress, align=output.chunk_size)
        index = output.index
        record = _record(index, store, output.workers)
        name = dump_name(record)
        store.publish(name, index, record)
        return Published(name, record, len(index), 0)


def machine_identity(dump: DumpFile) -> str:
    """As DumpRecord.identity; what the dump says of itself may be of any type."""
    said = dump.meta.get("machine")
    found = said.get("identity") if isinstance(said, dict) else ""
    return found if isinstance(found, str) else ""


def _record(index: Index, store: Store, workers: Workers) -> DumpRecord:
    """What the image says of itself, read back."""
    with read_dump(ImageSource(store.url, StoreImage(index, store.chunks))) as dump:
        return DumpRecord(
            dump_id=dump.dump_id.hex(),
            verdict=dump.verdict,
            machine=dump.machine_name,
            identity=machine_identity(dump),
            host=socket.gethostname(),
            instant_ns=dump.instant_ns,
            image_size=index.size,
            memory_size=dump.arena_size,
            new_bytes=workers.new_bytes,
            new_chunks=workers.new_chunks,
        )
