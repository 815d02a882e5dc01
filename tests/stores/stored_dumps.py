# SPDX-License-Identifier: GPL-2.0-or-later
"""A small dump of several chunks, and a second one of which little is different."""

from __future__ import annotations

import random

from livedumpfs.formats import MachineInfo, MemoryRange

PAGE = 4096
CHUNK = 64 << 10
PAGES = 16 * 16
"""Of sixteen granules of one chunk each."""
MAP = (MemoryRange(0, 64 * PAGE, 0), MemoryRange(1 << 21, 192 * PAGE, 64 * PAGE))
MACHINE = MachineInfo("test", vcpus=1, memory_map=MAP)
EMPTY = range(5 * 16, 7 * 16)
"""Pages of zeros: two whole granules."""


def memory_of(seed: int, changed: tuple[int, ...] = ()) -> bytes:
    """Pages that differ from each other; `changed`: these are others than without it."""
    chosen = random.Random(seed)
    pages = [chosen.randbytes(PAGE // 2) + bytes(PAGE // 2) for _ in range(PAGES)]
    for page in EMPTY:
        pages[page] = bytes(PAGE)
    for page in changed:
        pages[page] = bytes([page % 251 + 1]) * PAGE
    return b"".join(pages)


MEMORY = memory_of(1)
CHANGED = (3, 4, 120, 255)
OTHER = memory_of(1, CHANGED)
