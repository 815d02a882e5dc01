# SPDX-License-Identifier: GPL-2.0-or-later
"""SharedArray: an arena's array in the processes that multiprocessing starts."""

from __future__ import annotations

import mmap
import os
import weakref
from multiprocessing import reduction
from typing import Any

import numpy as np
import numpy.typing as npt

_Place = tuple[np.dtype[Any], tuple[int, ...], int, int]
"""dtype, shape, offset in the arena, size of the arena."""


class SharedArray:
    """Arena.shared makes it. ::

        def work(x: SharedArray) -> float:
            return float(x.array.sum())

        multiprocessing.get_context("spawn").Process(target=work, args=(arena.shared(x),))

    In another process `array` is read-only, and shows what the arena's own process has there now:
    copy what must not change, and compare a counter before and after where the parent writes
    meanwhile. What is read there costs no copy. It stays when the arena's process has ended.
    """

    def __init__(self, memfd: int, array: npt.NDArray[Any], offset: int) -> None:
        self._memfd = os.dup(memfd)
        weakref.finalize(self, os.close, self._memfd)
        self._place: _Place = (array.dtype, array.shape, offset, os.fstat(memfd).st_size)
        self.array: npt.NDArray[Any] = array.view()
        """The memory as it is now; read-only."""
        self.array.flags.writeable = False

    def __reduce__(self) -> tuple[Any, ...]:
        """While multiprocessing starts a process, or sends it an object."""
        return _arrived, (reduction.DupFd(self._memfd), self._place)


def _arrived(sent: Any, place: _Place) -> SharedArray:
    memfd = sent.detach()
    try:
        return _mapped(memfd, place)
    finally:
        os.close(memfd)


def _mapped(memfd: int, place: _Place) -> SharedArray:
    """OSError: the file cannot be mapped (ulimit -v)."""
    dtype, shape, offset, size = place
    memory = mmap.mmap(memfd, size, access=mmap.ACCESS_READ)
    found = np.frombuffer(memory, np.uint8)
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    array = found[offset : offset + count].view(dtype).reshape(shape)
    return SharedArray(memfd, array, offset)
