# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of the program's own that do not return: START ends all the same, nothing is armed, and
the program that was held goes on once they do return."""

from __future__ import annotations

import contextvars
import errno
import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.control.caller import Caller
from livedumpfs.control.calls import Control
from livedumpfs.dump import DumpSettings, DumpState
from livedumpfs.errors import MachineError, StateError
from livedumpfs.machines import ThreadMachine
from tests.fixtures.open_files import no_file_stays_open

MIB = 1 << 20
DEADLINE_S = 300.0
SHORT = DumpSettings(quiesce_deadline=0.01)


def wait_for(what: Callable[[], bool], said: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end, said
        time.sleep(1e-3)


class Program:
    """Its functions hang while they are told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.go_on = {"quiesce": threading.Event(), "resume": threading.Event()}
        for one in self.go_on.values():
            one.set()

    def _called(self, name: str) -> None:
        self.calls.append(name)
        assert self.go_on[name].wait(DEADLINE_S)
        self.calls.append(f"{name} returns")

    def quiesce(self) -> None:
        self._called("quiesce")

    def resume(self) -> None:
        self._called("resume")


WHOLE = ["quiesce", "quiesce returns", "resume", "resume returns"]


@pytest.fixture
def program() -> Iterator[Program]:
    made, before = Program(), threading.active_count()
    yield made
    for one in made.go_on.values():
        one.set()
    wait_for(lambda: threading.active_count() <= before, "a thread is left")


@pytest.fixture
def live(program: Program) -> Iterator[LiveDump]:
    with (
        Arena(MIB) as arena,
        LiveDump(arena, quiesce=program.quiesce, resume=program.resume) as live,
    ):
        arena.live[:] = 1
        yield live


def hangs(live: LiveDump) -> bool:
    """Something of an earlier dump."""
    return not live._hanging.settled()


def fill(live: LiveDump, value: int) -> None:
    """Faults if anything is armed."""
    assert isinstance(live.machine.arena, Arena)
    live.machine.arena.live[:] = value


def expect_whole_dump(live: LiveDump, path: Path, value: int) -> None:
    fill(live, value)
    assert live.save(path, DumpSettings(force=True)) == "consistent"
    with open_dump(path) as dump:
        assert dump.read_arena(0, MIB).count(value) == MIB


@pytest.mark.parametrize("released", [False, True], ids=["kept", "released"])
def test_start_ends_though_quiesce_does_not(
    live: LiveDump, program: Program, tmp_path: Path, released: bool
) -> None:
    program.go_on["quiesce"].clear()
    live.init(tmp_path / "dump", SHORT)
    with pytest.raises(MachineError, match="the machine did not stop in time") as caught:
        live.start()
    assert caught.value.errno == errno.ETIMEDOUT and "quiesce_deadline" in caught.value.hint
    assert live.state is DumpState.INIT and program.calls == ["quiesce"]
    fill(live, 2)
    assert live.counters().faults == 0
    step: Callable[[], object] = live.start
    if released:
        live.release()
        assert live.state.name == "UNINIT"
        step = lambda: live.init(tmp_path / "other")  # noqa: E731
    with pytest.raises(StateError, match="has not returned") as refused:
        step()
    assert refused.value.errno == errno.EBUSY
    assert not (tmp_path / "other").exists() and program.calls == ["quiesce"]
    program.go_on["quiesce"].set()
    wait_for(lambda: program.calls == WHOLE, "the program that was held does not go on")
    fill(live, 3)
    assert live.counters().faults == 0, "late, it armed"
    if not released:
        wait_for(lambda: not live._run.core.start_under_way, "START hangs")  # type: ignore[union-attr]
        live.start()
        assert program.calls == WHOLE * 2
        fill(live, 4)
        assert live.read(0, MIB).count(3) == MIB
        live.release()
    wait_for(lambda: not hangs(live), "it is not freed")
    if released:
        wait_for(lambda: not list(tmp_path.iterdir()), "a file is left")
    expect_whole_dump(live, tmp_path / "dump", 5)


