# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump says of the changes since an earlier one, its base: whether it left out what did not
change, or why it read all of the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from livedumpfs.abi import ID_SIZE
from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import check, ffi, lib
from livedumpfs.dump.counters import Counters
from livedumpfs.errors import MachineError
from livedumpfs.machines import BringsInstant, Machine, page_size_of
from livedumpfs.settings import Backend, DumpSettings
from livedumpfs.units import HOST_PAGE

_BACKEND: Final[Backend] = "sigsegv"
"""The only one that tracks."""
_MOST: Final = 16
"""More bases than an arena has."""

_NOT_TRACKED: Final = {
    lib.LDFS_TRACK_BACKEND: "changes are tracked with backend sigsegv alone, and this is {backend}",
    lib.LDFS_TRACK_ARMING: "changes are tracked with arming swap alone, not with mprotect",
    lib.LDFS_TRACK_KERNEL: "changes cannot be tracked: that needs Linux 6.7, and userfaultfd",
    lib.LDFS_TRACK_MEMORY: "changes cannot be tracked: there is no memory for the page tables",
    lib.LDFS_TRACK_SHARED: "changes are not tracked: something else has the memory mapped, or its "
    "file open, and could change it unseen",
    lib.LDFS_TRACK_SEAL: "changes are not tracked: the memory's file cannot be sealed against "
    "others, which could change it unseen",
    lib.LDFS_TRACK_UNKNOWN: "changes are not tracked: whether others have the memory mapped cannot "
    "be known here (see sysctl fs.leases-enable)",
}
_ALL_READ: Final = {
    lib.LDFS_SINCE_UNKNOWN: "what has changed since the base is not known (any more)",
    lib.LDFS_SINCE_GRANULE: "the base has another granule",
    lib.LDFS_SINCE_TARGET: "this target needs all of the memory",
    lib.LDFS_SINCE_MEMORY: "there is no memory for what the base has of each granule",
}


@dataclass(frozen=True)
class Increment:
    """Of one dump."""

    tracks: bool = False
    """From its START on it is known what changes."""
    since: bytes = b""
    """Dump id of the base, what is as there was left out; b"": all was read, or it is not swept
    yet."""
    omitted: int = 0
    """Granules that were left out."""
    reason: str | None = None
    """Why it does not track, or has read all though it was to count from a base, in one sentence;
    None: there is nothing to say."""


def increment(
    counters: Counters, machine: Machine, settings: DumpSettings, wished: bytes
) -> Increment:
    """`settings`: of INIT, with the backend that it took. `wished`: the base that it was asked to
    count from; b"": none."""
    counted = counters.since == lib.LDFS_SINCE_COUNTS
    why = _why_not_tracked(counters.tracking, machine, settings) or _ALL_READ.get(counters.since)
    return Increment(
        counters.tracking == lib.LDFS_TRACK_ON,
        wished if counted else b"",
        counters.omitted,
        why or None,
    )


def _why_not_tracked(tracking: int, machine: Machine, settings: DumpSettings) -> str:
    """ "": it tracks, or is not to."""
    if settings.track and (never := why_never_tracked(machine)):
        return never
    why = _NOT_TRACKED.get(tracking, "").format(backend=settings.backend)
    if tracking == lib.LDFS_TRACK_BACKEND:
        return f"{why}; set backend to sigsegv"
    if tracking == lib.LDFS_TRACK_ARMING:
        return f"{why}; set arming to swap"
    return why


def why_never_tracked(machine: Machine) -> str:
    """Why changes of this machine's memory are not tracked, whatever its settings; what to do, too.
    "": they can be."""
    if isinstance(machine, BringsInstant):
        why = "all of its memory comes anew with each dump"
    elif _BACKEND not in machine.backends:
        why = f"that needs backend {_BACKEND}, and it has {' or '.join(machine.backends)} alone"
    elif page_size_of(machine) != HOST_PAGE:
        why = "its memory is of huge pages, which are protected where they are"
    else:
        return ""
    return f"changes of a {machine.name} machine cannot be tracked: {why}; set track to 0"


def bases_of(memory: object) -> Sequence[bytes]:
    """Ids of the dumps since which it is known what has changed, the newest first."""
    if not isinstance(memory, Arena):
        return ()
    ids = ffi.new("uint8_t[]", _MOST * ID_SIZE)
    count = check(lib.ldfs_arena_bases(memory.handle, ids, _MOST), "ask the arena", MachineError)
    found = bytes(ffi.buffer(ids, count * ID_SIZE))
    return [found[at : at + ID_SIZE] for at in range(0, len(found), ID_SIZE)]
