# SPDX-License-Identifier: GPL-2.0-or-later
"""INIT, START, HOLD, ARM and GO by dump id: a step that is sent twice, with another dump's id, in
the wrong order, at a time to come."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from livedumpfs import abi
from livedumpfs.abi import AnswerFlag, InitFlag, State, StepFlag
from livedumpfs.errors import StateError
from tests.fixtures.control_bench import Bench

DEADLINE = 300.0
ONE, OTHER = bytes(range(16)), bytes(range(1, 17))


def refused(number: int, step: Callable[[], object], said: str = "") -> None:
    with pytest.raises(OSError) as caught:
        step()
    assert caught.value.errno == number and said in str(caught.value)


def init(bench: Bench, dump_id: bytes = ONE, **members: Any) -> abi.InitId:
    asked = abi.Init(version=abi.VERSION, flags=InitFlag.NO_TARGET)
    request = abi.InitId(init=asked, **members)
    request.dump_id[:] = list(dump_id)
    return abi.InitId.from_buffer_copy(bench.ioctl(abi.INIT_ID, payload=bytes(request)))


def step(bench: Bench, command: int, dump_id: bytes = ONE, **members: int) -> abi.StepRequest:
    request = abi.StepRequest(**{"version": abi.VERSION, **members})
    request.dump_id[:] = list(dump_id)
    return abi.StepRequest.from_buffer_copy(bench.ioctl(command, payload=bytes(request)))


def hold(bench: Bench, dump_id: bytes = ONE) -> abi.StepRequest:
    return step(bench, abi.HOLD, dump_id, hold_ns=10**9)


def test_init_under_an_id_may_be_sent_twice(bench: Bench) -> None:
    found = init(bench)
    assert bytes(found.dump_id) == ONE and not found.answer
    assert bench.read("control/id") == ONE.hex() + "\n"
    for take in (lambda: None, lambda: step(bench, abi.START_TYPED), bench.dump.sweep):
        take()
        found = init(bench)
        assert bytes(found.dump_id) == ONE and found.answer == AnswerFlag.ALREADY
    refused(errno.EBUSY, lambda: init(bench, OTHER))
    bench.ioctl(abi.RELEASE)
    refused(errno.ESTALE, lambda: init(bench), f"INIT: dump {ONE.hex()} was released")
    assert init(bench, OTHER).answer == 0
    bench.ioctl(abi.RELEASE)
    refused(errno.ESTALE, lambda: init(bench))


def test_an_id_of_the_hosts_choice(bench: Bench) -> None:
    chosen = bytes(init(bench, bytes(16)).dump_id)
    assert chosen != bytes(16) and bench.read("control/id") == chosen.hex() + "\n"
    assert step(bench, abi.START_TYPED, chosen).answer == 0


def test_a_base_for_an_increment(bench: Bench) -> None:
    """It is handed on as it is; what the host has is in control/bases, the newest first."""
    assert bench.read("control/bases") == ""
    bench.dump.bases = [ONE, OTHER]
    assert bench.read("control/bases") == f"{ONE.hex()}\n{OTHER.hex()}\n"
    init(bench, since=(ctypes.c_uint8 * len(OTHER))(*OTHER))
    assert bench.dump.since == OTHER
    bench.ioctl(abi.RELEASE)
    init(bench, bytes(16))
    assert bench.dump.since == b""


@pytest.mark.parametrize("member", ["answer", "reserved"])
def test_members_that_must_be_0(bench: Bench, member: str) -> None:
    refused(errno.EINVAL, lambda: init(bench, **{member: 1}))
    options = (abi.InitId(init=abi.Init(version=abi.VERSION)).options.__class__)(1)
    refused(errno.EINVAL, lambda: init(bench, options=options))
    init(bench)
    for command in (abi.START_TYPED, abi.ARM, abi.GO):
        refused(errno.EINVAL, lambda command=command: step(bench, command, **{member: 1}))
        refused(errno.EINVAL, lambda command=command: step(bench, command, flags=4))
        refused(errno.EINVAL, lambda command=command: step(bench, command, hold_ns=1))
        refused(errno.EPROTO, lambda command=command: step(bench, command, version=2))
    refused(errno.EINVAL, lambda: step(bench, abi.ARM, at_ns=1))
    refused(errno.EINVAL, lambda: step(bench, abi.START_TYPED, late_ns=1))
    refused(errno.EINVAL, lambda: step(bench, abi.START_TYPED, flags=StepFlag.ASYNC))


def test_start_may_be_sent_twice(bench: Bench) -> None:
    refused(errno.EINVAL, lambda: step(bench, abi.START_TYPED))
    init(bench)
    refused(errno.ESTALE, lambda: step(bench, abi.START_TYPED, OTHER), "not the dump of this host")
    first = step(bench, abi.START_TYPED)
    again = step(bench, abi.START_TYPED)
    assert first.answer == 0 and again.answer == AnswerFlag.ALREADY
    assert first.instant_wall_ns == again.instant_wall_ns > 0
    refused(errno.EINVAL, lambda: step(bench, abi.START_TYPED, bytes(16)))
    bench.dump.sweep()
    assert step(bench, abi.START_TYPED).instant_wall_ns == first.instant_wall_ns
    bench.ioctl(abi.RELEASE)
    refused(errno.ESTALE, lambda: step(bench, abi.START_TYPED), "was released")


def test_hold_arm_and_go_may_be_sent_twice(bench: Bench) -> None:
    refused(errno.EINVAL, lambda: hold(bench))
    init(bench)
    for command in (abi.ARM, abi.GO):
        refused(errno.ESTALE, lambda command=command: step(bench, command, OTHER))
    assert hold(bench).answer == 0 and hold(bench).answer == AnswerFlag.ALREADY
    assert step(bench, abi.ARM).answer == 0
    assert step(bench, abi.ARM).answer == AnswerFlag.ALREADY
    assert bench.state is State.START
    assert step(bench, abi.GO).answer == 0
    assert step(bench, abi.GO).answer == AnswerFlag.ALREADY


def test_a_step_that_is_under_way(bench: Bench) -> None:
    """The same call again is told so; another is busy, as ever."""
    init(bench)
    entered, go = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        assert go.wait(DEADLINE)

    bench.dump.in_start = slow
    thread = threading.Thread(target=lambda: step(bench, abi.START_TYPED))
    thread.start()
    assert entered.wait(DEADLINE)
    refused(errno.EINPROGRESS, lambda: step(bench, abi.START_TYPED))
    refused(errno.EBUSY, lambda: hold(bench))
    go.set()
    thread.join(DEADLINE)
    assert step(bench, abi.START_TYPED).answer == AnswerFlag.ALREADY


def agreed(bench: Bench, at_ns: int, **members: int) -> abi.StepRequest:
    return step(bench, abi.START_TYPED, at_ns=at_ns, **members)


def test_start_at_a_time(bench: Bench) -> None:
    """By a thread of the host, also when no client asks for it any more."""
    init(bench)
    at_ns = time.time_ns() + 200_000_000
    first = agreed(bench, at_ns, flags=StepFlag.ASYNC)
    assert first.answer == AnswerFlag.PENDING and not first.instant_wall_ns
    assert agreed(bench, at_ns, flags=StepFlag.ASYNC).answer == AnswerFlag.PENDING
    refused(errno.EBUSY, lambda: agreed(bench, at_ns + 1, flags=StepFlag.ASYNC), "another time")
    end = time.monotonic() + DEADLINE
    while bench.state is State.INIT:
        assert time.monotonic() < end
        time.sleep(0.005)
    found = agreed(bench, at_ns)
    assert found.answer == AnswerFlag.ALREADY and found.instant_wall_ns >= at_ns


def test_start_at_a_time_meets_another_step(bench: Bench) -> None:
    init(bench)
    left = [3]

    def busy() -> None:
        left[0] -= 1
        if left[0]:
            raise StateError("another step is under way", errno=errno.EBUSY)

    bench.dump.in_start = busy
    found = agreed(bench, time.time_ns(), late_ns=int(DEADLINE * 1e9))
    assert found.instant_wall_ns and left == [0]


def test_start_at_a_time_that_is_waited_for(bench: Bench) -> None:
    init(bench)
    at_ns = time.time_ns() + 50_000_000
    found = agreed(bench, at_ns, late_ns=int(DEADLINE * 1e9))
    assert found.answer == 0 and found.instant_wall_ns >= at_ns


def test_a_time_that_cannot_be(bench: Bench) -> None:
    init(bench)
    now = time.time_ns()
    refused(errno.ETIME, lambda: agreed(bench, now - 10**9), "its time passed 1.0")
    refused(errno.ERANGE, lambda: agreed(bench, now + abi.AHEAD_MOST_NS + 10**10), "ahead, more")
    assert bench.state is State.INIT
    assert agreed(bench, now, late_ns=int(DEADLINE * 1e9)).instant_wall_ns


def test_release_ends_the_wait(bench: Bench) -> None:
    init(bench)
    at_ns = time.time_ns() + 500 * 10**9
    agreed(bench, at_ns, flags=StepFlag.ASYNC)
    errors: list[int | None] = []

    def wait() -> None:
        try:
            agreed(bench, at_ns)
        except OSError as error:
            errors.append(error.errno)

    thread = threading.Thread(target=wait)
    thread.start()
    bench.ioctl(abi.RELEASE)
    thread.join(DEADLINE)
    assert errors in ([errno.ECANCELED], [errno.ESTALE])
    init(bench, os.urandom(16))


def test_a_start_at_a_time_that_fails_may_come_again(bench: Bench) -> None:
    init(bench)

    def late() -> None:
        raise OSError(errno.ETIMEDOUT, "late")

    bench.dump.in_start = late
    at_ns = time.time_ns()
    members = {"late_ns": int(DEADLINE * 1e9)}
    refused(errno.ETIMEDOUT, lambda: agreed(bench, at_ns, **members))
    assert bench.state is State.INIT
    bench.dump.in_start = lambda: None
    assert agreed(bench, at_ns, **members).instant_wall_ns
