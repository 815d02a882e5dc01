# SPDX-License-Identifier: GPL-2.0-or-later
"""Errands: work on a target that may hang. A thread does the work, and its caller waits only for a
limited time."""

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
    """One piece of work, on a thread of its own. When the caller has given it up, the thread undoes
    the work's result by itself."""

    def __init__(self, work: Callable[[], T], undo: Callable[[T], object]) -> None:
        self._work, self._undo = work, undo
        self._lock = threading.Lock()
        self._given_up = False
        self.begun = False
        """Whether the work has begun; does not change any more once the errand is given up."""
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
        """False: the work is done, and the caller has its result. True: the caller gives it up. Its
        result will be undone, and work that has not begun will never begin."""
        with self._lock:
            self._given_up = self._given_up or not self.done
            return self._given_up


class Errands:
    """Runs one errand at a time. Any thread may call any method."""

    def __init__(self) -> None:
        self._late: list[threading.Thread] = []

    def expect_none(self) -> None:
        """StateError EBUSY: an errand that was given up is still running."""
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
        """The result of `work`, or the exception that it raises.

        `seconds`: limit for the target; `more`: for the rest of the work. `undo`: called with a
        result that comes after the limit, or that is lost because a signal handler raises here.
        `never`: called when the work has not begun and never will. TargetError ETIMEDOUT: the limit
        passed. MachineError EAGAIN: no thread could be started.
        """
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
        return errand.result[0]  # no call after it: a signal handler could raise there
