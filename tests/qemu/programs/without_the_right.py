# SPDX-License-Identifier: GPL-2.0-or-later
"""Stops a QEMU and lets it go, and says whether all threads are ordinary ones in between."""

from __future__ import annotations

import os
import sys

from livedumpfs.machines.qemu import QemuMachine


def ordinary(pid: int) -> bool:
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    return all(os.sched_getscheduler(one) == os.SCHED_OTHER for one in threads)


with QemuMachine(sys.argv[1:]) as machine:
    machine.start()
    interval = sys.getswitchinterval()
    for step in (machine.quiesce, machine.resume):
        step()
        same = ordinary(machine.pid) and ordinary(os.getpid())
        print(machine.monitor.status(), same and sys.getswitchinterval() == interval, flush=True)
