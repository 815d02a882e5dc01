# SPDX-License-Identifier: GPL-2.0-or-later
"""INIT and RELEASE again and again, until it is killed or ends by itself in the middle."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time

from livedumpfs import abi

libc = ctypes.CDLL(None)
device = os.open(sys.argv[1], os.O_RDONLY)
path = ctypes.create_string_buffer(os.fsencode(sys.argv[2]))


def ask():
    while True:
        libc.ioctl(device, ctypes.c_ulong(abi.INIT), path)
        libc.ioctl(device, ctypes.c_ulong(abi.RELEASE), None)


threading.Thread(target=ask, daemon=True).start()
print("asking", flush=True)
if len(sys.argv) > 3:
    time.sleep(float(sys.argv[3]))
    os._exit(0)  # of the other thread, while the first is in the ioctl
time.sleep(600)
