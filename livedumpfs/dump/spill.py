# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a pool may take that grows, when no limit is set, and what happens there."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Final

from livedumpfs.core.capi import lib
from livedumpfs.errors import UsageError
from livedumpfs.machines import Machine, StoresFromPython
from livedumpfs.settings import SPILL_LIMIT, DumpSettings

_STEP: Final = 1 << 20
_LIMITS: Final = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
_NEVER: Final = "2"


def fitted_to_memory(machine: Machine, settings: DumpSettings, on_target: bool) -> DumpSettings:
    """A copy with the pool's limit. UsageError: the machine cannot be held there."""
    size = machine.arena.size
    if on_target:
        # What is free goes up and down while the target takes slots: the core looks again then.
        return settings.on_target(min(size, SPILL_LIMIT) if _reserving_costs() else size)
    python = isinstance(machine, StoresFromPython) and machine.stores_from_python
    if settings.at_limit == "hold" and python:
        raise UsageError(
            "the program's own Python threads cannot be held at the limit of a snapshot: one that "
            "waits in a store keeps the interpreter, and nothing could release the dump",
            errno=errno.EINVAL,
            hint="a target, or <at_limit> lose with a larger <spill_limit>",
        )
    return settings.without_target(memory_room(size, settings))


def memory_room(size: int, settings: DumpSettings) -> int:
    """Bytes, for a machine with `size` bytes of memory: as many, for no more can be overwritten,
    but at most half of what is available now without swap, and at least 1 MiB. A limit that is
    set is not looked up."""
    if settings.spill_limit:
        return settings.spill_limit
    if _reserving_costs():
        return min(size, SPILL_LIMIT)  # the whole limit is reserved at once
    if lib.ldfs_headroom_ram(2 * size):
        return size
    fits, too_much = _STEP, size
    while too_much - fits > _STEP:
        middle = (fits + too_much) // 2
        if lib.ldfs_headroom_ram(2 * middle):
            fits = middle
        else:
            too_much = middle
    return fits


def _reserving_costs() -> bool:
    """Whether memory counts before anything lies in it: ulimit -v, ulimit -d, or a kernel that
    promises no more than it has."""
    if any(resource.getrlimit(one)[0] != resource.RLIM_INFINITY for one in _LIMITS):
        return True
    try:
        return _OVERCOMMIT.read_text().strip() == _NEVER
    except OSError:
        return False
