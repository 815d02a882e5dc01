# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: a child without the memory says so."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from children import wait

from livedumpfs import Arena

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
why = sys.argv[2]

SIZE = 256 * MIB
arena = Arena(SIZE)
arena.live[0] = 1
if why == "data":  # private memory that can be written
    resource.setrlimit(resource.RLIMIT_DATA, (SIZE // 2, -1))
    pid = os.fork()
elif why == "addresses":
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    # The child is without live and observer view: room for half of one.
    resource.setrlimit(resource.RLIMIT_AS, (mapped - 3 * SIZE // 2, -1))
    pid = os.fork()
else:
    pid = ctypes.CDLL(None).syscall(56, signal.SIGCHLD, 0, 0, 0, 0)  # x86-64
if pid == 0:
    if why == "data" and arena.live[0] == 1:
        arena.live[0] = 2
    elif why != "data":
        arena.live[0]
    os._exit(1)
assert wait(pid) == -signal.SIGSEGV
print("done")
