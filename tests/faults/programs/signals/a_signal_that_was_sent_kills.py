# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: a signal that was sent kills."""

from __future__ import annotations

import os
import resource

from armed_dump import armed
from caught import SIGNAL

from livedumpfs import Arena

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arena = Arena(MIB)
armed(arena).release()  # the handler is there now, whichever it is
os.kill(os.getpid(), SIGNAL)
