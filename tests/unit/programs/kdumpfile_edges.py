# SPDX-License-Identifier: GPL-2.0-or-later
"""The last byte of each range, and the first behind it, as libkdumpfile reads them."""

from __future__ import annotations

import sys

from kdumpfile import KDUMP_MACHPHYSADDR, kdumpfile

dump = kdumpfile(sys.argv[1])
for number in range(1000):
    print(*dump.read(KDUMP_MACHPHYSADDR, number * 12288 + 4088, 2))
