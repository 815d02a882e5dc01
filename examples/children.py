# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes of multiprocessing that read an arena's array, whatever they are started by.

python examples/children.py [fork|spawn|forkserver]
"""

from __future__ import annotations

import multiprocessing
import sys

import numpy as np

from livedumpfs import Arena
from livedumpfs.core.shared_array import SharedArray

_given: list[SharedArray] = []


def take(x: SharedArray) -> None:
    """In each worker, once."""
    _given.append(x)


def sum_of(row: int) -> float:
    """In a worker: its parent's memory, without a copy."""
    (x,) = _given
    return float(x.array[row].sum())


def main(method: str) -> None:
    """Sums of rows, by two processes."""
    with Arena("4MiB") as arena:
        x = arena.from_array(np.arange(40_000.0).reshape(4, 10_000), name="x")
        context = multiprocessing.get_context(method)
        with context.Pool(2, initializer=take, initargs=(arena.shared(x),)) as pool:
            first = pool.map_async(sum_of, range(4)).get(timeout=240)
            assert first == x.sum(axis=1).tolist()
            x += 1.0  # the workers see that, too
            later = pool.map_async(sum_of, range(4)).get(timeout=240)
            assert later == x.sum(axis=1).tolist()
    print(f"{method}: {len(first)} rows by two processes, without a copy")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "spawn")
