# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of a QEMU whose dump goes into a pipe."""

from __future__ import annotations

import os
import sys

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.machines.qemu import QemuMachine

machine = QemuMachine(sys.argv[2:])
os.pwrite(machine.arena.fd, os.urandom(24 << 20), 8 << 20)
machine.start()
print(machine._process.pid, flush=True)
sys.stdin.readline()
live = LiveDump(machine)
live.init(sys.argv[1], DumpSettings(format="kdump", compression="none"))
live.start()
live.sweep()
print("sweeping", flush=True)
sys.stdin.readline()
