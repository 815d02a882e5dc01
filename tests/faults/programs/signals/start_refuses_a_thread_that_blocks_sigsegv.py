# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: start refuses a thread that blocks sigsegv."""

from __future__ import annotations

import resource
import signal
import threading

from aftermath import unharmed
from caught import BACKEND, SETTINGS, SIGNAL

from livedumpfs import Arena, LiveDump

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arena = Arena(MIB)
a = arena.array("u1", MIB)
a[:] = 1
blocked, end = threading.Event(), threading.Event()


def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
    blocked.set()
    end.wait(300)


live = LiveDump(arena)
live.init(None, SETTINGS)
thread = threading.Thread(target=block)
thread.start()
blocked.wait(300)
for step in (lambda: live.machine.check_start(BACKEND), live.start):
    try:
        step()
    except OSError as error:
        print(error)
a[:] = 2
end.set()
thread.join()
live.start()
a[:] = 3
print(live.read(0, MIB).count(2) == MIB)
live.release()
with unharmed(live):
    pass
