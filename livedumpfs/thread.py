# SPDX-License-Identifier: GPL-2.0-or-later
"""A new thread, or one sentence of ours where the system has none left."""

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
"""More than a thread needs: for its stack, its malloc, its frames."""
_HINT: Final = "see ulimit -u, pids.max, vm.max_map_count, ulimit -v"


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


@contextlib.contextmanager
def needing_threads(doing: str) -> Iterator[None]:
    """Around what starts threads, and raises no RuntimeError of its own. MachineError EAGAIN:
    "cannot <doing>: can't start new thread"."""
    try:
        yield
    except RuntimeError as error:
        raise MachineError(f"cannot {doing}: {error}", errno=errno.EAGAIN, hint=_HINT) from error
