# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_forks.py: a child that leaves by the door."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from aftermath import expect_equal, memory_file
from children import wait

from livedumpfs import LiveDump
from livedumpfs.dump import DumpSettings
from livedumpfs.machines import UnicornMachine

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
place = Path(sys.argv[1])

with UnicornMachine(8 * MIB, 2) as machine, LiveDump(machine) as live, memory_file(8 * MIB) as kept:
    machine.wait_ready()
    live.init(place / "dump", DumpSettings(sweep_rate=4 * MIB), reference=kept)
    live.start()
    live.sweep()
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    assert wait(pid) == 7
    assert live.finish(300) == "consistent", live.failure
    live.release()
    expect_equal(place / "dump", kept, 8 * MIB)
    assert live.save(place / "next") == "consistent"
print("done")
