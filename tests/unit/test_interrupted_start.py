# SPDX-License-Identifier: GPL-2.0-or-later
"""START that fails late, or that a signal's handler ends by an exception: the machine that was held
goes on, nothing stays protected, and nothing is taken for an instant that is none."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings, DumpState
from livedumpfs.machines import Registers, ThreadMachine
from tests.fixtures.own_threads import files_of_threads

MIB = 1 << 20
DEADLINE_S = 300.0
COPIED = 64 * MIB
CPU_S = 1e-3
"""More than quiesce takes after it has set the timer, and less than to copy COPIED."""
CLOCK_NANOSLEEP = "230 " if platform.machine() == "x86_64" else "115 "
"""In /proc/PID/syscall; processors that Linux knows since 2012 have the same numbers."""


class Interrupted(BaseException):
    """As KeyboardInterrupt, which would end pytest."""


def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Both signals raise Interrupted on the thread of the test."""
    before = {one: signal.signal(one, interrupt) for one in (signal.SIGUSR1, signal.SIGPROF)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        for one, handler in before.items():
            signal.signal(one, handler)


class Calls(list[str]):
    """What was called."""

    def quiesce(self) -> None:
        self.append("quiesce")

    def resume(self) -> None:
        self.append("resume")


def expect_free(live: LiveDump, state: DumpState) -> None:
    """Nothing is armed, and a dump can be released or made as ever."""
    assert live.state is state
    arena = live.machine.arena
    assert isinstance(arena, Arena)
    before = live.counters().faults
    arena.live[:MIB] = 2
    assert live.counters().faults == before
    live.release()
    live.init(None)
    live.start()
    arena.live[:MIB] = 3
    assert live.read(0, MIB).count(2) == MIB
    live.release()


def test_a_signal_before_quiesce_makes_no_instant(tmp_path: Path) -> None:
    """It comes while START waits for a thread that blocks the signal."""
    calls, blocks = Calls(), threading.Event()
    # Threads of other tests' machines may sleep, too.
    others = files_of_threads("syscall").keys() - {threading.get_native_id()}

    def looks() -> bool:
        waiting = (call for tid, call in files_of_threads("syscall").items() if tid not in others)
        return any(call.startswith(CLOCK_NANOSLEEP) for call in waiting)

    wait = threading.Event()

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGSEGV})
        blocks.set()
        end = time.monotonic() + DEADLINE_S
        while not looks() and time.monotonic() < end:
            wait.wait(1e-4)  # by another system call
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGSEGV})

    blocker = threading.Thread(target=block)
    with Arena(MIB) as arena, LiveDump(arena, quiesce=calls.quiesce, resume=calls.resume) as live:
        arena.live[:] = 1
        live.init(tmp_path / "dump", DumpSettings(backend="sigsegv"))
        blocker.start()
        blocks.wait(DEADLINE_S)
        with pytest.raises(Interrupted):
            live.start()
        blocker.join()
        assert calls == []
        expect_free(live, DumpState.INIT)


def test_a_signal_in_the_pause_holds_nobody(tmp_path: Path) -> None:
    """It comes while the memory is copied for tests, which stands for any long pause."""
    calls = Calls()

    def quiesce() -> None:
        calls.quiesce()
        signal.setitimer(signal.ITIMER_PROF, CPU_S)

    with (
        (tmp_path / "reference").open("wb+") as reference,
        Arena(COPIED) as arena,
        LiveDump(arena, quiesce=quiesce, resume=calls.resume) as live,
    ):
        arena.live[:] = 1
        live.init(tmp_path / "dump", reference=reference.fileno())
        with pytest.raises(Interrupted):
            live.start()
        assert calls == ["quiesce", "resume"]
        assert (live.verdict, live.released) == (
            "incomplete",
            "released by a START that failed in state INIT, before it was sealed",
        )
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        expect_free(live, DumpState.UNINIT)


def test_resume_that_fails_leaves_nothing_armed() -> None:
    calls, fails = Calls(), [True]

    def resume() -> None:
        calls.resume()
        if fails:
            fails.clear()
            raise RuntimeError("cannot go on")

    with Arena(MIB) as arena, LiveDump(arena, quiesce=calls.quiesce, resume=resume) as live:
        arena.live[:] = 1
        live.init(None)
        with pytest.raises(RuntimeError, match="cannot go on"):
            live.start()
        assert calls == ["quiesce", "resume"], "once for each quiesce"
        expect_free(live, DumpState.UNINIT)


class WithoutRegisters(ThreadMachine):
    """Once."""

    fails = True

    def snapshot_registers(self) -> list[Registers]:
        if self.fails:
            self.fails = False
            raise ValueError("no registers")
        return []


def test_registers_that_cannot_be_had_leave_nothing_armed() -> None:
    with Arena(MIB) as arena, LiveDump(WithoutRegisters(arena)) as live:
        arena.live[:] = 1
        live.init(None, DumpSettings(max_age=1000))
        with pytest.raises(ValueError, match="no registers"):
            live.start()
        expect_free(live, DumpState.UNINIT)
