# SPDX-License-Identifier: GPL-2.0-or-later
"""When a guest's memory is looked through for VMCOREINFO, and when not: it takes a second a GiB."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from livedumpfs.machines import PhysicalRange
from livedumpfs.machines.kernels import information
from livedumpfs.machines.kernels.information import KernelInformation
from livedumpfs.machines.kernels.vmcoreinfo import locate_vmcoreinfo
from livedumpfs.machines.qemu import qemu_machine as module
from livedumpfs.machines.qemu.qemu_machine import QemuMachine

SIZE = 1 << 20
TABLE, OTHER, OWN, TEXT = 0x1000, 0x2000, 0x3000, 0x8000
SYMBOL = 0xFFFFFFFF80000000 + OWN
INFORMATION = (
    f"OSRELEASE=6\nSYMBOL(swapper_pg_dir)={SYMBOL:x}\nNUMBER(phys_base)=0\nKERNELOFFSET=0\n"
).encode()


class Guest:
    """Memory, one vCPU that uses the page table at `cr3`, and how often all of it was looked
    through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory = bytearray(SIZE)
        self.searches = 0
        self.machine: Any = object.__new__(QemuMachine)
        self.machine._closed = True
        self.machine._told = None
        self.machine.monitor = None
        self.machine.arena = SimpleNamespace(size=SIZE, read=self.read, data=lambda: [(0, SIZE)])
        self.information = KernelInformation(self.machine.arena, [PhysicalRange(0, SIZE, 0)])
        self.machine._information = self.information
        self.machine._look = lambda: self.machine._captured
        self.run(0)
        monkeypatch.setattr(module, "has_vmcoreinfo", lambda monitor: False)
        monkeypatch.setattr(information, "locate_vmcoreinfo", self.locate)

    def locate(self, *words: Any, **more: Any) -> tuple[int, int] | None:
        self.searches += 1
        return locate_vmcoreinfo(*words, **more)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.memory[offset : offset + length])

    def run(self, cr3: int) -> None:
        self.machine._captured = [SimpleNamespace(tables=cr3)]

    def entry(self, table: int, value: int) -> None:
        self.memory[table + 4088 : table + 4096] = value.to_bytes(8, "little")

    def dump(self) -> bytes | None:
        """INIT and START."""
        self.machine.look_ahead()
        found: bytes | None = self.machine._find_information(self.read, self.machine._told)
        return found


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    return Guest(monkeypatch)


def linux(guest: Guest) -> None:
    guest.entry(OWN, 0x5067)
    guest.entry(TABLE, 0x5067)
    guest.memory[TEXT : TEXT + len(INFORMATION)] = INFORMATION
    guest.run(TABLE)


def test_it_is_looked_for_once_and_at_init(guest: Guest) -> None:
    linux(guest)
    guest.machine.look_ahead()
    assert guest.searches == 1
    for _ in range(3):
        assert guest.machine._find_information(guest.read, guest.machine._told) == INFORMATION
        guest.machine.look_ahead()
    assert guest.searches == 1


def test_a_kernel_without_it_is_searched_twice_at_the_most(guest: Guest) -> None:
    guest.entry(TABLE, 0x7067)
    guest.run(TABLE)
    for _ in range(4):
        assert guest.dump() is None
    assert guest.searches == 2


def test_a_guest_without_a_kernel_is_not_searched(guest: Guest) -> None:
    assert guest.dump() is None and guest.searches == 0


def test_a_kernel_that_came_since_init_is_found_at_start(guest: Guest) -> None:
    for before in (0, OTHER):
        guest.entry(OTHER, 0x7067)
        guest.run(before)
        guest.machine.look_ahead()
        linux(guest)
        guest.information.place = None
        assert guest.machine._find_information(guest.read, guest.machine._told) == INFORMATION


def test_a_kernel_that_had_just_begun_at_the_first_init_is_found_at_the_second(
    guest: Guest,
) -> None:
    guest.entry(TABLE, 0x5067)
    guest.run(TABLE)
    assert guest.dump() is None
    linux(guest)
    assert guest.dump() == INFORMATION


def test_after_a_reboot_it_is_looked_for_anew(guest: Guest) -> None:
    linux(guest)
    assert guest.dump() == INFORMATION
    guest.memory[:] = bytes(SIZE)
    linux(guest)
    guest.memory[TEXT : TEXT + 4096] = bytes(4096)
    guest.memory[2 * TEXT : 2 * TEXT + len(INFORMATION)] = INFORMATION
    assert guest.machine._find_information(guest.read, guest.machine._told) == INFORMATION
    assert guest.information.place == (2 * TEXT, len(INFORMATION))
