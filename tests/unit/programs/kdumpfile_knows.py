# SPDX-License-Identifier: GPL-2.0-or-later
"""What libkdumpfile says of a kdump, and the memory that it reads."""

from __future__ import annotations

import sys

from kdumpfile import KDUMP_MACHPHYSADDR, kdumpfile

context = kdumpfile(sys.argv[1])
assert context.attr["arch.name"] == "x86_64", context.attr["arch.name"]
assert context.attr["linux.uts.nodename"] == "engine"
assert context.attr["cpu.number"] == 2
assert context.attr["cpu.1.reg.rip"] == 0x5678
for word in sys.argv[2:]:
    address, size = map(int, word.split(","))
    sys.stdout.buffer.write(context.read(KDUMP_MACHPHYSADDR, address, size))
try:
    context.read(KDUMP_MACHPHYSADDR, 8 * 4096, 16)
except Exception as error:
    assert "NoData" in type(error).__name__, error
else:
    raise SystemExit("a page that the machine does not have was read")
