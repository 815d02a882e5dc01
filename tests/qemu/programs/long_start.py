# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is in the middle of START for as long as the copy of the memory takes; again, until
it has seen that itself."""

from __future__ import annotations

import os
import threading

from started_machine import started

from livedumpfs.dump import LiveDump

machine = started()
live, copy = LiveDump(machine), os.memfd_create("reference")


def watch():
    while not os.fstat(copy).st_blocks:
        pass
    if (status := machine.monitor.status()) == "paused":
        print(status, flush=True)


while True:
    os.ftruncate(copy, 0)
    os.ftruncate(copy, machine.arena.size)
    live.init(None, reference=copy)
    watching = threading.Thread(target=watch)
    watching.start()
    live.start()
    watching.join()
    live.release()
