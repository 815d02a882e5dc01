# SPDX-License-Identifier: GPL-2.0-or-later
"""TrackedMemory: an arena that tracks, its increments in a store, and a copy of it at each
instant."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
from oracle import Reference

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump
from livedumpfs.stores.receiver import Receiver
from livedumpfs.targets import adopt_target
from livedumpfs.units import HOST_PAGE

PAGE = HOST_PAGE
GRANULE = 16 * PAGE
COUNT = 96
SIZE = COUNT * GRANULE
FULL = COUNT // 2
"""Granules with data; the others are holes."""
SETTINGS = DumpSettings(track=True, granule=GRANULE)
LIBC = ctypes.CDLL(None, use_errno=True)


class TrackedMemory:
    """An arena of one quiet program, its increments, and what each must have."""

    def __init__(self, place: Path) -> None:
        self.place, self.reference = str(place), Reference(SIZE)
        self.arena = Arena(SIZE)
        self.memory = memoryview(self.arena.live)
        self.arena.live[: FULL * GRANULE] = np.arange(FULL * GRANULE, dtype=np.uint32) % 251 + 1
        self.live = LiveDump(self.arena)

    def address(self, granule: int, page: int = 3) -> int:
        return self.arena.address + granule * GRANULE + page * PAGE

    def at(self, granule: int, length: int = 100, page: int = 3) -> memoryview:
        begin = granule * GRANULE + page * PAGE + 17
        return self.memory[begin : begin + length]

    def dump(
        self, between: Callable[[], object] | None = None, settings: DumpSettings = SETTINGS
    ) -> int:
        """How many granules were left out. `between`: what is done from START to SWEEP."""
        bases = list(self.live.bases)
        with Receiver(self.place, bases=bases, granule=GRANULE) as receiver:
            assert receiver.base == (bases[0] if bases else b"")
            end, receiver.write_end = receiver.write_end, -1
            target = adopt_target(end, "pipe")
            self.live.init(target, settings, since=receiver.base, reference=self.reference.fd)
            self.live.start()
            if between:
                between()
            self.live.sweep()
            assert self.live.finish(300) == "consistent"
            self.live.release()
            name = receiver.finish().name
        with open_dump(f"{self.place}#{name}") as dump:
            assert list(self.reference.different_pages(dump)) == []
        return self.live.increment.omitted

    def advise(self, granule: int, advice: int) -> int:
        """madvise(2) of a page of it. 0, or the errno."""
        address = ctypes.c_void_p(self.address(granule))
        done = LIBC.madvise(address, ctypes.c_size_t(PAGE), advice)
        return ctypes.get_errno() if done else 0

    def close(self) -> None:
        self.live.close()
        self.reference.close()
