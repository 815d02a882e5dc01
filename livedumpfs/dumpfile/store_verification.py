# SPDX-License-Identifier: GPL-2.0-or-later
"""Can the dumps of a store be trusted: every chunk against its id, once, and what each dump says of
itself against its record.

That a chunk has its id proves that its bytes are those that were put. The checksums of a dump's own
granule table are checked by `verify` of that dump alone.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from livedumpfs.dumpfile.granules import runs
from livedumpfs.dumpfile.reader import DumpFile, read_dump
from livedumpfs.dumpfile.source import ImageSource
from livedumpfs.dumpfile.verify import format_ranges
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.stores import Index, Store
from livedumpfs.stores.chunk_check import OnChunks, check_chunks, needed_by
from livedumpfs.stores.listing import StoredDump, list_dumps
from livedumpfs.stores.store_image import StoreImage
from livedumpfs.units import PAGE_SIZE

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTSUP)


@dataclass
class StoredReport:
    """Of one dump."""

    name: str
    verdict: str
    """As the dump says; "unknown" when it cannot be read, or is not ours."""
    wrong: dict[bytes, str] = field(default_factory=dict)
    """Chunks of it that are damaged or missing, and why."""
    pages: list[tuple[int, int]] = field(default_factory=list)
    """[first, end) of pages of its memory that it loses so."""
    problems: list[str] = field(default_factory=list)
    """A sentence each."""


@dataclass
class StoreReport:
    """The result of verify_store."""

    dumps: list[StoredReport]
    chunks: int
    """That are right."""
    size: int
    """Their bytes, not compressed."""
    unneeded: tuple[int, int]
    """Chunks of no dump, and their bytes in the store: of broken-off or forgotten dumps."""

    @property
    def problems(self) -> list[str]:
        """Of all dumps."""
        return [f"{one.name}: {text}" for one in self.dumps for text in one.problems]


def verify_store(store: Store, on_chunks: OnChunks | None = None) -> StoreReport:
    """Read the whole store. gc and forget are kept out meanwhile, where this process may write the
    store. TargetError: it cannot be listed, or EBUSY."""
    with _shared(store):
        listed = list_dumps(store)
        indexes: dict[str, Index] = {}
        reports = {one.name: StoredReport(one.name, "unknown") for one in listed}
        for one in listed:
            try:
                indexes[one.name] = store.index(one.name)
            except (InvalidDump, TargetError) as error:
                reports[one.name].problems.append(error.message)
        needed = needed_by(indexes.values())
        there = dict(store.chunks.every())
        found = check_chunks(store.chunks, needed, on_chunks)
        for one in listed:
            if one.name in indexes:
                _judge(store, one, indexes[one.name], found.wrong, reports[one.name])
        unneeded = [size for identity, size in there.items() if identity not in needed]
    return StoreReport(
        list(reports.values()), found.right, found.size, (len(unneeded), sum(unneeded))
    )


def set_aside_damaged(store: Store, report: StoreReport) -> int:
    """The damaged chunks that the report found are missing from then on, and the next dump that
    has their bytes puts them again, for all dumps. Returns how many. TargetError EBUSY: a dump or
    another command has the store."""
    wrong = {identity for one in report.dumps for identity in one.wrong}
    with store.lock(alone=True):
        needed = needed_by(store.index(one.name) for one in report.dumps if one.wrong)
        return store.chunks.set_aside({one: needed[one] for one in wrong & needed.keys()})


@contextlib.contextmanager
def _shared(store: Store) -> Iterator[None]:
    """The store's lock, as a dump holds it; none where the store can only be read."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(store.lock())
        except TargetError as error:
            if error.errno not in _READ_ONLY:
                raise
        yield


def _judge(
    store: Store, listed: StoredDump, index: Index, wrong: dict[bytes, str], report: StoredReport
) -> None:
    bad = [n for n in range(len(index)) if index.id(n) in wrong] if wrong else []
    report.wrong = {index.id(n): wrong[index.id(n)] for n in bad}
    if listed.problem:
        report.problems.append(listed.problem)
    source = ImageSource(f"{store.url}#{listed.name}", StoreImage(index, store.chunks))
    try:
        with read_dump(source) as dump:
            report.verdict = dump.verdict
            report.pages = lost_pages(dump, [(index.start(n), int(index.ends[n])) for n in bad])
            _compare_with_record(dump, listed, report)
    except (InvalidDump, TargetError) as error:
        if listed.record or bad:
            report.problems.append(error.message)
    if bad:
        pages = f": pages {format_ranges(report.pages)} are lost" if report.pages else ""
        report.problems.append(f"{_count(report.wrong)} damaged or missing{pages}")


def _count(wrong: dict[bytes, str]) -> str:
    return "1 chunk is" if len(wrong) == 1 else f"{len(wrong)} chunks are"


def _compare_with_record(dump: DumpFile, listed: StoredDump, report: StoredReport) -> None:
    record = listed.record
    if record and record.dump_id != dump.dump_id.hex():
        report.problems.append("its record is of another dump")
    elif record and record.verdict != dump.verdict:
        report.problems.append(f"its record says {record.verdict}, the dump is {dump.verdict}")


def lost_pages(dump: DumpFile, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """[first, end) of pages of the arena of which a part lies at [start, end) of the target. Of a
    kdump, whose pages lie anywhere, none."""
    if dump.format == "kdump":
        return []
    chosen = np.zeros(-(-dump.arena_size // PAGE_SIZE), np.bool_)
    for start, end in places:
        for extent in dump.extents:
            low = max(start - extent.target_offset, 0)
            high = min(end - extent.target_offset, extent.length)
            if low < high:
                first, last = (extent.arena_offset + at for at in (low, high - 1))
                chosen[first // PAGE_SIZE : last // PAGE_SIZE + 1] = True
    return runs(chosen)
