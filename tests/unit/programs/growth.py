# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a look at a dump's arrays takes, beside their size."""

from __future__ import annotations

import re
import sys

from livedumpfs import Arena, open_dump


def peak():  # ru_maxrss would be that of the process that started us, too
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) << 10


what, path, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_dump(path) as dump:
    dump.array("small")
    before = peak()
    if what == "look":
        found = dump.array("a")
        assert found[5] == 6 and found[-1] == size // 8
    elif what == "read":
        found = dump.array("a")
        assert int(found.sum()) == (size // 8) * (size // 8 + 1) // 2
    else:
        arena = Arena.load(dump)
        assert arena.arrays["a"][-1] == size // 8
print((peak() - before) / size)
