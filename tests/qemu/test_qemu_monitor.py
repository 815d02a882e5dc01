# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor, and what is read through it, with a real QEMU that runs no kernel."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs.errors import MachineError
from livedumpfs.machines.machine import PhysicalRange
from livedumpfs.machines.qemu.command_line import QemuCommand
from livedumpfs.machines.qemu.config_file import monitor_config
from livedumpfs.machines.qemu.memory_map import read_memory_map
from livedumpfs.machines.qemu.monitor import Monitor
from livedumpfs.machines.qemu.registers import STATE_SIZE, parse_registers
from livedumpfs.machines.qemu.state_dump import StateDump
from tests.fixtures.open_files import no_file_stays_open
from tests.qemu.this_qemu import skip_what_it_refuses

PROGRAM = "qemu-system-x86_64"
BASE = (PROGRAM, "-accel", "tcg", "-display", "none", "-nodefaults")
WAIT_S = 300.0
GIB = 1 << 30

pytestmark = pytest.mark.skipif(
    shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not installed (package qemu-system-x86)"
)


class Qemu:
    """A QEMU process and the way to its monitor."""

    def __init__(self, folder: Path, words: tuple[str, ...]) -> None:
        self.command = QemuCommand.parse([*BASE, *words])
        self.ram = self.command.ask_ram()
        self.path, config = str(folder / "a,b.qmp"), folder / "monitor.cfg"
        config.write_text(monitor_config(self.path))
        words = tuple(self.command.prepared(str(config), self.ram))
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def alive(self) -> bool:
        return self.process.poll() is None

    def monitor(self, timeout: float = WAIT_S) -> Monitor:
        return Monitor(self.path, timeout, alive=self.alive)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


Start = Callable[..., Qemu]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Qemu] = []

    def run(*words: str) -> Qemu:
        running.append(Qemu(tmp_path, words))
        return running[-1]

    yield run
    for qemu in running:
        qemu.end()


