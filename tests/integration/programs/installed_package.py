# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the package that is installed has its header, and the machine that it runs."""

from __future__ import annotations

import livedumpfs
from livedumpfs.machines import UnicornMachine

print(livedumpfs.get_include())
with UnicornMachine("16MiB") as machine:
    machine.wait_ready()
    print(machine.name)
