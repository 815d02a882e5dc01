# SPDX-License-Identifier: GPL-2.0-or-later
"""One dump: policy and life over the C core."""

from __future__ import annotations

from livedumpfs.dump.counters import NO_PFN, Counters, Failure
from livedumpfs.dump.instant import Snapshot, SnapshotFile
from livedumpfs.dump.live import LiveDump, Progress, State
from livedumpfs.settings import ARMINGS, POLICIES, DumpSettings

__all__ = [
    "ARMINGS",
    "NO_PFN",
    "POLICIES",
    "Counters",
    "DumpSettings",
    "Failure",
    "LiveDump",
    "Progress",
    "Snapshot",
    "SnapshotFile",
    "State",
]
