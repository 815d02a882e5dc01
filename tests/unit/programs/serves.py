# SPDX-License-Identifier: GPL-2.0-or-later
"""Holds a server of tests/fixtures/children.py, until it is killed: serves.py FOLDER. Prints what
the server prints: its process number. A lock of the file FOLDER/lock is held meanwhile."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tests.fixtures.children import serving

SERVER = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"

if __name__ == "__main__":
    lock = os.open(Path(sys.argv[1]) / "lock", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(lock, True)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with serving([sys.executable, "-c", SERVER]) as number:
        print(number, flush=True)
        time.sleep(300)
