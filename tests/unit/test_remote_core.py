# SPDX-License-Identifier: GPL-2.0-or-later
"""The core in another process, with the real shim in a small one: two dumps after each other."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.arena import Arena
from livedumpfs.dump.remote import RemoteCore, make_core
from livedumpfs.dump.settings import DumpSettings
from livedumpfs.errors import MachineError
from livedumpfs.machines import ThreadMachine
from livedumpfs.machines.qemu.machine import shim_path
from livedumpfs.machines.shim import Answer, Shim
from livedumpfs.units import PAGE_SIZE

SIZE = 4 << 20
DEADLINE_S = 30.0
OTHER = """
import ctypes, mmap, sys
memory = mmap.mmap(int(sys.argv[1]), int(sys.argv[2]))
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.read()
"""


class Elsewhere(ThreadMachine):
    """Its memory is in another process too, which has our shim."""

    shim: Shim | None = None
    memory = -1
    process = -1
    backends = ("uffd",)


def stands(stat: Path) -> bool:
    return stat.read_text().rpartition(")")[2].split()[0] == "T"


class StandingStill(Elsewhere):
    """Nothing in its process runs between quiesce and resume, the shim neither."""

    stop_asked_ns = 0
    pause_left_s = 0.3
    quiesced_ns = resumed_ns = 0

    def quiesce_for(self, seconds: float) -> None:
        del seconds
        self.quiesced_ns = time.monotonic_ns()
        os.kill(self.process, signal.SIGSTOP)
        while not all(stands(stat) for stat in Path(f"/proc/{self.process}/task").glob("*/stat")):
            assert time.monotonic_ns() - self.quiesced_ns < DEADLINE_S * 1e9

    def resume(self) -> None:
        os.kill(self.process, signal.SIGCONT)
        self.resumed_ns = time.monotonic_ns()


@pytest.fixture
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Elsewhere]:
    standing = getattr(request, "param", False)
    fd = os.memfd_create("ram")
    os.ftruncate(fd, SIZE)
    where = str(tmp_path / "shim")
    preload = {
        "LD_PRELOAD": str(shim_path()),
        "LIVEDUMP_SHIM_SOCKET": where,
        "LIVEDUMP_SHIM_WORD": OTHER,
        "LIVEDUMP_SHIM_PROGRAM": Path(sys.executable).resolve().name,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(where)
        listener.listen(1)
        listener.settimeout(DEADLINE_S)
        process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(fd), str(SIZE)],
            env={**os.environ, **preload},
            pass_fds=(fd,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ours = listener.accept()[0]
    assert process.stdin and process.stdout
    try:
        address = int(process.stdout.readline())
        with Arena(SIZE) as arena, Shim(ours) as shim:
            found = StandingStill(arena) if standing else Elsewhere(arena)
            found.process = process.pid
            found.shim = shim
            shim.adopt(address, SIZE, fd)
            os.pwrite(fd, b"first", PAGE_SIZE)
            found.memory = fd
            yield found
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        os.close(fd)


def started(machine: Elsewhere) -> RemoteCore:
    core = make_core(machine, DumpSettings(backend="uffd").without_target(), None)
    core.start(machine, 1.0)
    assert isinstance(core, RemoteCore)
    return core


def read(core: RemoteCore, length: int = 5) -> bytes:
    found = bytearray(length)
    core.read_into(PAGE_SIZE, memoryview(found))
    return bytes(found)


def test_an_old_dump_neither_reads_nor_ends_the_next(machine: Elsewhere) -> None:
    old = started(machine)
    assert read(old) == b"first"
    assert old.release()
    assert old.free()
    os.pwrite(machine.memory, b"later", PAGE_SIZE)
    new = started(machine)
    assert read(new) == b"later"
    for length in (5, 0):
        with pytest.raises(OSError) as caught:
            read(old, length)
        assert caught.value.errno == errno.ENODATA
    assert old.release()
    assert old.free()
    assert new.counters().remaining == new.counters().granules > 0
    assert read(new) == b"later"
    assert new.release()
    assert new.free()


def test_a_start_without_an_answer_is_taken_back(
    machine: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = make_core(machine, DumpSettings(backend="uffd").without_target(), None)
    assert machine.shim is not None
    real = machine.shim.call
    calls: list[int] = []

    def late(operation: int, *rest: int, **words: int) -> Answer:
        found = real(operation, *rest, **words)
        calls.append(operation)
        return Answer(-errno.ETIMEDOUT) if len(calls) == 1 else found

    monkeypatch.setattr(machine.shim, "call", late)
    with pytest.raises(MachineError):
        core.start(machine, 1.0)
    monkeypatch.undo()
    assert core.free()
    new = started(machine)
    assert read(new) == b"first"
    assert new.release()
    assert new.free()


@pytest.mark.parametrize("machine", [True], indirect=True)
def test_a_pause_ends_when_its_time_is_over(machine: Elsewhere) -> None:
    """Not when the shim gives up, nor when it takes another connection: it stands still as well."""
    core = make_core(machine, DumpSettings(backend="uffd").without_target(), None)
    assert isinstance(machine, StandingStill)
    with pytest.raises(MachineError, match="stood still") as caught:
        core.start(machine, 1.0)
    assert caught.value.errno == errno.ETIMEDOUT
    assert 0 < machine.resumed_ns - machine.quiesced_ns < 15e9  # a hang is twice that
    end = time.monotonic() + DEADLINE_S
    while not core.free():
        assert time.monotonic() < end
        time.sleep(0.01)
