# SPDX-License-Identifier: GPL-2.0-or-later
"""Which processor libkdumpfile finds in a kdump, how many there are, and one byte at an address."""

from __future__ import annotations

import sys

from kdumpfile import KDUMP_MACHPHYSADDR, kdumpfile

context = kdumpfile(sys.argv[1])
byte = context.read(KDUMP_MACHPHYSADDR, int(sys.argv[2]), 1)
print(context.attr["arch.name"], context.attr["cpu.number"], byte[0])
