# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by test_shared_arrays.py: processes that are no forks read an arena's arrays during a dump.

shared_arrays.py spawn|forkserver
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection

import numpy as np

from livedumpfs import Arena, LiveDump
from livedumpfs.core.shared_array import SharedArray

LONG_S = 300.0


def work(x: SharedArray, pipe: Connection) -> None:
    """Say what is there, each time when asked."""
    try:
        x.array[0] = 9
        pipe.send("the array is writable")
    except ValueError:
        pipe.send("read-only")
    while pipe.recv():
        pipe.send((x.array.dtype.str, x.array.tolist()))


def answer(pipe: Connection) -> object:
    assert pipe.poll(LONG_S), "no answer"
    return pipe.recv()


def asked(pipe: Connection) -> object:
    pipe.send(True)
    return answer(pipe)


def main(method: str) -> None:
    context = multiprocessing.get_context(method)
    before = len(os.listdir("/proc/self/fd"))
    with Arena("1MiB") as arena:
        arena.zeros(1000)
        x = arena.from_array(np.arange(6, dtype=">i2").reshape(2, 3), name="x")
        given = arena.shared(x[1:])
        here, there = context.Pipe()
        child = context.Process(target=work, args=(given, there))
        child.start()
        assert answer(here) == "read-only"
        assert asked(here) == (">i2", [[3, 4, 5]])
        with LiveDump(arena) as dump:
            dump.init(None)
            dump.start()
            x += 1
            assert asked(here) == (">i2", [[4, 5, 6]])
            assert dump.snapshot.array("x").tolist() == [[0, 1, 2], [3, 4, 5]]
        x += 1
        assert asked(here) == (">i2", [[5, 6, 7]])
        try:
            given.array[0] = 1
            raise AssertionError("the parent's own view is writable")
        except ValueError:
            pass
        del given
    x += 1  # the arena is closed: its memory stays as long as the array
    assert asked(here) == (">i2", [[6, 7, 8]])
    here.send(False)
    child.join(LONG_S)
    assert child.exitcode == 0, child.exitcode
    del x, arena, dump
    child.close()
    here.close()
    there.close()
    more = len(os.listdir("/proc/self/fd")) - before
    assert more <= 3, f"{more} descriptors are left"  # multiprocessing's own helpers
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
