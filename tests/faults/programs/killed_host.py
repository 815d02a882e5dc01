# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that its test kills."""

from __future__ import annotations

import sys
from functools import partial

from livedumpfs.machines import UnicornMachine
from livedumpfs.mount.host import Host

size, mountpoint, reference = sys.argv[1:]
machine = UnicornMachine(int(size), 2, dirty_share=0.7)
host = Host(machine, mountpoint)
host.dump.init = partial(host.dump.init, reference=int(reference))
host.run(lambda: (machine.wait_ready(), print("ready", flush=True)))
