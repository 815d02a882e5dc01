# SPDX-License-Identifier: GPL-2.0-or-later
"""OneThread: calls one after the other, on a thread that a process need not wait for when it ends.
A call into the mount of a host that hangs may never come back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class OneThread:
    """Any thread may call anything."""

    def __init__(self, name: str) -> None:
        """RuntimeError: there can be no more threads."""
        self._lock = threading.Lock()
        self._ended = False
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """What it returns or raises. RuntimeError: `end` was called."""
        found: Future[T] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("it has ended")
            self._work.put((found, call))
        return found

    def end(self) -> None:
        """The thread ends after the calls that were submitted; harmless when done twice."""
        with self._lock:
            if not self._ended:
                self._work.put(None)
            self._ended = True

    def _run(self) -> None:
        while work := self._work.get():
            found, call = work
            if not found.set_running_or_notify_cancel():
                continue
            try:
                found.set_result(call())
            except BaseException as error:
                found.set_exception(error)


def on_its_own(name: str, call: Callable[[], T]) -> Future[T]:
    """One call on a thread of its own."""
    thread = OneThread(name)
    try:
        return thread.submit(call)
    finally:
        thread.end()
