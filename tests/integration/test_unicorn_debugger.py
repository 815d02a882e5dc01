# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn machines: what a debugger finds in the registers and the memory."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from livedumpfs.core.capi import ffi
from livedumpfs.machines import BUILT_IN_GUEST, UnicornMachine
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.unicorn_guests import DEADLINE, RAM, needs_ledger, wait_for

pytestmark = pytest.mark.usefixtures("no_vcpu_is_left")


def write_core(machine: UnicornMachine, path: Path) -> None:
    """A core of the paused machine: one segment, one NT_PRSTATUS a vCPU."""
    notes = b""
    for pid, registers in enumerate(machine.registers(), 1):
        values = [registers[name] for name, _ in ffi.typeof("ldfs_registers").fields]
        status = struct.pack("<32xI76x27Q8x", pid, *values)
        assert len(status) == 336
        notes += struct.pack("<3I8s", 5, len(status), 1, b"CORE") + status
    data = -(-(64 + 2 * 56 + len(notes)) // PAGE_SIZE) * PAGE_SIZE
    head = struct.pack(
        "<4sBBB9x2HI3QI6H", b"\x7fELF", 2, 1, 1, 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    head += struct.pack("<2I6Q", 4, 0, 64 + 2 * 56, 0, 0, len(notes), 0, 4)
    head += struct.pack(
        "<2I6Q", 1, 7, data, 0, 0, machine.arena.size, machine.arena.size, PAGE_SIZE
    )
    path.write_bytes((head + notes).ljust(data, b"\0") + machine.arena.read(0, machine.arena.size))


def backtraces(shown: str) -> list[list[tuple[str, str]]]:
    """Function and arguments of each frame, by thread. What gdb shows of the frame that a core
    opens with stands before the first thread, and is none of them."""
    threads = re.split(r"^Thread \d+ .*:$", shown, flags=re.MULTILINE)[1:]
    frame = re.compile(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\w+) \((.*?)\)", re.MULTILINE)
    return [frame.findall(text) for text in threads]


@needs_ledger
@pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is not installed")
def test_gdb_shows_the_guests_stack_and_globals(tmp_path: Path) -> None:
    with UnicornMachine(RAM, 2) as machine:
        machine.wait_ready(DEADLINE)
        wait_for(lambda: all(r["r15"] for r in machine.registers()), machine)
        machine.quiesce()
        write_core(machine, tmp_path / "core")
        registers = machine.registers()
        machine.resume()
    commands = ["set debuginfod enabled off", "thread apply all backtrace"]
    commands += ["p ledger[1].vcpu", "p ledger[0].transfers", "info registers r15"]
    arguments = [argument for c in commands for argument in ("-ex", c)]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", *arguments, str(BUILT_IN_GUEST), str(tmp_path / "core")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    shown = done.stdout
    threads = backtraces(shown)
    assert len(threads) == 2, shown + done.stderr
    for frames in threads:
        # A vCPU stands in the function itself or in one that it calls.
        assert [name for name, _ in frames][-3:] == ["run_ledger", "kmain", "_start"], shown
        assert [words for _, words in frames][-2].startswith("boot=0x1"), shown
        assert [words for _, words in frames][-1] == "", shown
    assert "= 1\n" in shown
    count = int(shown.split("$2 = ")[1].split()[0])
    assert count - registers[0]["r15"] in (0, 1)


def test_the_frame_that_a_core_opens_with_is_none_of_a_threads() -> None:
    """It is the function's own or that of one which it calls, by chance."""
    shown = """
#0  run_ledger (l=l@entry=0x111000 <ledger>, boot=boot@entry=0x1000) at guest/ledger.c:168
168\t\tif ((l->transfers & (PROGRESS - 1)) == 0)

Thread 2 (LWP 2):
#0  take_from (amount=1724512816, word=0x46c010) at guest/ledger.c:73
#1  0x0000000000100378 in run_ledger (l=l@entry=0x112000 <ledger+4096>) at guest/ledger.c:166
#2  0x000000000010001c in _start () at guest/start.S:20

Thread 1 (LWP 1):
#0  run_ledger (l=l@entry=0x111000 <ledger>) at guest/ledger.c:168
$1 = 1
"""
    assert backtraces(shown) == [
        [
            ("take_from", "amount=1724512816, word=0x46c010"),
            ("run_ledger", "l=l@entry=0x112000 <ledger+4096>"),
            ("_start", ""),
        ],
        [("run_ledger", "l=l@entry=0x111000 <ledger>")],
    ]
