# SPDX-License-Identifier: GPL-2.0-or-later
"""HOLD, ARM and GO of machines in process: they stand in both gaps, and run again whatever ends the
hold; a barrier of two hosts."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.client import Client, InitOptions
from livedumpfs.dump import DumpSettings, DumpState
from livedumpfs.errors import MachineError, StateError, UsageError
from livedumpfs.machines import ThreadMachine, UnicornMachine
from tests.fixtures import forks
from tests.fixtures.holds import arm_in_time
from tests.fixtures.hosts import HostMaker
from tests.fixtures.program_files import program_command
from tests.fixtures.unicorn_guests import needs_ledger

DEADLINE_S = 300.0
LONG_S = 50.0
SHORT_S = 0.2
MIB = 1 << 20


class Writers:
    """Threads that count in an arena, and a lock that stops them."""

    def __init__(self, arena: Arena) -> None:
        self.words = arena.array("u8", (2,), name="counts")
        self.gate = threading.Lock()
        self.over = False
        self.calls: list[int] = []
        self.threads = [threading.Thread(target=self._count, args=(i,)) for i in range(2)]

    def _count(self, index: int) -> None:
        while not self.over:
            with self.gate:
                self.words[index] += 1
            time.sleep(0.0005)

    def quiesce(self) -> None:
        assert self.gate.acquire(timeout=DEADLINE_S)
        self.calls.append(threading.get_ident())

    def resume(self) -> None:
        self.calls.append(-threading.get_ident())
        self.gate.release()


Look = Callable[[], object]


@contextmanager
def counting() -> Iterator[tuple[LiveDump, Look]]:
    with Arena(4 * MIB) as arena:
        writers = Writers(arena)
        for one in writers.threads:
            one.start()
        try:
            with LiveDump(arena, quiesce=writers.quiesce, resume=writers.resume) as dump:
                yield dump, lambda: writers.words.tolist()
            # On the thread that stopped them, and once each time.
            assert writers.calls[::2] == [-one for one in writers.calls[1::2]]
        finally:
            writers.over = True
            for one in writers.threads:
                one.join(DEADLINE_S)


@contextmanager
def emulated() -> Iterator[tuple[LiveDump, Look]]:
    with UnicornMachine(16 * MIB, 2, rate=2000) as machine:
        machine.wait_ready(DEADLINE_S)
        with LiveDump(machine) as dump:
            yield dump, lambda: machine.arena.read(0, machine.arena.size)


MACHINES = {"threads": counting, "unicorn": emulated}


@pytest.fixture(params=[*MACHINES, "unicorn-uffd"])
def machine(request: pytest.FixtureRequest) -> Iterator[tuple[LiveDump, Look, DumpSettings]]:
    kind, _, backend = request.param.partition("-")
    if kind == "unicorn":
        request.getfixturevalue("no_vcpu_is_left")
    with MACHINES[kind]() as (dump, look):
        yield dump, look, DumpSettings(backend="uffd" if backend else "")


def stands(look: Look) -> bool:
    before = look()
    time.sleep(0.03)
    return look() == before


def runs(look: Look) -> None:
    before, end = look(), time.monotonic() + DEADLINE_S
    while look() == before:
        assert time.monotonic() < end, "it stands still"
        time.sleep(0.001)


def wait_let_go(dump: LiveDump) -> None:
    end = time.monotonic() + DEADLINE_S
    while dump.is_held:
        assert time.monotonic() < end, "the deadline has not let it go"
        time.sleep(0.005)


Machine = tuple[LiveDump, Look, DumpSettings]


def test_the_three_steps(machine: Machine) -> None:
    dump, look, settings = machine
    dump.init(None, settings)
    dump.hold(LONG_S)
    assert dump.is_held and dump.state is DumpState.INIT and stands(look)
    with pytest.raises(StateError, match="START: the machine is held") as caught:
        dump.start()
    assert caught.value.errno == errno.EBUSY
    with pytest.raises(StateError, match="HOLD: the machine is held"):
        dump.hold(LONG_S)
    with pytest.raises(StateError, match="GO: ARM comes first"):
        dump.go()
    dump.arm()
    assert dump.is_held and dump.state is DumpState.START and stands(look)
    held = dump.machine.arena.read(0, dump.machine.arena.size)
    assert dump.counters().pause_ns == 0, "not over yet"
    dump.go()
    times, counters = dump.held, dump.counters()
    assert not dump.is_held and dump.was_let_go and times
    assert times.stood_mono_ns <= counters.instant_mono_ns <= times.ran_mono_ns
    assert times.stood_wall_ns <= counters.instant_wall_ns <= times.ran_wall_ns
    assert counters.pause_ns >= times.ran_mono_ns - times.stood_mono_ns - 10**7
    assert counters.resume_ns < counters.pause_ns
    runs(look)
    assert dump.read(0, len(held)) == held and dump.so_far == "consistent"
    dump.release()
    runs(look)
    dump.init(None, settings)
    dump.start()
    assert dump.held is None


def test_a_deadline_that_passes_in_each_gap(machine: Machine) -> None:
    dump, look, settings = machine
    dump.init(None, settings)
    dump.hold(SHORT_S)
    wait_let_go(dump)
    runs(look)
    for step in (dump.arm, dump.go):
        with pytest.raises(MachineError, match=r"was let go after 0\.2 s") as caught:
            step()
        assert caught.value.errno == errno.ETIMEDOUT
    assert dump.state is DumpState.INIT and dump.counters().instant_wall_ns == 0
    arm_in_time(dump, SHORT_S)
    wait_let_go(dump)
    runs(look)
    with pytest.raises(MachineError, match="GO: the machine was let go after"):
        dump.go()
    assert not dump.was_let_go and dump.state is DumpState.START and dump.so_far == "consistent"


@pytest.mark.parametrize("armed", [False, True])
def test_release_in_each_gap(machine: Machine, *, armed: bool) -> None:
    dump, look, settings = machine
    dump.init(None, settings)
    dump.hold(LONG_S)
    if armed:
        dump.arm()
    dump.release()
    assert dump.state is DumpState.UNINIT
    runs(look)
    with pytest.raises(StateError, match="GO is not possible in state UNINIT"):
        dump.go()
    dump.init(None, settings)
    dump.hold(LONG_S)
    dump.arm()
    dump.go()
    assert dump.so_far == "consistent"


def test_a_handler_that_comes_while_it_is_held(machine: Machine) -> None:
    """A thread that blocks the signal would end by its next store to armed memory: ARM looks
    again."""
    dump, look, settings = machine
    if settings.backend == "uffd":
        pytest.skip("needs no handler")
    import signal

    dump.init(None, DumpSettings(backend="sigsegv"))
    dump.hold(LONG_S)
    ready, end = threading.Event(), threading.Event()

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGSEGV})
        ready.set()
        end.wait(DEADLINE_S)

    thread = threading.Thread(target=block)
    thread.start()
    assert ready.wait(DEADLINE_S)
    try:
        with pytest.raises(MachineError, match="blocks SIGSEGV"):
            dump.arm()
    finally:
        end.set()
        thread.join(DEADLINE_S)
    assert dump.state is DumpState.INIT and not dump.is_held
    runs(look)
    dump.start()


def test_machines_that_cannot_be_held() -> None:
    with Arena(MIB) as arena, LiveDump(arena) as dump:
        dump.init(None)
        with pytest.raises(MachineError, match="the program itself holds its threads") as caught:
            dump.hold(LONG_S)
        assert caught.value.errno == errno.EOPNOTSUPP
        dump.start()


def test_deadlines_that_make_no_sense() -> None:
    with Arena(MIB) as arena, LiveDump(arena, quiesce=lambda: None, resume=lambda: None) as dump:
        dump.init(None)
        for seconds in (0, -1, 61, float("inf"), float("nan")):
            with pytest.raises(UsageError, match="not above 0 and at most 60 s"):
                dump.hold(seconds)
        dump.start()


def test_registers_that_cannot_be_had_end_the_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ARM nothing else knows of the instant: the machine is let go, and the dump released."""
    with emulated() as (dump, look):
        dump.init(None)
        dump.hold(LONG_S)

        def refuse() -> object:
            raise MachineError("no registers", errno=errno.EIO)

        monkeypatch.setattr(dump.machine, "snapshot_registers", refuse)
        with pytest.raises(MachineError, match="no registers"):
            dump.arm()
        assert dump.state is DumpState.UNINIT
        runs(look)


