# SPDX-License-Identifier: GPL-2.0-or-later
"""HOLD, ARM and GO of a QEMU guest, which is a loop of stores: it stands by its own count of them,
runs again when the deadline passes in either gap, when the host is suspended, and when it dies."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aftermath import wait_for
from firmware import ROUNDS

from livedumpfs.dump import DumpState, LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu import QemuMachine
from tests.fixtures import forks
from tests.fixtures.holds import arm_in_time
from tests.fixtures.program_files import program_command
from tests.qemu.small_guests import FirmwareGuest, firmware_command, held_by

BASE = ("qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M")
LONG_S = 30.0
SHORT_S = 0.3
DEADLINE_S = 300.0


def memory_of(machine: QemuMachine) -> Callable[[], bytes]:
    """Words of its pages, one of which changes with each store."""
    return lambda: b"".join(machine.arena.read(at, 8) for at in range(0, 64 << 20, 64 << 10))


def stands(look: Callable[[], bytes]) -> bool:
    before = look()
    time.sleep(0.05)
    return look() == before


@pytest.fixture
def machine(firmware: Path) -> Iterator[QemuMachine]:
    with QemuMachine([*BASE, "-bios", str(firmware)]) as made:
        made.start()
        wait_for(lambda: made.arena.read(ROUNDS, 1) > b"\1")
        yield made


def runs(machine: QemuMachine) -> None:
    look = memory_of(machine)
    before = look()
    wait_for(lambda: look() != before)


def test_the_three_steps(machine: QemuMachine, tmp_path: Path) -> None:
    look = memory_of(machine)
    dump = LiveDump(machine)
    dump.init(tmp_path / "dump")
    dump.hold(LONG_S)
    assert dump.is_held and stands(look)
    held = look()
    dump.arm()
    assert dump.state is DumpState.START and dump.is_held and stands(look)
    dump.go()
    times, counters = dump.held, dump.counters()
    assert times and times.stood_mono_ns < counters.instant_mono_ns < times.ran_mono_ns
    runs(machine)
    dump.sweep()
    assert dump.finish() == "consistent"
    assert b"".join(dump.read(at, 8) for at in range(0, 64 << 20, 64 << 10)) == held
    dump.release()
    with open_dump(tmp_path / "dump") as found:
        assert found.verdict == "consistent" and verify_dump(found).ok


def test_a_deadline_that_passes(machine: QemuMachine) -> None:
    dump = LiveDump(machine)
    dump.init(None)
    dump.hold(SHORT_S)
    wait_for(lambda: not dump.is_held)
    runs(machine)
    with pytest.raises(MachineError, match=r"ARM: the machine was let go after 0\.3 s") as caught:
        dump.arm()
    assert caught.value.errno == errno.ETIMEDOUT and dump.state is DumpState.INIT
    seconds = arm_in_time(dump, SHORT_S)
    wait_for(lambda: not dump.is_held)
    runs(machine)
    with pytest.raises(MachineError, match=rf"GO: the machine was let go after {seconds:g} s"):
        dump.go()
    assert dump.state is DumpState.START and dump.so_far == "consistent"
    dump.release()


@pytest.mark.parametrize("armed", [False, True])
def test_release_lets_it_go(machine: QemuMachine, *, armed: bool) -> None:
    dump = LiveDump(machine)
    dump.init(None)
    dump.hold(LONG_S)
    if armed:
        dump.arm()
    dump.release()
    assert machine.monitor.status() == "running" and dump.state is DumpState.UNINIT
    runs(machine)
    dump.init(None)
    dump.start()
    dump.release()


@pytest.mark.parametrize("armed", [False, True])
def test_another_program_that_lets_the_guest_run(machine: QemuMachine, *, armed: bool) -> None:
    """As a user of the monitor may: what is no instant of a barrier must not pass for one."""
    dump = LiveDump(machine)
    dump.init(None)
    dump.hold(LONG_S)
    if armed:
        dump.arm()
    machine.monitor.execute("cont")
    machine.monitor.execute("stop")
    with pytest.raises(MachineError, match="another program has let the guest run") as caught:
        dump.go() if armed else dump.arm()
    assert caught.value.errno == (errno.ETIMEDOUT if armed else errno.EBUSY)
    assert dump.state is (DumpState.START if armed else DumpState.INIT)
    runs(machine)
    dump.release()


@pytest.mark.parametrize("armed", [False, True])
def test_another_program_that_resets_the_guest(machine: QemuMachine, *, armed: bool) -> None:
    """It stands all the same, with another memory and other registers."""
    dump = LiveDump(machine)
    dump.init(None)
    dump.hold(LONG_S)
    if armed:
        dump.arm()
    machine.monitor.execute("system_reset")
    wait_for(lambda: bool(machine._disturbed))
    with pytest.raises(MachineError, match="another program has reset the guest") as caught:
        dump.go() if armed else dump.arm()
    assert caught.value.errno == (errno.ETIMEDOUT if armed else errno.EBUSY)
    assert not dump.was_let_go
    dump.release()
    assert machine.monitor.status() == "running"


def ask(debugger: socket.socket, text: bytes) -> bytes:
    """A packet of gdb's protocol, and its answer."""
    debugger.sendall(b"$%s#%02x" % (text, sum(text) % 256))
    found = b""
    while not (b"#" in found and len(found) >= found.index(b"#") + 3):
        found += debugger.recv(1 << 16)
    debugger.sendall(b"+")
    return found.removeprefix(b"+")


