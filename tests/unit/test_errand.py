# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on a target that may hang: the caller that asked for it has its result, or it is undone."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest

from livedumpfs.errors import MachineError, StateError, TargetError
from livedumpfs.targets import Errands, errand

DEADLINE_S = 300.0


class Interrupted(BaseException):
    """As KeyboardInterrupt."""


class Work:
    """Counts what becomes of it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.undone = threading.Semaphore(0)
        self.never = 0

    def __call__(self) -> str:
        self.begun.set()
        assert self.go_on.wait(DEADLINE_S)
        return "result"

    def undo(self, result: str) -> None:
        assert result == "result"
        self.undone.release()

    def not_begun(self) -> None:
        self.never += 1

    def run(self, errands: Errands, seconds: float = DEADLINE_S, more: float = 0) -> str:
        return errands.run("it", self, self.undo, seconds, more=more, never=self.not_begun)


@pytest.fixture
def work() -> Work:
    return Work()


def expect_ended(errands: Errands) -> None:
    for thread in errands._late:
        thread.join(DEADLINE_S)
    errands.expect_none()


def test_a_result_is_given(work: Work) -> None:
    assert work.run(Errands()) == "result"
    assert not work.undone.acquire(blocking=False) and not work.never


def test_what_comes_too_late_is_undone(work: Work) -> None:
    errands = Errands()
    work.go_on.clear()
    with pytest.raises(TargetError, match="init_deadline") as caught:
        while not work.begun.is_set():  # a busy machine may not have begun in so short a time
            work.run(errands, 0.1)
    assert caught.value.errno == errno.ETIMEDOUT
    assert "memory" not in str(caught.value.hint)
    with pytest.raises(StateError, match="still hangs"):
        errands.expect_none()
    work.go_on.set()
    expect_ended(errands)
    assert work.undone.acquire(timeout=DEADLINE_S)


def test_there_is_more_time_for_what_the_target_has_no_part_in(work: Work) -> None:
    work.go_on.clear()
    timer = threading.Timer(0.5, work.go_on.set)
    timer.start()
    assert work.run(Errands(), 0.001, DEADLINE_S) == "result"
    timer.join()


@pytest.mark.parametrize("when", ["begun", "done"])
def test_a_result_that_an_interrupted_wait_leaves_is_undone(
    work: Work, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Also when the work is done already: no other thread knows of it."""

    class Thread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            if when == "begun":
                assert work.begun.wait(DEADLINE_S)
            else:
                super().join(timeout)
            monkeypatch.undo()
            raise Interrupted

    errands = Errands()
    if when == "begun":
        work.go_on.clear()
    monkeypatch.setattr(errand.threading, "Thread", Thread)
    with pytest.raises(Interrupted):
        work.run(errands)
    work.go_on.set()
    assert work.undone.acquire(timeout=DEADLINE_S), "no thread has the result"
    assert not work.never
    for thread in errands._late:
        threading.Thread.join(thread, DEADLINE_S)
    errands.expect_none()
    assert not work.undone.acquire(blocking=False), "undone twice"


def test_work_whose_thread_comes_too_late_does_not_begin(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was to work on is closed then."""
    started: list[Any] = []
    monkeypatch.setattr(errand, "start_thread", started.append)
    # Of a thread that has not been started join() raises; here it is one that is not scheduled.
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: None)
    errands = Errands()
    with pytest.raises(TargetError):
        work.run(errands, 0.001)
    monkeypatch.undo()
    assert work.never == 1
    errands.expect_none()
    started[0].start()
    started[0].join(DEADLINE_S)
    assert not work.begun.is_set()


def test_no_thread(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(errand, "start_thread", refuse)
    with pytest.raises(MachineError, match="no room"):
        work.run(Errands())
    assert work.never == 1 and not work.begun.is_set()
