# SPDX-License-Identifier: GPL-2.0-or-later
"""PackChunks: many chunks in one object, for places where each object costs a request.

A pack is `packs/NAME.pack`, the chunks' stored forms one behind the other. `packs/NAME.index` says
where each is, and is written after it: a pack without an index is garbage of a killed process.

Removing packs is safe also against a dump whose lock was lost without its knowing: the index goes
first, then all dumps are read again, and a pack that one of them needs gets its index back; the
pack itself goes last. A dump looks once more for all packs when it has published its own index
(expect_kept). Whichever of the two came first, the other sees it.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Final

import numpy as np

from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.stores.chunk import CHUNK_MOST, DIGEST, Digest, checked
from livedumpfs.stores.chunks import Needed, OnGone, is_damaged
from livedumpfs.stores.coder import Coder
from livedumpfs.stores.objects import Bytes, Objects
from livedumpfs.stores.pack_cache import PackCache
from livedumpfs.stores.pack_index import (
    Items,
    PackTable,
    Spot,
    pack_items,
    parse_items,
    stored_most,
)
from livedumpfs.stores.pack_writer import FOLDER, INDEX, PACK, PackWriter

_READERS: Final = 16
"""Indexes that are read at once."""
_REPACK: Final = 0.5
"""A pack of which a larger part is garbage is written anew without it."""
_LISTS: Final = 20
"""How often the packs are listed whose indexes vanish while they are read."""
_QUIET_S: Final = 10.0
"""For so long packs are not listed again for a chunk that is missing, when that was in vain."""


@dataclass(frozen=True)
class _Known:
    """What the indexes of the packs say."""

    table: PackTable
    damaged: list[str]
    """Index objects that could not be understood."""
    listed: frozenset[str]
    """The packs that were there, with their indexes."""


class PackChunks:
    """See Chunks."""

    def __init__(
        self,
        objects: Objects,
        indexes: Objects,
        coder: Coder,
        needed: Callable[[], Collection[bytes]],
    ) -> None:
        """`objects`: where the packs are. `indexes`: the same place, maybe encrypted. `needed`: the
        ids in all dumps of the store, read anew."""
        self._objects, self._indexes, self._coder, self._needed = objects, indexes, coder, needed
        self._writer = PackWriter(objects, indexes)
        self._cache = PackCache(objects)
        self._known: _Known | None = None
        self._relied: set[str] = set()
        """Packs that were there, or were written, and that are not in the tables any more."""
        self._quiet_until = 0.0
        self._guard = Lock()

    def _load(self) -> _Known:
        with self._guard:
            if self._known is None:
                self._known = self._read_all()
            return self._known

    def _packs(self) -> frozenset[str]:
        """The names of those that have an index. An index without pack: gc has removed the pack,
        and the index came late, of a process that was killed."""
        there = {one.name for one in self._indexes.names(FOLDER)}
        packs = (name.removesuffix(PACK) for name in there if name.endswith(PACK))
        return frozenset(name for name in packs if name + INDEX in there)

    def _read_all(self) -> _Known:
        """All that is there at one time: gc writes a pack anew before it removes the old one, and a
        list that has the old one may not have the new one."""
        for _ in range(_LISTS):
            listed = self._packs()
            found: list[tuple[str, Items]] = []
            damaged, vanished = [], False
            with ThreadPoolExecutor(_READERS, "livedump-packs") as pool:
                for name, items in zip(listed, pool.map(self._read_index, listed), strict=True):
                    if isinstance(items, InvalidDump):
                        damaged.append(f"{name}{INDEX}: {items.message}")
                    elif items is not None:
                        found.append((name, items))
                    else:
                        vanished = True
            if not vanished:
                return _Known(PackTable(found), damaged, listed)
        raise TargetError(
            f"the packs of {self._objects.url} change faster than they can be read",
            errno=errno.EAGAIN,
        )

    def _read_index(self, name: str) -> Items | InvalidDump | None:
        try:
            return parse_items(self._indexes.get(name + INDEX))
        except InvalidDump as error:
            return error
        except TargetError as error:
            if error.errno != errno.ENOENT:  # gc has removed it since it was listed
                raise
            return None

    def renew(self) -> None:
        """See Chunks: the packs' indexes are read again when they are needed."""
        self._relied.clear()
        self._forget()

    def _forget(self) -> None:
        self._quiet_until = 0.0
        with self._guard:
            self._known = None
        self._writer.forget()

    def _find(self, identity: bytes) -> list[Spot]:
        return [*self._writer.find(identity), *self._load().table.find(identity)]

    def has(self, identity: bytes) -> bool:
        """See Chunks."""
        return self._writer.pending(identity) is not None or bool(self._find(identity))

    def has_every(self, identities: Collection[bytes]) -> bool:
        """See Chunks."""
        return all(map(self.has, identities))

    def put(self, identity: bytes, data: Bytes) -> int:
        """See Chunks. 0: it is kept already."""
        if self.has(identity):
            return 0
        return self._writer.add(identity, self._coder.encode(identity, data))

    def get(self, identity: bytes, most: int = CHUNK_MOST, digest: Digest = DIGEST) -> bytes:
        """See Chunks."""
        stored = self._writer.pending(identity)
        if stored is not None:
            return checked(self._coder.decode(identity, stored, most), identity, digest)
        found = self._first_good(identity, most, digest)
        if not isinstance(found, bytes) and self._look_again():
            found = self._first_good(identity, most, digest)
        if isinstance(found, bytes):
            return found
        raise found or self._missing(identity)

    def _first_good(self, identity: bytes, most: int, digest: Digest) -> bytes | InvalidDump | None:
        """Its bytes, of the first pack that has them; else why not, if it is in any."""
        problem = None
        for spot in self._find(identity):
            try:
                return self._read(spot, self._cache.read, identity, most, digest)
            except InvalidDump as error:
                problem = problem or InvalidDump(
                    f"chunk {identity.hex()} in {self._objects.url}/{spot.pack}{PACK} is damaged: "
                    f"{error.message}",
                    hint=error.hint,
                )
            except TargetError as error:
                if error.errno != errno.ENOENT:  # gc has written it to another pack
                    raise
        return problem

    def _read(
        self, spot: Spot, read: Callable[[Spot], bytes], identity: bytes, most: int, digest: Digest
    ) -> bytes:
        if spot.length > stored_most(most):
            raise InvalidDump(f"its stored form has {spot.length} bytes")
        return checked(self._coder.decode(identity, read(spot), most), identity, digest)

    def _look_again(self) -> bool:
        """Whether there are other packs than were known: gc may have written one anew."""
        if time.monotonic() < self._quiet_until:
            return False
        known = self._load().listed.union(self._writer.written())
        if self._packs() == known:
            self._quiet_until = time.monotonic() + _QUIET_S
            return False
        self._relied |= known
        self._forget()
        return True

    def _missing(self, identity: bytes) -> TargetError:
        damaged = self._load().damaged
        hint = f"{damaged[0]}" if damaged else ""
        return TargetError(
            f"the store {self._objects.url} has no chunk {identity.hex()}",
            errno=errno.ENOENT,
            hint=hint,
        )

    def every(self) -> Iterator[tuple[bytes, int]]:
        """See Chunks."""
        self.flush()
        self.renew()
        yield from self._load().table.every()

    def set_aside(self, suspects: Needed) -> int:
        """See Chunks: the indexes of their packs do not name them any more. Where other packs have
        them, too, those that are right stay."""
        table, damaged = self._load().table, set[bytes]()
        packs: dict[str, set[bytes]] = {}
        for identity, (most, digest) in suspects.items():
            for spot in table.find(identity):
                read = partial(self._read, spot, self._cache.read_anew, identity, most, digest)
                if is_damaged(read):
                    packs.setdefault(spot.pack, set()).add(identity)
                    damaged.add(identity)
        for name, ids in packs.items():
            items = table.items(name)
            self._put_index(name, items, [one.tobytes() not in ids for one in items["id"]])
        self._indexes.sync()
        self.renew()
        return len(damaged)

    def _put_index(self, pack: str, items: Items, chosen: Sequence[bool] | None = None) -> None:
        """Of a pack with these chunks; it names the chosen ones, or all."""
        size = int((items["offset"] + items["length"]).max())
        named = items if chosen is None else items[np.array(chosen)]
        self._indexes.put(pack + INDEX, pack_items(named, size))

    def flush(self) -> None:
        """See Chunks."""
        self._writer.flush()
        self._objects.sync()

    def expect_kept(self) -> None:
        """See Chunks."""
        there = {one.name for one in self._objects.names(FOLDER)}
        known = self._known.table.names if self._known else ()
        for name in sorted(self._relied.union(known, self._writer.written())):
            if not {name + PACK, name + INDEX} <= there:
                raise TargetError(
                    f"the store {self._objects.url} has lost {name}{PACK} during the dump",
                    errno=errno.ESTALE,
                    hint="another process removed it while this one stood still; dump again",
                )

    def delete(self, identities: Iterable[bytes], on_gone: OnGone | None = None) -> int:
        """See Chunks. Garbage in a pack that is mostly needed stays."""
        self.flush()
        self.renew()
        table, doomed = self._load().table, set(identities)
        before = self._size()
        going = {name: table.items(name) for name in table.mostly(doomed, _REPACK)}
        for name, items in going.items():
            self._write_anew(name, items, doomed)
        self.flush()
        self._remove(going, doomed)
        self._remove_orphans()
        self.renew()
        if on_gone:
            on_gone(len(doomed))
        return before - self._size()

    def _size(self) -> int:
        return sum(one.size for one in self._objects.names(FOLDER))

    def _write_anew(self, pack: str, items: Items, doomed: set[bytes]) -> None:
        """The needed chunks of a pack that is mostly garbage, to a new one."""
        for item in items:
            identity = item["id"].tobytes()
            if identity not in doomed:
                spot = Spot(pack, int(item["offset"]), int(item["length"]))
                try:
                    self._writer.add(identity, self._cache.read(spot))
                except InvalidDump as error:
                    raise InvalidDump(
                        f"nothing was removed from {self._objects.url}: chunk {identity.hex()} in "
                        f"{pack}{PACK} is damaged: {error.message}",
                        hint="`livedump verify` says which dumps need it",
                    ) from error

    def _remove(self, going: dict[str, Items], doomed: set[bytes]) -> None:
        if not going:
            return
        self._indexes.delete([name + INDEX for name in going])
        self._objects.sync()
        needed = doomed & set(self._needed())
        for name, items in list(going.items()):
            if any(item["id"].tobytes() in needed for item in items):
                self._put_index(name, items)
                del going[name]
        self._objects.sync()
        self._objects.delete([name + PACK for name in going])

    def _remove_orphans(self) -> None:
        """What killed processes left: packs without index, indexes without pack."""
        there = {one.name for one in self._objects.names(FOLDER)}
        orphans = [
            name
            for name in there
            if (name.endswith(PACK) and name.removesuffix(PACK) + INDEX not in there)
            or (name.endswith(INDEX) and name.removesuffix(INDEX) + PACK not in there)
        ]
        self._objects.delete(orphans)

    def close(self) -> None:
        """See Chunks."""
        self._writer.close()
