# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps where a process may have hardly a mapping more."""

from __future__ import annotations

import ctypes
import errno
import sys
from functools import partial
from pathlib import Path

from aftermath import unharmed

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import LivedumpError

MIB, PAGES = 1 << 20, 200_000
place = Path(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def full(left):
    """Every other page readable: a mapping each, and the same again between them."""
    start = libc.mmap(None, PAGES * 4096, 0, 0x4022, -1, 0)
    page = 1
    while libc.mprotect(start + page * 4096, 4096, 1) == 0:
        page += 2
        assert page < PAGES, "vm.max_map_count is too high for this test"
    assert ctypes.get_errno() == errno.ENOMEM
    for _ in range(left // 2):
        page -= 2
        assert libc.mprotect(start + page * 4096, 4096, 0) == 0
    return start


def attempt(step):
    try:
        step()
        return 0
    except LivedumpError as error:
        return error.errno
    except MemoryError:
        return errno.ENOMEM


reached = set()
with Arena(16 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for left in (0, 4, 16, 64, 256, 512):
        for target in (None, place / "dump"):
            settings = DumpSettings(granule=4096, pool=16 * MIB, force=True)
            arena.live[:] = 1
            filler = full(left)
            code, step = attempt(partial(live.init, target, settings)), "init"
            if code == 0:
                code, step = attempt(live.start), "start"
            if code == 0:
                step = "done"
                arena.live[:: 2 * 4096] = 2
                good = all(live.read(at, 4096) == b"\x01" * 4096 for at in range(0, MIB, 4096))
                lost = live.counters().lost
            live.release()
            arena.live[1::4096] = 3  # whatever happened, nothing is protected
            libc.munmap(filler, PAGES * 4096)
            assert code in (0, errno.ENOMEM, errno.EAGAIN), (left, target, step, code)
            assert step != "done" or (good and lost == 0), (left, target, lost)
            print(left, target, step, code, file=sys.stderr)
            reached.add(step)
assert reached >= {"init", "done"}, reached
print("done")
