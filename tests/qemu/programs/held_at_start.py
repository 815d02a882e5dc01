# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of a QEMU that waits for a line between stop and START."""

from __future__ import annotations

import sys

from livedumpfs.dump import LiveDump, remote
from livedumpfs.machines.qemu import QemuMachine

machine = QemuMachine(sys.argv[1:])
machine.start()
print(machine.pid, flush=True)
sys.stdin.readline()
live = LiveDump(machine)
live.init(None)
real = machine.shim.call


def call(operation, *rest, **words):
    if operation == remote.lib.LDFS_SHIM_START:
        print("held", flush=True)
        sys.stdin.readline()  # stopped here, for as long as the test likes
    return real(operation, *rest, **words)


machine.shim.call = call
try:
    live.start()
    print("started", flush=True)
except OSError as error:
    print(error, flush=True)
machine.shim.call = real
print(machine.monitor.status(), flush=True)
live.release()
live.init(None)
live.start()
print(live.so_far, flush=True)
live.release()
sys.stdin.readline()
