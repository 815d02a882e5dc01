# SPDX-License-Identifier: GPL-2.0-or-later
"""A thread that a machine waits for runs before all ordinary threads, and no longer than that."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.errors import LivedumpError
from livedumpfs.machines import UnicornMachine
from tests.fixtures.own_threads import vcpu_threads
from tests.fixtures.program_files import program_command
from tests.fixtures.urgency import needs_right

MIB = 1 << 20
RAM = 8 * MIB
DEADLINE_S = 300.0
NICE = 3
HOGS = 4

if not hasattr(os, "sched_setscheduler"):
    pytest.skip("no scheduling policies", allow_module_level=True)


@contextlib.contextmanager
def crowded(thread: int) -> Iterator[None]:
    """The thread hardly ever gets its processor; this one has another, where there are two."""
    all_of_them = os.sched_getaffinity(0)
    theirs, *others = sorted(all_of_them)
    command = ["nice", "-n", "-20", sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as stack:
        for _ in range(HOGS):
            hog = stack.enter_context(subprocess.Popen(command))
            stack.callback(hog.kill)
            os.sched_setaffinity(hog.pid, {theirs})
        os.sched_setaffinity(thread, {theirs})
        os.sched_setaffinity(0, set(others) or all_of_them)
        stack.callback(os.sched_setaffinity, 0, all_of_them)
        yield


@pytest.fixture
def machine() -> Iterator[UnicornMachine]:
    with UnicornMachine(RAM) as machine:
        machine.wait_ready(DEADLINE_S)
        yield machine


def until_ordinary(thread: int) -> None:
    end = time.monotonic() + DEADLINE_S
    while os.sched_getscheduler(thread) != os.SCHED_OTHER:
        assert time.monotonic() < end, "it still runs before all others"
        time.sleep(0.01)


@needs_right
def test_a_vcpu_that_waits_for_a_processor_gets_one(machine: UnicornMachine) -> None:
    (thread,) = vcpu_threads()
    os.setpriority(os.PRIO_PROCESS, thread, NICE)
    raised = 0
    end = time.monotonic() + DEADLINE_S
    with crowded(thread):
        while raised < 3:
            assert time.monotonic() < end, "it was always there at once, or never raised"
            machine.quiesce(DEADLINE_S)
            raised += os.sched_getscheduler(thread) == os.SCHED_FIFO
            machine.resume()
            until_ordinary(thread)
    assert os.getpriority(os.PRIO_PROCESS, thread) == NICE


@needs_right
def test_its_registers_come_soon_too(machine: UnicornMachine) -> None:
    (thread,) = vcpu_threads()
    with crowded(thread):
        for _ in range(20):
            machine.registers(DEADLINE_S)
            until_ordinary(thread)


@needs_right
def test_what_the_owner_chose_stays(machine: UnicornMachine) -> None:
    (thread,) = vcpu_threads()
    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
    with crowded(thread):
        for _ in range(3):
            machine.quiesce(DEADLINE_S)
            assert os.sched_getscheduler(thread) == os.SCHED_BATCH
            machine.resume()


@needs_right
def test_who_does_start_is_ordinary_afterwards() -> None:
    policies = []

    class Late(Exception):
        pass

    def quiesce() -> None:
        if len(policies) == 1:
            raise Late

    def resume() -> None:
        policies.append(os.sched_getscheduler(0))

    with Arena(MIB) as arena, LiveDump(arena, quiesce=quiesce, resume=resume) as live:
        live.init(None)
        live.start()
        live.release()
        live.init(None)
        with pytest.raises(Late):
            live.start()
    assert policies == [os.SCHED_OTHER]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@needs_right
def test_a_vcpu_that_does_not_come_in_time_is_ordinary_again(machine: UnicornMachine) -> None:
    """A stop that is asked for with no time at all."""
    (thread,) = vcpu_threads()
    settings = DumpSettings(quiesce_deadline=1e-9)
    failed = 0
    end = time.monotonic() + DEADLINE_S
    with crowded(thread), LiveDump(machine) as live:
        while not failed:
            assert time.monotonic() < end, "it was always in time"
            live.init(None, settings)
            try:
                live.start()
            except (LivedumpError, OSError):
                failed += 1
            live.release()
            until_ordinary(thread)
            assert os.sched_getscheduler(0) == os.SCHED_OTHER
        machine.quiesce(DEADLINE_S)
        machine.resume()


def test_without_the_right_all_goes_on_as_it_was() -> None:
    unable = ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"]
    words = program_command(__file__, "without_the_right.py", str(RAM), str(DEADLINE_S))
    done = subprocess.run(
        [*unable, "prlimit", "--rtprio=0:0", *words],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done
