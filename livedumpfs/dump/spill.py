# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a pool may take that grows, when no limit is set."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

from livedumpfs.core.capi import lib
from livedumpfs.settings import SPILL_LIMIT, DumpSettings

_STEP: Final = 1 << 20
_LIMITS: Final = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
_NEVER: Final = "2"


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
