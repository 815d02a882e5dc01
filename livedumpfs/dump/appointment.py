# SPDX-License-Identifier: GPL-2.0-or-later
"""Appointment: a START at a time of the wall clock that several hosts have agreed on."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import Final

from livedumpfs import abi
from livedumpfs.core.capi import lib
from livedumpfs.dump.live import LiveDump
from livedumpfs.dump.stage import DumpState
from livedumpfs.errors import StateError, UsageError
from livedumpfs.thread import needing_threads, start_thread

AHEAD_MOST_S: Final = abi.AHEAD_MOST_NS / 1e9
"""No host waits for longer: a clock that is wrong by years would hold its dump for as long."""
_EXACT_NS: Final = 5_000_000
"""The last stretch is slept in C, where RELEASE does not end it."""
_AGAIN_S: Final = 1e-3
"""Until a START that met another step is tried again."""
_LOOK_S: Final = 1.0
"""A clock that is set meanwhile is noticed after so long."""


class Appointment:
    """One START to come, and what came of it. It is taken by a thread of its own: a client that
    waited for it in the kernel could not be killed."""

    def __init__(
        self,
        dump: LiveDump,
        at_ns: int,
        late_ns: int,
        start: Callable[[], object],
    ) -> None:
        """`at_ns`: CLOCK_REALTIME since the epoch. `late_ns`: how much later `start` may still be
        called, at most 10 minutes. StateError ETIME: it is later already; UsageError ERANGE: it
        is too far ahead; MachineError: no thread."""
        self.at_ns = at_ns
        self._late_ns = late_ns
        self._dump = dump
        self._start = start
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._dump_id = dump.dump_id
        if late_ns > abi.AHEAD_MOST_NS:
            raise UsageError(
                f"START: {late_ns / 1e9:g} s late is more than {AHEAD_MOST_S:g} s",
                errno=errno.ERANGE,
            )
        self._expect_near()
        thread = threading.Thread(target=self._work, name="livedump-appointment", daemon=True)
        with needing_threads("wait for the time of START"):
            start_thread(thread)

    def _expect_near(self) -> None:
        left_s = (self.at_ns - time.time_ns()) / 1e9
        if left_s > AHEAD_MOST_S:
            raise UsageError(
                f"START: its time is {left_s:.3f} s ahead, more than {AHEAD_MOST_S:g} s",
                errno=errno.ERANGE,
                hint="are the clocks right?",
            )
        self._expect_in_time()

    def _expect_in_time(self) -> None:
        late = time.time_ns() - self.at_ns
        if late > self._late_ns:
            raise StateError(
                f"START: its time passed {late / 1e9:.6f} s ago, "
                f"and {self._late_ns / 1e9:g} s are allowed",
                errno=errno.ETIME,
                hint="agree on a later time",
            )

    def wait(self, timeout: float | None = None) -> bool:
        """True when it is over; False after `timeout` seconds. Raises what START raised; StateError
        ECANCELED: the dump was released, or started, before."""
        if not self._done.wait(timeout):
            return False
        if self._error:
            raise self._error
        return True

    @property
    def pending(self) -> bool:
        """It is not over."""
        return not self._done.is_set()

    def _work(self) -> None:
        try:
            while not self._came():
                pass
        except BaseException as error:
            self._error = error
        self._done.set()

    def _came(self) -> bool:
        """Sleep, and START. False: the clock was set back, so that its time is to come again."""
        self._sleep()
        urgent = lib.ldfs_wall_wait(self.at_ns)
        try:
            if time.time_ns() < self.at_ns:
                return False
            self._expect_in_time()
            self._take()
        finally:
            if urgent:
                lib.ldfs_wall_over()
        return True

    def _take(self) -> None:
        """Another step, such as a write to control/, may be under way just now."""
        while True:
            try:
                self._start()
                return
            except StateError as error:
                if error.errno != errno.EBUSY:
                    raise
                self._expect_in_time()
            time.sleep(_AGAIN_S)
            self._expect_there()

    def _sleep(self) -> None:
        while (left := self.at_ns - time.time_ns() - _EXACT_NS) > 0:
            self._dump.wait_while_init(min(left / 1e9, _LOOK_S))
            self._expect_there()
            self._expect_near()

    def _expect_there(self) -> None:
        if self._dump.state is not DumpState.INIT or self._dump.dump_id != self._dump_id:
            raise StateError("START: the dump was released meanwhile", errno=errno.ECANCELED)