def test_a_hold_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    with emulated() as (dump, look):
        dump.init(None)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError))
            with pytest.raises(MachineError, match="cannot hold the machine"):
                dump.hold(LONG_S)
        for step in (dump.arm, dump.go):
            with pytest.raises(StateError, match="the machine is not held"):
                step()
        runs(look)
        dump.start()


def test_a_quiesce_that_is_late() -> None:
    with Arena(MIB) as arena:
        machine = ThreadMachine(arena, lambda: time.sleep(0.2), lambda: None)
        with LiveDump(machine) as dump:
            dump.init(None, DumpSettings(quiesce_deadline=0.05))
            with pytest.raises(MachineError, match="the machine did not stop in time"):
                dump.hold(LONG_S)
            assert not dump.is_held and dump.state is DumpState.INIT


def test_a_resume_that_fails_ends_the_dump() -> None:
    """Also when it is the deadline that calls it, and no client is left."""

    def resume() -> None:
        raise OSError(errno.EIO, "it does not go on")

    with Arena(MIB) as arena, LiveDump(arena, quiesce=lambda: None, resume=resume) as dump:
        dump.init(None)
        arm_in_time(dump, SHORT_S)
        end = time.monotonic() + DEADLINE_S
        while dump.state is not DumpState.UNINIT:
            assert time.monotonic() < end, "the dump is there still"
            time.sleep(0.005)
        assert dump.released == "released by a START that failed in state START"


