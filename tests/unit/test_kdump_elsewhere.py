# SPDX-License-Identifier: GPL-2.0-or-later
"""The kdump format, as libkdumpfile and makedumpfile read it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from livedumpfs.dumpfile import open_dump
from livedumpfs.dumpfile import verify_dump as verify
from livedumpfs.formats.processors import AARCH64, X86_64, Processor
from tests.fixtures.kdumps import MACHINE, MAP, MEMORY, PAGE, WriteDump, write_kdump
from tests.fixtures.program_files import program_file


def _debian_python() -> str | None:
    """The Python that Debian's python3-libkdumpfile is for."""
    python = "/usr/bin/python3"
    if not os.access(python, os.X_OK):
        return None
    run = subprocess.run(
        [python, "-c", "import kdumpfile"], capture_output=True, timeout=300, check=False
    )
    return python if run.returncode == 0 else None


@pytest.mark.parametrize("compression", ["zlib", "none"])
def test_libkdumpfile_reads_every_page(
    tmp_path: Path, write_dump: WriteDump, compression: str
) -> None:
    python = _debian_python()
    if python is None:
        pytest.skip("python3-libkdumpfile is not installed")
    path = tmp_path / "dump"
    registers = [{"rip": 0x1234}, {"rip": 0x5678}]
    write_kdump(write_dump, path, compression=compression, registers=registers)
    run = subprocess.run(
        [
            python,
            program_file(__file__, "kdumpfile_knows.py"),
            str(path),
            *(f"{r.start},{r.size}" for r in MAP),
        ],
        capture_output=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout == MEMORY[18 * PAGE :] + MEMORY[: 18 * PAGE]


# Debian 12's knows no RISC-V.
@pytest.mark.parametrize("processor", [AARCH64, X86_64], ids=lambda one: one.architecture)
def test_libkdumpfile_knows_the_processor(
    tmp_path: Path, write_dump: WriteDump, processor: Processor
) -> None:
    python = _debian_python()
    if python is None:
        pytest.skip("python3-libkdumpfile is not installed")
    known = {"architecture": processor.architecture, "elf_machine": processor.elf_machine}
    write_kdump(write_dump, tmp_path / "dump", machine=replace(MACHINE, **known))
    program = program_file(__file__, "kdumpfile_processor.py")
    run = subprocess.run(
        [python, program, tmp_path / "dump", str(MAP[0].start)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    said = f"{processor.architecture} 2 {MEMORY[MAP[0].arena_offset]}\n"
    assert (run.stdout, run.stderr) == (said, "")


def test_makedumpfile_rearranges_what_we_flatten(tmp_path: Path, write_dump: WriteDump) -> None:
    from livedumpfs.cli.main import main

    tool = shutil.which("makedumpfile", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if tool is None:
        pytest.skip("makedumpfile is not installed")
    source, flat, out = tmp_path / "dump", tmp_path / "flat", tmp_path / "out"
    write_kdump(write_dump, source)
    assert main(["convert", str(source), str(flat), "--format", "flat"]) == 0
    with open(flat, "rb") as file:
        subprocess.run(
            [tool, "-R", str(out)], stdin=file, capture_output=True, timeout=300, check=True
        )
    with open_dump(out) as dump:
        assert verify(dump).ok
        assert dump.read_arena(0, len(MEMORY)) == MEMORY
    again = tmp_path / "again"
    assert main(["convert", str(flat), str(again), "--format", "kdump"]) == 0
    assert again.read_bytes() == out.read_bytes()
