# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: two arenas at once and errno is kept."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

from aftermath import expect_free, expect_next_dump
from armed_dump import armed

from livedumpfs import Arena

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arenas = [Arena(MIB) for _ in range(3)]
arrays = [a.array("u1", MIB) for a in arenas]
for a in arrays:
    a[:] = 1
lives = [armed(a) for a in arenas]
for a in arrays:
    a[:] = 2
print([live.read(0, MIB).count(1) == MIB for live in lives])
lives[1].release()
arrays[1][:] = 3
print(lives[0].read(0, MIB).count(1) == MIB, lives[0].counters().faults > 0)
for live in lives:
    live.release()
    expect_free(live.machine.arena)
with tempfile.TemporaryDirectory() as place:
    for live in lives:
        expect_next_dump(live, Path(place))
