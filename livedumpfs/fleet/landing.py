# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the dump of one member goes. The bytes never pass the scheduler, nor any other worker: the
host writes a file, or this worker puts what comes from the host into a store."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from livedumpfs.dumpfile import DumpFile, open_dump
from livedumpfs.errors import InvalidDump, LivedumpError, TargetError, UsageError
from livedumpfs.fleet.manifest import MemberIncrement, Word
from livedumpfs.stores import Store, is_store, open_store
from livedumpfs.stores.receive import Published, store_for_dump
from livedumpfs.stores.reception import Reception
from livedumpfs.targets.names import INCOMPLETE

EXTENSIONS: Final = {"elf": "vmcore", "raw": "raw", "kdump": "kdump"}
_PATIENCE_S: Final = 60.0
"""For a store that hangs, after the dump was sealed."""
Bases = Sequence[bytes] | None
"""See Steps.bases."""


@dataclass(frozen=True)
class Landed:
    """A dump that has arrived."""

    dump: str
    """Where it is, for open_dump."""
    checksum: str | None
    """None: it cannot be had."""
    verdict: Word
    """What it says of itself."""
    increment: MemberIncrement | None = None
    """None: it is in no store."""


class Landing(Protocol):
    """Takes one dump."""

    path: str
    """What INIT gets."""
    options: dict[str, Any]
    """Settings of INIT that it needs."""
    since: bytes
    """The base that INIT is to count from; b"": none."""

    def handed_over(self) -> None:
        """The host has opened the path. OSError or LivedumpError: the place cannot take it."""

    @property
    def left(self) -> str | None:
        """Where a dump that was broken off can be read; None: nowhere."""

    def finish(self, dump_id: bytes) -> Landed:
        """The dump was released: wait until all of it has arrived. OSError or LivedumpError: it did
        not arrive; InvalidDump: another dump lies there."""

    def give_up(self) -> None:
        """Take nothing more; harmless at any time."""


class FileLanding:
    """A file of its own in a folder, written by the host with this worker's rights."""

    since = b""

    def __init__(self, folder: str, name: str, form: str) -> None:
        """OSError: there is no such folder, and none can be made."""
        os.makedirs(folder, exist_ok=True)
        self.path = os.path.join(os.path.abspath(folder), f"{name}.{EXTENSIONS[form]}")
        self.options: dict[str, Any] = {}

    @property
    def left(self) -> str | None:
        """The file that is there, under whichever name."""
        names = (self.path, self.path + INCOMPLETE)
        return next((one for one in names if os.path.exists(one)), None)

    def handed_over(self) -> None:
        """Nothing to do."""

    def finish(self, dump_id: bytes) -> Landed:
        """The checksum is that of the granule table, which has a checksum of each granule."""
        with open_dump(self.path) as dump:
            _expect(dump.dump_id.hex(), dump_id, self.path)
            return Landed(self.path, table_checksum(dump), dump.verdict)

    def give_up(self) -> None:
        """What the host has written stays, and says that it is incomplete."""


class StoreLanding:
    """A dump in a store, which this worker hashes and puts there as it comes from the host."""

    left = None

    def __init__(
        self, url: str, identity: str = "", bases: Callable[[], Bases] = lambda: None
    ) -> None:
        """`identity`: of a machine that does not say its own; see DumpRecord. `bases`: of the host,
        see Steps. TargetError: the store cannot be opened, or gc works on it; what `bases`
        raises."""
        self._url = url
        self._store = _open(url)
        try:
            known = bases()
            self._reception = Reception(self._store, bases=known or (), identity=identity)
        except BaseException:
            self._store.close()
            raise
        base = self._reception.base
        self.since = base.block.dump_id if base else b""
        self._tracked = known is not None
        self._all_read = _UNTRACKED if known is None else self._reception.all_read
        self.path = self._reception.path
        size = self._store.about.chunk_size
        # The host's own granule is a multiple of the smallest chunks only.
        self.options: dict[str, Any] = {"granule": size} if size > _SMALLEST else {}

    def handed_over(self) -> None:
        """Wait until the store has seen that it can take the dump."""
        self._reception.handed_over()

    def finish(self, dump_id: bytes) -> Landed:
        """The checksum is that of the ids of all chunks, which are hashes of their bytes. A dump
        that was published has arrived, whether its index can be read back or not."""
        try:
            done = self._reception.finish(_PATIENCE_S)
        except TimeoutError as error:
            raise TargetError(
                f"the store {self._store.url} did not take the dump within {_PATIENCE_S:.0f} s; it "
                "may still, as one of its own",
                errno=errno.ETIMEDOUT,
            ) from error
        dump, checksum = f"{self._url}#{done.name}", None
        _expect(done.record.dump_id, dump_id, dump)
        with contextlib.suppress(LivedumpError):
            checksum = chunks_checksum(self._store, done.name)
        return Landed(dump, checksum, done.record.verdict, self._increment(done))

    def _increment(self, done: Published) -> MemberIncrement:
        record = done.record
        if not record.since:
            return MemberIncrement(tracked=self._tracked, all_read=self._all_read or None)
        unread = min(done.taken * self._store.about.chunk_size, record.memory_size)
        return MemberIncrement(tracked=True, since=record.since, unread=unread)

    def give_up(self) -> None:
        """What was put and is not published is left to gc."""
        with contextlib.suppress(OSError):
            self._reception.close()
        self._store.close()


_SMALLEST: Final = 64 << 10
_UNTRACKED: Final = "its host keeps no track of changes (control/track)"


def table_checksum(dump: DumpFile) -> str:
    """Of dump id and granule table."""
    digest = hashlib.sha256(dump.dump_id)
    digest.update(dump.entries.tobytes())
    return f"table-sha256:{digest.hexdigest()}"


def chunks_checksum(store: Store, name: str) -> str:
    """Of the ids of all chunks of the dump with that name. TargetError; InvalidDump."""
    return f"chunks-sha256:{hashlib.sha256(store.index(name).ids.tobytes()).hexdigest()}"


def _expect(found: str, wanted: bytes, where: str) -> None:
    """InvalidDump: the dump there is another."""
    if found != wanted.hex():
        raise InvalidDump(f"{where} is dump {found}, and not {wanted.hex()}")


def _open(url: str) -> Store:
    """The store, made where there is nothing: several workers may try at once."""
    try:
        return store_for_dump(url)[0]
    except TargetError as error:
        if error.errno not in (errno.EEXIST, errno.EBUSY):
            raise
        return open_store(url)


def prepare_place(to: str) -> None:
    """Make the store where there is nothing, so that not each worker of a fleet dump tries to: a
    store is made under a lock that excludes dumps. TargetError."""
    if is_store(to):
        _open(to).close()


Land = Callable[[str, str, str, str, Callable[[], Bases]], Landing]
"""See open_landing."""


def open_landing(
    to: str, name: str, form: str, identity: str = "", bases: Callable[[], Bases] = lambda: None
) -> Landing:
    """The place for the dump `name` in `to`: a store, which gives it another name, or a folder.
    `form`: elf, raw or kdump. `identity`, `bases`: as StoreLanding. UsageError: no such kind of
    place."""
    check_place(to, form)
    return StoreLanding(to, identity, bases) if is_store(to) else FileLanding(to, name, form)


def check_place(to: str, form: str) -> None:
    """UsageError: dumps of that format do not go there."""
    if is_store(to):
        if form != "elf":
            raise UsageError(f"a store takes dumps of format elf, not {form}")
    elif "://" in to:
        raise UsageError(f"{to} is neither a folder nor a store", hint=f"write store:{to}")
