# SPDX-License-Identifier: GPL-2.0-or-later
"""PipeThread: a pipe for another process to write into, and the thread that takes what comes. This
module is a leaf."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from livedumpfs.thread import needing_threads, start_thread


class PipeThread:
    """The thread takes from the start: a host's INIT already writes."""

    def __init__(self, take: Callable[[int], None], task: str, name: str) -> None:
        """`take(read end)`: called on the thread; when it has returned, the writer gets EPIPE. It
        keeps its own errors. `task`: what the thread does, as an error says it; `name`: the
        thread's. MachineError EAGAIN: no thread; OSError: no descriptor."""
        self._take = take
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._write_end}"
        """What the writer opens, while the writing end is open here."""
        # A daemon thread: what stops taking must not keep an interrupted command alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            with needing_threads(task):
                start_thread(self._thread)
        except BaseException:
            os.close(self._read_end)
            self.let_go()
            raise

    def _run(self) -> None:
        try:
            self._take(self._read_end)
        finally:
            os.close(self._read_end)

    def let_go(self) -> None:
        """Close the writing end here, which would keep the pipe from ending; harmless when done
        twice."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def join(self, timeout: float | None = None) -> None:
        """Wait until all was taken; at most so many seconds."""
        self._thread.join(timeout)
