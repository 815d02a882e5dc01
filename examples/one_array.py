# SPDX-License-Identifier: GPL-2.0-or-later
"""One array out of a large dump, without the rest.

python examples/one_array.py DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from livedumpfs import Arena, DumpSettings, LiveDump, load_array


def resident() -> int:
    """Bytes of files and of memory that this process has in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def main(folder: str) -> None:
    """Dump two arrays, look at one."""
    path = Path(folder) / "state.elf"
    with Arena("48MiB") as arena:
        heat = arena.zeros((1000, 4000), "f8", name="heat")
        heat[:] = 20.0
        heat[500, 500] = 99.0
        arena.from_array(range(1000), name="other")
        LiveDump(arena).save(path, DumpSettings(format="elf"))
    del heat

    other = load_array(path, "other")  # a small one is read; this also loads what reads dumps
    assert other[-1] == 999
    before = resident()
    found = load_array(path, "heat")  # mapped: nothing is read
    hottest = found[500, 500]  # one page is
    print(
        f"{found.nbytes >> 20} MiB, of which {(resident() - before) >> 20} MiB were read: {hottest}"
    )
    found[:2] = 0.0  # stays in this process
    assert load_array(path, "heat")[0, 0] == 20.0


if __name__ == "__main__":
    main(sys.argv[1])
