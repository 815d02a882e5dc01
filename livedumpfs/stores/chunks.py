# SPDX-License-Identifier: GPL-2.0-or-later
"""Chunks of a store: what any way to keep them must do, and the way of casync, a file for each."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Final, Protocol

from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.stores.chunk import (
    CHUNK_MOST,
    DIGEST,
    LEVEL,
    Digest,
    checked,
    chunk_name,
    compress,
    decompress,
    name_id,
)
from livedumpfs.stores.folder_objects import FolderObjects
from livedumpfs.stores.objects import Bytes, Objects

CASTR: Final = "default.castr/"
"""Where casync looks for the chunks of an index in the same folder, without being told."""


OnGone = Callable[[int], None]
"""on_gone(number of chunks that are gone, in all)."""
Needed = Mapping[bytes, tuple[int, Digest]]
"""Id -> the most bytes that the chunk may have, and what its id is."""
_BATCH: Final = 1000


class Chunks(Protocol):
    """Any number of threads may call. Failures are TargetError and InvalidDump."""

    def has(self, identity: bytes) -> bool:
        """Whether the chunk is kept already."""

    def has_every(self, identities: Collection[bytes]) -> bool:
        """Whether all of these are kept, which are many: each is looked at, as by has()."""

    def put(self, identity: bytes, data: Bytes) -> int:
        """Keep the chunk with these bytes, which have that id. Returns the bytes that the store has
        become larger by. Durable, and there for other processes, only after flush()."""

    def get(self, identity: bytes, most: int = CHUNK_MOST, digest: Digest = DIGEST) -> bytes:
        """Its bytes, whose hash was checked. TargetError ENOENT: it is not kept."""

    def every(self) -> Iterator[tuple[bytes, int]]:
        """All that are kept: id, bytes in the store."""

    def delete(self, identities: Iterable[bytes], on_gone: OnGone | None = None) -> int:
        """Remove them. Returns the bytes that the store has become smaller by. Only while the store
        is locked alone."""

    def set_aside(self, suspects: Needed) -> int:
        """Those of them that are damaged are missing from now on, so that the next dump that has
        their bytes puts them again. Each is read anew. Returns how many. Only while the store is
        locked alone."""

    def flush(self) -> None:
        """Return when all that was put is durable."""

    def renew(self) -> None:
        """Forget what is there: another process may have changed it. Called when the store's lock
        was taken."""

    def expect_kept(self) -> None:
        """TargetError ESTALE: what was there, or was put, since renew() has been removed by another
        process. Called when a dump's index was written."""

    def close(self) -> None:
        """Drop what was not flushed."""


class CastrChunks:
    """A file for each chunk, as casync and desync keep and read them."""

    def __init__(self, objects: Objects, level: int = LEVEL, folder: str = CASTR) -> None:
        self._objects, self._level, self._folder = objects, level, folder
        self._relied: set[bytes] | None = None
        """Chunks that dumps of this process rely on, where their lock may be lost without a word:
        a server that began anew, or a network that was away."""
        if isinstance(objects, FolderObjects) and objects.seen_by_others:
            self._relied = set()

    def _place(self, identity: bytes) -> str:
        return self._folder + chunk_name(identity)

    def has(self, identity: bytes) -> bool:
        """See Chunks."""
        there = self._objects.has(self._place(identity))
        if there and self._relied is not None:
            self._relied.add(identity)
        return there

    def has_every(self, identities: Collection[bytes]) -> bool:
        """See Chunks."""
        if self._relied is None and isinstance(self._objects, FolderObjects):
            return self._objects.has_every(self._folder, map(chunk_name, identities))
        return all(map(self.has, identities))

    def put(self, identity: bytes, data: Bytes) -> int:
        """See Chunks."""
        stored = compress(data, self._level)
        self._objects.put(self._place(identity), stored)
        if self._relied is not None:
            self._relied.add(identity)
        return len(stored)

    def get(self, identity: bytes, most: int = CHUNK_MOST, digest: Digest = DIGEST) -> bytes:
        """See Chunks."""
        name = self._place(identity)
        stored = self._objects.get(name)
        try:
            return checked(decompress(stored, most), identity, digest)
        except InvalidDump as error:
            raise InvalidDump(
                f"chunk {self._objects.url}/{name} is damaged: {error.message}"
            ) from error

    def every(self) -> Iterator[tuple[bytes, int]]:
        """See Chunks."""
        for one in self._objects.names(self._folder):
            identity = name_id(one.name.rpartition("/")[2])
            if identity is not None:
                yield identity, one.size

    def delete(self, identities: Iterable[bytes], on_gone: OnGone | None = None) -> int:
        """See Chunks."""
        every, size = list(identities), 0
        for at in range(0, len(every), _BATCH):
            size += self._delete(every[at : at + _BATCH])
            if on_gone:
                on_gone(min(at + _BATCH, len(every)))
        return size

    def _delete(self, identities: list[bytes]) -> int:
        names = {self._place(identity) for identity in identities}
        folders = {name.rpartition("/")[0] + "/" for name in names}
        listed = (one for folder in folders for one in self._objects.names(folder, deep=False))
        size = sum(one.size for one in listed if one.name in names)
        self._objects.delete(names)
        return size

    def flush(self) -> None:
        """See Chunks."""
        self._objects.sync()

    def renew(self) -> None:
        """See Chunks."""
        if self._relied is not None:
            self._relied = set()

    def expect_kept(self) -> None:
        """See Chunks. On a local file system only the lock keeps gc off."""
        for identity in self._relied or ():
            name = self._place(identity)
            if not self._objects.has(name):
                raise TargetError(
                    f"chunk {self._objects.url}/{name} was removed while the dump needed it",
                    errno=errno.ESTALE,
                    hint="another computer ran gc: take the dump again",
                )

    def set_aside(self, suspects: Needed) -> int:
        """See Chunks: they get another name."""
        assert isinstance(self._objects, FolderObjects)
        count = 0
        for identity, (most, digest) in suspects.items():
            if is_damaged(partial(self.get, identity, most, digest)):
                self._objects.set_aside(self._place(identity))
                count += 1
        return count

    def close(self) -> None:
        """See Chunks."""


def is_damaged(read: Callable[[], object]) -> bool:
    """Whether reading a chunk shows that it is; one that is missing is not. TargetError: it cannot
    be known."""
    try:
        read()
    except InvalidDump:
        return True
    except TargetError as error:
        if error.errno not in (errno.ENOENT, errno.EIO):
            raise
        return error.errno == errno.EIO  # the disk has lost it
    return False
