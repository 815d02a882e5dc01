# SPDX-License-Identifier: GPL-2.0-or-later
"""Saves of arrays while a thread writes them: what is kept is one instant, each time.

LIVEDUMP_DUMPS=200 (`make exact`): so many saves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from livedumpfs import Arena, LiveDump

MIB = 1 << 20
TOTAL = 1000
SAVES = int(os.environ.get("LIVEDUMP_DUMPS", "8"))


class Ledger:
    """Two arrays whose elements add up to TOTAL each, but in the middle of a step. Each step moves
    amounts in a part of them and counts itself, under a lock."""

    def __init__(self, arena: Arena) -> None:
        self.one = arena.array("i8", (MIB // 8,), name="one")
        self.other = arena.array("i8", (MIB // 8,), name="other")
        self.steps = arena.array("u8", (1,), name="steps")
        self.one[:] = TOTAL
        self.lock = threading.Lock()
        self._end = threading.Event()
        self._random = np.random.default_rng(5)

    def _step(self) -> None:
        first = int(self._random.integers(0, len(self.one) - 5000))
        part = slice(first, first + 5000)
        amount = int(self._random.integers(1, 100))
        with self.lock:
            self.one[part] -= amount
            self.other[part] += amount
            self.steps += 1

    def _run(self) -> None:
        while not self._end.wait(1e-4):  # so that the other threads have the interpreter, too
            self._step()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(300)
            assert not thread.is_alive()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", ["state.zarr", "state.icechunk"])
def test_each_save_is_one_instant(name: str, tmp_path: Path) -> None:
    path, seen = tmp_path / name, []
    with Arena(4 * MIB) as arena:
        ledger = Ledger(arena)
        held = LiveDump(arena, quiesce=ledger.lock.acquire, resume=ledger.lock.release)
        with ledger.running(), held:
            for _ in range(SAVES):
                assert held.save(path) == "consistent"
                with Arena.load(path) as again:
                    found = again.arrays
                    assert (found["one"] + found["other"] == TOTAL).all()
                    seen.append(int(found["steps"][0]))
    assert seen == sorted(seen) and len(set(seen)) > SAVES // 2, seen
