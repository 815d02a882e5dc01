# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU guest on huge pages (hugetlbfs, 2 MiB) beside one on pages of 4 KiB.

The guest stores to all of its memory, round after round (firmware.py). Each kind has a QEMU of its
own, in turns:

speed   pages of 4 KiB that it stores to in a second, without a dump.
INIT    of a second dump: the first one also looks for VMCOREINFO.
stop    of the guest, from `stop` to the answer to `cont`.
arming  the part of it in which the memory is write-protected: 4 KiB by the swap, 2 MiB in place.
store   how long a store waits that meets an armed granule (64 KiB, 2 MiB): all such stores of a
        dump in memory, until a fifth of the memory was stored to.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import firmware
from measurement import Bar, Measurement

from livedumpfs.dump import Counters, DumpSettings, LiveDump
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.units import PAGE_SIZE, format_size

HUGE = 2 << 20
SPEED_S = 2.0
DEADLINE_S = 120.0
KINDS = {"4 KiB": "memory-backend-memfd", "2 MiB": "memory-backend-memfd,hugetlb=on"}
COLUMNS = ["pages", "speed, million/s", "INIT, ms", "stop, ms", "arming, ms", "store, ms", "slots"]
POOL = Path("/proc/sys/vm/nr_hugepages")


class Found:
    """What was measured of one kind."""

    def __init__(self) -> None:
        self.speeds: list[float] = []
        self.inits: list[float] = []
        self.dumps: list[Counters] = []

    def row(self, name: str) -> list[str]:
        """Medians, with the largest value; of stores the mean of a dump, and the longest."""
        dumps = self.dumps
        stores = [one.handler_sum_ns / one.faults / 1e6 for one in dumps]
        longest = max(one.stall_max_ns for one in dumps) / 1e6
        return [
            name,
            f"{statistics.median(self.speeds) / 1e6:.2f}",
            _spread([one * 1e3 for one in self.inits]),
            _spread([one.pause_ns / 1e6 for one in dumps]),
            _spread([one.arm_ns / 1e6 for one in dumps]),
            f"{statistics.median(stores):.2f} ({longest:.1f})",
            format_size(max(one.slots_peak * one.granule_size for one in dumps)),
        ]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({max(values):.3g})"


def _rounds(machine: QemuMachine) -> int:
    return int.from_bytes(machine.arena.read(firmware.ROUNDS, 4), "little")


def _until(live: LiveDump, size: int) -> None:
    """A fifth of the memory was saved by stores."""
    end = time.monotonic() + DEADLINE_S
    while live.counters().slots_peak * live.counters().granule_size < size // 5:
        if time.monotonic() > end:
            raise TimeoutError(f"the guest does not store: {live.counters()}")
        time.sleep(0.001)


def _turn(found: Found, backend: str, size: int, bios: Path, repeats: int) -> None:
    words = ["qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults"]
    words += ["-bios", str(bios), "-m", f"{size >> 20}M", "-machine", "memory-backend=ram"]
    words += ["-object", f"{backend},id=ram,size={size},share=on"]
    with QemuMachine(words) as machine, LiveDump(machine) as live:
        machine.start()
        while _rounds(machine) < 2:
            time.sleep(0.01)
        before, began = _rounds(machine), time.monotonic()
        time.sleep(SPEED_S)
        while _rounds(machine) == before:
            time.sleep(0.01)
        took = time.monotonic() - began
        found.speeds.append((_rounds(machine) - before) * size / PAGE_SIZE / took)
        live.init(None)
        live.release()
        for _ in range(repeats):
            began = time.monotonic()
            live.init(None, DumpSettings(spill_limit=size))
            found.inits.append(time.monotonic() - began)
            live.start()
            _until(live, size)
            found.dumps.append(live.counters())
            live.release()


def measure(size: int, repeats: int, folder: Path) -> Measurement:
    """`repeats` guests of each kind, with three dumps each. Takes the huge pages of the pool, and
    gives them back."""
    title = f"A guest of {format_size(size)} that stores to all of it, by the size of its pages"
    found = Measurement("pages", title, COLUMNS)
    kinds = {name: Found() for name in KINDS}
    bios, before = firmware.build(folder), int(POOL.read_text())
    POOL.write_text(str(before + size // HUGE))
    try:
        if int(POOL.read_text()) < before + size // HUGE:
            found.notes.append("Not measured: there are not so many huge pages.")
            return found
        for _ in range(repeats):
            for name, backend in KINDS.items():
                _turn(kinds[name], backend, size, bios, 3)
    finally:
        POOL.write_text(str(before))
    found.rows += [kinds[name].row(name) for name in KINDS]
    small, large = (statistics.median(one.arm_ns for one in kinds[name].dumps) for name in KINDS)
    found.bars.append(Bar("arming of 2 MiB pages / of 4 KiB pages", large / small, 1, False))
    return found
