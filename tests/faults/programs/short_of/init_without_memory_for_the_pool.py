# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_short_of.py: init without memory for the pool."""

from __future__ import annotations

import errno
import resource
import sys
from pathlib import Path

from aftermath import unharmed
from refusals import refused

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings

MIB = 1 << 20

place = Path(sys.argv[1])
policy = sys.argv[2]
limit = sys.argv[3]

settings = DumpSettings(
    pool=256 * MIB if policy == "block" else 16 * MIB, policy=policy, spill_limit=512 * MIB
)
kind = getattr(resource, limit)
field = {resource.RLIMIT_AS: "VmSize", resource.RLIMIT_DATA: "VmData"}[kind]


def used():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) << 10


with Arena(1 << 30) as arena, LiveDump(arena) as live:
    arena.live[:MIB] = 1
    small = Arena(4 * MIB)
    small_live = LiveDump(small)
    if policy == "spill":
        resource.setrlimit(kind, (used() + 200 * MIB, -1))
        for target in (place / "dump", None):
            live.init(target, settings)
            live.release()
    else:
        with unharmed(small_live):
            resource.setrlimit(kind, (used() + 100 * MIB, -1))
            assert refused(lambda: live.init(place / "dump", settings)) == errno.ENOMEM
            assert refused(lambda: live.init(None, settings)) == errno.ENOMEM
            assert live.state.value == "uninit"
            resource.setrlimit(kind, (-1, -1))
    resource.setrlimit(kind, (-1, -1))
    live.init(place / "dump", settings)
    live.start()
    arena.live[:MIB] = 2
    live.sweep()
    assert live.finish(300) == "consistent"
    live.release()
    with open_dump(place / "dump") as dump:
        assert dump.read_arena(0, MIB).count(1) == MIB
print("done")
