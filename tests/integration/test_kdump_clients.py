# SPDX-License-Identifier: GPL-2.0-or-later
"""makedumpfile, libkdumpfile and drgn on our files.

The machines here have no Linux and so no VMCOREINFO. What the tools want it for, each test says.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.abi import Compression, Format, State, Verdict
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from livedumpfs.formats import MachineInfo, MemoryRange, Plan
from tests.fixtures.program_files import program_command

MIB = 1 << 20
PAGE = 4096
LOW = 4 * MIB
HIGH_START, HIGH_SIZE = 1 << 32, MIB
RANGES = ((0, LOW), (HIGH_START, HIGH_SIZE))
CODECS = [one.name.lower() for one in Compression]
DEADLINE = 300.0
WriteDump = Callable[..., Plan]
HostMaker = Callable[..., Any]

DEBIAN_PYTHON = "/usr/bin/python3"
"""Has Debian's python3-libkdumpfile."""
VMCOREINFO = b"""OSRELEASE=6.1.0-flat
PAGESIZE=4096
SYMBOL(init_uts_ns)=ffffffff82600000
SYMBOL(swapper_pg_dir)=ffffffff82610000
NUMBER(phys_base)=0
NUMBER(pgtable_l5_enabled)=0
KERNELOFFSET=0
"""
"""What drgn wants of a Linux before it opens a kdump."""


def output(*command: str | Path) -> str:
    """Of a program that must do well. One that is not installed is an error, not a skip."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def asked(script: str, python: str, path: Path, ranges: Any, outside: int) -> list[str]:
    """What `script` says of the memory in `ranges`, and of an address without any."""
    return output(
        *program_command(__file__, script, path, json.dumps(ranges), str(outside), python=python)
    ).splitlines()


def some_memory(size: int) -> bytes:
    """Of each four pages: zeros, text, one byte over and over, and one that no codec makes
    smaller."""
    chosen = random.Random(7)
    pages = []
    for number in range(0, size // PAGE, 4):
        text = b"".join(f"page {number}, line {i:04}\n".encode() for i in range(PAGE // 16))
        same = bytes([number % 255 + 1]) * PAGE
        pages += [bytes(PAGE), text[:PAGE], same, chosen.randbytes(PAGE)]
    return b"".join(pages)


@dataclass(frozen=True)
class Core:
    """An ELF dump of a machine with a gap in its memory."""

    path: Path
    memory: bytes
    plan: Plan

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.memory).hexdigest()


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory, write_dump: WriteDump) -> Core:
    path = tmp_path_factory.mktemp("core") / "vmcore"
    memory = some_memory(LOW + HIGH_SIZE)
    ranges = (MemoryRange(0, LOW, 0), MemoryRange(HIGH_START, HIGH_SIZE, LOW))
    machine = MachineInfo("flat", vcpus=1, memory_map=ranges)
    registers = [{"rip": 0x1234, "rsp": 0x8000}]
    plan = write_dump(path, memory, granule=65536, machine=machine, registers=registers)
    return Core(path, memory, plan)


def test_makedumpfile_rewrites_our_elf_with_all_its_memory(core: Core) -> None:
    """-d 0 leaves nothing out and so needs no VMCOREINFO."""
    out = core.path.with_name("rewritten")
    output("makedumpfile", "-E", "-d", "0", core.path, out)
    data, found = out.read_bytes(), b""
    count, position = struct.unpack_from("<H", data, 56)[0], struct.unpack_from("<Q", data, 32)[0]
    for number in range(count):
        at = position + 56 * number
        kind, _, offset, _, start, size, length, _ = struct.unpack_from("<IIQQQQQQ", data, at)
        if kind == 1:
            assert (start, length) == RANGES[0 if not found else 1]
            found += data[offset : offset + size].ljust(length, b"\0")
    assert hashlib.sha256(found).hexdigest() == core.sha256


def test_makedumpfile_packs_our_elf_and_libkdumpfile_finds_all_its_memory(core: Core) -> None:
    """makedumpfile itself cannot turn a kdump back, and crashes on its own without VMCOREINFO."""
    out = core.path.with_name("packed")
    output("makedumpfile", "-c", "-d", "0", core.path, out)
    assert out.stat().st_size < core.path.stat().st_size
    assert asked("kdumpfile_reads.py", DEBIAN_PYTHON, out, RANGES, LOW)[0].split()[2] == core.sha256


@pytest.mark.parametrize("codec", CODECS)
def test_libkdumpfile_and_drgn_read_what_we_convert(core: Core, codec: str, tmp_path: Path) -> None:
    """drgn opens no kdump without VMCOREINFO: it gets a copy that has one."""
    out = tmp_path / "kdump"
    output(sys.executable, "-m", "livedumpfs.cli", "convert", core.path, out,
           "--format", "kdump", "--compress", codec)  # fmt: skip
    assert (out.stat().st_size < LOW) == (codec != "none")
    found = asked("kdumpfile_reads.py", DEBIAN_PYTHON, out, RANGES, LOW)
    assert found == [f"diskdump x86_64 {core.sha256}", "no data"]
    add_vmcoreinfo(out)
    found = asked("drgn_reads.py", sys.executable, out, RANGES, LOW)
    assert found == [f"X86_64 {core.sha256}", "no data"]


def add_vmcoreinfo(path: Path) -> None:
    """The dump's notes and that one, behind its end; the kdump_sub_header says so."""
    name = b"VMCOREINFO\0"
    note = struct.pack("<III", len(name), len(VMCOREINFO), 0)
    for part in (name, VMCOREINFO):
        note += part + bytes(-len(part) % 4)
    with path.open("r+b") as file:
        file.seek(PAGE + 48)
        at, size = struct.unpack("<QQ", file.read(16))
        file.seek(at)
        notes = file.read(size) + note
        end = file.seek(0, 2)
        file.write(notes)
        file.seek(PAGE + 48)
        file.write(struct.pack("<QQ", end, len(notes)))


def test_live_dumps_of_every_codec_are_the_snapshot(run_host: HostMaker, tmp_path: Path) -> None:
    """Of the built-in guest, which writes on."""
    host = run_host()
    raw = host.mountpoint / "snapshot" / "mem.raw"
    with Client(host.device) as client:
        for number, codec in enumerate(Compression):
            target = tmp_path / codec.name
            client.init(
                str(target),
                InitOptions(format=Format.KDUMP, compression=codec, threads=1 + number % 3),
            )
            client.start()
            memory = raw.read_bytes()
            client.sweep()
            assert client.finish(DEADLINE).verdict is Verdict.CONSISTENT
            digest = hashlib.sha256(memory).hexdigest()
            ranges = [(0, len(memory))]
            found = asked("kdumpfile_reads.py", DEBIAN_PYTHON, target, ranges, len(memory))
            assert found == [f"diskdump x86_64 {digest}", "no data"]
            with open_dump(target) as dump:
                assert dump.verify_checksums().ok and dump.sealed
            add_vmcoreinfo(target)
            found = asked("drgn_reads.py", sys.executable, target, ranges, len(memory))
            assert found == [f"X86_64 {digest}", "no data"]
            assert client.status().state is State.FINISH
            client.release()
    host.runs_on()
