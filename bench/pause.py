# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a machine stands still: the swap beside mprotect over all of its memory, and fork.

All in one run, on machines whose memory is all there and whose vCPU writes hard; medians of several
dumps without a target. fork is measured in a process of its own with as much memory.
Trust the ratios: the times are this computer's.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from livedumpfs import DumpSettings, LiveDump
from livedumpfs.machines import UnicornMachine
from livedumpfs.units import PAGE_SIZE, format_duration, format_size, parse_size

SIZES = ("256MiB", "1GiB", "4GiB")
READY_TIMEOUT = 300.0
"""Seconds that the guest may take to fill its memory."""


@dataclass(frozen=True)
class Pause:
    """Medians, in ns."""

    quiesce: float
    arm: float
    pause: float
    """From the request to stop until all run again."""


def measure_dump(dump: LiveDump, arming: str, repeats: int) -> Pause:
    """START of `repeats` dumps that end at once."""
    found = []
    for _ in range(repeats):
        dump.init(None, DumpSettings(arming=arming))
        try:
            dump.start()
            found.append(dump.counters())
        finally:
            dump.release()
    return Pause(
        statistics.median(c.quiesce_ns for c in found),
        statistics.median(c.arm_ns for c in found),
        statistics.median(c.pause_ns for c in found),
    )


def fork_times(size: int, repeats: int) -> list[int]:
    """How long fork keeps a program with `size` bytes of resident 4 KiB pages, in ns."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for offset in range(0, size, PAGE_SIZE):
        memory[offset] = 1
    times = []
    for _ in range(repeats):
        before = time.monotonic_ns()
        child = os.fork()
        if child == 0:
            os._exit(0)
        times.append(time.monotonic_ns() - before)
        os.waitpid(child, 0)
    return times


def measure_fork(size: int, repeats: int) -> float:
    """The median of fork_times, in a process that has nothing else."""
    command = [sys.executable, __file__, "--fork", str(size), "--repeats", str(repeats)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return float(run.stdout)


def measure(size: int, repeats: int) -> str:
    """One line of the table."""
    fork = measure_fork(size, repeats)
    with UnicornMachine(size, dirty_share=1.0) as machine:
        machine.wait_ready(READY_TIMEOUT)
        dump = LiveDump(machine)
        swap = measure_dump(dump, "swap", repeats)
        protect = measure_dump(dump, "mprotect", repeats)
        resident = machine.arena.resident()
    cells = [
        format_size(resident),
        *(format_duration(t) for t in (swap.quiesce, swap.arm, swap.pause)),
        *(format_duration(t) for t in (protect.arm, protect.pause, fork)),
        f"{protect.pause / swap.pause:.0f}",
        f"{fork / swap.pause:.0f}",
    ]
    return row(cells)


def row(cells: list[str]) -> str:
    """Cells in columns."""
    return "".join(f"{cell:>14}" for cell in cells)


def main() -> None:
    """Print the table, or with --fork one number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=SIZES, metavar="SIZE", help="of the machines")
    parser.add_argument("--repeats", type=int, default=7, help="dumps per figure; default: 7")
    parser.add_argument("--fork", type=int, metavar="BYTES", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fork:
        print(statistics.median(fork_times(args.fork, args.repeats)))
        return
    print(row(["", "swap:", "", "", "mprotect:", "", "", "mprotect", "fork"]))
    print(row(["resident", "quiesce", "arm", "pause", "arm", "pause", "fork", "/ swap", "/ swap"]))
    for size in args.sizes:
        print(measure(parse_size(size), args.repeats), flush=True)


if __name__ == "__main__":
    main()
