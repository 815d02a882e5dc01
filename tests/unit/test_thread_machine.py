# SPDX-License-Identifier: GPL-2.0-or-later
"""A program's own threads as the machine."""

from __future__ import annotations

import json

from livedumpfs.arena import Arena
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
