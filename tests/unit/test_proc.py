# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc, where names of any bytes stand in it: of processes, mounts and mapped files."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from livedumpfs.hosts.mounted import mounts_at
from livedumpfs.machines.qemu.guest_memory import find_mapping
from livedumpfs.machines.qemu.urgent import _may_raise
from livedumpfs.proc import proc_lines, proc_text
from livedumpfs.rights.folder import read_mounts
from livedumpfs.targets.check import is_mounted

ODD = os.fsdecode(b"a\xffb\rc\x0bd\x1ce\xc2\x85f")
"""No UTF-8, and what Python takes for ends of lines and blanks, but the kernel does not escape."""


def test_arguments_and_names_of_any_bytes() -> None:
    words = [sys.executable, "-c", "print(flush=True); input()", ODD]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()  # before it runs the kernel may not have its arguments yet
        assert ODD in proc_text(f"/proc/{process.pid}/cmdline").split("\0")
        process.stdin.write(b"\n")


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


def test_a_thread_of_any_name_may_stop_a_guest() -> None:
    """Whether a thread may raise others is in the same file as the thread's name."""

    def look() -> None:
        set_name(15, b"a\xffb", 0, 0, 0)  # PR_SET_NAME
        found.append(_may_raise())

    set_name, found = ctypes.CDLL(None).prctl, [_may_raise()]
    thread = threading.Thread(target=look)
    thread.start()
    thread.join(300)
    assert found == [found[0]] * 2
