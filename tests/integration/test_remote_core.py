# SPDX-License-Identifier: GPL-2.0-or-later
"""The core in another process, with the real shim in a small one: two dumps after each other."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import InconsistentDump, LiveDump, open_dump
from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import lib
from livedumpfs.dump.blocks import BLOCK
from livedumpfs.dump.picture import picture
from livedumpfs.dump.remote import RemoteCore, make_core
from livedumpfs.errors import MachineError
from livedumpfs.machines import ThreadMachine
from livedumpfs.machines.qemu.process import shim_path
from livedumpfs.machines.shim import Answer, Shim, refused
from livedumpfs.settings import DumpSettings
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.program_files import program_file

SIZE = 4 << 20
DEADLINE_S = 300.0
OTHER = str(program_file(__file__, "other_process.py"))
DISCARDS = ("MADV_REMOVE", "fallocate", "fallocate64")


class Elsewhere(ThreadMachine):
    """Its memory is in another process too, which has our shim."""

    shim: Shim | None = None
    memory = -1
    process = -1
    tell: Callable[[str, int, int], str]
    """What its process is to do with a range of the memory; what that returned, and errno."""
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
            [sys.executable, OTHER, str(fd), str(SIZE)],
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

            def tell(what: str, offset: int, length: int) -> str:
                assert process.stdin and process.stdout
                process.stdin.write(f"{what} {offset} {length}\n")
                process.stdin.flush()
                return process.stdout.readline().strip()

            found.tell = tell
            yield found
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        os.close(fd)


def started(machine: Elsewhere, reference: int = -1, **settings: Any) -> RemoteCore:
    made = DumpSettings(backend="uffd", **settings).without_target()
    core = make_core(machine, made, None, reference=reference)
    core.start(machine, 1.0)
    assert isinstance(core, RemoteCore)
    return core


def read(core: RemoteCore, length: int = 5, offset: int = PAGE_SIZE) -> bytes:
    found = bytearray(length)
    core.read_into(offset, memoryview(found))
    return bytes(found)


@pytest.fixture
def reference() -> Iterator[int]:
    """Of the memory at the instant; see Reference in tests/soak/oracle.py."""
    fd = os.memfd_create("reference")
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


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
    assert set(picture(new.marks(), armed=True)) == set(b".") and not new.lost_ranges(SIZE)
    assert len(new.marks()) == new.counters().granules
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


def test_a_dump_whose_end_is_not_known_is_not_consistent(
    machine: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drained, and then QEMU's side says no more: what was known before were no losses."""
    os.pwrite(machine.memory, b"x" * SIZE, 0)
    assert machine.shim is not None
    real, drained = machine.shim.call, False

    def call(operation: int, *rest: Any, **words: Any) -> Answer:
        nonlocal drained
        if operation == lib.LDFS_SHIM_COUNTERS and drained:
            return Answer(-errno.ETIMEDOUT)
        found = real(operation, *rest, **words)
        drained |= operation == lib.LDFS_SHIM_WAIT and found.code == 0
        return found

    with LiveDump(machine) as live:
        live.init(tmp_path / "dump", DumpSettings(policy="fail", granule=PAGE_SIZE, pool=PAGE_SIZE))
        live.start()
        monkeypatch.setattr(machine.shim, "call", call)
        assert machine.tell("store", 0, SIZE) == "0 0"
        live.sweep()
        with pytest.raises(InconsistentDump, match="cannot learn what was saved") as caught:
            live.finish(DEADLINE_S)
        assert drained and caught.value.verdict == "incomplete"
        with open_dump(tmp_path / "dump.incomplete") as dump:
            assert dump.verdict == "incomplete"


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


@pytest.mark.parametrize("dropped", [False, True], ids=["held", "let go"])
def test_words_that_were_said_already_are_said_again_at_our_end(
    machine: Elsewhere, dropped: bool
) -> None:
    """A host that stood still before it stopped its machine may die while it holds it."""
    assert machine.shim is not None
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(DEADLINE_S)
        with theirs:
            machine.shim.last_words(b"cont\n", theirs.fileno(), 0.01)
        assert ours.recv(100) == b"cont\n"
        if dropped:
            machine.shim.last_words(b"", -1)
        machine.shim.close()
        assert ours.recv(100) == (b"" if dropped else b"cont\n")
        if not dropped:  # and once only
            ours.setblocking(False)
            with pytest.raises(BlockingIOError):
                ours.recv(100)


