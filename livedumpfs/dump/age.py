# SPDX-License-Identifier: GPL-2.0-or-later
"""AgeWatch: the release of a snapshot for which no step has been taken for too long."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from livedumpfs.dump.stage import DumpState, Stage
from livedumpfs.thread import needing_threads, start_thread


class AgeWatch:
    """The thread of one dump with a maximum age. It ends with that dump, and knows no other."""

    def __init__(
        self,
        stage: Stage,
        max_age: float,
        is_current: Callable[[], bool],
        expire: Callable[[Callable[[], bool]], None],
    ) -> None:
        """`max_age`: in seconds. `is_current`: whether there still is this dump. `expire`: release
        it if, under the lock of steps, the function that it is given is true: a step may have been
        taken while it waited for that lock."""
        self._stage = stage
        self._max_age = max_age
        self._is_current = is_current
        self._expire = expire

    def start(self) -> None:
        """MachineError: no thread."""
        watch = threading.Thread(target=self._watch, name="livedump-age", daemon=True)
        with needing_threads("watch the age of the dump"):
            start_thread(watch)

    def is_too_old(self) -> bool:
        """It is still there, and too old now."""
        with self._stage.change:  # the keeper may be about to enter FINISH
            return self._is_current() and self._seconds_left() <= 0

    def _watch(self) -> None:
        while self._wait_too_old():
            self._expire(self.is_too_old)

    def _wait_too_old(self) -> bool:
        """False: the dump has gone."""
        with self._stage.change:
            while self._is_current():
                left = self._seconds_left()
                if left <= 0:
                    return True
                self._stage.change.wait(min(left, threading.TIMEOUT_MAX))
        return False

    def _seconds_left(self) -> float:
        """Until no step has been taken for too long. The snapshot is abandoned then; a dump that is
        still prepared, or swept, is not."""
        if self._stage.state not in (DumpState.START, DumpState.FINISH):
            return math.inf
        return self._max_age - self._stage.seconds()
