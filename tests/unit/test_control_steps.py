# SPDX-License-Identifier: GPL-2.0-or-later
"""Control without a mount and without a core: the order of the steps."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from livedumpfs import abi
from livedumpfs.abi import InitFlag, State
from tests.fixtures.control_bench import Bench, Failure
from tests.fixtures.refusals import refused

DEADLINE = 300.0


def test_the_script_of_suse(bench: Bench, tmp_path: Path) -> None:
    """It looks at the first line of state, writes output, then 1 to 5, each with a newline."""
    assert bench.read("control/state").splitlines()[0] == "0"
    bench.write("control/output", f"{tmp_path / 'out'}\n")
    bench.write("control/state", "1\n")
    bench.write("control/state", "2\n")
    bench.write("control/state", "3\n")
    assert bench.state is State.SWEEP
    bench.dump.in_wait = bench.dump.finish
    bench.write("control/state", "4\n")
    assert bench.state is State.FINISH
    bench.write("control/state", "5\n")
    assert bench.state is State.UNINIT
    assert bench.dump.settings.format == "elf"


def test_state_shows_a_number_an_empty_line_and_a_legend(bench: Bench) -> None:
    lines = bench.read("control/state").splitlines()
    assert lines[:3] == ["0", "", "LIVEDUMP_STATE_UNDEFINED = 0"]
    assert lines[-1] == "LIVEDUMP_STATE_UNINIT = 5"


@pytest.mark.parametrize("step", ["0", "6", "", "x", "1 2", "-1"])
def test_what_is_no_step_is_refused(bench: Bench, step: str) -> None:
    refused(errno.EINVAL, lambda: bench.write("control/state", step))


@pytest.mark.parametrize("command", [abi.START, abi.SWEEP])
def test_steps_before_init_are_refused(bench: Bench, command: int) -> None:
    refused(errno.EINVAL, lambda: bench.ioctl(command))
    assert bench.state is State.UNDEFINED


def test_finish_before_sweep_is_refused(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    refused(errno.EINVAL, lambda: bench.write("control/state", "4"))


def test_a_second_init_is_busy_and_opens_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.init()
    path = tmp_path / "second"
    refused(errno.EBUSY, lambda: bench.init(InitFlag(0), path=os.fsencode(path)))
    assert not path.exists()


def test_release_is_allowed_in_every_state(bench: Bench) -> None:
    bench.ioctl(abi.RELEASE)
    bench.ioctl(abi.RELEASE)
    steps = [bench.init, lambda: bench.ioctl(abi.START), bench.dump.sweep, bench.dump.finish]
    for upto in range(1, len(steps) + 1):
        for step in steps[:upto]:
            step()
        bench.ioctl(abi.RELEASE)
        assert bench.state is State.UNINIT


def test_plain_sweep_returns_at_the_end(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    bench.dump.in_wait = bench.dump.finish
    bench.ioctl(abi.SWEEP)
    assert bench.state is State.FINISH


def test_release_wakes_who_waits_for_the_sweep(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    bench.dump.in_wait = lambda: bench.control.ioctl(abi.RELEASE, 0, b"", bench.caller, 2)
    refused(errno.ECANCELED, lambda: bench.ioctl(abi.SWEEP))


def test_a_failed_dump_gives_its_errno_and_stays_to_be_looked_at(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    bench.dump.failure = "cannot write page 0x1f3a to /dev/x: No space left on device"
    bench.dump.now.failure = Failure(1, errno.ENOSPC, 0x1F3A)
    bench.dump.in_wait = bench.dump.finish
    refused(errno.ENOSPC, lambda: bench.ioctl(abi.SWEEP))
    assert bench.read("control/error").strip() == bench.dump.failure
    assert bench.state is State.FINISH


def test_typed_sweep_can_return_at_once(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    request = abi.Sweep(version=abi.VERSION, flags=abi.SweepFlag.ASYNC)
    bench.ioctl(abi.SWEEP_TYPED, payload=bytes(request))
    assert bench.state is State.SWEEP


def test_who_comes_during_a_step_does_not_wait(bench: Bench) -> None:
    entered, go = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        assert go.wait(DEADLINE)

    bench.dump.in_init = slow
    thread = threading.Thread(target=bench.init)
    thread.start()
    try:
        assert entered.wait(DEADLINE)
        refused(errno.EBUSY, lambda: bench.ioctl(abi.START))
        refused(errno.EBUSY, lambda: bench.write("control/policy", "fail"))
        assert bench.state is State.UNDEFINED
        bench.ioctl(abi.RELEASE)
    finally:
        go.set()
        thread.join(DEADLINE)
    assert bench.state is State.INIT


def test_release_on_close_goes_with_its_own_open_file_only(bench: Bench) -> None:
    bench.init(InitFlag.NO_TARGET | InitFlag.RELEASE_ON_CLOSE, handle=7)
    bench.control.closed(6)
    assert bench.state is State.INIT
    bench.control.closed(7)
    assert bench.state is State.UNINIT
    bench.init(handle=8)
    bench.control.closed(7)
    bench.control.closed(8)
    assert bench.state is State.INIT


def test_a_host_that_ends_releases_and_takes_no_more_steps(bench: Bench) -> None:
    bench.init()
    bench.control.close()
    assert bench.state is State.UNINIT
    refused(errno.ESHUTDOWN, bench.init)
