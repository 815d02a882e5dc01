# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory with the shim beside it. It reads commands: "stat N" makes fstat fail, "punch" gives the
first page back, and says how that went and what is there now."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

SIZE = int(sys.argv[2])
calls = ctypes.CDLL(None, use_errno=True)
calls.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
fd = os.memfd_create("guest")
os.ftruncate(fd, SIZE)
view = mmap.mmap(fd, SIZE)
view[:4096] = b"x" * 4096
print(ctypes.addressof(ctypes.c_char.from_buffer(view)), fd, flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "stat":
        calls.fail_stat(int(words[1]))
        print("done", flush=True)
    else:
        code = calls.fallocate(fd, 3, 0, 4096)
        print(ctypes.get_errno() if code else 0, view[0], flush=True)
