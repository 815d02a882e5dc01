# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks and barriers that hold a program's writers at the instant of a dump."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from livedumpfs import Arena, DumpSettings, LiveDump, StepBarrier, WriterLock
from livedumpfs.errors import MachineError, UsageError
from tests.fixtures.shells import wait_for

LONG_S = 300.0
PATIENT = DumpSettings(quiesce_deadline=LONG_S)


@contextmanager
def threads(*work: Callable[[], None]) -> Iterator[list[BaseException]]:
    """They run meanwhile, and are over behind it."""
    failed: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            failed.append(error)

    made = [
        threading.Thread(target=guarded, args=(one,), name=f"writer-{n}", daemon=True)
        for n, one in enumerate(work)
    ]
    for one in made:
        one.start()
    try:
        yield failed
    finally:
        for one in made:
            one.join(LONG_S)
        assert not any(one.is_alive() for one in made) and not failed, failed


class Pair:
    """Two arrays that are equal, but while they are written."""

    def __init__(self, arena: Arena) -> None:
        self.one, self.other = (
            arena.zeros((2, 900), name="one"),
            arena.zeros((2, 900), name="other"),
        )
        self.over, self.begun = threading.Event(), threading.Barrier(3)

    def change(self, n: int) -> None:
        self.one[n] += 1
        self.other[n] += 1

    def by_steps(self, barrier: StepBarrier, n: int) -> None:
        with barrier:
            self.begun.wait(LONG_S)
            while not self.over.is_set():
                self.change(n)
                barrier.step()

    def by_blocks(self, lock: WriterLock, n: int) -> None:
        self.begun.wait(LONG_S)
        while not self.over.is_set():
            with lock, lock:
                self.change(n)


@pytest.mark.parametrize("kind", [WriterLock, StepBarrier])
def test_each_dump_is_of_whole_blocks_and_whole_steps(kind: type[WriterLock]) -> None:
    holder = kind(LONG_S)
    with Arena("64KiB") as arena, LiveDump(arena, writers=holder) as dump:
        pair = Pair(arena)
        work: Callable[[Any, int], None] = (
            pair.by_steps if isinstance(holder, StepBarrier) else pair.by_blocks
        )
        with threads(lambda: work(holder, 0), lambda: work(holder, 1)):
            pair.begun.wait(LONG_S)
            try:
                for _ in range(20):
                    dump.init(None, PATIENT)
                    dump.start()
                    taken = [dump.snapshot.array(name).tolist() for name in ("one", "other")]
                    dump.release()
                    assert taken[0] == taken[1]
            finally:
                pair.over.set()
        assert pair.one.min() > 0


@pytest.mark.parametrize("kind", [WriterLock, StepBarrier])
def test_a_writer_that_does_not_stop_is_named_and_nothing_stands(kind: type[WriterLock]) -> None:
    holder = kind(0.01)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with holder:
            inside.set()
            leave.wait(LONG_S)

    with Arena("64KiB") as arena, LiveDump(arena, writers=holder) as dump, threads(stay):
        try:
            assert inside.wait(LONG_S)
            dump.init(None, PATIENT)
            with pytest.raises(MachineError, match=r"within 0\.01 s: writer-0 ") as caught:
                dump.start()
            assert caught.value.errno == errno.ETIMEDOUT
            with holder:  # others go on
                pass
        finally:
            leave.set()
        holder.timeout = LONG_S
        dump.start()
        dump.release()


def test_a_thread_that_has_the_lock_may_take_it_again_while_a_start_waits() -> None:
    lock = WriterLock(LONG_S)
    inside, waits = threading.Event(), threading.Event()
    seen: list[str] = []

    def nested() -> None:
        with lock:
            inside.set()
            assert waits.wait(LONG_S)
            wait_for(lambda: lock._held > 0)
            with lock:
                seen.append("nested")
        with lock:
            seen.append("after")

    with threads(nested):
        assert inside.wait(LONG_S)
        waits.set()
        with lock.held():
            seen.append("held")
    assert seen == ["nested", "held", "after"]


def test_a_child_that_is_forked_meanwhile_does_not_wait_for_its_parents_threads() -> None:
    lock = WriterLock(LONG_S)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with lock:
            inside.set()
            leave.wait(LONG_S)

    with threads(stay):
        assert inside.wait(LONG_S)
        lock._held += 1  # as while a START waits
        child = os.fork()
        if not child:
            signal.alarm(60)  # ends it if it waits
            with lock:
                pass
            with lock.held():
                os._exit(7)
        lock.resume()
        leave.set()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_step_of_a_thread_that_has_not_joined() -> None:
    barrier = StepBarrier()
    with pytest.raises(UsageError, match="with barrier: around its loop"):
        barrier.step()
    with barrier, barrier:
        barrier.step()
        assert barrier.busy
    assert not barrier.busy


def test_any_lock_that_writers_take_will_do() -> None:
    for lock in (threading.Lock(), threading.RLock(), threading.Condition()):
        with Arena("64KiB") as arena, LiveDump(arena, writers=lock) as dump:
            dump.init(None, PATIENT)
            dump.start()
            with lock:
                arena.live[0] = 1
            dump.release()


def test_what_cannot_hold_writers_is_refused() -> None:
    with Arena("64KiB") as arena:
        for wrong, said in ((7, "not int"), (WriterLock, "not the class WriterLock")):
            given: Any = wrong
            with pytest.raises(TypeError, match=said):
                LiveDump(arena, writers=given)
        with pytest.raises(UsageError, match="give one of them"):
            LiveDump(arena, writers=WriterLock(), quiesce=print)
        machine = LiveDump(arena).machine
        with pytest.raises(UsageError, match="quiesce, resume and writers go with an arena"):
            LiveDump(machine, writers=WriterLock())
