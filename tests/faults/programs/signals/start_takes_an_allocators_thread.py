# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: a thread as jemalloc has one blocks all signals, and stores nowhere."""

from __future__ import annotations

import ctypes
import signal
import threading

from aftermath import unharmed
from caught import BACKEND, SETTINGS

from livedumpfs import Arena, LiveDump

MIB = 1 << 20
SET_NAME = 15

blocked, end = threading.Event(), threading.Event()


def block() -> None:
    ctypes.CDLL(None).prctl(SET_NAME, b"jemalloc_bg_thd", 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    blocked.set()
    end.wait(300)


thread = threading.Thread(target=block)
thread.start()
assert blocked.wait(300)
with Arena(MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    live.machine.check_start(BACKEND)
    live.init(None, SETTINGS)
    live.start()
    arena.live[:] = 2
    assert live.read(0, MIB).count(1) == MIB
end.set()
thread.join()
print("done")
