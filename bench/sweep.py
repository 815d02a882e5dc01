# SPDX-License-Identifier: GPL-2.0-or-later
"""The sweep's rate beside plain pwrite of the same memory to the same target, in one run.

Nobody writes the memory meanwhile, so the sweep does all the work. Each is measured from its first
write to the end of fdatasync, in turn; medians. Trust the ratio: the times are this computer's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import numpy as np

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.targets import Kind, open_target
from livedumpfs.units import format_size, parse_size

PIECE = 1 << 20
DEADLINE = 600.0


def plain_rate(arena: Arena, path: str) -> float:
    """Bytes a second of pwrite of the live view, in pieces of a MiB, and fdatasync."""
    flags = os.O_RDWR | os.O_CREAT
    with open_target(path, force=True) as target:
        block = target.kind is Kind.BLOCK
    fd = os.open(path, flags if block else flags | os.O_TRUNC, 0o600)
    try:
        memory = memoryview(arena.live)
        before = time.monotonic()
        for offset in range(0, arena.size, PIECE):
            os.pwrite(fd, memory[offset : offset + PIECE], offset)
        os.fdatasync(fd)
        return arena.size / (time.monotonic() - before)
    finally:
        os.close(fd)


def sweep_rate(dump: LiveDump, path: str, settings: DumpSettings) -> float:
    """Bytes a second from SWEEP to the end of the drain, the sync included."""
    dump.init(path, settings)
    try:
        dump.start()
        dump.sweep()
        verdict = dump.finish(DEADLINE)
        if verdict != "consistent":
            sys.exit(f"the dump is {verdict}: {dump.failure}")
        return dump.counters().throughput
    finally:
        dump.release()


def main() -> None:
    """Print one line for each target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="file or device to overwrite")
    parser.add_argument("--size", default="1GiB", help="of the memory; default: 1GiB")
    parser.add_argument("--repeats", type=int, default=5, help="pairs per target; default: 5")
    args = parser.parse_args()
    with Arena(parse_size(args.size)) as arena, LiveDump(arena) as dump:
        arena.live.view(np.uint64)[:] = np.arange(arena.size // 8, dtype=np.uint64)
        for path in args.targets:
            pairs = []
            for _ in range(args.repeats):
                plain = plain_rate(arena, path)
                pairs.append((plain, sweep_rate(dump, path, DumpSettings(force=True))))
            plain, sweep = (statistics.median(p[i] for p in pairs) for i in (0, 1))
            ratio = statistics.median(b / a for a, b in pairs)
            print(
                f"{path}: pwrite {format_size(plain)}/s, sweep {format_size(sweep)}/s, "
                f"ratio {ratio:.2f}"
            )


if __name__ == "__main__":
    main()
