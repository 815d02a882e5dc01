# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting threads, with one clear error when the system has none left."""

from __future__ import annotations

import contextlib
import errno
import mmap
import threading
from collections.abc import Iterator
from typing import Final

from livedumpfs.errors import MachineError
from livedumpfs.units import PAGE_SIZE

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
