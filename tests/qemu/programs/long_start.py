# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is in the middle of START for as long as the copy of the memory takes."""

from __future__ import annotations

import os
import threading
import time

from started_machine import started

from livedumpfs.dump import LiveDump

machine = started()
live, copy = LiveDump(machine), os.memfd_create("reference")
os.ftruncate(copy, machine.arena.size)
live.init(None, reference=copy)


def watch():
    while not os.fstat(copy).st_blocks:
        pass
    print(machine.monitor.status(), flush=True)


threading.Thread(target=watch).start()
live.start()
time.sleep(600)
