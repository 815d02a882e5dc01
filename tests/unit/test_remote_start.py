# SPDX-License-Identifier: GPL-2.0-or-later
"""START of a machine elsewhere, failing at each of its steps: the machine runs, its core is
free, and the LiveDump says so. The other process is made up here: it answers as it is told."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.core.capi import ffi, lib
from livedumpfs.dump import DumpState, remote
from livedumpfs.errors import MachineError
from livedumpfs.machines import Registers, ThreadMachine
from livedumpfs.machines.shim import Answer

MIB = 1 << 20


class Shim:
    """The core elsewhere: which dump there is, and whether anything is armed."""

    def __init__(self) -> None:
        self.dump, self.armed, self.made = 0, False, 0
        self.answers: dict[int, int] = {}
        """What an operation answers instead; it is done all the same after -ETIMEDOUT."""

    def call(self, operation: int, *_: Any, dump: int = 0, **__: Any) -> Answer:
        code = self.answers.pop(operation, 0)
        if code not in (0, -errno.ETIMEDOUT):
            return Answer(code)
        if operation == lib.LDFS_SHIM_INIT:
            if self.dump:
                return Answer(-errno.EBUSY)
            self.made += 1
            self.dump = self.made
            return Answer(code, b"", self.dump)
        if dump != self.dump:
            return Answer(-errno.ENODATA)
        if operation == lib.LDFS_SHIM_START:
            self.armed = True
        elif operation == lib.LDFS_SHIM_RELEASE:
            self.armed = False
        elif operation == lib.LDFS_SHIM_FREE:
            self.dump = 0
        elif operation == lib.LDFS_SHIM_COUNTERS:
            return Answer(code, bytes(ffi.sizeof("ldfs_counters")))
        return Answer(code)


class Remote(ThreadMachine):
    """Stands while it is stopped, and fails where it is told."""

    stands, fails = False, ""
    backends = ("uffd",)

    def _step(self, name: str) -> None:
        if self.fails == name:
            self.fails = ""
            raise MachineError(f"cannot {name}", errno=errno.EPROTO)

    def quiesce(self) -> None:
        self._step("quiesce")
        self.stands = True

    def resume(self) -> None:
        self.stands = False
        self._step("resume")

    def snapshot_registers(self) -> list[Registers]:
        self._step("registers")
        return []

    def snapshot_notes(self, read: Any) -> Sequence[Any]:
        self._step("notes")
        return ()


@pytest.fixture
def live() -> Iterator[LiveDump]:
    with Arena(MIB) as arena:
        machine = Remote(arena)
        machine.shim = Shim()  # type: ignore[assignment]
        with LiveDump(machine) as live:
            yield live


START = lib.LDFS_SHIM_START
STEPS: dict[str, tuple[str, dict[int, int], int, DumpState]] = {
    "nothing was stopped": ("quiesce", {}, errno.EPROTO, DumpState.INIT),
    "refused": ("", {START: -errno.EPERM}, errno.EPERM, DumpState.INIT),
    "no answer": ("", {START: -errno.ETIMEDOUT}, errno.ETIMEDOUT, DumpState.UNINIT),
    "gone": ("", {START: -errno.ECONNRESET}, errno.ECONNRESET, DumpState.UNINIT),
    "not resumed": ("resume", {}, errno.EPROTO, DumpState.UNINIT),
    "refused, not resumed": ("resume", {START: -errno.EPERM}, errno.EPROTO, DumpState.UNINIT),
    "no registers": ("registers", {}, errno.EPROTO, DumpState.UNINIT),
    "not resumed, release late": (
        "resume", {lib.LDFS_SHIM_RELEASE: -errno.ETIMEDOUT}, errno.EPROTO, DumpState.UNINIT
    ),
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_start_that_fails_leaves_what_it_says(live: LiveDump, step: str) -> None:
    fails, answers, number, state = STEPS[step]
    machine = live.machine
    assert isinstance(machine, Remote)
    shim: Any = machine.shim
    live.init(None)
    machine.fails, shim.answers = fails, dict(answers)
    with pytest.raises(MachineError) as caught:
        live.start()
    assert (caught.value.errno, live.state) == (number, state)
    assert not machine.stands and not shim.armed and not shim.answers
    if state is DumpState.UNINIT:
        assert live.released == "released by a START that failed in state INIT"
        with pytest.raises(OSError) as refused:
            live.start()
        assert refused.value.errno == errno.EINVAL
        live.init(None)
    live.start()
    assert live.state is DumpState.START and shim.armed
    live.release()
    assert not shim.armed and not shim.dump and live.state.name == "UNINIT"


def test_without_its_notes_a_dump_is_still_one(live: LiveDump) -> None:
    machine = live.machine
    assert isinstance(machine, Remote)
    machine.fails = "notes"
    live.init(None)
    live.start()
    assert live.state is DumpState.START and machine.fails == ""


class Interrupted(BaseException):
    """As KeyboardInterrupt, which would end pytest."""


@pytest.mark.parametrize("look", [1, 2, 3, 4])
def test_a_signal_between_stop_and_resume(
    live: LiveDump, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    """Its handler raises at a look at the clock: before quiesce, behind it and before the core is
    asked, behind that, and behind resume."""
    machine = live.machine
    assert isinstance(machine, Remote)
    shim: Any = machine.shim
    looks, real = itertools.count(1), time.monotonic_ns

    def interrupt(*_: object) -> NoReturn:
        raise Interrupted

    def monotonic_ns() -> int:
        if next(looks) == look:
            os.kill(os.getpid(), signal.SIGUSR1)
        return real()

    live.init(None)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic_ns=monotonic_ns))
        with pytest.raises(Interrupted):
            live.start()
    finally:
        signal.signal(signal.SIGUSR1, before)
        monkeypatch.undo()
    assert not machine.stands and not shim.armed
    assert live.state in (DumpState.INIT, DumpState.UNINIT)
    live.release()
    live.init(None)
    live.start()
    assert live.state is DumpState.START and shim.armed
