# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump may say of itself, and the sentence for its first error. Pure."""

from __future__ import annotations

from typing import Final

from livedumpfs.core.capi import lib
from livedumpfs.dump.counters import NO_PFN, CoreFailure, Counters
from livedumpfs.errors import InconsistentDump, os_cause
from livedumpfs.formats import VerdictWord
from livedumpfs.settings import DumpSettings
from livedumpfs.units import PAGE_SIZE, format_size

_ON_TARGET: Final = {
    lib.LDFS_OP_WRITE_DATA: "write {page} to {target}",
    lib.LDFS_OP_ZERO_DATA: "write zeros for {page} to {target}",
    lib.LDFS_OP_READ_ARENA: "read {page} of the arena",
    lib.LDFS_OP_WRITE_TABLE: "write the granule table to {target}",
    lib.LDFS_OP_SYNC: "sync {target}",
    lib.LDFS_OP_PROTECT: "make {page} of the arena writable",
}
_NOT_ON_TOP: Final = (
    "cannot catch stores any more: another {signal} handler was installed during the dump, over "
    "which ours cannot be put (install it before the first arena is made, or take backend uffd)"
)
_NOT_DURABLE: Final = (lib.LDFS_OP_WRITE_TABLE, lib.LDFS_OP_SYNC)


def judge(counters: Counters) -> VerdictWord:
    """The verdict of a dump whose granules are all final (or that lives in memory only)."""
    failure = counters.failure
    if (
        counters.abandoned
        or counters.not_durable
        or (failure.error and failure.operation in _NOT_DURABLE)
    ):
        return "incomplete"
    return "torn" if counters.lost else "consistent"


def explain(failure: CoreFailure, target: str | None, settings: DumpSettings) -> str | None:
    """One sentence: what object, what cause; None when nothing failed."""
    if not failure.error:
        return None
    page = "memory" if failure.pfn == NO_PFN else f"page {failure.pfn:#x}"
    if failure.operation == lib.LDFS_OP_WAIT_SLOT:
        why = (
            f"{target} is slower than the memory is written"
            if target
            else "the memory that the snapshot may take is full, and it was not released"
        )
        return f"{page} found no free slot within {settings.stall_deadline:g} s: {why}"
    if failure.operation == lib.LDFS_OP_HANDLER:
        return _NOT_ON_TOP.format(signal=settings.backend.upper())
    doing = _ON_TARGET[failure.operation].format(page=page, target=target or "the memory store")
    return f"cannot {doing}: {os_cause(failure.error)}"


def explain_loss(counters: Counters, settings: DumpSettings) -> str | None:
    """Why pages are lost though nothing failed, in one sentence; None: none are."""
    if not counters.lost:
        return None
    size = format_size(counters.slots * counters.granule_size)
    if settings.policy == "fail":
        return f"under policy fail more was overwritten at once than the pool's {size} could hold"
    return f"more was overwritten than fits into the {size} of memory that it may take"


def inconsistent(
    verdict: VerdictWord, counters: Counters, target: str | None, reason: str | None, number: int
) -> InconsistentDump:
    """What to raise for that verdict. `number`: the errno behind it, 0 for none."""
    return InconsistentDump.of(
        verdict,
        target,
        reason,
        number,
        granules=(counters.granules, counters.lost, counters.remaining),
        pages=counters.granule_size // PAGE_SIZE,
    )
