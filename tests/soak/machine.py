# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines of a soak: an arena that C threads write, or the built-in guest."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
from choices import MachineChoice
from oracle import PIECE
from writers import Writers

from livedumpfs import Arena, LiveDump
from livedumpfs.machines import UnicornMachine
from livedumpfs.units import PAGE_SIZE

NAME = "memory"
"""Of the array over a whole arena."""
WORDS = PAGE_SIZE // 8
READY_S = 600.0


def fill(arena: Arena, share: float, seed: int) -> None:
    """Pages of several kinds, each with its own number in it, and holes in between."""
    rng = np.random.default_rng(seed)
    kinds = np.zeros((64, WORDS), dtype=np.uint64)
    kinds[8:16] = rng.integers(0, 1 << 63, (8, WORDS))
    kinds[16:40] = rng.integers(0, 1 << 63, (24, 1))
    kinds[40:] = rng.integers(0, 64, (24, WORDS))
    pages = arena.live.view(np.uint64).reshape(-1, WORDS)
    for first in range(0, len(pages), PIECE):
        part = pages[first : first + PIECE]
        stretches = rng.random(len(part) // 32 + 1).repeat(32)[: len(part)] < share
        there = np.flatnonzero(stretches)
        part[there] = kinds[rng.integers(0, len(kinds), len(there))]
        part[there, 1] = there + first


class ArenaMachine:
    """An arena that C threads write, and punch."""

    def __init__(self, choice: MachineChoice, library: Path) -> None:
        self.arena = Arena(choice.size)
        self.arena.array(np.uint64, choice.size // 8, name=NAME)
        fill(self.arena, choice.resident, choice.seed)
        self._writers = Writers(library, self.arena, choice.patterns, choice.seed)
        self._punching = threading.Lock()
        self.live = LiveDump(self.arena, quiesce=self.quiesce, resume=self.resume)

    def quiesce(self) -> None:
        self._punching.acquire()
        try:
            self._writers.quiesce()
        except BaseException:
            self._punching.release()
            raise

    def resume(self) -> None:
        self._writers.resume()
        self._punching.release()

    def rounds(self) -> int:
        return self._writers.rounds()

    def punch(self, r: random.Random) -> None:
        """A stretch of at most 64 pages."""
        pages = self.arena.size // PAGE_SIZE
        count = r.randint(1, min(64, pages))
        with self._punching:
            self.arena.discard(r.randint(0, pages - count) * PAGE_SIZE, count * PAGE_SIZE)

    def close(self) -> None:
        self.live.release()
        self._writers.close()
        self.arena.close()


class GuestMachine:
    """The built-in guest."""

    def __init__(self, choice: MachineChoice) -> None:
        self._machine = UnicornMachine(choice.size, len(choice.patterns), seed=choice.seed)
        self._machine.start()
        self._machine.wait_ready(READY_S)
        self.live = LiveDump(self._machine)
        self.quiesce, self.resume = self._machine.quiesce, self._machine.resume

    def rounds(self) -> int:
        """Of no guest."""
        return 0

    def punch(self, r: random.Random) -> None:
        raise NotImplementedError("a guest's memory is its own")

    def close(self) -> None:
        self.live.release()
        self._machine.close()


Machine = ArenaMachine | GuestMachine
