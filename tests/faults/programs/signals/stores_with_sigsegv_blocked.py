# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: stores to armed memory while SIGSEGV is blocked; argv[1]: the target."""

from __future__ import annotations

import resource
import signal
import sys

from armed_dump import armed
from caught import SIGNAL

from livedumpfs import Arena

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arena = Arena(MIB)
arena.live[:] = 1
live = armed(arena, sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
arena.live[0] = 2
