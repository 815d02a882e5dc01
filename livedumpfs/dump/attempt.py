# SPDX-License-Identifier: GPL-2.0-or-later
"""Attempt: one START through functions of Python, which may be late, or never return."""

from __future__ import annotations

import contextvars
import errno
import math
import threading
import time
from collections.abc import Callable

from livedumpfs.core.capi import CData, PythonOps
from livedumpfs.errors import MachineError
from livedumpfs.machines import Machine
from livedumpfs.thread import (
    SignalMask,
    hold_signals,
    let_signals,
    needing_threads,
    start_thread,
)

_GRACE_S = 0.25
"""Most of those that are late are back by then, and START can be tried again at once."""
_LOOK_S = 1e-3
"""Between two looks at the clock at the least."""

Start = Callable[[CData], int]
"""START with these struct ldfs_quiesce_ops *: 0 or -errno."""


def _late(name: str) -> MachineError:
    return MachineError(
        f"cannot start the dump: the machine did not {name} in time",
        errno=errno.ETIMEDOUT,
        hint="a longer <quiesce_deadline> gives it more time",
    )


class Attempt:
    """A quiesce that returns too late has failed: the machine stood for too long already, and goes
    on without a dump. One that never returns keeps the thread that it is called on, and not the
    step; should it return after all, its resume is called then, and nothing else is done.

    Handlers of signals store, too. From quiesce on the thread that waits for START blocks signals,
    and the thread of START lets them through only while one of its functions runs. So a handler
    runs before the machine stands or after it goes on, as where the functions run on the thread of
    the caller. A signal that comes meanwhile is handled when START is over.
    """

    def __init__(self, machine: Machine, deadline_s: float) -> None:
        """`deadline_s`: for quiesce, and again for resume."""
        self._machine = machine
        self._deadline_s = deadline_s
        self._lock = threading.Condition()
        self._end = math.inf
        """When the function that is under way is late."""
        self._doing = "stop"
        self._given_up = False
        """The caller no longer waits: from now on no function is called that stops writers, and
        nothing is armed."""
        self._stood = False
        """All writers stood in time."""
        self._done = False
        self._mask: SignalMask | None = None
        """For the functions; None: they run on the thread of the caller, and nothing is changed."""
        self._about_to_stop = False
        self._waiting_mask: SignalMask | None = None
        """Of the thread that waits, before it blocked signals; None: it has not."""
        self._code = 0
        self._error: BaseException | None = None

    @property
    def under_way(self) -> bool:
        """It has begun, and its last function has not returned."""
        return not self._done

    @property
    def may_arm(self) -> bool:
        """It is still under way, and has armed or is about to."""
        return self._stood and not self._done

    def run_here(self, start: Start) -> int:
        """On this thread: of a machine whose functions do nothing. What `start` returns, and what
        the functions raise."""
        self._work(start)
        return self._outcome()

    def run(self, start: Start) -> int:
        """As run_here, on a thread of its own, in this one's context. MachineError ETIMEDOUT: a
        function is late, and may still be under way; EAGAIN: no thread."""
        thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._work_apart, start),
            name="livedump-start",
            daemon=True,
        )
        try:
            with needing_threads("start the dump"):
                start_thread(thread)
            self._wait()
        except BaseException:  # no thread; or of a signal's handler, also while the thread starts
            self._give_up()
            if thread.ident is None:
                self._done = True
            else:
                self._wait()
            raise
        finally:
            if self._waiting_mask is not None:
                let_signals(self._waiting_mask)
        if not self._done:
            raise _late(self._doing)
        return self._outcome()

    def _wait(self) -> None:
        """Until it is done, or a function is late and does not come back soon."""
        with self._lock:
            while not self._done:
                if self._about_to_stop and self._waiting_mask is None:
                    self._waiting_mask = hold_signals()
                    self._lock.notify_all()
                left = self._end + _GRACE_S - time.monotonic()
                if left <= 0:
                    self._given_up = True
                    return
                # Writers that stand are not kept waiting for a message: the end may be another now.
                self._lock.wait(max(min(left, self._deadline_s), _LOOK_S))

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = True
            self._lock.notify_all()

    def _outcome(self) -> int:
        if self._error:
            raise self._error
        return self._code

    # ---------------------------------------------------------------- on its thread

    def _work_apart(self, start: Start) -> None:
        self._mask = hold_signals()
        self._work(start)

    def _work(self, start: Start) -> None:
        ops = PythonOps(self._quiesce, self._resume, self._expect_in_time)
        try:
            try:
                self._code = start(ops.ops)
            finally:
                ops.let_go()
            self._error = ops.error
        except BaseException as error:
            self._error = error
        ops.close()
        with self._lock:
            self._done = True
            self._lock.notify_all()

    def _quiesce(self) -> None:
        with self._lock:
            self._wait_for_the_caller()
            if self._given_up:
                raise _late("stop")
            self._end = time.monotonic() + self._deadline_s
        self._call(self._machine.quiesce)

    def _expect_in_time(self) -> None:
        """All writers stand. MachineError ETIMEDOUT: they do so too late."""
        with self._lock:
            late = self._given_up or time.monotonic() > self._end
            self._end = math.inf
            self._stood = not late
        if late:
            raise _late("stop")

    def _resume(self) -> None:
        with self._lock:
            self._doing = "go on"
            self._end = time.monotonic() + self._deadline_s
        self._call(self._machine.resume)

    def _wait_for_the_caller(self) -> None:
        """Until it blocks signals, or has given up."""
        self._about_to_stop = True
        self._lock.notify_all()
        while self._mask is not None and self._waiting_mask is None and not self._given_up:
            self._lock.wait()

    def _call(self, function: Callable[[], object]) -> None:
        """With the signals that the caller of START has."""
        if self._mask is None:
            function()
            return
        let_signals(self._mask)
        try:
            function()
        finally:
            hold_signals()
