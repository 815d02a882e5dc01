# SPDX-License-Identifier: GPL-2.0-or-later
"""The threads that a stopped QEMU guest waits for run before all ordinary threads, and none of them
any longer than the stop, however that ends."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aftermath import wait_for

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu import QemuMachine, urgent
from livedumpfs.machines.qemu.urgent import Urgent
from livedumpfs.proc import proc_text
from tests.fixtures.program_files import program_command, program_file
from tests.fixtures.urgency import needs_right
from tests.qemu.small_guests import held_by, let_pause

BASE = (
    "qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M",
    "-smp", "2",
)  # fmt: skip
UNABLE = ("setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice")
RAISED = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
DEADLINE_S = 300.0
LONG_S = 60.0
"""A pause that does not end by itself while a test looks."""


def policies(pid: int) -> dict[int, int]:
    """By thread id."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/task"):
        try:
            found[int(name)] = os.sched_getscheduler(int(name))
        except ProcessLookupError:
            continue
    return found


def comm(thread: int) -> str:
    return proc_text(f"/proc/{thread}/comm").strip()


def vcpus_of(machine: QemuMachine) -> set[int]:
    found: Any = machine.monitor.execute("query-cpus-fast")
    return {one["thread-id"] for one in found}


def all_ordinary(pid: int) -> bool:
    return set(policies(pid).values()) == {os.SCHED_OTHER}


def expect_all_ordinary(machine: QemuMachine) -> None:
    assert all_ordinary(machine.pid), policies(machine.pid)
    assert all_ordinary(os.getpid()), policies(os.getpid())


def hold_briefly(machine: QemuMachine) -> None:
    """For a pause that soon ends by itself, and is as long as this computer needs for a stop."""
    seconds = 0.01
    while True:
        try:
            return machine.quiesce_for(seconds)
        except MachineError as error:
            if error.errno != errno.ETIMEDOUT or seconds > LONG_S:
                raise
        seconds *= 2


@pytest.fixture
def machine(firmware: Path) -> Iterator[QemuMachine]:
    with QemuMachine([*BASE, "-bios", str(firmware)]) as machine:
        machine.start()
        yield machine


@needs_right
def test_who_is_raised_while_the_guest_is_held(machine: QemuMachine) -> None:
    before = sys.getswitchinterval()
    vcpus = vcpus_of(machine)
    assert len(vcpus) == 2
    others = set(policies(machine.pid)) - vcpus
    machine.quiesce_for(LONG_S)
    theirs = policies(machine.pid)
    assert {theirs[one] for one in vcpus} == {os.SCHED_OTHER}, "they stand, and need no processor"
    assert {theirs[one] for one in others} == {RAISED}
    of_shim = {policy for one, policy in theirs.items() if comm(one) == "ldfs-shim"}
    assert of_shim == {RAISED}, "also the one that would end the pause in our place"
    ours = (threading.get_native_id(), machine.monitor.thread)
    ranks = {os.sched_getparam(one).sched_priority for one in (*others, *ours)}
    assert [os.sched_getscheduler(one) for one in ours] == [RAISED] * 2 and len(ranks) == 1
    assert sys.getswitchinterval() < before
    machine.resume()
    expect_all_ordinary(machine)
    assert sys.getswitchinterval() == before


