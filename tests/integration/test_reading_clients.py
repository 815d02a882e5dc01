# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF dumps as other programs see them: readelf, eu-readelf, gdb, drgn, pyelftools.

The machine here is a flat ELF program placed in memory by hand, with registers that stand in one of
its functions. It has no Linux notes, so the clients are tested at the level that applies: headers,
notes, memory, registers, backtrace.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from livedumpfs.formats import MachineInfo, MemoryRange, Plan
from tests.fixtures.program_files import program_command, program_file

MIB = 1 << 20
LOW = 4 * MIB
HIGH_START, HIGH_SIZE = 1 << 32, MIB
SIZE = LOW + HIGH_SIZE
WriteDump = Callable[..., Plan]


@dataclass(frozen=True)
class Core:
    """A dump, the program in it, and what must be found."""

    path: Path
    program: Path
    memory: bytes
    plan: Plan
    registers: list[dict[str, int]]

    def physical(self, address: int, length: int) -> bytes:
        offset = address if address < LOW else address - HIGH_START + LOW
        return self.memory[offset : offset + length]


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory, write_dump: WriteDump) -> Core:
    directory = tmp_path_factory.mktemp("core")
    source, guest = program_file(__file__, "standing_guest.c"), directory / "flat"
    flags = "-g -O0 -ffreestanding -fno-pic -no-pie -nostdlib -static -fno-omit-frame-pointer"
    output(tool("gcc"), *flags.split(), "-fcf-protection=none", "-Wl,-Ttext=0x100000",
           "-Wl,-Tdata=0x180000", "-Wl,--build-id=none", "-o", guest, source)  # fmt: skip
    memory = bytearray(os.urandom(SIZE))
    memory[0x200000:0x300000] = bytes(MIB)
    with guest.open("rb") as file:
        elf = ELFFile(file)
        for segment in elf.iter_segments("PT_LOAD"):
            if segment["p_paddr"] >= 0x100000:
                data = segment.data()
                memory[segment["p_paddr"] : segment["p_paddr"] + len(data)] = data
        symbols = elf.get_section_by_name(".symtab")
        place = {s.name: s["st_value"] for s in symbols.iter_symbols()}
    # inner's frame, and outer's and _start's above it, as the calls would have left them.
    frames = [(0x2FF010, place["in_outer"]), (0x2FF020, place["in_start"]), (0, 0)]
    for where, (base, back) in zip((0x2FF000, 0x2FF010, 0x2FF020), frames, strict=True):
        memory[where : where + 16] = base.to_bytes(8, "little") + back.to_bytes(8, "little")
    memory[0x2FEFF8:0x2FF000] = (4242).to_bytes(8, "little")  # where inner keeps `value`
    first = {"rip": place["in_inner"], "rsp": 0x2FEFF0, "rbp": 0x2FF000, "rdi": 4242, "cs": 8}
    second = {"rip": place["_start"], "rsp": 0x2FE000, "rax": (1 << 64) - 1}
    ranges = (MemoryRange(0, LOW, 0), MemoryRange(HIGH_START, HIGH_SIZE, LOW))
    machine = MachineInfo("flat", vcpus=2, memory_map=ranges)
    path = directory / "vmcore"
    registers = [first, second]
    plan = write_dump(path, bytes(memory), granule=65536, machine=machine, registers=registers)
    return Core(path, guest, bytes(memory), plan, registers)


def test_readelf_has_nothing_to_say_against_it(core: Core) -> None:
    text = output(tool("readelf"), "-aW", core.path)
    assert "arning" not in text
    assert "rror" not in text
    assert text.count("  LOAD ") == 2
    assert text.count("NT_PRSTATUS (prstatus structure)") == 2
    assert "LIVEDUMPFS" in text


def test_eu_readelf_has_nothing_to_say_against_it(core: Core) -> None:
    text = output(tool("eu-readelf"), "-a", core.path)
    assert "info.si_signo" in text or "pid: 1" in text
    assert "4242" in text
    assert "LIVEDUMPFS" in text


def test_eu_elflint_finds_no_fault_but_that_it_does_not_know_us(core: Core) -> None:
    done = subprocess.run(
        [tool("eu-elflint"), "--gnu-ld", core.path], capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    lines = (done.stdout + done.stderr).splitlines()
    unknown = f"unknown core file note type {0x4C444653} at offset"
    assert [line for line in lines if unknown not in line and line != "No errors"] == []


def test_pyelftools_finds_memory_notes_and_registers(core: Core) -> None:
    with core.path.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_type"] == "ET_CORE"
        for segment in elf.iter_segments("PT_LOAD"):
            assert segment["p_vaddr"] == segment["p_paddr"]
            assert segment.data() == core.physical(segment["p_paddr"], segment["p_filesz"])
        notes = [n for s in elf.iter_segments("PT_NOTE") for n in check_notes(s)]
    assert [note["n_name"] for note in notes] == ["CORE", "CORE", "LIVEDUMPFS"]
    assert notes[2]["n_type"] == 0x4C444653
    for note, registers in zip(notes, core.registers, strict=False):
        data = note["n_descdata"]
        rip = data[112 + 16 * 8 : 112 + 17 * 8]
        assert int.from_bytes(rip, "little") == registers["rip"]


def check_notes(segment: object) -> list[dict[str, object]]:
    assert isinstance(segment, NoteSegment)
    return list(segment.iter_notes())


def test_the_headers_are_within_the_first_page(core: Core) -> None:
    """The extract tool of the kernel patches looks no further."""
    head = core.path.with_name("head")
    head.write_bytes(core.path.read_bytes()[:4096])
    done = subprocess.run(
        [tool("readelf"), "-hlW", head], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.count("  LOAD ") == 2


def gdb(core: Core, *commands: str) -> str:
    options = [part for command in commands for part in ("-ex", command)]
    done = subprocess.run(
        [tool("gdb"), "-nx", "-batch", *options, core.program, core.path],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "DEBUGINFOD_URLS": ""},
    )
    assert "warning" not in done.stderr.lower(), done.stderr
    return done.stdout


def test_gdb_shows_backtrace_global_and_both_vcpus(core: Core) -> None:
    text = gdb(core, "bt", "print/x answer", "info threads", "x/2xg 0x100000000", "p/x $rdi")
    assert "#0 " in text
    assert "inner (value=4242) at " in text
    assert " in outer () at " in text
    assert " in _start () at " in text
    assert "= 0x1122334455667788" in text
    assert "LWP 2" in text
    word = int.from_bytes(core.physical(HIGH_START, 8), "little")
    assert f"{word:#018x}" in text
    assert "0x1092" in text


def test_drgn_reads_the_memory(core: Core) -> None:
    if importlib.util.find_spec("drgn") is None:
        pytest.skip("drgn is not installed")
    reads = [
        (0, 16),
        (0x100000 - 3, 77),
        (LOW - 8, 8),
        (HIGH_START, 4096),
        (HIGH_START + MIB - 1, 1),
    ]
    done = subprocess.run(
        program_command(__file__, "drgn_reads_both.py", core.path, json.dumps(reads)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *lines, architecture = done.stdout.split()
    assert architecture == "X86_64"
    assert [bytes.fromhex(line) for line in lines] == [core.physical(*r) for r in reads]
