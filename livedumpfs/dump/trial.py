# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump in this process shows of the computer, before there is a machine."""

from __future__ import annotations

import errno
from typing import Final

from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import lib
from livedumpfs.dump.live import LiveDump
from livedumpfs.errors import MachineError, os_cause
from livedumpfs.settings import DumpSettings
from livedumpfs.units import format_size

_SIZE: Final = 1 << 20
_HINTS: Final = {
    errno.EACCES: "it needs CAP_SYS_PTRACE, access to /dev/userfaultfd (Linux 6.1), or "
    "vm.unprivileged_userfaultfd=1",
    errno.ENOSYS: "shared memory needs Linux 5.19, on arm64 6.10",
}


def try_userfaultfd() -> None:
    """Dump memory of this process by it. MachineError: this process may not use it, or the kernel
    cannot write-protect shared memory."""
    try:
        with Arena(_SIZE) as arena, LiveDump(arena) as live:
            live.init(None, DumpSettings(backend="uffd", pool=_SIZE))
            live.start()
            live.release()
    except MachineError as error:
        code = error.errno or errno.EIO
        raise MachineError(
            f"userfaultfd does not work here: {os_cause(code)}",
            errno=code,
            hint=_HINTS.get(code, 'see docs/qemu.md, "What it needs"'),
        ) from error


def has_room(size: int) -> bool:
    """Whether so many bytes of memory are free here, without swap, as far as that is known."""
    return bool(lib.ldfs_headroom_ram(size))


def expect_pool(size: int) -> None:
    """MachineError ENOMEM: there is no room for a pool of so many bytes."""
    if not has_room(size):
        raise MachineError(
            f"the pool ({format_size(size)}) has no room in the memory that is free here",
            errno=errno.ENOMEM,
            hint="a smaller <pool>",
        )
