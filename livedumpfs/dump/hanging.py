# SPDX-License-Identifier: GPL-2.0-or-later
"""Hanging: dumps that were released, and of which something is still at work: I/O of a target that
hangs, or a function that START called and that has not returned."""

from __future__ import annotations

import errno
import threading
import time
from typing import Final

from livedumpfs.dump.run import DumpRun
from livedumpfs.errors import StateError
from livedumpfs.thread import start_thread

_REAP_S: Final = 0.2


class Hanging:
    """`add` and `free_unwatched` under the lock of steps; any thread may ask."""

    def __init__(self) -> None:
        self._runs: list[DumpRun] = []
        self._unwatched: list[DumpRun] = []
        """Of those, the ones that no thread frees when they come back: the next INIT does."""

    def add(self, run: DumpRun) -> None:
        """A dump that was released: freed now, or on a thread of its own when nothing is at work on
        it any more."""
        self._runs = [one for one in self._runs if not one.let_go()]
        if run.let_go():
            return
        self._runs.append(run)
        try:
            start_thread(threading.Thread(target=reap, args=(run,), daemon=True))
        except RuntimeError:
            self._unwatched.append(run)

    def free_unwatched(self) -> None:
        """Those for which there was no thread, as far as that is possible now."""
        self._unwatched = [one for one in self._unwatched if not one.let_go()]

    @property
    def unwatched(self) -> bool:
        """There are dumps that no thread will free."""
        return bool(self._unwatched)

    def settled(self) -> bool:
        """All is freed; what can be freed is freed by asking."""
        return all(one.let_go() for one in self._runs)

    def expect_none(self) -> None:
        """StateError EBUSY: the machine, or the target, may still be touched by an older dump."""
        if any(run.core and run.core.start_under_way for run in self._runs):
            raise StateError(
                "a function of the last START has not returned",
                errno=errno.EBUSY,
                hint="wait for it: its resume is called then",
            )
        if any(run.is_kept for run in self._runs):
            raise StateError(
                "the target of the last dump still hangs", errno=errno.EBUSY, hint="wait for it"
            )


def reap(run: DumpRun) -> None:
    """Free what is left of a released dump as soon as that is possible; returns then."""
    while not run.let_go():
        time.sleep(_REAP_S)
