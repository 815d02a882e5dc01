# SPDX-License-Identifier: GPL-2.0-or-later
"""Live dumps of guests of other machine types, with odd sizes and many vCPUs: what their firmware
has made of the memory is in the dump, at the addresses at which QEMU's own dump has it."""

from __future__ import annotations

import re
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import drgn
import pytest
from aftermath import wait_for
from elftools.elf.elffile import ELFFile
from oracle import Reference

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import describe_dump, format_description, open_dump, verify_dump
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.settings import Format
from livedumpfs.units import PAGE_SIZE
from tests.qemu.lengths import LONG

DEADLINE_S = 300.0
KERNEL_MAP = 0xFFFFFFFF80000000
VCPUS = 255 if LONG else 65
"""More than the bits of a word; all that QEMU 7.2 takes."""
KINDS = {
    "pc": (["-M", "pc,max-ram-below-4g=64M", "-m", "161M"], 1),
    "isapc": (["-M", "isapc", "-m", "32M"], 1),
    "microvm": (["-M", "microvm", "-m", "48M"], 1),
    "q35-many-vcpus": (["-M", "q35", "-m", "65540K", "-smp", str(VCPUS)], VCPUS),
    "la57-node-maxmem": (
        ["-M", "q35", "-m", "size=96M,slots=2,maxmem=4G", "-smp", "2", "-cpu", "max,la57=on",
         "-object", "memory-backend-memfd,id=ram,size=96M,share=on", "-numa", "node,memdev=ram"],
        2,
    ),
}  # fmt: skip
"""Words, vCPUs."""


def segments(path: Path) -> list[tuple[int, int]]:
    """(physical address, bytes) of each PT_LOAD, sorted."""
    with open(path, "rb") as file:
        found = ELFFile(file).iter_segments("PT_LOAD")
        return sorted((one["p_paddr"], one["p_memsz"]) for one in found)


def qemus_own(machine: QemuMachine, path: Path) -> list[tuple[int, int]]:
    """Of its own dump."""
    arguments = {"paging": False, "protocol": f"file:{path}"}
    machine.monitor.execute("dump-guest-memory", arguments, timeout=DEADLINE_S)
    found = segments(path)
    path.unlink()
    return found


def stores_have_begun(machine: QemuMachine) -> None:
    """Its firmware has run: there is data above the first page."""
    wait_for(
        lambda: any(at + size > 1 << 16 for at, size in machine.arena.data()),
        lambda: list(machine.arena.data()),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_dump_of_another_machine(tmp_path: Path, kind: str) -> None:
    words, vcpus = KINDS[kind]
    line = ["qemu-system-x86_64", "-accel", "tcg", "-display", "none", *words]
    with QemuMachine(line) as machine:
        machine.start()
        stores_have_begun(machine)
        size = machine.arena.size
        formats: tuple[Format, ...] = ("elf", "kdump")
        for format in formats:
            target = tmp_path / format
            with closing(Reference(size)) as reference:
                live = LiveDump(machine)
                live.init(target, DumpSettings(format=format), reference=reference.fd)
                live.start()
                live.sweep()
                assert live.finish(DEADLINE_S, check=False) == "consistent", live.failure
                live.release()
                with open_dump(target) as dump:
                    assert len(reference.different_pages(dump)) == 0
                    assert verify_dump(dump).ok
                    assert len(dump.registers) == vcpus
                    said = format_description(describe_dump(dump))
        theirs = qemus_own(machine, tmp_path / "theirs")
    assert "pc.bios" in said, "what is left out is named"
    check_map(segments(tmp_path / "elf"), theirs, size)
    notes = subprocess.run(
        ["readelf", "-n", tmp_path / "elf"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert notes.count("NT_PRSTATUS") == vcpus


def check_map(ours: list[tuple[int, int]], theirs: list[tuple[int, int]], size: int) -> None:
    """Each range of theirs is one of RAM that ours has all of, or one that ours has none of: ROM
    and the card's memory."""
    assert sum(length for _, length in ours) == size
    pages = {
        page for at, length in ours for page in range(at // PAGE_SIZE, (at + length) // PAGE_SIZE)
    }
    missing = 0
    for at, length in theirs:
        found = [page in pages for page in range(at // PAGE_SIZE, (at + length) // PAGE_SIZE)]
        assert all(found) or not any(found), f"{at:#x} is there in part"
        missing += 0 if all(found) else length
    assert missing <= 32 << 20, "VGA RAM and BIOS"
    assert sum(length for _, length in theirs) - missing >= size - (1 << 20)


@pytest.mark.skipif(
    not LONG, reason="`make test-qemu`; the firmware of test_a_dump_of_another_machine"
)
@pytest.mark.timeout(3600)
def test_a_kernel_with_five_levels_of_page_tables(guest_parts: Any, tmp_path: Path) -> None:
    """And at a random address (KASLR), on i440fx, with memory above 4 GiB: drgn finds its way."""
    command, make_guest = guest_parts
    console, target = tmp_path / "console", tmp_path / "dump"
    line = ["pc,max-ram-below-4g=256M" if word == "q35" else word for word in command(console)]
    with QemuMachine([*line, "-cpu", "max"]) as machine:
        guest = make_guest(machine, console)
        machine.start()
        guest.boot()
        assert LiveDump(machine).save(target) == "consistent"
        guest.goes_on()
    text = int(guest.word(r"_stext ([0-9a-f]+)"), 16)
    program = drgn.Program()
    program.set_core_dump(str(target))
    told = program["VMCOREINFO"].string_().decode()
    numbers = dict(re.findall(r"NUMBER\((\w+)\)=(-?\d+)", told))
    assert numbers["pgtable_l5_enabled"] == "1"
    assert text != KERNEL_MAP + (16 << 20), "no KASLR"
    assert program["UTS_RELEASE"].string_().decode() == guest.word(r"release (\S+)")
    physical = text - KERNEL_MAP + int(numbers["phys_base"])
    with open_dump(target) as dump:
        assert len(dump.memory_map) == 2
        assert program.read(text, PAGE_SIZE) == dump.read_physical(physical, PAGE_SIZE)
