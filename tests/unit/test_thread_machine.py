# SPDX-License-Identifier: GPL-2.0-or-later
"""A program's own threads as the machine."""

from __future__ import annotations

import errno
import json
import time

import pytest

from livedumpfs.core.arena import Arena
from livedumpfs.dump import DumpSettings, DumpState, LiveDump
from livedumpfs.errors import MachineError
from livedumpfs.machines import Machine, ThreadMachine


def test_callbacks_and_map() -> None:
    calls: list[str] = []
    arena = Arena(1 << 20)
    try:
        machine: Machine = ThreadMachine(
            arena, lambda: calls.append("quiesce"), lambda: calls.append("resume")
        )
        machine.start()
        machine.quiesce()
        machine.resume()
        machine.close()
        (r,) = machine.memory_map
        assert calls == ["quiesce", "resume"]
        assert (r.start, r.end, r.arena_offset) == (0, arena.size, 0)
        assert machine.quiesce_ops() is None
        assert machine.registers() == machine.snapshot_registers() == []
        assert json.loads(json.dumps(machine.metadata())) == {"name": "threads"}
        # The arena is the program's: closing the machine leaves it usable.
        assert arena.read(0, 4) == bytes(4)
    finally:
        arena.close()


def test_without_callbacks_the_caller_holds_the_writers() -> None:
    arena = Arena(1 << 20)
    try:
        machine = ThreadMachine(arena)
        machine.quiesce()
        machine.resume()
    finally:
        arena.close()


def test_a_quiesce_that_returns_too_late_has_failed() -> None:
    """Nothing is armed, the writers go on at once, and START can be tried again."""
    calls: list[str] = []
    deadline_s = 0.02
    slow = True

    def quiesce() -> None:
        end = time.monotonic() + 2 * deadline_s
        while slow and time.monotonic() < end:
            time.sleep(deadline_s)
        calls.append("quiesce")

    with Arena(1 << 20) as arena:
        arena.live[:] = 1
        with LiveDump(arena, quiesce=quiesce, resume=lambda: calls.append("resume")) as live:
            live.init(None, DumpSettings(quiesce_deadline=deadline_s))
            with pytest.raises(MachineError, match="cannot start the dump") as caught:
                live.start()
            assert caught.value.errno == errno.ETIMEDOUT and "in time" in str(caught.value)
            assert calls == ["quiesce", "resume"] and live.state is DumpState.INIT
            arena.live[:] = 2
            assert live.counters().faults == 0
            live.release()
            slow = False
            live.init(None, DumpSettings(quiesce_deadline=60))
            live.start()
            arena.live[:] = 3
            assert live.read(0, arena.size).count(2) == arena.size
    assert calls == ["quiesce", "resume"] * 2


def test_what_resume_raises_after_a_late_quiesce_passes_through() -> None:
    def resume() -> None:
        raise RuntimeError("cannot go on")

    arena = Arena(1 << 20)
    with arena, LiveDump(arena, quiesce=lambda: time.sleep(0.01), resume=resume) as live:
        live.init(None, DumpSettings(quiesce_deadline=1e-3))
        with pytest.raises(RuntimeError, match="cannot go on"):
            live.start()
        arena.live[:] = 2
        assert live.state is DumpState.INIT and live.counters().faults == 0
