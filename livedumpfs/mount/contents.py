# SPDX-License-Identifier: GPL-2.0-or-later
"""What small files say: how long it is, and since when they say it.

They are made up when they are read, and yet a file that is copied must have as many bytes as stat
said. So what was made for a stat is kept for the read that follows it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

from cachetools import TTLCache

FRESH_S: Final = 1.0
"""Seconds after which what a stat saw is no longer what a read gives."""
_KEPT: Final = 256


class Contents:
    """Of files by any key; a task by its number. Any thread may call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._lock = threading.Lock()
        self._kept: TTLCache[tuple[Hashable, int], bytes] = TTLCache(_KEPT, FRESH_S, clock)
        self._said: dict[Hashable, tuple[Hashable, int, int]] = {}

    def look(
        self,
        key: Hashable,
        task: int,
        make: Callable[[], bytes],
        *,
        since: int = 0,
        essence: Callable[[bytes], Hashable] = hash,
    ) -> None:
        """See what the file says now. `since`: from when on it says what it says at the first look,
        in nanoseconds since the epoch; 0: that is not known, so from now on. `essence`: it has
        changed when this has. Errors of `make`."""
        data = make()
        with self._lock:
            self._kept[key, task] = data
            self._said[key] = *self._change(key, essence(data), since), len(data)

    def _change(self, key: Hashable, said: Hashable, since: int) -> tuple[Hashable, int]:
        before, now = self._said.get(key), time.time_ns()
        if before is None:
            return said, since or now
        return said, before[1] if before[0] == said else max(now, before[1] + 1)

    def known(self, key: Hashable) -> tuple[int, int]:
        """(since when it says what the last look saw, length of that), nothing looked at anew;
        zeros: there was no look."""
        with self._lock:
            return self._said.get(key, (0, 0, 0))[1:]

    def drop(self, key: Hashable) -> None:
        """There is no such file any more."""
        with self._lock:
            self._said.pop(key, None)

    def take(self, key: Hashable, task: int) -> bytes | None:
        """What that task's last look saw, once; None: it is too old, or was taken."""
        with self._lock:
            return self._kept.pop((key, task), None)

    def forget(self) -> None:
        """Something has been done, or told: what was seen before is old."""
        with self._lock:
            self._kept.clear()
