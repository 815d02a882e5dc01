# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump fleet worker` as a user who exists nowhere, and is in one group.

Usage: worker_of_user.py USER GROUP ARGUMENT...

That user may not be allowed to read this Python's modules: a fleet dump of one process, as root,
loads them all first.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile

from simulated_members import SimulatedMembers

from livedumpfs.cli.main import main
from livedumpfs.fleet import FleetSettings, cluster, credentials, fleet_dump, plugin
from tests.fleet.clusters import in_process

PR_SET_DUMPABLE = 4

user, group, *arguments = sys.argv[1:]
loaded = (cluster, credentials, plugin)
with in_process(1, SimulatedMembers(1)) as client, tempfile.TemporaryDirectory() as folder:
    fleet_dump(client, FleetSettings(folder, how="barrier", deadline_s=30), allow_root=True)
os.setgroups([int(group)])
os.setgid(int(user))
os.setuid(int(user))
# The /proc/PID/fd of a process that changed its user is root's; of one that began so it is not.
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
os.environ["HOME"] = "/nonexistent"
os.umask(0o22)
sys.exit(main(["fleet", "worker", *arguments]))
