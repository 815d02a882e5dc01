# SPDX-License-Identifier: GPL-2.0-or-later
"""Another handler comes during quiesce, and returns from each fault; resume stores to memory."""

from __future__ import annotations

from stealing import MIB, arm, expect_instant, handlers

from livedumpfs import Arena, LiveDump


def quiesce():
    handlers.steal_and_return()


def resume():
    arena.live[65535] = 7


with Arena(MIB) as arena, LiveDump(arena, quiesce=quiesce, resume=resume) as live:
    arm(live)
    # Whether it was called before the guard looked is chance: that START came back is the point.
    assert live.counters().retaken == 1
    expect_instant(live)
print("done")