@pytest.mark.parametrize("arming", ["swap", "mprotect"])
@pytest.mark.parametrize("what", [*DISCARDS, "MADV_DONTNEED"])
def test_what_the_other_process_discards_is_saved_first(
    machine: Elsewhere, reference: int, what: str, arming: str
) -> None:
    """In the middle of a dump, with some of it stored to before and some after."""
    data = os.urandom(SIZE)
    os.pwrite(machine.memory, data, 0)
    core = started(machine, reference, arming=arming, granule=PAGE_SIZE, pool=SIZE)
    part = SIZE // 4
    assert machine.tell("store", part, part // 2) == "0 0"
    assert machine.tell(what, part, part) == "0 0"
    now = os.pread(machine.memory, part, part)
    assert now.count(0) == part if what in DISCARDS else now[part // 2 :] in data
    assert machine.tell("store", 0, 2 * part) == "0 0"
    assert os.pread(machine.memory, part, part) != data[part : 2 * part]
    assert os.pread(reference, SIZE, 0) == data
    assert read(core, SIZE, 0) == data, "the instant, whatever was discarded or stored since"
    counters = core.counters()
    assert counters.lost == 0 and counters.faults > 0
    assert set(picture(core.marks(), armed=True)) & set(b"fF")
    assert core.release() and core.free()


@pytest.mark.parametrize("what", DISCARDS)
def test_without_a_dump_a_discard_is_a_discard(machine: Elsewhere, what: str) -> None:
    for _ in range(2):
        os.pwrite(machine.memory, b"x" * SIZE, 0)
        assert machine.tell(what, PAGE_SIZE, PAGE_SIZE) == "0 0"
        assert os.fstat(machine.memory).st_blocks * 512 == SIZE - PAGE_SIZE
        core = started(machine)
        assert core.release() and core.free()


def test_small_reads_of_a_snapshot_are_few_requests(
    machine: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost hides nothing else of its block, and RELEASE ends what is kept."""
    os.pwrite(machine.memory, bytes(range(1, 251)) * (SIZE // 250), 0)
    data = os.pread(machine.memory, SIZE, 0)
    core = started(machine, policy="fail", granule=PAGE_SIZE, pool=PAGE_SIZE)
    assert machine.tell("store", SIZE // 2, 3 * PAGE_SIZE) == "0 0"
    assert core.counters().lost == 2
    lost = [at for at in range(0, SIZE, PAGE_SIZE) if not readable(core, at)]
    assert len(lost) == 2 and all(SIZE // 2 <= at < SIZE // 2 + 3 * PAGE_SIZE for at in lost)
    assert machine.shim is not None
    real, asked = machine.shim.call, []

    def counted(operation: int, *rest: Any, **words: Any) -> Answer:
        asked.append(operation)
        return real(operation, *rest, **words)

    monkeypatch.setattr(machine.shim, "call", counted)
    order = random.Random(5)
    for _ in range(2000):
        at = order.randrange(SIZE // 4)
        assert read(core, 8, at) == data[at : at + 8]
    assert len(asked) <= SIZE // 4 // BLOCK + 1
    assert core.release()
    for at in (0, lost[0]):
        with pytest.raises(OSError) as caught:
            read(core, 8, at)
        assert caught.value.errno == errno.ENODATA
    assert core.free()


def readable(core: RemoteCore, offset: int) -> bool:
    try:
        read(core, 8, offset)
    except OSError as error:
        assert error.errno == errno.EIO
        return False
    return True


def end(machine: Elsewhere) -> None:
    """As QEMU that dies: its connections are reset."""
    os.kill(machine.process, signal.SIGKILL)
    stat = Path(f"/proc/{machine.process}/stat")
    until = time.monotonic() + DEADLINE_S
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until, stat.read_text()
        time.sleep(0.01)


@pytest.mark.parametrize("step", ["prepare", "start", "sweep", "wait"])
def test_a_process_that_has_died_is_named(machine: Elsewhere, step: str) -> None:
    """An errno alone does not say what was reset."""
    settings = DumpSettings(backend="uffd").without_target()
    core = make_core(machine, settings, None) if step != "prepare" else None
    if core and step in ("sweep", "wait"):
        core.start(machine, 1.0)
    end(machine)
    with pytest.raises(MachineError) as caught:
        if core is None:
            make_core(machine, settings, None)
        elif step == "start":
            core.start(machine, 1.0)
        elif step == "sweep":
            core.sweep()
        else:
            core.wait(1.0)
    assert caught.value.errno == errno.ECONNRESET
    assert " has ended" in caught.value.message and "reset by peer" not in str(caught.value)
    if step != "wait":
        assert caught.value.hint == "the guest has gone with it; start it anew"
    if core:
        assert core.release() and core.free()


def test_refusals_of_the_other_process_name_it() -> None:
    gone = refused(-errno.ECONNRESET, "watch it")
    assert str(gone).startswith("cannot watch it: QEMU has ended (")
    silent = refused(-errno.ETIMEDOUT, "watch it")
    assert str(silent).startswith("cannot watch it: the shim in QEMU does not answer")
    plain = refused(-errno.ENOMEM, "watch it", "a hint")
    assert (str(plain), plain.errno) == (
        "cannot watch it: Cannot allocate memory (a hint)",
        errno.ENOMEM,
    )
