# SPDX-License-Identifier: GPL-2.0-or-later
"""Stage: the state of a LiveDump, since when it is that one, and waiting for a change."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable


class DumpState(enum.Enum):
    """Of a LiveDump; UNINIT: no dump."""

    UNINIT = "uninit"
    INIT = "init"
    START = "start"
    SWEEP = "sweep"
    FINISH = "finish"


class Stage:
    """Any thread may look; the thread that holds the lock of steps enters, and the keeper when the
    sweep has ended."""

    def __init__(self) -> None:
        self.change = threading.Condition()
        """Notified after each change of the state, and of what it belongs to. It is held for no
        longer than a look takes, and no other lock is taken under it."""
        self._state = DumpState.UNINIT
        self._entered = time.monotonic()

    @property
    def state(self) -> DumpState:
        """Now."""
        return self._state

    def seconds(self) -> float:
        """Since the state became what it is."""
        return time.monotonic() - self._entered

    def enter(self, state: DumpState, still: Callable[[], bool] = lambda: True) -> None:
        """The state from now on, unless `still`, called under the lock of `change`, says no. Those
        that wait for a change look again in both cases."""
        with self.change:
            if still():
                self._state, self._entered = state, time.monotonic()
            self.change.notify_all()

    def wait_while(self, state: DumpState, timeout: float | None) -> bool:
        """True once it is another; False after `timeout` seconds (None: never)."""
        with self.change:
            return self.change.wait_for(lambda: self._state is not state, timeout)
