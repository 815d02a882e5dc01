# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory in another process. It says where, then reads lines of what, offset, length; and answers
each with what that returned, and errno."""

from __future__ import annotations

import ctypes
import mmap
import sys

fd, size = map(int, sys.argv[1:])
memory = mmap.mmap(fd, size)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
libc = ctypes.CDLL(None, use_errno=True)
page, number = ctypes.c_void_p, ctypes.c_size_t
libc.madvise.argtypes = page, number, ctypes.c_int
libc.fallocate64.argtypes = libc.fallocate.argtypes = (
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_int64,
)
print(start, flush=True)
for line in sys.stdin:
    what, at, length = line.split()
    at, length = int(at), int(length)
    if what == "store":
        for one in range(at, at + length, 4096):
            memory[one] = (memory[one] + 1) % 256
        code = 0
    elif what.startswith("fallocate"):
        code = getattr(libc, what)(fd, 3, at, length)  # PUNCH_HOLE | KEEP_SIZE
    else:
        code = libc.madvise(start + at, length, getattr(mmap, what))
    print(code, ctypes.get_errno(), flush=True)
