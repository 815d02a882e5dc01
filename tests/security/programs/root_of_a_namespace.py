# SPDX-License-Identifier: GPL-2.0-or-later
"""Root of a user namespace of its own, as init_targets.py. "SKIP": there are none here."""

from __future__ import annotations

import ctypes
import os
import sys

from init_targets import init_all

user = os.geteuid()
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(4, 1)  # dumpable again: its files in /proc are its own then
if libc.unshare(0x10000000):
    print("SKIP", os.strerror(ctypes.get_errno()))
    sys.exit()
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
assert os.geteuid() == 0
init_all(*sys.argv[1:])
