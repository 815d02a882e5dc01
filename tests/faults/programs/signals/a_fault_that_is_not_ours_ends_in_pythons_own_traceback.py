# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: a fault that is not ours ends in pythons own traceback."""

from __future__ import annotations

import faulthandler
import resource

from armed_dump import armed
from caught import crash

from livedumpfs import Arena

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

faulthandler.enable()
arena = Arena(MIB)
a = arena.array("u1", MIB)
a[:] = 1
live = armed(arena)
a[0] = 2


crash()
