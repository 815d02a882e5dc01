# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes of a Linux in a dump."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.linux.kernel import Kernel

_MOST: Final = 1 << 22
"""The largest pid_max."""
_NAME: Final = 16
_FREEZABLE: Final = 0x2000
_STATES: Final = {0: "R", 1: "S", 2: "D", 4: "T", 8: "t", 0x40: "P", 0x402: "I"}


@dataclass(frozen=True)
class LinuxTask:
    """A process: the leader of its threads."""

    address: int
    """Of its task_struct."""
    pid: int
    parent: int
    """pid of it."""
    state: str
    """As ps shows it: R, S, D, T, t, I, P; else the number in hexadecimal."""
    name: str
    user_memory: bool
    """False: a thread of the kernel."""


def tasks(kernel: Kernel) -> Iterator[LinuxTask]:
    """All processes, in the order of the kernel's list, and the idle task first. InvalidDump: the
    list makes no sense."""
    first = kernel.symbols["init_task"]
    link = kernel.types.offset("task_struct", "tasks")
    at, seen = first, 0
    while seen < _MOST:
        yield _task(kernel, at)
        at = kernel.number(at + link) - link
        seen += 1
        if at == first:
            return
    raise InvalidDump("the kernel's list of tasks has no end")


def _task(kernel: Kernel, at: int) -> LinuxTask:
    def member(*path: str) -> int:
        return at + kernel.types.offset("task_struct", *path)

    state = kernel.number(member("__state"), 4) & ~_FREEZABLE
    parent = kernel.number(member("real_parent"))
    return LinuxTask(
        at,
        kernel.number(member("pid"), 4),
        kernel.number(parent + kernel.types.offset("task_struct", "tgid"), 4),
        _STATES.get(state, f"{state:#x}"),
        kernel.string(member("comm"), _NAME),
        kernel.number(member("mm")) != 0,
    )