@needs_right
def test_vcpus_are_raised_until_they_stand(
    machine: QemuMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    vcpus = vcpus_of(machine)
    real = Urgent.calm_vcpus

    def calm(self: Urgent) -> None:
        main = os.sched_getparam(machine.pid).sched_priority
        seen.extend(
            (os.sched_getscheduler(one), main - os.sched_getparam(one).sched_priority)
            for one in vcpus
        )
        real(self)

    monkeypatch.setattr(Urgent, "calm_vcpus", calm)
    end = time.monotonic() + DEADLINE_S
    while not any(policy == RAISED for policy, _ in seen):
        assert time.monotonic() < end, "QEMU always answered before they were raised"
        machine.quiesce_for(LONG_S)
        assert {os.sched_getscheduler(one) for one in vcpus} == {os.SCHED_OTHER}
        machine.resume()
    assert all(below > 0 for policy, below in seen if policy == RAISED), "QEMU must get its turn"
    expect_all_ordinary(machine)


@needs_right
def test_other_threads_of_python_are_raised_below_them(machine: QemuMachine) -> None:
    """One may hold the interpreter's lock."""
    over, policy = threading.Event(), []
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        machine.quiesce_for(LONG_S)
        assert other.native_id
        policy.append(os.sched_getscheduler(other.native_id))
        rank = os.sched_getparam(other.native_id).sched_priority
        assert 0 < rank < os.sched_getparam(threading.get_native_id()).sched_priority
        machine.resume()
        policy.append(os.sched_getscheduler(other.native_id))
    finally:
        over.set()
        other.join()
    assert policy == [RAISED, os.SCHED_OTHER]


@needs_right
def test_what_was_chosen_for_a_thread_stays(machine: QemuMachine) -> None:
    chosen = {machine.pid, machine.monitor.thread, *vcpus_of(machine)}
    for one in chosen:
        os.sched_setscheduler(one, os.SCHED_BATCH, os.sched_param(0))
    for _ in range(2):
        machine.quiesce_for(LONG_S)
        assert {os.sched_getscheduler(one) for one in chosen} == {os.SCHED_BATCH}
        machine.resume()
        assert {os.sched_getscheduler(one) for one in chosen} == {os.SCHED_BATCH}


@needs_right
def test_a_guest_that_another_program_has_stopped(machine: QemuMachine) -> None:
    """No pause of ours, and nothing that would end it."""
    machine.monitor.execute("stop")
    machine.quiesce_for(LONG_S)
    expect_all_ordinary(machine)
    machine.resume()


def fail_to_stop(machine: QemuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(*, timeout: float) -> None:
        assert not all_ordinary(machine.pid)
        raise MachineError(f"QEMU does not answer within {timeout}", errno=errno.ETIMEDOUT)

    monkeypatch.setattr(machine._states, "take", take)


def fail_to_start(machine: QemuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim's last words come before START."""
    assert machine.shim is not None
    real = machine.shim.call

    def call(*words: Any, **more: Any) -> Any:
        if "within" in more:
            assert not all_ordinary(machine.pid)
            wait_for(lambda: all_ordinary(machine.pid), lambda: policies(machine.pid))
            assert machine.monitor.status() == "running"
        return real(*words, **more)

    monkeypatch.setattr(machine.shim, "call", call)


def fail_to_go_on(machine: QemuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def cont(*, timeout: float | None = None) -> None:
        assert not all_ordinary(machine.pid)
        raise MachineError(f"QEMU does not answer within {timeout}", errno=errno.ETIMEDOUT)

    monkeypatch.setattr(machine.monitor, "cont", cont)


@needs_right
@pytest.mark.parametrize("fail", [fail_to_stop, fail_to_start, fail_to_go_on])
def test_none_stays_raised_after_a_start_that_fails(
    machine: QemuMachine,
    fail: Callable[[QemuMachine, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = sys.getswitchinterval()
    with LiveDump(machine) as live:
        live.init(None, DumpSettings(quiesce_deadline=1.0))
        with monkeypatch.context() as patch:
            fail(machine, patch)
            with pytest.raises(MachineError):
                live.start()
            expect_all_ordinary(machine)
            assert sys.getswitchinterval() == before
        machine.resume()
        live.release()
        live.init(None)
        live.start()
        expect_all_ordinary(machine)


@needs_right
@pytest.mark.parametrize("before", [(), UNABLE], ids=["", "without the right"])
def test_the_shim_lowers_what_a_late_host_has_raised(firmware: Path, before: tuple[str]) -> None:
    """Also where QEMU itself has no right to raise a thread, as with -runas."""
    with QemuMachine([*before, *BASE, "-bios", str(firmware)]) as machine:
        machine.start()
        hold_briefly(machine)
        wait_for(
            lambda: (
                not any(one & ~os.SCHED_RESET_ON_FORK for one in policies(machine.pid).values())
            ),
            lambda: policies(machine.pid),
        )
        machine.monitor._held = False  # it runs: the shim has seen to that
        machine.resume()
        expect_all_ordinary(machine)
        machine.quiesce_for(LONG_S)
        assert os.sched_getscheduler(machine.pid) == RAISED
        machine.resume()
        expect_all_ordinary(machine)


SANDBOX = ("-sandbox", "on,resourcecontrol=deny")


@needs_right
@pytest.mark.parametrize("sandbox", [(), SANDBOX], ids=["plain", "sandbox"])
def test_none_stays_raised_that_a_killed_host_has_raised(
    firmware: Path, outliving: Any, sandbox: Sequence[str]
) -> None:
    """The shim lowers them; or none was raised, where a filter forbids it that."""
    bios = ("-bios", str(firmware))
    host = subprocess.Popen(
        [sys.executable, program_file(__file__, "held_guest.py"), *BASE, *bios, *sandbox],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with outliving(host) as orphans:
        qemu = held_by(host, orphans)
        let_pause(host)
        host.send_signal(signal.SIGSTOP)  # its second of pause may not end before we have looked
        assert (RAISED in policies(qemu).values()) == (not sandbox)
        host.kill()
        host.wait()
        wait_for(lambda: all_ordinary(qemu), lambda: policies(qemu))


def test_without_the_right_all_stays_as_it_was(firmware: Path) -> None:
    words = program_command(__file__, "without_the_right.py", *BASE, "-bios", str(firmware))
    done = subprocess.run(
        [*UNABLE, "prlimit", "--rtprio=0:0", *words],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "paused True\nrunning True\n"), done


def test_ids_of_another_namespace_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU in a container: what it calls its vCPUs are other threads here."""
    monkeypatch.setattr(urgent, "_may_raise", lambda: True)
    here = os.getpid()
    assert Urgent(here, [here], []).theirs
    assert not Urgent(here, [here, 1 << 22], []).theirs, "a vCPU that is not known by its id"
    monkeypatch.setattr(urgent, "_has_our_ids", lambda pid: False)
    assert not Urgent(here, [here], []).theirs


@needs_right
def test_a_process_in_another_pid_namespace() -> None:
    child = subprocess.Popen(["unshare", "--pid", "--fork", "sleep", "300"])
    try:
        inner = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        wait_for(lambda: inner.read_text().strip(), inner.read_text)
        there = int(inner.read_text().split()[0])
        assert urgent._has_our_ids(child.pid) and not urgent._has_our_ids(there)
    finally:
        with contextlib.suppress(ProcessLookupError, UnboundLocalError):
            os.kill(there, signal.SIGKILL)
        child.kill()
        child.wait()
