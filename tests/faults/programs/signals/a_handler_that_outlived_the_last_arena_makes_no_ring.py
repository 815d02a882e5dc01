# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: a handler that outlived the last arena makes no ring."""

from __future__ import annotations

import faulthandler
import gc
import resource

from armed_dump import armed
from caught import crash

from livedumpfs import Arena

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arena = Arena(MIB)
faulthandler.enable()
arena.close()
gc.collect()
arena = Arena(MIB)
a = arena.array("u1", MIB)
a[:] = 1
live = armed(arena)
a[0] = 2
crash()
