# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_signals.py: the handler leaves with the last arena."""

from __future__ import annotations

import gc
import resource

from livedumpfs import Arena
from livedumpfs.core.capi import lib

MIB = 1 << 20

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

arena, other = Arena(MIB), Arena(MIB)
assert lib.ldfs_fault_verify() == 0
arena.close()
gc.collect()
assert lib.ldfs_fault_verify() == 0
other.close()
gc.collect()
assert lib.ldfs_fault_verify() < 0
Arena(MIB).array("u1", MIB)[:] = 1
print("done")
