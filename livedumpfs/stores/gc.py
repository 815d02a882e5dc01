# SPDX-License-Identifier: GPL-2.0-or-later
"""Garbage collection: chunks that no index names, and what killed processes have left, go.

The store is locked alone, so no dump is under way whose chunks no index names yet. An index that
cannot be read ends it before anything is removed. A kill at any point leaves each dump whole: only
what no index names is ever removed, and that the index of a forgotten dump has gone is durable
first.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.stores.about import ABOUT
from livedumpfs.stores.caibx import parse_index
from livedumpfs.stores.chunks import CASTR
from livedumpfs.stores.record import parse_record
from livedumpfs.stores.store import INDEX, RECORD, Store

_INDEXES: Final = (INDEX, ".caidx")
"""casync's archives of folders may share the chunks of a store."""
OnRemoved = Callable[[int, int], None]
"""on_removed(bytes removed, bytes to remove)."""


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be."""

    kept: int
    """Chunks that an index names, and that are there."""
    chunks: int
    chunk_bytes: int
    """As they were stored."""
    records: int
    """Records of dumps without an index: of forgotten ones, or never published."""
    unfinished: int
    """Files that killed processes had begun; 0 in a dry run, which does not look for them."""
    missing: int
    """Chunks that an index names, and that are not there: `verify` says whose."""


def collect(
    store: Store, *, dry_run: bool = False, wait_s: float = 0, on_removed: OnRemoved | None = None
) -> Collected:
    """Remove what nothing needs. TargetError EBUSY: a dump or another command has the store.
    InvalidDump: an index is damaged; TargetError ELOOP: a folder in it is a link. Nothing was
    removed then."""
    with store.lock(alone=True, wait_s=wait_s):
        store.expect_no_links()
        needed = _needed(store)
        there = dict(store.chunks.every())
        gone = [identity for identity in there if identity not in needed]
        size = sum(there[identity] for identity in gone)
        records = list(_lone_records(store))
        unfinished = 0
        if not dry_run:
            store.objects.sync()
            sums = [0, *itertools.accumulate(there[identity] for identity in gone)]
            told = on_removed or (lambda done, total: None)
            store.chunks.delete(gone, lambda count: told(sums[count], size))
            if store.about.layout == "packs":  # a pack that is mostly needed keeps its garbage
                left = {identity for identity, _ in store.chunks.every()}
                gone = [identity for identity in gone if identity not in left]
                size = sum(there[identity] for identity in gone)
            store.objects.delete(records)
            unfinished = store.objects.clean()
        return Collected(
            len(there) - len(gone),
            len(gone),
            size,
            len(records),
            unfinished,
            len(needed - there.keys()),
        )


def _needed(store: Store) -> set[bytes]:
    """Ids of all chunks that an index in the store names, wherever in its folder."""
    needed: set[bytes] = set()
    for one in store.objects.names(""):
        if one.name.endswith(_INDEXES) and not one.name.startswith(CASTR):
            needed |= _ids(store, one.name)
    return needed


def _ids(store: Store, name: str) -> set[bytes]:
    try:
        if name.endswith(INDEX) and "/" not in name:
            return store.index(name.removesuffix(INDEX)).unique()
        return parse_index(store.objects.get(name)).unique()
    except InvalidDump as error:
        raise InvalidDump(
            f"nothing was removed from {store.url}: it cannot be known which chunks {name} needs: "
            f"{error.message}",
            hint=f"{_how_to_give_up(store, name)} gives it up",
        ) from error


def _how_to_give_up(store: Store, name: str) -> str:
    if name.endswith(INDEX) and "/" not in name:
        return f"`livedump forget {store.url} {name.removesuffix(INDEX)}`"
    return "to remove that file"  # another program has put it there


def _lone_records(store: Store) -> Iterator[str]:
    """Names of records whose dumps have no index."""
    names = {one.name for one in store.objects.names("", deep=False)}
    for name in names:
        index = name.removesuffix(RECORD) + INDEX
        if name.endswith(RECORD) and name != ABOUT and index not in names:
            try:
                parse_record(store.objects.get(name))
            except InvalidDump:
                continue  # not ours
            except TargetError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue
            yield name
