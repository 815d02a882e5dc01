# SPDX-License-Identifier: GPL-2.0-or-later
"""Receiving a dump: from a pipe into a store, and published."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from livedumpfs.errors import TargetError, UsageError
from livedumpfs.formats.superblock import Superblock
from livedumpfs.formats.typed import Natural, typed
from livedumpfs.stores.about import StoreLayout, check_granule
from livedumpfs.stores.base_image import BaseImage, load_base
from livedumpfs.stores.chunk import CHUNK_SIZE, DIGEST, Digest
from livedumpfs.stores.flattened import read_records, widen
from livedumpfs.stores.record import DumpRecord
from livedumpfs.stores.store import Store, create_store, open_store
from livedumpfs.stores.writer import ImageWriter, WrittenImage
from livedumpfs.units import format_size

LOCK_WAIT_S: Final = 10.0
"""How long a dump waits for gc or forget to be done with the store."""


class Published(msgspec.Struct, frozen=True):
    """A dump that the store has now."""

    name: str
    record: DumpRecord
    chunks: int
    """Of the image."""
    taken: int
    """Those of them that were not read, because they are as in the dump `record.since`."""


def store_for_dump(
    url: str,
    chunk_size: int | None = None,
    granule: int = 0,
    *,
    digest: Digest | None = None,
    layout: StoreLayout | None = None,
    recipients: Sequence[str] = (),
) -> tuple[Store, bool]:
    """The store, and whether it was made now, because there was nothing. `chunk_size`, `digest`,
    `layout`: that it must have; None: any. `granule`: of the dump; 0: not known yet. `recipients`:
    see create_store; none for one that is there. UsageError: it is otherwise, the granule does not
    fit its chunks, or there is no such one; TargetError."""
    try:
        store = open_store(url)
    except TargetError as error:
        if error.errno != errno.ENOENT:
            raise
        check_granule(granule, chunk_size or CHUNK_SIZE)
        try:
            made = create_store(
                url,
                chunk_size=chunk_size or CHUNK_SIZE,
                digest=digest or DIGEST,
                layout=layout,
                recipients=recipients,
            )
            return made, True
        except TargetError as refused:
            if refused.errno != errno.EEXIST:
                raise
            try:
                store = open_store(url)  # another process has made it just now
            except TargetError:
                raise refused from None
    try:
        _expect_as_asked(store, chunk_size, digest, layout, recipients)
        check_granule(granule, store.about.chunk_size)
    except BaseException:
        store.close()
        raise
    return store, False


def _expect_as_asked(
    store: Store,
    chunk_size: int | None,
    digest: Digest | None,
    layout: StoreLayout | None,
    recipients: Sequence[str],
) -> None:
    about, why = store.about, ""
    if chunk_size not in (None, about.chunk_size):
        why = f"has chunks of {format_size(about.chunk_size)}"
    elif digest not in (None, about.digest):
        why = f"names its chunks by {about.digest}"
    elif layout not in (None, about.layout):
        why = f"has the layout {about.layout}"
    elif recipients:
        why = "is encrypted for its own recipients" if about.encryption else "is not encrypted"
    if why:
        raise UsageError(f"the store {store.url} {why}", hint="that is chosen when a store is made")


def receive(pipe: int, store: Store, *, since: str = "") -> Published:
    """Read a dump of format elf from `pipe`, in makedumpfile's flattened form, into the store and
    publish it, with whatever verdict it has. The caller closes the pipe, also after an exception:
    that is how the writing end hears of it. `since`: the dump of the store, by its whole name, that
    has the granules that this dump leaves out because they did not change; "": none are left out.

    InvalidDump: the dump was broken off, or is none that a store takes; TargetError: the store
    failed, or EBUSY, gc works on it; MachineError EAGAIN: no thread. Nothing is published then;
    what was put is removed by the next gc."""
    with store.lock(wait_s=LOCK_WAIT_S):
        return receive_locked(pipe, store, base=load_base(store, since) if since else None)


def receive_locked(
    pipe: int,
    store: Store,
    *,
    base: BaseImage | None = None,
    identity: str = "",
    begun: Callable[[Superblock], object] = lambda block: None,
) -> Published:
    """receive(), for a caller that holds the store's lock. `base`: of the store; the dump may leave
    out what did not change since. `identity`: of a machine that does not say its own; see
    DumpRecord. `begun`: called once it is known that the store can take the dump, which is when
    INIT has been done, or not at all."""
    widen(pipe)
    with ImageWriter(store, since=base, begun=begun) as writer:
        read_records(pipe, writer.write)
        image = writer.finish()
    record = _record(image, base, identity)
    name = dump_name(record)
    store.publish(name, image.index, record)
    return Published(name, record, len(image.index), image.taken)


def dump_name(record: DumpRecord) -> str:
    """Its instant in UTC, to the second, and the beginning of its dump id:
    "20261129T153400Z-3f2a9c1d"."""
    moment = time.gmtime(record.instant_ns // 10**9)
    return f"{time.strftime('%Y%m%dT%H%M%SZ', moment)}-{record.dump_id[:8]}"


class _Instant(msgspec.Struct, frozen=True):
    wall_ns: Natural = 0


class _Machine(msgspec.Struct, frozen=True):
    identity: str = ""


class _Said(msgspec.Struct, frozen=True):
    """What is wanted of the dump's description."""

    name: str = ""
    instant: _Instant = _Instant()
    machine: _Machine = _Machine()


def _record(image: WrittenImage, base: BaseImage | None, identity: str) -> DumpRecord:
    wanted = ("name", "instant", "machine")
    said: Any = typed({k: image.meta[k] for k in wanted if k in image.meta}, _Said, "description")
    block = image.block
    return DumpRecord(
        dump_id=block.dump_id.hex(),
        verdict=image.verdict,
        machine=said.name,
        identity=said.machine.identity or identity,
        host=socket.gethostname(),
        instant_ns=said.instant.wall_ns,
        image_size=block.total_size,
        memory_size=block.arena_size,
        new_bytes=image.new_bytes,
        new_chunks=image.new_chunks,
        since=base.block.dump_id.hex() if base and image.taken else "",
    )