def wait_for(holds: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def test_a_guest_waits_is_stopped_and_let_go(start: Start) -> None:
    with start("-m", "64M").monitor() as monitor:
        assert monitor.status() == "prelaunch"
        monitor.execute("cont")
        assert monitor.status() == "running"
        for _ in range(3):
            monitor.stop(timeout=WAIT_S)
            assert monitor.status() == "paused"
            monitor.cont()
            assert monitor.status() == "running"


@pytest.mark.parametrize("state", ["prelaunch", "paused"])
def test_a_guest_that_stood_still_stays_so(start: Start, state: str) -> None:
    with start("-m", "64M").monitor() as monitor:
        if state == "paused":
            monitor.execute("cont")
            monitor.execute("stop")
        monitor.stop(timeout=WAIT_S)
        monitor.cont()
        assert monitor.status() == state
        monitor.execute("cont")
        monitor.cont()
        assert monitor.status() == "running"


def test_a_monitor_that_is_closed_lets_the_guest_go(start: Start) -> None:
    qemu = start("-m", "64M")
    with qemu.monitor() as monitor:
        monitor.execute("cont")
        monitor.stop(timeout=WAIT_S)
    with qemu.monitor() as monitor:
        assert monitor.status() == "running"


def test_a_qemu_that_hangs_is_named_in_time(start: Start) -> None:
    qemu = start("-m", "64M")
    with qemu.monitor() as monitor:
        os.kill(qemu.process.pid, signal.SIGSTOP)
        for call in (monitor.status, monitor.stop):
            with pytest.raises(MachineError, match="'query-status'") as caught:
                call(timeout=0.1)
            assert caught.value.errno == errno.ETIMEDOUT
        os.kill(qemu.process.pid, signal.SIGCONT)
        # Answers that no call waits for any more are not taken for others.
        assert "CPU#0" in monitor.hmp("info registers -a", timeout=WAIT_S)
        assert monitor.status() == "prelaunch"


def test_errors_have_qemus_own_words(start: Start) -> None:
    qemu = start("-m", "64M")
    monitor = qemu.monitor()
    with pytest.raises(MachineError, match=r"refuses 'nonsense': .*not been found") as caught:
        monitor.execute("nonsense", {"value": 1})
    assert caught.value.errno == errno.EINVAL
    qemu.end()
    with pytest.raises(MachineError, match="has gone before it answered 'query-status'") as caught:
        monitor.status()
    assert caught.value.errno == errno.ECONNRESET
    monitor.close()
    monitor.close()
    with pytest.raises(MachineError, match="closed"):
        monitor.hmp("info version")


def test_threads_share_a_monitor(start: Start) -> None:
    wrong: list[str] = []

    def ask(index: int, monitor: Monitor) -> None:
        for _ in range(20):
            if index % 2 and "CPU#0" not in monitor.hmp("info registers -a", timeout=WAIT_S):
                wrong.append("registers")
            elif monitor.status(timeout=WAIT_S) != "prelaunch":
                wrong.append("status")

    with start("-m", "64M").monitor() as monitor:
        threads = [threading.Thread(target=ask, args=(i, monitor)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
    assert not wrong


def test_a_second_client_gets_no_greeting(start: Start) -> None:
    qemu = start("-m", "64M")
    with qemu.monitor(), pytest.raises(MachineError, match="does not greet") as caught:
        qemu.monitor(0.3)
    assert caught.value.errno == errno.ETIMEDOUT


def test_a_qemu_that_does_not_start(start: Start, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="ended at once"):
        start("-m", "64M", "-device", "no-such-device").monitor()
    with pytest.raises(MachineError, match=r"does not listen at .*gone"):
        Monitor(str(tmp_path / "gone"), 0.1)


def test_no_thread_or_descriptor_is_left(start: Start) -> None:
    qemu = start("-m", "64M")
    qemu.monitor().close()
    threads = set(threading.enumerate())
    with no_file_stays_open():
        for _ in range(5):
            qemu.monitor().close()
        with qemu.monitor():
            for _ in range(3):
                with pytest.raises(MachineError):
                    qemu.monitor(0.05)
    assert not set(threading.enumerate()) - threads


def test_a_copy_of_the_connection_can_let_the_guest_go(start: Start) -> None:
    """What the shim does when its host dies between stop and cont."""
    qemu = start("-m", "64M")
    monitor = qemu.monitor()
    monitor.execute("cont")
    monitor.execute("stop")
    with socket.socket(fileno=os.dup(monitor.fileno())) as copy:
        monitor.close()
        copy.settimeout(WAIT_S)
        copy.sendall(b'{"execute":"cont"}{"execute":"query-status"}\n')
        answer = b""
        while b'"running": true' not in answer:
            part = copy.recv(4096)
            assert part, answer
            answer += part


@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize("size", [256 << 20, 2 * GIB, 6 * GIB])
def test_the_memory_map_of_a_guest(start: Start, machine: str, size: int) -> None:
    qemu = start("-M", machine, "-m", str(size >> 20))
    with qemu.monitor() as monitor:
        assert qemu.ram
        found = read_memory_map(monitor.hmp("info mtree -f"), qemu.ram.name, size)
    # Where QEMU splits big guests, by machine.
    low = {"pc": 3 * GIB, "q35": 2 * GIB}[machine] if size > 3 * GIB else size
    high = [PhysicalRange(4 * GIB, size - low, low)] if size > low else []
    assert found == [PhysicalRange(0, low, 0), *high]


@pytest.mark.parametrize(
    "words",
    [
        ("-M", "q35,memory-backend=mine", "-vga", "std"),
        ("-M", "pc-i440fx-3.0,memory-backend=mine", "-vga", "cirrus"),
        ("-M", "q35", "-m", "256M", "-numa", "node,memdev=mine"),
        ("-M", "microvm,memory-backend=mine"),
    ],
)
def test_the_memory_map_of_backends_of_the_users(start: Start, words: tuple[str, ...]) -> None:
    made = "memory-backend-memfd,id=mine,size=256M,share=on"
    skip_what_it_refuses(["-m", "256M", "-object", made, *words])
    qemu = start("-object", made, *words)
    assert (qemu.command.named, qemu.ram) == ("mine", None)
    with qemu.monitor() as monitor:
        monitor.execute("cont")
        wait_for(lambda: "EIP=0000fff0" not in monitor.hmp("info registers"), "no firmware")
        found = read_memory_map(monitor.hmp("info mtree -f"), "mine", 256 << 20)
    assert found == [PhysicalRange(0, 256 << 20, 0)]


@pytest.mark.parametrize("words", [(), ("-m", "100001K"), ("-m", "size=64M,slots=2,maxmem=1G")])
def test_qemu_takes_what_is_added(start: Start, words: tuple[str, ...]) -> None:
    qemu = start(*words)
    with qemu.monitor() as monitor:
        answer = monitor.execute("query-memory-size-summary")
    assert qemu.ram and answer == {"base-memory": qemu.ram.size, "plugged-memory": 0}


def test_the_note_is_the_one_that_qemu_writes(start: Start, tmp_path: Path) -> None:
    """QEMU's own dump of a page has the same registers, bit for bit but for what its monitor does
    not show: the bits of base and limit in the flags of segments."""
    own = tmp_path / "own"
    with start("-m", "64M", "-smp", "2", "-M", "q35").monitor() as monitor:
        monitor.execute("cont")
        # Until the firmware has left its first instruction.
        wait_for(lambda: "EIP=0000fff0" not in monitor.hmp("info registers"), "no firmware")
        monitor.stop(timeout=WAIT_S)
        vcpus = parse_registers(monitor.hmp("info registers -a"))
        target: dict[str, object] = {"paging": False, "protocol": f"file:{own}"}
        monitor.execute("dump-guest-memory", {**target, "begin": 0, "length": 4096})
    notes = [m.end() for m in re.finditer(rb"QEMU\0\0\0\0", own.read_bytes())]
    assert len(notes) == len(vcpus) == 2
    for position, vcpu in zip(notes, vcpus, strict=True):
        state = bytearray(own.read_bytes()[position : position + STATE_SIZE])
        for flags in range(152 + 8, 152 + 8 * 24 + 8, 24):
            state[flags] = state[flags + 3] = 0
        # Of a vCPU under TCG QEMU's dump has stale arithmetic flags; the monitor computes them.
        status = bytearray(vcpu.qemu_state())
        for some in (state, status):
            some[144] &= ~0xD5 & 0xFF
            some[145] &= ~0x08 & 0xFF
        assert status == state


def test_the_states_are_those_of_qemus_own_dump(start: Start, tmp_path: Path) -> None:
    """Again and again, and the same as the human monitor shows; QEMU keeps none of the files."""
    own = tmp_path / "own"
    qemu = start("-m", "64M", "-smp", "2", "-M", "q35")
    with qemu.monitor() as monitor, StateDump(monitor) as states:
        with pytest.raises(MachineError) as caught:
            states.take()
        assert caught.value.errno == errno.EINVAL
        monitor.execute("cont")
        open_files = len(os.listdir(f"/proc/{qemu.process.pid}/fd"))
        for _ in range(5):
            states.prepare()
            states.prepare()
            monitor.stop(timeout=WAIT_S)
            vcpus, told = states.take()
            assert told is None
            shown = parse_registers(monitor.hmp("info registers -a"))
            target: dict[str, object] = {"paging": False, "protocol": f"file:{own}"}
            monitor.execute("dump-guest-memory", {**target, "begin": 0, "length": 4096})
            monitor.cont()
            notes = [m.end() for m in re.finditer(rb"QEMU\0\0\0\0", own.read_bytes())]
            written = [own.read_bytes()[at : at + STATE_SIZE] for at in notes]
            assert [one.qemu_state() for one in vcpus] == written
            assert [one.registers for one in vcpus] == [one.registers for one in shown]
            assert [one.controls for one in vcpus] == [one.controls for one in shown]
            own.unlink()
        assert len(os.listdir(f"/proc/{qemu.process.pid}/fd")) == open_files
