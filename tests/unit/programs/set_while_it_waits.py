# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signal_event.py: for two seconds a signal's handler sets the event for which the
thread that it interrupts waits, at moments by chance. With threading.Event it hangs soon."""

from __future__ import annotations

import random
import signal
import time

from livedumpfs.signal_event import SignalEvent

events = [SignalEvent()]
signal.signal(signal.SIGALRM, lambda *_: events[0].set())
end = time.monotonic() + 2
while time.monotonic() < end:
    events[0] = SignalEvent()
    signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-5, 5e-4))
    while not events[0].wait(2e-5):
        pass
print("done")
