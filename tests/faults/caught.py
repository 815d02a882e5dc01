# SPDX-License-Identifier: GPL-2.0-or-later
"""The backend by which a test's program dumps, as $BACKEND says, and the signal that stores get
then. Programs import it."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from typing import Final

from livedumpfs import DumpSettings

BACKEND: Final = os.environ.get("BACKEND", "sigsegv")
SIGNAL: Final = {"sigsegv": signal.SIGSEGV, "sigbus": signal.SIGBUS}[BACKEND]
SETTINGS: Final = DumpSettings(backend=BACKEND)  # type: ignore[arg-type]


def crash() -> None:
    """A fault by SIGNAL in no arena's memory."""
    if SIGNAL == signal.SIGSEGV:
        ctypes.string_at(8)
    fd = os.memfd_create("cut off")
    os.ftruncate(fd, mmap.PAGESIZE)
    memory = mmap.mmap(fd, mmap.PAGESIZE)
    os.ftruncate(fd, 0)
    print(memory[0])
