# SPDX-License-Identifier: GPL-2.0-or-later
"""SnapshotJob: one background snapshot of QEMU, from its settings to the end of its stream.

A snapshot is never cancelled: a QEMU before 8.1 would leave its guest hanging (protection.py). One
that is given up is read to its end, and what comes is dropped.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.errors import LivedumpError, MachineError
from livedumpfs.machines.attach.guest_monitor import GuestMonitor
from livedumpfs.machines.attach.lifeline import Lifeline
from livedumpfs.machines.attach.lifeline_program import BEGUN, NOT_BEGUN, PAUSED_AGAIN, RESUMED
from livedumpfs.machines.attach.migration_end import (
    BACKGROUND,
    MIGRATED,
    NAME,
    PAUSED,
    UNDER_WAY,
    let_run,
)
from livedumpfs.machines.attach.migration_settings import MigrationSettings, asker
from livedumpfs.machines.attach.obstacles import MigrationState, capabilities_of, migration_of
from livedumpfs.machines.attach.repair import free_silent, repair
from livedumpfs.machines.attach.snapshot_errors import failed, not_ours, stood_still
from livedumpfs.machines.attach.stop_events import RESUME, STOP, SnapshotTimes, StopEvents
from livedumpfs.machines.attach.turn import take_turn
from livedumpfs.machines.attach.window import ReadInto, StreamError
from livedumpfs.thread import needing_threads, start_thread

_BUFFER: Final = 4 << 20
_REST: Final = 64 << 10
_POLL_S: Final = 0.2
_STALL_S: Final = 30.0
"""Without a byte for so long the snapshot is given up."""
_END_S: Final = 30.0
"""QEMU has ended a snapshot whose stream has ended within this time."""
_EVENT_S: Final = 2.0
_SILENT_S: Final = 3.0
_AGAIN_S: Final = 1.0
"""Between two tries to bring QEMU back."""
SHORT_S: Final = 2.0
"""The end of a snapshot that was given up is waited for so long; after that it goes on beside."""


class SnapshotJob(Closing):
    """QEMU's settings are ours from begin() to the end, which close() begins."""

    def __init__(
        self, monitor: GuestMonitor, events: StopEvents, pid: int, *, lets_run: bool
    ) -> None:
        """`pid`: of QEMU; 0: not known. `lets_run`: this QEMU lets a guest run that was paused
        before. Changes nothing."""
        self._monitor = monitor
        self._events = events
        self._pid = pid
        self._lets_run = lets_run
        self._given_up = threading.Event()
        self._left = threading.Event()
        self._received = threading.Event()
        """Nothing more can come, good or bad."""
        self._no_resume = threading.Event()
        """QEMU lets a paused guest run no more."""
        self._over = threading.Event()
        self._over.set()
        self._sent = False
        """QEMU has been told to migrate."""
        self._closing = threading.Lock()
        self._ending = False
        # Made now: there may be no memory then.
        self._end_thread = threading.Thread(target=self._finish, name="livedump-end", daemon=True)
        self._lifeline: Lifeline | None = None
        self._ordinary = False
        """Another program has turned the capability off, so QEMU migrates in its usual way."""
        self._whole = False
        """The stream has come to its end as it should."""
        self._ended = False
        """QEMU's migration was seen to have ended: what is under way since is not ours."""
        self._rest = memoryview(bytearray(_REST))
        """For what is dropped: there may be no memory then."""

    def begin(self) -> None:
        """MachineError: QEMU refuses, or another process of livedumpfs has its turn. All is as it
        was then, or will be: see wait()."""
        self._over.clear()
        try:
            self._turn = take_turn(self._pid, self._monitor.whose)
        except BaseException:
            self._over.set()
            raise
        try:
            repair(self._monitor, self._pid)
            self._paused = self._monitor.status() == PAUSED
            self._settings = MigrationSettings(self._monitor)
            self._sock, theirs = socket.socketpair()
        except BaseException:
            self._turn.close()
            self._over.set()
            raise
        try:
            with theirs:
                self._lifeline = Lifeline(
                    self._monitor.for_lifeline(), self._sock.fileno(), self._pid,
                    self._settings.former, self._turn.fileno(),
                    paused=self._paused, lets_run=self._lets_run,
                )  # fmt: skip
                self._prepare(theirs)
        except BaseException:
            self.close()
            raise

    def _prepare(self, theirs: socket.socket) -> None:
        self._settings.change()
        for sock in (self._sock, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._sock.settimeout(_POLL_S)
        self._monitor.send_file(NAME, theirs.fileno())

    def _say(self, sign: bytes) -> None:
        if self._lifeline:
            self._lifeline.say(sign)

    # ------------------------------------------------------------------- the stream

    def receive(self, read_stream: Callable[[ReadInto], None]) -> SnapshotTimes:
        """Take the snapshot. `read_stream` reads all of the stream with the function that it gets.
        MachineError: ECANCELED, it was given up; ECONNRESET, QEMU has ended; else it failed, in
        QEMU's own words; StreamError. The guest then runs on."""
        self._expect_state()
        self._events.clear(on_resume=lambda: self._say(RESUMED))
        begun, begun_wall_ns = time.monotonic(), time.time_ns()
        again = self._pause_again() if self._paused and self._lets_run else None
        try:
            self._migrate()
            watching = self._watch_way()
            try:
                read_stream(self._read_into)
            except StreamError as error:
                if self._received.is_set():
                    watching.join(_EVENT_S)
                raise self._why(error) from error
            if self._lifeline and self._lifeline.has_drained():
                raise stood_still()
            self._whole = True
            total = time.monotonic() - begun
            watching.join(_END_S)
            state = self._wait_for_end()
            if state.status != "completed":
                raise self._failed(state)
            self._expect_its_own_way()
            if again:  # libvirt's events may be late
                self._events.wait_for(RESUME, _EVENT_S)
            self._no_resume.set()
        finally:
            # A guest that QEMU lets run after this was given up is paused again, too.
            if again and self._no_resume.is_set():
                again.join(_END_S)
        return self._times(begun_wall_ns, state.downtime, total)

    def _migrate(self) -> None:
        self._say(BEGUN)
        self._sent = True
        try:
            self._monitor.execute("migrate", {"uri": f"fd:{NAME}"})
        except MachineError as error:
            if error.errno == errno.EINVAL:
                self._sent = False
                self._say(NOT_BEGUN)
            raise

    def _expect_state(self) -> None:
        """QEMU does not survive a background snapshot of a guest in some other states."""
        state = self._monitor.status()
        if state != (PAUSED if self._paused else "running"):
            raise MachineError(
                f"the guest is {state} since a moment ago", errno=errno.EBUSY, hint="try it again"
            )

    def _watch_way(self) -> threading.Thread:
        """Beside the stream, because the monitor may not answer before pages were read. QEMU
        refuses to change capabilities while it migrates, so what is so now stays."""

        def watch() -> None:
            with contextlib.suppress(MachineError):
                state = migration_of(self._monitor).status
                if state in UNDER_WAY and not capabilities_of(self._monitor).get(BACKGROUND):
                    self._ordinary = True  # nothing is protected: cancelling does no harm
                    self._monitor.execute("migrate_cancel")

        thread = threading.Thread(target=watch, name="livedump-way", daemon=True)
        with needing_threads("look after the snapshot"):
            start_thread(thread)
        return thread

    def _stands(self) -> bool:
        """A migration has stopped a guest that ran, and QEMU has not let it run: after a background
        snapshot it always does."""
        return not self._events.time(RESUME) and self._monitor.status() == MIGRATED

    def _expect_its_own_way(self) -> None:
        """MachineError: QEMU has migrated in its usual way, at whose end the guest stands."""
        self._ordinary |= self._stands()
        if self._ordinary:
            raise not_ours()

    def _times(self, begun_wall_ns: int, downtime_ms: int, total: float) -> SnapshotTimes:
        if self._paused:
            return SnapshotTimes(begun_wall_ns, 0, downtime_ms, total)
        # A small guest may be here before its event.
        self._events.wait_for(RESUME, _EVENT_S)
        stopped, resumed = self._events.time(STOP), self._events.time(RESUME)
        return SnapshotTimes(stopped or begun_wall_ns, resumed, downtime_ms, total)

    def _pause_again(self) -> threading.Thread:
        """QEMU before 8.2 lets a guest run that was paused. It is paused again at once."""

        def pause() -> None:
            while not self._events.wait_for(RESUME, _POLL_S):
                if self._no_resume.is_set():
                    return
            with contextlib.suppress(MachineError):
                self._monitor.execute("stop")
                self._say(PAUSED_AGAIN)

        thread = threading.Thread(target=pause, name="livedump-pause", daemon=True)
        with needing_threads("pause the guest again"):
            start_thread(thread)
        return thread

    def _read_into(self, view: memoryview) -> int:
        stalled = time.monotonic() + _STALL_S
        while not self._given_up.is_set():
            with contextlib.suppress(TimeoutError):
                return self._take(view)
            if time.monotonic() > stalled:
                raise MachineError(
                    f"QEMU has sent nothing for {_STALL_S:g} s", errno=errno.ETIMEDOUT
                )
        raise MachineError("the snapshot was given up", errno=errno.ECANCELED)

    def _take(self, view: memoryview) -> int:
        """Bytes that came; 0: there will be no more. TimeoutError: none yet."""
        try:
            got = self._sock.recv_into(view)
        except ConnectionError:
            got = 0
        if not got:
            self._received.set()
        return got

    def _why(self, error: StreamError) -> LivedumpError:
        """What to say of a stream that is not whole: the cause, if it is known."""
        if self._lifeline and self._lifeline.has_drained():
            return stood_still()
        if self._ordinary:
            return not_ours()
        if not self._received.is_set():
            return error
        try:
            state = self._wait_for_end()
        except MachineError as gone:
            if gone.errno not in (errno.ECONNRESET, errno.ENOTCONN):
                return error
            return MachineError(
                "QEMU has ended before all of the memory was here", errno=errno.ECONNRESET
            )
        return error if state.status == "completed" else self._failed(state)

    def _failed(self, state: MigrationState) -> MachineError:
        early = not self._paused and self._events.time(STOP) and not self._events.time(RESUME)
        return failed(state, early=bool(early))

    def _wait_for_end(self) -> MigrationState:
        end = time.monotonic() + _END_S
        while (state := migration_of(self._monitor)).status in UNDER_WAY:
            if time.monotonic() > end:
                raise MachineError("QEMU does not end its snapshot", errno=errno.ETIMEDOUT)
            time.sleep(_POLL_S / 10)
        self._ended = True
        return state

    # -------------------------------------------------------------------- its end

    def give_up(self) -> None:
        """`receive` raises MachineError ECANCELED. Any thread."""
        self._given_up.set()

    def close(self) -> None:
        """Begin the end, and wait for it a moment: see wait(). Harmless when done twice."""
        with self._closing:
            first, self._ending = not self._ending, True
        if first:
            try:
                start_thread(self._end_thread)
            except (RuntimeError, MemoryError):  # no thread
                self._finish()
        self.wait(SHORT_S)

    def wait(self, seconds: float) -> bool:
        """Whether QEMU has its settings back."""
        return self._over.wait(seconds)

    def leave(self) -> None:
        """This process ends: what is left to do is the lifeline's, from let_go() on."""
        self._given_up.set()
        self._left.set()
        self._over.wait(SHORT_S)

    def let_go(self) -> None:
        """The connection to QEMU is closed: before that the lifeline must not use it."""
        if self._lifeline:
            self._lifeline.leave()

    def _finish(self) -> None:
        try:
            self._end()
        except BaseException:  # there is no memory: the lifeline has its own
            try:
                self._monitor.close()
            finally:
                self.let_go()
            raise
        finally:
            self._sock.close()
            self._turn.close()
            self._over.set()

    def _end(self) -> None:
        if not self._sent:  # else QEMU's monitor may not answer until all is read
            with contextlib.suppress(MachineError):
                self._monitor.execute("closefd", {"fdname": NAME})
        if self._drained() and self._bring_back():
            if self._lifeline:
                self._lifeline.close()
        elif not (self._left.is_set() and self._monitor.connected):
            self.let_go()

    def _bring_back(self) -> bool:
        """The stream has ended. False: QEMU is not as it was, and this process or the connection
        ends; the lifeline tries it longer."""
        while not self._brought_back():
            if self._left.wait(_AGAIN_S) or not self._monitor.connected:
                return False
        return True

    def _brought_back(self) -> bool:
        if not self._sent:  # a migration that is under way is another program's
            self._no_resume.set()
            return self._settings.give_back()
        if not self._ended:
            free_silent(self._monitor, self._pid, _SILENT_S)
        try:
            self._wait_for_end()
        except MachineError:
            return False
        self._no_resume.set()
        good = self._settings.give_back()
        repair(self._monitor, self._pid)
        return self._let_run() and good

    def _let_run(self) -> bool:
        """See let_run. False: it is to be tried again."""
        if self._paused:
            return True
        try:
            if not self._has_stopped():
                return True
            let_run(
                asker(self._monitor),
                resumed=bool(self._events.time(RESUME)),
                ordinary=self._whole and self._ordinary,
            )
        except (OSError, MachineError) as error:
            return error.errno == errno.EINVAL  # QEMU refuses: it will again
        return True

    def _has_stopped(self) -> bool:
        """Our migration has stopped the guest; libvirt's events may be late. MachineError."""
        if self._events.time(STOP):
            return True
        return self._monitor.status() == PAUSED and self._events.wait_for(STOP, _EVENT_S)

    def _drained(self) -> bool:
        """Read the rest. False: this process ends before it is here."""
        while not self._received.is_set():
            if self._left.is_set():
                return False
            with contextlib.suppress(TimeoutError):
                self._take(self._rest)
        return True