def move(machine: QemuMachine, path: Path, rip: int) -> None:
    """As a debugger: set register 16, rip, by QEMU's gdbserver."""
    machine.monitor.hmp(f"gdbserver unix:{path},server=on,wait=off")
    with socket.socket(socket.AF_UNIX) as debugger:
        debugger.settimeout(DEADLINE_S)
        debugger.connect(str(path))
        # Registers can be set one by one once it has told of them.
        assert ask(debugger, b"qXfer:features:read:target.xml:0,ffb").startswith(b"$")
        found = ask(debugger, b"P10=" + rip.to_bytes(8, "little").hex().encode())
        assert found.startswith(b"$OK#"), found
        assert machine.monitor.status() != "running"


def test_another_program_that_changes_the_registers(machine: QemuMachine, tmp_path: Path) -> None:
    """A debugger, or a snapshot that is loaded: QEMU sends no event."""
    dump = LiveDump(machine)
    dump.init(None)
    dump.hold(LONG_S)
    held = machine.snapshot_registers()[0]["rip"]
    move(machine, tmp_path / "gdb", held + 1)
    assert not machine._disturbed
    with pytest.raises(MachineError, match="has changed the guest's registers") as caught:
        dump.arm()
    assert caught.value.errno == errno.EBUSY and dump.state is DumpState.INIT
    dump.release()


@pytest.fixture
def host(firmware: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """host(seconds, "armed" or "held"): one that holds its guest."""
    made: list[subprocess.Popen[str]] = []

    def start(seconds: float, stage: str) -> subprocess.Popen[str]:
        command = [*program_command(__file__, "held_in_steps.py"), str(seconds), stage]
        found = forks.start(
            [*command, *firmware_command(firmware)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        made.append(found)
        return found

    yield start
    for one in made:
        one.kill()
        one.communicate(timeout=DEADLINE_S)


def say_held(host: subprocess.Popen[str]) -> None:
    assert host.stdin and host.stdout
    host.stdin.write("\n")
    host.stdin.flush()
    assert host.stdout.readline() == "held\n"


@pytest.mark.parametrize("stage", ["held", "armed"])
def test_a_host_that_dies(host: Callable[..., subprocess.Popen[str]], stage: str) -> None:
    orphans: list[int] = []
    process = host(LONG_S, stage)
    qemu = held_by(process, orphans)
    guest = FirmwareGuest(qemu)
    try:
        guest.boot()
        say_held(process)
        before = guest.rounds()
        time.sleep(0.1)
        assert guest.rounds() == before
        process.kill()
        guest.goes_on()
    finally:
        guest.close()
        os.kill(qemu, signal.SIGKILL)


@pytest.mark.parametrize("stage", ["held", "armed"])
def test_a_host_that_is_suspended(host: Callable[..., subprocess.Popen[str]], stage: str) -> None:
    """The shim lets the guest run in its place. When the host goes on it knows that."""
    process = host(SHORT_S, stage)
    guest = FirmwareGuest(held_by(process, []))
    try:
        guest.boot()
        say_held(process)
        process.send_signal(signal.SIGSTOP)
        guest.goes_on()
        process.send_signal(signal.SIGCONT)
        assert process.stdin and process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{errno.ETIMEDOUT}\n"
        guest.goes_on()
        process.communicate("\n", timeout=DEADLINE_S)
        assert process.returncode == 0
    finally:
        guest.close()
