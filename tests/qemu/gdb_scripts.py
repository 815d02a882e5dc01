# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb on kcore of a mounted dump, and the kernel's own scripts in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from livedumpfs.dumpfile import open_dump
from livedumpfs.linux import Kernel

DEADLINE_S = 600.0
_TASK = re.compile(r"^0x[0-9a-f]+ +(\d+) +(.*?) *$", re.MULTILINE)


def symbols_of(dump: Path, vmlinux: Path) -> str:
    """gdb's command that loads them for where the kernel is."""
    with open_dump(dump) as found:
        offset = Kernel(found.meta, found.read_physical).description.kernel_offset
    return f"symbol-file {vmlinux} -o {offset:#x}"


def run_gdb(*commands: str) -> str:
    """What it prints."""
    words = [word for one in commands for word in ("-ex", one)]
    return subprocess.run(
        ["gdb-multiarch", "-nx", "-batch", *words],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False, errors="replace",
    ).stdout  # fmt: skip


def kernel_scripts(dump: Path, kcore: Path, build: Path, *commands: str) -> dict[str, str]:
    """What gdb prints for each command. `build`: of a processor in guest/foreign/."""
    begin = [
        symbols_of(dump, build / "vmlinux"),
        f"core-file {kcore}",
        f"source {build / 'gdb' / 'vmlinux-gdb.py'}",
    ]
    told = (word for one in commands for word in (f"echo @@ {one}\\n", one))
    printed = run_gdb(*begin, *told)
    parts = re.split(r"^@@ (.*)\n", printed, flags=re.MULTILINE)[1:]
    assert parts[::2] == list(commands), printed
    return dict(zip(parts[::2], parts[1::2], strict=True))


def tasks_of_gdb(text: str) -> dict[int, str]:
    """What `lx-ps` shows, by process id; not the idle ones."""
    return {int(pid): name for pid, name in _TASK.findall(text) if int(pid)}
