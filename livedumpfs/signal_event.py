# SPDX-License-Identifier: GPL-2.0-or-later
"""SignalEvent: what a signal's handler may set, for a thread that waits for it."""

from __future__ import annotations

import contextlib
import os
import select
import weakref


class SignalEvent:
    """As threading.Event, which handlers cannot use: Event.set() takes a lock that Event.wait()
    holds for moments, and a handler that interrupts the main thread in such a moment waits for that
    very thread for ever. Here the kernel keeps the state, in an eventfd(2). Once set it stays."""

    def __init__(self) -> None:
        """OSError: no file descriptor."""
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._fd)

    def set(self) -> None:
        """Any thread, handlers of signals too."""
        with contextlib.suppress(BlockingIOError):  # it counts no further
            os.eventfd_write(self._fd, 1)

    def is_set(self) -> bool:
        """Whether it was set."""
        return self.wait(0)

    def wait(self, seconds: float) -> bool:
        """True once it is set; False after that time."""
        poll = select.poll()  # one for each call: a handler may look while its thread waits
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
