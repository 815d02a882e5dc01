# SPDX-License-Identifier: GPL-2.0-or-later
"""A step by dump id is taken for that dump or not at all, whatever other clients do meanwhile; and
SWEEP, RELEASE and STATUS by id."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from livedumpfs import abi
from livedumpfs.abi import AnswerFlag, InitFlag, State
from livedumpfs.control import Access
from livedumpfs.dump import appointment
from livedumpfs.errors import StateError
from tests.fixtures.control_bench import Bench
from tests.unit.test_steps_by_id import DEADLINE, ONE, OTHER, hold, init, refused, step


def state(bench: Bench) -> State:
    """Now."""
    return bench.state


def status(bench: Bench, dump_id: bytes) -> abi.StatusId:
    request = abi.StatusId(status=abi.Status(version=abi.VERSION))
    request.dump_id[:] = list(dump_id)
    found = bench.ioctl(abi.STATUS_ID, payload=bytes(request))
    return abi.StatusId.from_buffer_copy(found)


def test_release_of_a_dump_and_of_no_other(bench: Bench) -> None:
    refused(errno.ESTALE, lambda: step(bench, abi.RELEASE_ID, ONE))
    init(bench)
    refused(errno.ESTALE, lambda: step(bench, abi.RELEASE_ID, OTHER), OTHER.hex())
    assert state(bench) is State.INIT and not bench.dump.releases
    assert step(bench, abi.RELEASE_ID).answer == 0 and state(bench) is State.UNINIT
    assert "by process" in (bench.dump.released or "")
    assert step(bench, abi.RELEASE_ID).answer == AnswerFlag.ALREADY
    init(bench, OTHER)
    assert step(bench, abi.RELEASE_ID).answer == AnswerFlag.ALREADY and state(bench) is State.INIT
    assert step(bench, abi.RELEASE_ID, bytes(16)).answer == 0 and state(bench) is State.UNINIT


def test_release_of_a_dump_whose_init_is_under_way(bench: Bench) -> None:
    entered, go = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        assert go.wait(DEADLINE)

    bench.dump.in_init = slow
    thread = threading.Thread(target=lambda: init(bench))
    thread.start()
    assert entered.wait(DEADLINE)
    refused(errno.EINPROGRESS, lambda: step(bench, abi.RELEASE_ID), "INIT of this dump")
    refused(errno.ESTALE, lambda: step(bench, abi.RELEASE_ID, OTHER))
    go.set()
    thread.join(DEADLINE)
    assert step(bench, abi.RELEASE_ID).answer == 0 and state(bench) is State.UNINIT


def test_a_close_releases_its_own_dump_only(bench: Bench) -> None:
    """The number of the open file may be another's by then."""
    bench.init(InitFlag.NO_TARGET | InitFlag.RELEASE_ON_CLOSE, handle=7)
    bench.dump.release()
    init(bench)
    bench.control.closed(7)
    assert state(bench) is State.INIT
    bench.dump.release()
    bench.init(InitFlag.NO_TARGET | InitFlag.RELEASE_ON_CLOSE, handle=7)
    bench.control.closed(8)
    assert state(bench) is State.INIT
    bench.control.closed(7)
    assert state(bench) is State.UNINIT


def test_sweep_may_be_sent_twice(bench: Bench) -> None:
    init(bench)
    refused(errno.EINVAL, lambda: step(bench, abi.SWEEP_ID))
    bench.dump.start()
    refused(errno.ESTALE, lambda: step(bench, abi.SWEEP_ID, OTHER))
    assert step(bench, abi.SWEEP_ID).answer == 0 and state(bench) is State.SWEEP
    assert step(bench, abi.SWEEP_ID).answer == AnswerFlag.ALREADY
    bench.dump.finish()
    assert step(bench, abi.SWEEP_ID).answer == AnswerFlag.ALREADY
    refused(errno.EINVAL, lambda: step(bench, abi.SWEEP_ID, bytes(16)))
    refused(errno.EINVAL, lambda: step(bench, abi.SWEEP_ID, flags=1))
    bench.dump.release()
    refused(errno.ESTALE, lambda: step(bench, abi.SWEEP_ID))


def test_status_of_a_dump_until_there_is_another(bench: Bench) -> None:
    refused(errno.ESTALE, lambda: status(bench, ONE))
    assert bytes(status(bench, bytes(16)).dump_id) == bytes(16)
    init(bench)
    refused(errno.ESTALE, lambda: status(bench, OTHER), OTHER.hex())
    for dump_id in (ONE, bytes(16)):
        found = status(bench, dump_id)
        assert bytes(found.dump_id) == ONE and found.status.state == State.INIT
    bench.dump.release()
    assert status(bench, ONE).status.state == State.UNINIT
    init(bench, OTHER)
    refused(errno.ESTALE, lambda: status(bench, ONE))


