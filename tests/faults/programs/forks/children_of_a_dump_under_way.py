# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: children of a dump under way."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from aftermath import expect_equal, memory_file, unharmed
from children import child, refused

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
place = Path(sys.argv[1])
arming = sys.argv[2]
phase = sys.argv[3]

SIZE = 8 * MIB
with Arena(SIZE) as arena, LiveDump(arena) as live, unharmed(live), memory_file(SIZE) as kept:
    arena.live[:] = 1
    settings = DumpSettings(granule=4096, arming=arming, sweep_rate=2 * MIB, force=True)
    live.init(place / "dump", settings, reference=kept)
    if phase != "init":
        live.start()
    if phase == "sweep":
        live.sweep()

    def store():
        arena.live[: SIZE // 2] = 9
        return int(arena.live[0]) + int(arena.live[SIZE // 2]) + child(load)

    def load():
        return int(arena.live[5 * 4096])

    def steps():
        answers = [
            refused(step)
            for step in (
                live.start,
                live.sweep,
                lambda: live.init(place / "other"),
                live.finish,
                lambda: live.read(0, 1),
                lambda: arena.discard(0, 4096),
                lambda: arena.writable(0, 1),
            )
        ]
        live.release()
        live.close()
        return 0 if all(answers) and not (place / "other").exists() else 1

    assert child(load) == 1
    assert child(store) == 9 + 1 + 9, "its own stores, its parent's, and its child's view of them"
    assert arena.live[0] == 1 and arena.read(0, SIZE).count(1) == SIZE
    assert child(steps) == 0
    if phase == "init":
        live.start()
    if phase != "sweep":
        live.sweep()
    arena.live[::4096] = 2
    assert live.finish(300) == "consistent", live.failure
    live.release()
    expect_equal(place / "dump", kept, SIZE)
print("done")
