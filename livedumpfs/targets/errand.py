# SPDX-License-Identifier: GPL-2.0-or-later
"""Errands: work on a target that may hang. A thread does it; who asked waits for so long only."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from livedumpfs.errors import StateError
from livedumpfs.targets.check import target_error
from livedumpfs.thread import needing_threads, start_thread

T = TypeVar("T")


class _Errand(Generic[T]):
    """One piece of work, on a thread of its own. Whoever is late is not waited for: what the work
    gave is undone then, on that thread."""

    def __init__(self, work: Callable[[], T], undo: Callable[[T], object]) -> None:
        self._work, self._undo = work, undo
        self._lock = threading.Lock()
        self._given_up = False
        self.begun = False
        """Stays as it is once the errand is given up."""
        self.done = False
        self.result: list[T] = []
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="livedump-init", daemon=True)

    def _run(self) -> None:
        with self._lock:
            if self._given_up:
                return
            self.begun = True
        try:
            self.result.append(self._work())
        except BaseException as error:
            self.error = error
        with self._lock:
            self.done = True
            given_up = self._given_up
        if given_up and self.result:
            self._undo(self.result.pop())

    def give_up(self) -> bool:
        """False: it is done, and its result is for who asks. From True on it is nobody's; what has
        not begun never will."""
        with self._lock:
            self._given_up = self._given_up or not self.done
            return self._given_up


class Errands:
    """One at a time. Any thread may call anything."""

    def __init__(self) -> None:
        self._late: list[threading.Thread] = []

    def expect_none(self) -> None:
        """StateError EBUSY: one that was given up has not come back."""
        self._late = [thread for thread in self._late if thread.is_alive()]
        if self._late:
            raise StateError(
                "the target of the last INIT still hangs", errno=errno.EBUSY, hint="wait for it"
            )

    def run(
        self,
        path: str,
        work: Callable[[], T],
        undo: Callable[[T], object],
        seconds: float,
        *,
        more: float = 0,
        never: Callable[[], object] = lambda: None,
    ) -> T:
        """What `work` gives or raises. `seconds` are for the target, `more` for what else there is
        to do. `never`: called when the work has not begun and never will. TargetError ETIMEDOUT:
        it took longer than that; what it gives later is undone, and so is what it gave if a
        signal's handler raises here. MachineError EAGAIN: no thread."""
        errand = _Errand(work, undo)
        try:
            return self._wait(errand, path, seconds, more)
        except BaseException:
            if not errand.give_up():
                while errand.result:
                    undo(errand.result.pop())
            elif errand.begun:
                self._late.append(errand.thread)
            else:
                never()
            raise

    @staticmethod
    def _wait(errand: _Errand[T], path: str, seconds: float, more: float) -> T:
        with needing_threads(f"open {path}"):
            start_thread(errand.thread)
        errand.thread.join(seconds + more)
        if errand.give_up():
            hint = f"it did not answer within {seconds:g} s (init_deadline)"
            if more >= 1:
                hint += f" and {more:.0f} s for the machine's memory"
            raise target_error("dump to", path, errno.ETIMEDOUT, hint)
        if errand.error is not None:
            raise errand.error
        return errand.result[0]  # no call, after which a signal could be handled and it be lost
