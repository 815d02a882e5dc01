# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting threads, with one clear error when the system has none left."""

from __future__ import annotations

import contextlib
import errno
import mmap
import threading
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from livedumpfs.errors import MachineError
from livedumpfs.units import PAGE_SIZE

T = TypeVar("T")

_MAPPINGS: Final = 16
"""More mappings than a thread needs: for its stack, its malloc and its first Python frames."""
_HINT: Final = "see ulimit -u, pids.max, vm.max_map_count, ulimit -v"


def start_thread(thread: threading.Thread) -> None:
    """Start a thread. Thread.start alone waits for ever when the new thread finds no memory mapping
    for its first Python frame. RuntimeError: there is no room for the thread."""
    probes: list[mmap.mmap] = []
    try:
        probes.extend(mmap.mmap(-1, PAGE_SIZE) for _ in range(_MAPPINGS))
    except (OSError, MemoryError):
        raise RuntimeError("can't start new thread: no more mappings") from None
    finally:
        while probes:
            probes.pop().close()
    thread.start()


@contextlib.contextmanager
def needing_threads(doing: str) -> Iterator[None]:
    """Around code that starts threads, and that raises no RuntimeError for another reason.
    MachineError EAGAIN: "cannot <doing>: can't start new thread"."""
    try:
        yield
    except RuntimeError as error:
        raise MachineError(f"cannot {doing}: {error}", errno=errno.EAGAIN, hint=_HINT) from error


def without_signals(doing: str, work: Callable[[], T]) -> T:
    """What `work` returns or raises, which no signal's handler can raise into: Python runs those on
    the main thread alone, and there `work` gets a thread of its own. It must come to its end by
    itself. What a handler raises meanwhile is raised here, but only once `work` has ended; work
    that had not begun never will. MachineError EAGAIN, "cannot <doing>": no thread."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    apart = _Apart(work)
    try:
        with needing_threads(doing):
            start_thread(apart.thread)
        apart.ended.wait()
    except BaseException:
        apart.give_up()
        raise
    if apart.error is not None:
        raise apart.error
    return apart.found[0]


class _Apart(Generic[T]):
    """Work on a thread of its own."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._begun = threading.Lock()
        """Taken by the work, or by those that no longer want it; never released."""
        self.ended = threading.Event()
        self.found: list[T] = []
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="livedump-apart", daemon=True)

    def _run(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        try:
            self.found.append(self._work())
        except BaseException as error:
            self.error = error
        self.ended.set()

    def give_up(self) -> None:
        """It has not begun, and never will; or wait for its end, whatever signals come."""
        if self._begun.acquire(blocking=False):
            return
        while not self.ended.is_set():
            with contextlib.suppress(BaseException):
                self.ended.wait()
