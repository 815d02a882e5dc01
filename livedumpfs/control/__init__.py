# SPDX-License-Identifier: GPL-2.0-or-later
"""What the files and ioctls of a mount mean. Knows no FUSE: everything here works on bytes.

control     Control: reads, writes and ioctls by name and number
caller      who asks, and whether he may
settings    the files of control/ that INIT goes by, in text
target      the target and the sidecar, opened with the caller's rights
memory      mem: the live memory by physical address
snapshot    snapshot/: which dump's files there are now
report      status line, STATUS, stats.json, machine/
metrics     the same numbers for Prometheus
"""

from livedumpfs.control.caller import Access, Caller
from livedumpfs.control.calls import Control
from livedumpfs.control.settings_files import Settings
from livedumpfs.control.snapshot_tree import Shown

__all__ = ["Access", "Caller", "Control", "Settings", "Shown"]
