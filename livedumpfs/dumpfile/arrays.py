# SPDX-License-Identifier: GPL-2.0-or-later
"""Named arrays of a dump, without a second copy of their memory.

Where the bytes lie behind each other on the target, as in `elf` and `raw`, a large array is a
private mapping of them: nothing is read before it is used, and what is stored into it stays in this
process. All else is read once, into the array itself.
"""

from __future__ import annotations

import mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from livedumpfs.dumpfile.granules import Granules
from livedumpfs.dumpfile.layout import DumpArray

MAP_FROM: Final = 1 << 20
"""Bytes; a smaller array is not worth a mapping."""
_PIECE: Final = 4 << 20


def read_array(dump: Granules, found: DumpArray) -> npt.NDArray[Any]:
    """The array, writable. OSError EIO: not all of it is there."""
    size = found.size
    place = dump.place(found.offset, size) if size >= MAP_FROM else None
    if place is None:
        made: npt.NDArray[Any] = np.empty(found.shape, dtype=found.dtype)
        if size:
            dump.read_into(found.offset, made.reshape(-1).view(np.uint8).data)
        return made
    dump.check_there(found.offset, size)
    data = _map(*place, size)
    for at, length in dump.holes(found.offset, size):
        _clear(data[at - found.offset : at - found.offset + length])
    return data.view(found.dtype).reshape(found.shape)


def _map(fd: int, offset: int, size: int) -> npt.NDArray[np.uint8]:
    """A private view of a file's bytes. It needs the descriptor no longer. OSError."""
    inside = offset % mmap.ALLOCATIONGRANULARITY
    start = offset - inside
    mapped = mmap.mmap(fd, inside + size, access=mmap.ACCESS_COPY, offset=start)
    return np.frombuffer(mapped, np.uint8, size, inside)


def _clear(data: npt.NDArray[np.uint8]) -> None:
    """Make it zeros. It is nearly always, and then no page of it is copied."""
    for at in range(0, len(data), _PIECE):
        piece = data[at : at + _PIECE]
        if piece.any():
            piece[:] = 0
