# SPDX-License-Identifier: GPL-2.0-or-later
"""A host whose process stays for a while when its Python has ended: until stdin is closed."""

from __future__ import annotations

import ctypes
import sys

from livedumpfs import Arena
from livedumpfs.machines import ThreadMachine
from livedumpfs.mount.host import Host

libc = ctypes.CDLL(None)
# The last that was registered runs first: a line on stderr (the exit status 0 is no string), and
# then the wait.
libc.on_exit(libc.getchar, None)
libc.on_exit(libc.perror, None)
Host(ThreadMachine(Arena(1 << 20)), sys.argv[1]).run(lambda: print("ready", flush=True))
