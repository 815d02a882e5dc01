# SPDX-License-Identifier: GPL-2.0-or-later
"""Write protection that a background snapshot has left on QEMU's memory.

When such a snapshot fails or is cancelled, QEMU before 8.1 forgets to take its protection away: the
guest then hangs at its next store, for good. Its userfaultfd is still open in QEMU, and a process
that may trace QEMU can do the rest through a copy of it. Standard library alone: for
lifeline_program.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import struct
from collections.abc import Callable, Iterator

_PIDFD_GETFD = 438
_UNPROTECT = 0xC018AA06
"""UFFDIO_WRITEPROTECT; its mode 0 takes the protection away, and wakes what waits."""
_UNREGISTER = 0x8010AA01
"""UFFDIO_UNREGISTER."""
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")
_FLAGS = "VmFlags:"
_PROTECTED = "uw"
_USERFAULTFD = "[userfaultfd]"
_SHIM = "_shim"
"""Part of the path of the shim of livedumpfs. What has it in it is under us already."""


def is_left_protected(pid: int) -> bool:
    """Memory of that process is write-protected by userfaultfd, and no shim of ours has done it.
    To be asked only while no snapshot is under way. OSError: that cannot be seen."""
    return bool(list(_userfaultfds(pid)) and _ranges(pid)) and not _has_shim(pid)


def unprotect(pid: int, still: Callable[[], bool] = lambda: True) -> None:
    """Take that protection away, if `still` says that it is none of a snapshot that is under way.
    OSError: EPERM, this process may not trace it."""
    ranges = _ranges(pid)
    if not still():
        return
    process = os.pidfd_open(pid)
    try:
        for number in _userfaultfds(pid):
            copy = _copy_of(process, number)
            try:
                _let_go(copy, ranges)
            finally:
                os.close(copy)
    finally:
        os.close(process)


def _let_go(userfaultfd: int, ranges: list[tuple[int, int]]) -> None:
    for start, end in ranges:
        # A range may be another one's: then both are refused.
        with contextlib.suppress(OSError):
            fcntl.ioctl(userfaultfd, _UNPROTECT, struct.pack("QQQ", start, end - start, 0))
        with contextlib.suppress(OSError):
            fcntl.ioctl(userfaultfd, _UNREGISTER, struct.pack("QQ", start, end - start))


def _copy_of(process: int, number: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    copy: int = libc.syscall(_PIDFD_GETFD, process, number, 0)
    if copy < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return copy


def _userfaultfds(pid: int) -> Iterator[int]:
    """Numbers of those that the process has open."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed since
            if os.readlink(f"{folder}/{name}").endswith(_USERFAULTFD):
                yield int(name)


def _ranges(pid: int) -> list[tuple[int, int]]:
    """Addresses [start, end) of its mappings with write protection by userfaultfd."""
    found, at = [], (0, 0)
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as smaps:
        for line in smaps:
            head = _HEAD.match(line)
            if head:
                at = int(head[1], 16), int(head[2], 16)
            elif line.startswith(_FLAGS) and _PROTECTED in line.split():
                found.append(at)
    return found


def _has_shim(pid: int) -> bool:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
        return any(_SHIM in line for line in maps)
