# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: a pool that follows the free memory, in a memory cgroup in which another
program takes more and more of it meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from aftermath import unharmed
from memory_group import MemoryGroup

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20
SIZE = 256 * MIB
EATER = Path(__file__).resolve().parents[1] / "eater.py"

place = Path(sys.argv[1])
group = MemoryGroup(Path(sys.argv[2]))
group.join()
eater = subprocess.Popen(
    [sys.executable, str(EATER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
assert eater.stdin and eater.stdout


def eat() -> None:
    assert eater.stdin and eater.stdout
    eater.stdin.write("\n")
    eater.stdin.flush()
    assert eater.stdout.readline() == "eaten\n", "the eater was killed"


with Arena(SIZE) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    eat()
    # Room for the pool of INIT (64 MiB), for a part of what it could grow by, and for the eater.
    group.limit(group.usage() + 224 * MIB)
    live.init(place / "dump", DumpSettings(granule=65536))
    live.start()
    live.sweep()
    for at in range(0, SIZE, MIB):
        if at % (4 * MIB) == 0 and at < SIZE // 2:
            eat()
        arena.live[at : at + MIB : 4096] = 2
    assert live.finish(300) == "consistent", live.failure
    counters = live.counters()
    size = counters.granule_size
    assert counters.slots_most * size <= (224 - 32) * MIB, counters
    live.release()
    with open_dump(place / "dump") as dump:
        assert all(dump.read_arena(at, MIB).count(1) == MIB for at in range(0, SIZE, MIB))
    # In memory alone: what finds no memory is lost and named, and nothing is killed.
    arena.live[:] = 3
    live.init(None, DumpSettings(granule=65536, spill_limit=SIZE))
    live.start()
    arena.live[::4096] = 4
    counters = live.counters()
    assert counters.slots_most * size < SIZE - 32 * MIB and counters.lost > 0, counters
    assert live.so_far == "torn"
    live.release()
    eat()
    group.limit(None)
    live.init(None, DumpSettings(granule=65536))
    live.start()
    arena.live[::4096] = 5
    assert live.so_far == "consistent", live.counters()
    live.release()
eater.communicate(timeout=300)
assert eater.returncode == 0
print("done")
