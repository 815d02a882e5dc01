# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: programs started during a dump."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from aftermath import unharmed

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
place = Path(sys.argv[1])

with Arena(4 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    live.init(place / "dump", DumpSettings(sweep_rate=4 * MIB))
    live.start()
    live.sweep()
    look = "ls -l /proc/self/fd; grep -c livedumpfs-arena /proc/self/maps"
    for how in ({}, {"preexec_fn": lambda: None}):
        said = subprocess.run(
            ["sh", "-c", look], capture_output=True, text=True, timeout=300, close_fds=False, **how
        ).stdout
        assert said.endswith("\n0\n") and "memfd" not in said and "dump" not in said, said
    arena.live[::4096] = 2
    assert live.finish(300) == "consistent"
    live.release()
    with open_dump(place / "dump") as dump:
        assert dump.read_arena(0, 4 * MIB).count(1) == 4 * MIB
print("done")
