# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that holds its guest, perhaps arms it, and has no more to say. Argument 1: seconds of the
hold, or more where a busy computer cannot arm within them; 2: "armed" or "held"; the rest is
QEMU's."""

from __future__ import annotations

import sys

from livedumpfs.dump import LiveDump
from livedumpfs.machines.qemu import QemuMachine
from tests.fixtures.holds import arm_in_time

machine = QemuMachine(sys.argv[3:])
machine.start()
print("started", flush=True)
sys.stdin.readline()
live = LiveDump(machine)
live.init(None)
if sys.argv[2] == "armed":
    arm_in_time(live, float(sys.argv[1]))
else:
    live.hold(float(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
try:
    live.go() if sys.argv[2] == "armed" else live.arm()
    print("in time", flush=True)
except OSError as error:
    print(error.errno, flush=True)
live.release()
sys.stdin.readline()
machine.close()
