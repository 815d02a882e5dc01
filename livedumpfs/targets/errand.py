# SPDX-License-Identifier: GPL-2.0-or-later
"""Errands: work on a target that may hang. A thread does it; who asked waits for so long only."""

from __future__ import annotations

import errno
import mmap
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from livedumpfs.errors import MachineError, StateError
from livedumpfs.targets.check import target_error
from livedumpfs.units import PAGE_SIZE

T = TypeVar("T")
_MAPPINGS = 16
"""More than a thread needs: for its stack, its malloc, its frames."""


def start_thread(thread: threading.Thread) -> None:
    """Thread.start waits for ever for one that finds no mapping for its first frame. RuntimeError:
    there is no room for it."""
    probes: list[mmap.mmap] = []
    try:
        probes.extend(mmap.mmap(-1, PAGE_SIZE) for _ in range(_MAPPINGS))
    except (OSError, MemoryError):
        raise RuntimeError("can't start new thread: no more mappings") from None
    finally:
        while probes:
            probes.pop().close()
    thread.start()


class _Errand(Generic[T]):
    """One piece of work, on a thread of its own. Whoever is late is not waited for: what the work
    gave is undone then, on that thread."""

    def __init__(self, work: Callable[[], T], undo: Callable[[T], object]) -> None:
        self._work, self._undo = work, undo
        self._lock = threading.Lock()
        self._given_up = False
        self.done = False
        self.result: list[T] = []
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="livedump-init", daemon=True)

    def _run(self) -> None:
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
        """False: it is done."""
        with self._lock:
            self._given_up = not self.done
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
        self, path: str, work: Callable[[], T], undo: Callable[[T], object], seconds: float
    ) -> T:
        """What `work` gives or raises. TargetError ETIMEDOUT: it took longer than that; what it
        gives later is undone. MachineError EAGAIN: no thread; it has not begun."""
        errand = _Errand(work, undo)
        try:
            start_thread(errand.thread)
        except RuntimeError as error:
            raise MachineError(f"cannot open {path}: {error}", errno=errno.EAGAIN) from error
        try:
            errand.thread.join(seconds)
        finally:  # also when a signal's handler raises here
            late = errand.give_up()
            if late:
                self._late.append(errand.thread)
        if late:
            hint = f"it did not answer within {seconds:g} s (init_deadline)"
            raise target_error("dump to", path, errno.ETIMEDOUT, hint)
        if errand.error is not None:
            raise errand.error
        return errand.result.pop()
