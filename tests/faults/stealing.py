# SPDX-License-Identifier: GPL-2.0-or-later
"""What programs need that take the signal of an armed dump; they import all of it."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from aftermath import wait_for, writable
from caught import SETTINGS, SIGNAL
from caught import crash as crash_by_signal

from livedumpfs import LiveDump
from livedumpfs.core.capi import lib

MIB = 1 << 20
handlers = ctypes.CDLL(os.environ["HANDLERS"])
handlers.taken(int(SIGNAL))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def arm(live: LiveDump, target: str | None = None) -> None:
    """All of the memory is 1 at the instant."""
    live.machine.arena.live[:] = 1
    live.init(target, SETTINGS)
    live.start()


def retaken(live: LiveDump, times: int = 1) -> None:
    """Ours is back on top, so often by now."""
    wait_for(lambda: live.counters().retaken >= times, live.counters)
    assert lib.ldfs_fault_verify(SIGNAL) == 0


def expect_instant(live: LiveDump) -> None:
    """The dump is none the worse."""
    arena = live.machine.arena
    arena.live[:] = 2
    assert live.read(0, arena.size).count(1) == arena.size
    assert live.so_far == "consistent", live.counters()


def expect_torn(live: LiveDump, retaken: int = 2) -> None:
    """The dump gave up. Nothing is protected, the other handler is on top, and no store is lost."""
    arena = live.machine.arena
    wait_for(lambda: writable(arena.address, arena.size) and live.failure, live.counters)
    assert f"another {SIGNAL.name} handler was installed during the dump" in str(live.failure), (
        live.failure
    )
    before = live.counters()
    assert before.retaken == retaken and before.lost and lib.ldfs_fault_verify(SIGNAL) < 0
    assert live.so_far == "torn"
    arena.live[:] = 5
    assert arena.live.min() == 5 and live.counters().faults == before.faults


def gone() -> bool:
    """Ours is not there. Of SIGBUS it is not asked for between dumps."""
    return SIGNAL == signal.SIGBUS or lib.ldfs_fault_verify(SIGNAL) < 0


def crash() -> None:
    """A fault in no arena's memory. What comes on stdout last."""
    print(f"crash by {SIGNAL.name}", flush=True)
    crash_by_signal()