def test_start_ends_though_resume_does_not(
    live: LiveDump, program: Program, tmp_path: Path
) -> None:
    """All was armed: the dump is released, and no store waits for it."""
    program.go_on["resume"].clear()
    live.init(tmp_path / "dump", SHORT)
    with pytest.raises(MachineError, match="the machine did not go on in time") as caught:
        live.start()
    assert caught.value.errno == errno.ETIMEDOUT
    assert live.state is DumpState.UNINIT and live.released == (
        "released by a START that failed in state INIT, before it was sealed"
    )
    faults = live.counters().faults
    fill(live, 2)
    assert live.counters().faults == faults
    with pytest.raises(StateError) as refused:
        live.init(None)
    assert refused.value.errno == errno.EBUSY
    program.go_on["resume"].set()
    wait_for(lambda: not hangs(live), "it is not freed")
    assert program.calls == WHOLE
    expect_whole_dump(live, tmp_path / "dump", 3)


def test_release_meanwhile_frees_the_machine(live: LiveDump, program: Program) -> None:
    """From another thread, while START still waits: what quiesce gives later is not armed."""
    program.go_on["quiesce"].clear()
    live.init(None, DumpSettings(quiesce_deadline=DEADLINE_S))
    errors: list[BaseException] = []

    def start() -> None:
        try:
            live.start()
        except BaseException as error:
            errors.append(error)

    starting, releasing = threading.Thread(target=start), threading.Thread(target=live.release)
    starting.start()
    wait_for(lambda: program.calls == ["quiesce"], "quiesce is not called")
    releasing.start()
    core = live._run.core if live._run else None
    wait_for(lambda: core is not None and not core.startable, "it is not released")
    program.go_on["quiesce"].set()
    for one in (starting, releasing):
        one.join(DEADLINE_S)
    assert program.calls == WHOLE and live.state is DumpState.UNINIT
    assert [getattr(one, "errno", None) for one in errors] == [errno.ECANCELED]
    fill(live, 2)
    live.init(None)


def test_both_are_called_on_one_thread_in_the_callers_context() -> None:
    word: contextvars.ContextVar[str] = contextvars.ContextVar("word")
    word.set("said")
    seen: list[tuple[int, str]] = []
    lock = threading.RLock()

    def quiesce() -> None:
        lock.acquire()
        seen.append((threading.get_ident(), word.get()))

    def resume() -> None:
        lock.release()  # RuntimeError on any other thread
        seen.append((threading.get_ident(), word.get()))

    with Arena(MIB) as arena, LiveDump(arena, quiesce=quiesce, resume=resume) as live:
        live.init(None)
        live.start()
    assert len(seen) == 2 and seen[0] == seen[1] and seen[0][1] == "said"


def test_the_steps_of_a_mount_see_it_as_that(program: Program) -> None:
    with Arena(MIB) as arena:
        machine = ThreadMachine(arena, program.quiesce, program.resume)
        with LiveDump(machine) as live:
            control, caller = Control(machine, live, settings=SHORT), Caller(0, 0, 0)
            control.write("control/type", b"none\n", caller)
            control.write("control/state", b"1\n", caller)
            program.go_on["quiesce"].clear()
            for expected in (errno.ETIMEDOUT, errno.EBUSY):
                with pytest.raises(OSError) as caught:
                    control.write("control/state", b"2\n", caller)
                assert caught.value.errno == expected
            assert b"has not returned" in control.read("control/error", caller)
            assert control.read("control/state", caller).startswith(b"1\n")
            control.write("control/state", b"5\n", caller)
            with pytest.raises(OSError) as caught:
                control.write("control/state", b"1\n", caller)
            assert caught.value.errno == errno.EBUSY
            program.go_on["quiesce"].set()
            wait_for(lambda: program.calls == WHOLE, "the program that was held does not go on")
            wait_for(lambda: not hangs(live), "it is not freed")
            control.write("control/state", b"1\n", caller)
            control.write("control/state", b"2\n", caller)
            assert control.read("control/state", caller).startswith(b"2\n")


def test_who_is_done_with_an_arena_has_its_memory_back() -> None:
    """Without the garbage collector, which need not come for long."""
    gc.collect()
    gc.disable()
    try:
        with no_file_stays_open():
            with Arena(MIB) as arena, LiveDump(arena, quiesce=int, resume=int) as live:
                live.init(None)
                live.start()
            del arena, live
    finally:
        gc.enable()
