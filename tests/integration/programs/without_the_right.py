# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump of a process that may not make its threads urgent."""

from __future__ import annotations

import os
import sys

from livedumpfs import LiveDump
from livedumpfs.machines import UnicornMachine

ram, deadline_s = int(sys.argv[1]), float(sys.argv[2])
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
except PermissionError:
    pass
else:
    raise SystemExit("it has the right")
with UnicornMachine(ram) as machine:
    machine.wait_ready(deadline_s)
    with LiveDump(machine) as live:
        live.init(None)
        live.start()
        assert live.read(0, ram)
print("done")
