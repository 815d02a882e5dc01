# SPDX-License-Identifier: GPL-2.0-or-later
"""One dump: policy and life over the C core."""

from __future__ import annotations

from livedumpfs.dump.counters import NO_PFN, CoreFailure, Counters, Progress
from livedumpfs.dump.event import DumpEvent, Happened
from livedumpfs.dump.instant import Snapshot, SnapshotFile
from livedumpfs.dump.live import LiveDump
from livedumpfs.dump.stage import DumpState
from livedumpfs.settings import ARMINGS, POLICIES, DumpSettings

__all__ = [
    "ARMINGS",
    "NO_PFN",
    "POLICIES",
    "CoreFailure",
    "Counters",
    "DumpEvent",
    "DumpSettings",
    "DumpState",
    "Happened",
    "LiveDump",
    "Progress",
    "Snapshot",
    "SnapshotFile",
]
