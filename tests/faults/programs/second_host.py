# SPDX-License-Identifier: GPL-2.0-or-later
"""A host at the mountpoint argv[1]."""

from __future__ import annotations

import sys

from livedumpfs.machines import UnicornMachine
from livedumpfs.mount.host import Host

Host(UnicornMachine("16MiB"), sys.argv[1]).run()