def test_a_child_cannot_arm() -> None:
    with emulated() as (dump, look):
        dump.init(None)
        dump.hold(LONG_S)
        child = os.fork()
        if child == 0:
            codes = []
            for step in (dump.arm, dump.go, lambda: dump.hold(1)):
                try:
                    step()
                except OSError as error:
                    codes.append(error.errno)
            os._exit(0 if codes == [errno.ECHILD] * 3 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert stands(look)
        dump.arm()
        dump.go()
        runs(look)


# ------------------------------------------------------------------ over a mount


def hold_through(client: Client, gap: str, *, release_on_close: bool = False) -> bytes:
    dump_id = os.urandom(16)
    client.init_as(dump_id, None, InitOptions(release_on_close=release_on_close))
    client.hold(dump_id, LONG_S)
    if gap == "armed":
        client.arm(dump_id)
    return dump_id


@needs_ledger
@pytest.mark.parametrize("gap", ["held", "armed"])
def test_a_client_that_is_killed(run_host: HostMaker, gap: str) -> None:
    """The deadline lets the machine go; RELEASE_ON_CLOSE does so at once."""
    host = run_host()
    for on_close, seconds in ((False, "0.5"), (True, str(LONG_S))):
        command = program_command(__file__, "holding_client.py", host.device, gap, seconds)
        client = forks.start(
            [*command, "on close" if on_close else ""], stdout=subprocess.PIPE, text=True
        )
        assert client.stdout and client.stdout.readline() == "held\n"
        client.kill()
        client.communicate(timeout=DEADLINE_S)
        host.runs_on()
        with Client(host.device) as other:
            state = other.status().state
            assert state == (5 if on_close else 2 if gap == "armed" else 1)
            other.release()


@needs_ledger
def test_what_the_host_says_meanwhile(run_host: HostMaker) -> None:
    host = run_host()
    with Client(host.device) as client:
        dump_id = hold_through(client, "armed")
        stats = client.stats()
        assert stats["held"]["now"] and stats["id"] == dump_id.hex()
        assert "state=START" in host.read("livedump") and host.read("machine/registers")
        assert len((host.mountpoint / "snapshot/mem.raw").read_bytes()) == host.size
        with pytest.raises(StateError, match="START is not possible in state START"):
            client.start()
        found = client.go(dump_id)
        assert found.pause_ns and not found.already and client.go(dump_id).already
        assert client.status().counters["pause_ns"] == found.pause_ns
        client.release()
        with pytest.raises(OSError, match="was released") as caught:
            client.go(dump_id)
        assert caught.value.errno == errno.ESTALE


@needs_ledger
def test_start_at_a_time(run_host: HostMaker) -> None:
    host = run_host()
    with Client(host.device) as client:
        dump_id = client.init_as(None, None)
        at_ns = time.time_ns() + 300_000_000
        found = client.start_as(dump_id, at_ns, int(DEADLINE_S * 1e9))
        assert found.instant_wall_ns >= at_ns and found.error_ns >= 0
        assert client.start_as(dump_id).instant_wall_ns == found.instant_wall_ns
        client.release()
