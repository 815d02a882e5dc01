# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists by vCPU of a machine whose vCPUs come and go, at each moment of a dump."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.control.report import registers_json, registers_text
from livedumpfs.dump.dump_files import _plan
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.formats import MachineInfo, Registers
from livedumpfs.formats.elf import parse_registers, plan_elf
from livedumpfs.formats.kdump import plan_kdump
from livedumpfs.machines import PhysicalRange, ThreadMachine
from livedumpfs.machines.qemu.qemu_machine import QemuMachine
from livedumpfs.settings import DumpSettings

MIB = 1 << 20
META_ROOM = 256 << 10


class Plugged:
    """Shows what it is told to; see NumbersVcpus."""

    def __init__(self, live: dict[int, int], snapshot: dict[int, int] | None) -> None:
        self.live, self.snapshot = live, snapshot

    def registers_by_number(self) -> dict[int, Registers]:
        return {number: {"rip": rip} for number, rip in self.live.items()}

    def snapshot_by_number(self) -> dict[int, Registers]:
        if self.snapshot is None:
            raise MachineError("there was no START")
        return {number: {"rip": rip} for number, rip in self.snapshot.items()}


@pytest.mark.parametrize(
    ("live", "snapshot", "lines"),
    [
        ({0: 1}, None, ["vcpu 0", "rip 0x0000000000000001"]),
        (
            {0: 1, 1: 2},
            {0: 3},
            ["vcpu 0", "rip 0x0000000000000001 0x0000000000000003", "", "vcpu 1",
             "rip 0x0000000000000002"],
        ),
        (
            {0: 1, 2: 2},
            {0: 3, 1: 4, 2: 5},
            ["vcpu 0", "rip 0x0000000000000001 0x0000000000000003", "", "vcpu 1",
             "rip - 0x0000000000000004", "", "vcpu 2",
             "rip 0x0000000000000002 0x0000000000000005"],
        ),
    ],
    ids=["no START", "plugged in", "unplugged from the middle"],
)  # fmt: skip
def test_registers_stand_beside_those_of_the_same_vcpu(
    live: dict[int, int], snapshot: dict[int, int] | None, lines: list[str]
) -> None:
    machine: Any = Plugged(live, snapshot)
    text = registers_text(machine)
    assert [" ".join(line.split()) for line in text.splitlines()] == lines
    found = json.loads(registers_json(machine))
    numbers = sorted({*live, *(snapshot or {})})
    assert found["numbers"] == numbers

    def column(shown: dict[int, int]) -> list[dict[str, int] | None]:
        return [{"rip": shown[one]} if one in shown else None for one in numbers]

    assert found["live"] == column(live)
    assert found["snapshot"] == (None if snapshot is None else column(snapshot))


def info(vcpus: int, note_room: int = 0) -> MachineInfo:
    ranges = [PhysicalRange(0, MIB, 0)]
    return MachineInfo.of(
        "test", ranges, architecture="x86_64", elf_machine=62, vcpus=vcpus, note_room=note_room
    )


@pytest.mark.parametrize("plan_of", [plan_elf, plan_kdump])
def test_a_dump_has_as_many_notes_as_vcpus_at_its_instant(plan_of: Any) -> None:
    """Unplugged since INIT, which made room for three."""
    plan = plan_of(info(3), arena_size=MIB, granule_size=65536, meta_room=META_ROOM)
    given = [{"rip": 1}, {"rip": 2}]
    before, after = plan.header(), plan.header(given)
    assert len(before) == len(after) == plan.superblock_offset
    parse: Any = parse_registers
    if plan_of is plan_kdump:
        from livedumpfs.formats.kdump import parse_registers as parse
    assert [one["rip"] for one in parse(after)] == [1, 2]
    assert len(parse(before)) == 3
    with pytest.raises(UsageError, match="4 vCPUs for 3"):
        plan.header([{}] * 4)


def test_a_kdump_says_how_many_there_were() -> None:
    plan = plan_kdump(info(3), arena_size=MIB, granule_size=65536, meta_room=META_ROOM)
    counts = [struct.unpack_from("<I", plan.header(one), 460)[0] for one in ([], [{}, {}])]
    assert counts == [3, 2]


class Growing:
    """One more vCPU each time that it is asked, and what it was asked to keep room for."""

    name, architecture, elf_machine, identity_mapped = "test", "x86_64", 62, True
    memory_map = (PhysicalRange(0, MIB, 0),)
    arena = SimpleNamespace(size=MIB, named=())

    def __init__(self) -> None:
        self.asked = 0
        self.kept: list[int] = []

    @property
    def vcpus(self) -> int:
        self.asked += 1
        return self.asked

    def metadata(self) -> dict[str, object]:
        return {}

    def note_room(self, vcpus: int) -> int:
        self.kept.append(vcpus)
        return 1024 * vcpus


@pytest.mark.parametrize("kind", ["elf", "raw", "kdump"])
def test_init_asks_for_the_number_of_vcpus_once(kind: Any) -> None:
    """Of all that is laid out, nothing is for another number."""
    machine: Any = Growing()
    target: Any = SimpleNamespace(identity=(0, 0), capacity=None)
    plan = _plan(machine, DumpSettings(format=kind), target, None)
    assert (machine.asked, machine.kept) == (1, [1])
    assert (plan.machine.vcpus, plan.machine.note_room) == (1, 1024)


class Limited(ThreadMachine):
    """Told how many vCPUs a dump has room for."""

    limits: list[int | None]

    def limit_vcpus(self, most: int | None) -> None:
        self.limits.append(most)


def test_each_init_says_how_many_vcpus_it_has_room_for(tmp_path: Path) -> None:
    """And nothing else does, such as the snapshot, which asks for the room of its notes."""
    with Arena(MIB) as arena:
        machine = Limited(arena)
        machine.limits = []
        with LiveDump(machine) as live:
            for target in (tmp_path / "dump", None):
                live.init(target)
                live.start()
                live.snapshot.read(0, 1)
                live.release()
    assert machine.limits == [0, None]


def test_to_ask_for_room_limits_nothing() -> None:
    machine: Any = object.__new__(QemuMachine)
    machine._closed, machine._room_vcpus = True, None
    assert machine.note_room(2) == 2 * machine.note_room(1) - machine.note_room(0)
    machine._vcpus, machine.monitor = 3, SimpleNamespace(execute=lambda _: [{}, {}, {}])
    machine._expect_room()
    machine.limit_vcpus(2)
    with pytest.raises(MachineError, match="has 3 vCPUs now, INIT saw 2") as caught:
        machine._expect_room()
    assert caught.value.errno == errno.EBUSY
    machine.limit_vcpus(None)
    machine._expect_room()
