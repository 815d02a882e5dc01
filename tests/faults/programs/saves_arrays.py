# SPDX-License-Identifier: GPL-2.0-or-later
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_array_save_faults.py: saves of arrays, one after the other, until it is killed. Each
has one number in all elements."""

from __future__ import annotations

import sys

from livedumpfs import Arena, LiveDump

path, first = sys.argv[1], int(sys.argv[2])
with Arena("32MiB") as arena:
    a = arena.array("u8", (3 << 20,), name="a")
    b = arena.array("u8", (1 << 10,), name="b")
    for number in range(first, first + 100000):
        a[:] = b[:] = number
        LiveDump(arena).save(path)
        print(number, flush=True)
