# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads that work in steps on a state of their own shape, and are dumped while they do.

    python examples/simulation.py DIR

The state is a dataclass, `Arena.of` puts it into an arena, and a `StepBarrier` says where a dump
may take it. The dump is then loaded, and compared with a run without dumps.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from livedumpfs import Arena, DumpSettings, LiveDump, StepBarrier

THREADS = 2


@dataclass
class Simulation:
    """A rod for each thread, that cools at its ends."""

    heat: Any
    steps: Any


def fresh() -> Simulation:
    """At the beginning."""
    heat = np.zeros((THREADS, 10_000))
    heat[:, 4_000:6_000] = 100.0
    return Simulation(heat, np.zeros(THREADS, "i8"))


def cool(now: Simulation, rod: int) -> None:
    """One step of one rod, in place."""
    heat = now.heat[rod]
    heat[1:-1] += 0.25 * (heat[:-2] - 2 * heat[1:-1] + heat[2:])
    now.steps[rod] += 1


def main(folder: str) -> None:
    """Run, dump, load, compare."""
    path = Path(folder) / "simulation.elf"
    arena, now = Arena.of(fresh())
    barrier, enough = StepBarrier(timeout=60.0), threading.Event()

    def work(rod: int) -> None:
        with barrier:
            while not enough.is_set():
                cool(now, rod)
                barrier.step()  # the rod is whole here

    threads = [threading.Thread(target=work, args=(rod,)) for rod in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        dump = LiveDump(arena, writers=barrier)
        dump.save(path, DumpSettings(quiesce_deadline=60.0))
    finally:
        enough.set()
        for thread in threads:
            thread.join()

    with Arena.load(path) as loaded:
        saved = loaded.find(fresh())  # the same shape again
        again = fresh()
        for rod, steps in enumerate(saved.steps):
            for _ in range(steps):
                cool(again, rod)
        assert np.array_equal(saved.heat, again.heat), "the dump is of the middle of a step"
        print(f"a dump of steps {saved.steps.tolist()}, all of them whole")
    arena.close()


if __name__ == "__main__":
    main(sys.argv[1])
