# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of each processor, in dumps and as gdb reads them."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs.dumpfile import open_dump
from livedumpfs.formats import MachineInfo, MemoryRange, kdump, vmcore_image
from livedumpfs.formats.note import VMCOREINFO, Note
from livedumpfs.formats.processors import PROCESSORS, Processor, named, of_elf_machine

PAGE = 4096
ARENA = 4 * PAGE
CALLED = {"pstate": "cpsr", "s0": "fp"}
"""Registers that gdb calls otherwise than Linux."""
WriteDump = Callable[..., object]
each_processor = pytest.mark.parametrize("processor", PROCESSORS, ids=lambda one: one.architecture)


def machine_with(processor: Processor, notes: tuple[Note, ...] = ()) -> MachineInfo:
    ranges = (MemoryRange(0x8000_0000, ARENA, 0),)
    return MachineInfo(
        *("engine", processor.architecture, processor.elf_machine, 2, ranges),
        note_room=sum(len(one.pack()) for one in notes),
        notes=notes,
    )


def registers_of(processor: Processor) -> list[dict[str, int]]:
    """Small numbers, each another one: gdb shows flags and segments by the names of their bits."""
    return [{name: 3 + i + k for k, name in enumerate(processor.registers)} for i in (0, 100)]


@pytest.mark.parametrize(
    ("architecture", "elf_machine", "size", "some"),
    [
        ("x86_64", 62, 336, {"r15": 0, "rip": 16, "gs": 26}),
        ("aarch64", 183, 392, {"x0": 0, "x30": 30, "sp": 31, "pc": 32, "pstate": 33}),
        ("riscv64", 243, 376, {"pc": 0, "sp": 2, "s1": 9, "a0": 10, "s2": 18, "t6": 31}),
    ],
)
def test_prstatus_has_the_layout_of_linux(
    architecture: str, elf_machine: int, size: int, some: dict[str, int]
) -> None:
    processor = named(architecture)
    assert processor and processor is of_elf_machine(elf_machine)
    given = {name: (1 << 63) + index for name, index in some.items()}
    found = processor.prstatus(given, 7)
    assert len(found) == size == processor.prstatus_size
    assert struct.unpack_from("<i", found, 32) == (7,)
    for name, index in some.items():
        assert struct.unpack_from("<Q", found, 112 + 8 * index) == (given[name],), name
    assert processor.parse_prstatus(found) == dict.fromkeys(processor.registers, 0) | given
    with pytest.raises(ValueError, match=f"{size - 8} bytes are no elf_prstatus of {architecture}"):
        processor.parse_prstatus(found[:-8])


@each_processor
@pytest.mark.parametrize("format", ["elf", "kdump", "raw"])
def test_the_registers_come_back_from_a_dump(
    processor: Processor, format: str, write_dump: WriteDump, tmp_path: Path
) -> None:
    path, given = tmp_path / "dump", registers_of(processor)
    write_dump(
        path, bytes(ARENA), format=format, machine=machine_with(processor), registers=given,
        meta={"registers": given},
    )  # fmt: skip
    with open_dump(path) as dump:
        assert dump.registers == given
        assert dump.meta["architecture"] == processor.architecture


@each_processor
@pytest.mark.skipif(not shutil.which("gdb-multiarch"), reason="gdb-multiarch is not installed")
def test_gdb_reads_them(processor: Processor, tmp_path: Path) -> None:
    given = registers_of(processor)
    image = vmcore_image(machine_with(processor), ARENA, given)
    core = tmp_path / "core"
    (head,) = (one for one in image.pieces(0, image.size) if hasattr(one, "data"))
    core.write_bytes(head.data.ljust(image.size, b"\0"))
    shows = [f"print/x ${CALLED.get(name, name)}" for name in processor.registers]
    commands = [f"core-file {core}", "thread 1", *shows, "thread 2", *shows]
    words = [word for one in commands for word in ("-ex", one)]
    done = subprocess.run(
        ["gdb-multiarch", "-nx", "-batch", *words], capture_output=True, text=True, timeout=300
    )
    shown = [int(one, 16) for one in re.findall(r"^\$\d+ = (0x\w+)$", done.stdout, re.MULTILINE)]
    assert shown == [value for one in given for value in one.values()], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "base"),
    [
        ("NUMBER(phys_base)=-4096", (1 << 64) - 4096),
        ("NUMBER(PHYS_OFFSET)=0x40000000", 0x4000_0000),
        ("NUMBER(phys_ram_base)=2147483648", 0x8000_0000),
        ("NUMBER(phys_ram_base)=0", 0),
        ("NUMBER(phys_ram_base)=08", 0),
        ("SYMBOL(phys_base)=1", 0),
    ],
)
def test_a_kdump_says_where_the_kernel_or_the_ram_begins(line: str, base: int) -> None:
    text = f"OSRELEASE=6.1\n{line}\nKERNELOFFSET=0\n".encode()
    machine = machine_with(PROCESSORS[0], (Note(VMCOREINFO, 0, text),))
    layout = kdump.Layout(kdump.BLOCK, machine.memory_map)
    head = kdump.build_head(machine, layout, 0, (kdump.HEAD_SIZE, 0), {})
    assert struct.unpack_from("<Q", head, kdump.BLOCK) == (base,)
