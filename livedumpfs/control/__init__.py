# SPDX-License-Identifier: GPL-2.0-or-later
"""What the files and ioctls of a mount mean. Knows no FUSE: everything here works on bytes.

calls            Control: reads, writes and ioctls by name and number
requests         what the ioctls carry: structs, and a path in the caller's memory
last_errors      control/error: the last error of each task
caller           the task that asks, and whether it may
settings_files   the files of control/ that INIT goes by, in text
caller_target    the target and the sidecar, opened with the caller's rights
physical_memory  mem: the live memory by physical address
snapshot_tree    snapshot/: the dump whose files there are now
report           status line, STATUS, stats.json, machine/
metrics          the same numbers for Prometheus
tally            what is counted over the whole life of a host
one_step         one step at a time, and what is told of one that fails
"""

from livedumpfs.control.caller import Access, Caller
from livedumpfs.control.calls import Control
from livedumpfs.control.settings_files import Settings
from livedumpfs.control.snapshot_tree import Shown

__all__ = ["Access", "Caller", "Control", "Settings", "Shown"]