def test_status_of_another_dump_is_not_given_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client's RELEASE and INIT come between the look at the id and the look at the dump,
    or after both."""
    init(bench)
    real = bench.control._status

    def late() -> abi.Status:
        bench.dump.release()
        init(bench, OTHER)
        return real()

    monkeypatch.setattr(bench.control, "_status", late)
    refused(errno.ESTALE, lambda: status(bench, ONE))


STEPS: dict[str, tuple[Callable[[Bench], Any], Callable[[Bench], Any]]] = {
    "start": (lambda bench: None, lambda bench: step(bench, abi.START_TYPED)),
    "hold": (lambda bench: None, hold),
    "arm": (hold, lambda bench: step(bench, abi.ARM)),
    "go": (lambda bench: (hold(bench), step(bench, abi.ARM)), lambda bench: step(bench, abi.GO)),
    "sweep": (lambda bench: bench.dump.start(), lambda bench: step(bench, abi.SWEEP_ID)),
}


@pytest.mark.parametrize("name", STEPS)
def test_another_dump_comes_before_the_step_is_taken(bench: Bench, name: str) -> None:
    """RELEASE and INIT of another client, once the id was looked at."""
    before, take = STEPS[name]
    init(bench)
    before(bench)
    by_id = bench.control._by_id
    real, left = by_id._one_step, [True]

    @contextmanager
    def late(doing: str) -> Iterator[None]:
        if left:
            left.clear()
            bench.dump.release()
            init(bench, OTHER)
            if name in ("go", "sweep"):  # a state in which the step would do something
                bench.dump.start()
        with real(doing):
            yield

    by_id._one_step = late
    refused(errno.ESTALE, lambda: take(bench))
    assert bench.dump.dump_id == OTHER and not bench.dump.is_held
    assert state(bench) is (State.START if name in ("go", "sweep") else State.INIT)


def test_another_dump_comes_before_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its times are not those of the one that was asked for."""
    init(bench)
    real = bench.dump.counters

    def late() -> Any:
        monkeypatch.setattr(bench.dump, "counters", real)
        bench.dump.release()
        init(bench, OTHER)
        return real()

    monkeypatch.setattr(bench.dump, "counters", late)
    refused(errno.ESTALE, lambda: step(bench, abi.START_TYPED))


def test_init_that_ends_just_before_it_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ALREADY then, not EBUSY."""
    by_id = bench.control._by_id
    real, left = by_id._marked, [True]

    @contextmanager
    def late(doing: str, dump_id: bytes) -> Iterator[None]:
        if left:
            left.clear()
            init(bench)
        with real(doing, dump_id):
            yield

    monkeypatch.setattr(by_id, "_marked", late)
    assert init(bench).answer == AnswerFlag.ALREADY


# ------------------------------------------------------------------------- START at a time


def agreed(bench: Bench, at_ns: int, dump_id: bytes = ONE, **members: int) -> abi.StepRequest:
    return step(bench, abi.START_TYPED, dump_id, at_ns=at_ns, **members)


def test_a_start_to_come_is_of_its_own_dump(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another dump is there by then, just before it is taken."""
    init(bench)
    real, left = bench.control._by_id._one_step, [True]

    @contextmanager
    def late(doing: str) -> Iterator[None]:
        if left:
            left.clear()
            bench.dump.release()
            init(bench, OTHER)
        with real(doing):
            yield

    monkeypatch.setattr(bench.control._by_id, "_one_step", late)
    refused(errno.ESTALE, lambda: agreed(bench, time.time_ns(), late_ns=abi.AHEAD_MOST_NS))
    assert state(bench) is State.INIT


def test_a_start_that_is_busy_ends_with_its_dump(bench: Bench) -> None:
    """It does not go on for as long as it may be late."""
    init(bench)

    def busy() -> None:
        bench.dump.release()
        raise StateError("another step is under way", errno=errno.EBUSY)

    bench.dump.in_start = busy
    refused(errno.ECANCELED, lambda: agreed(bench, time.time_ns(), late_ns=abi.AHEAD_MOST_NS))


def test_how_late_a_start_may_be(bench: Bench) -> None:
    init(bench)
    refused(errno.ERANGE, lambda: agreed(bench, time.time_ns(), late_ns=abi.AHEAD_MOST_NS + 1))
    assert state(bench) is State.INIT


class Clock:
    """The wall clock of appointment.py, which is set."""

    def __init__(self) -> None:
        self.ahead_ns = 0
        self.looks: list[Callable[[], None]] = []
        """What happens at each look, one after the other."""

    def time_ns(self) -> int:
        """As time.time_ns."""
        if self.looks:
            self.looks.pop(0)()
        return time.time_ns() + self.ahead_ns

    def set_by(self, seconds: float) -> Callable[[], None]:
        """Set it, when called."""

        def turn() -> None:
            self.ahead_ns += int(seconds * 1e9)

        return turn

    sleep = staticmethod(time.sleep)


def test_a_clock_that_is_set_back_by_years(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where START was agreed on by such a clock: no dump waits for years."""
    init(bench)
    clock = Clock()
    monkeypatch.setattr(appointment, "time", clock)
    clock.looks = [clock.set_by(0)] * 3 + [clock.set_by(-1e8)]
    refused(errno.ERANGE, lambda: agreed(bench, time.time_ns() + 10**9), "are the clocks right")
    assert state(bench) is State.INIT


def test_a_clock_that_is_set_back_a_little(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last sleep: START waits for its time again."""
    init(bench)
    clock = Clock()
    monkeypatch.setattr(appointment, "time", clock)
    waits: list[int] = []

    def wait(at_ns: int) -> bool:
        if not waits:
            clock.ahead_ns -= 10**8
        waits.append(clock.time_ns())
        return False

    monkeypatch.setattr(appointment, "lib", SimpleNamespace(ldfs_wall_wait=wait))
    at_ns = time.time_ns()
    agreed(bench, at_ns, late_ns=abi.AHEAD_MOST_NS)
    assert waits[0] < at_ns and len(waits) > 1 and clock.time_ns() >= at_ns


# ---------------------------------------------------------------------------- the longest hold


@pytest.mark.parametrize(
    ("longest_s", "said"), [(0.0, "may not be held at all"), (0.5, "be held for more than 0.5 s")]
)
def test_the_longest_hold_of_a_host(longest_s: float, said: str) -> None:
    bench = Bench(Access(longest_hold_s=longest_s))
    init(bench)
    refused(errno.EPERM, lambda: hold(bench), said)
    assert not bench.dump.is_held
    if longest_s:
        step(bench, abi.HOLD, hold_ns=int(longest_s * 1e9))
        assert bench.dump.is_held
