# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: a signal that was sent kills."""

from __future__ import annotations

import os
import resource
import signal

from livedumpfs import Arena

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arena = Arena(MIB)
os.kill(os.getpid(), signal.SIGSEGV)
