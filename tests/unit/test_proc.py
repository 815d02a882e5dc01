# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc, where names of any bytes stand in it: of processes, mounts and mapped files."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from livedumpfs.hosts.mounted import mounts_at
from livedumpfs.machines.qemu.guest_memory import find_mapping
from livedumpfs.proc import proc_lines, proc_text
from livedumpfs.rights.folder import read_mounts
from livedumpfs.targets.check import is_mounted

ODD = os.fsdecode(b"a\xffb\rc\x0bd\x1ce\xc2\x85f")
"""No UTF-8, and what Python takes for ends of lines and blanks, but the kernel does not escape."""


def test_arguments_and_names_of_any_bytes() -> None:
    words = [sys.executable, "-c", "input()", ODD]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        assert ODD in proc_text(f"/proc/{process.pid}/cmdline").split("\0")
        assert process.stdin
        process.stdin.close()


def test_a_mount_point_of_any_bytes(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / ODD
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        assert mounts_at(str(place)) == ["tmpfs"]
        device = os.stat(place).st_dev
        assert is_mounted(device) and read_mounts("self")[device] == "tmpfs"
        assert not is_mounted(os.makedev(4095, 1))
        assert all(
            re.match(r"\d+ \d+ \d+:\d+ ", line) for line in proc_lines("/proc/self/mountinfo")
        )
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_mapped_file_of_any_name(tmp_path: Path) -> None:
    """Its name cannot be taken for a mapping of its own."""
    forged = f"\x1c7f0000000000-7f0004000000 rw-s 00000000 00:01 7 {ODD}"
    size = 3 * mmap.PAGESIZE
    with open(tmp_path / forged.replace("/", ""), "w+b") as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as view:
            found = find_mapping(proc_text("/proc/self/maps"), size)
            assert found.address == ctypes.addressof(ctypes.c_char.from_buffer(view))
            with pytest.raises(Exception, match="no shared mapping"):
                find_mapping(proc_text("/proc/self/maps"), 64 << 20)
