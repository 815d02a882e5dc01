# SPDX-License-Identifier: GPL-2.0-or-later
"""Arrays saved to the file of the first argument; the verdict, and whose package that was."""

from __future__ import annotations

import sys

import livedumpfs
from livedumpfs import Arena, LiveDump, open_dump

with Arena("4MiB") as arena:
    state = arena.array("f8", (1000, 100), name="state")
    state[:] = 7.5
    LiveDump(arena, quiesce=lambda: None, resume=lambda: None).save(sys.argv[1])
with open_dump(sys.argv[1]) as dump, Arena.load(dump) as again:
    assert (again.arrays["state"] == 7.5).all()
    assert livedumpfs.__file__.startswith(sys.prefix)
    print(dump.verdict, sys.prefix)
