# SPDX-License-Identifier: GPL-2.0-or-later
"""Data that system calls write into an arena while a dump protects it.

    python examples/receiving.py DIR

A plain `recv_into` gets EFAULT ("Bad address") from protected memory, which no library can see
before it happens. There are two ways to receive.
"""

from __future__ import annotations

import select
import socket
import sys
from pathlib import Path

import numpy as np

from livedumpfs import Arena, LiveDump


def main(folder: str) -> None:
    """Receive under a dump; the dump has what was there before."""
    data = np.arange(100_000, dtype="f4")
    (Path(folder) / "data.bin").write_bytes(data.tobytes())
    near, far = socket.socketpair()
    with near, far, Arena("4MiB") as arena:
        x = arena.zeros(data.shape, "f4", name="x")
        y = arena.zeros(1000, "f4", name="y")
        x[:], y[:] = -1.0, -1.0
        dump = LiveDump(arena)
        dump.init(Path(folder) / "before.elf")
        dump.start()  # from here on the memory is protected

        far.sendall(data[:1000].tobytes())
        try:
            near.recv_into(memoryview(y).cast("B"))
            print("the kernel could write, without a word to the dump")
        except OSError as error:
            print(f"plain recv_into: {error.strerror}")

        # 1. The array is opened: its old bytes are saved, and the kernel may write.
        select.select([near], [], [])  # wait for data first: START waits for the block
        with arena.receiving(y) as view:
            came = near.recv_into(view)

        # 2. The array is filled, from a path, a file, a pipe or a socket: np.fromfile of an arena.
        arena.fill(x, Path(folder) / "data.bin")

        dump.sweep()
        print(f"received {came} bytes; the dump is {dump.finish()}")
        dump.release()
        assert np.array_equal(x, data) and np.array_equal(y, data[:1000])
    with Arena.load(Path(folder) / "before.elf") as before:
        assert (before.arrays["x"] == -1.0).all() and (before.arrays["y"] == -1.0).all()
    print("and has the bytes from before")


if __name__ == "__main__":
    main(sys.argv[1])
