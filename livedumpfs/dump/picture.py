# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture of a dump's memory: the core's marks of its granules in letters of page_map."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs import page_map
from livedumpfs.core.capi import lib

_HOW: Final = 4
"""Bit of a mark where enum ldfs_how begins."""
_LETTERS: Final = {
    lib.LDFS_G_ARMED: page_map.ARMED,
    lib.LDFS_G_CLAIMED: page_map.IN_SLOT,
    lib.LDFS_G_IN_SLOT: page_map.IN_SLOT,
    lib.LDFS_G_SWEEPING: page_map.SWEEPING,
    lib.LDFS_G_STEALING: page_map.STEALING,
    lib.LDFS_G_STOLEN: page_map.STEALING,
    lib.LDFS_G_SAVED: page_map.SWEPT,
    lib.LDFS_G_HOLE: page_map.ZEROS,
    lib.LDFS_G_LOST: page_map.LOST,
}
"""By enum ldfs_state, where `how` says nothing else."""
_BY_HOW: Final = {
    (lib.LDFS_G_SAVED, lib.LDFS_BY_FAULT): page_map.BY_FAULT,
    (lib.LDFS_G_SAVED, lib.LDFS_BY_STEAL): page_map.STOLEN,
    (lib.LDFS_G_IN_SLOT, lib.LDFS_BY_STEAL): page_map.STEALING,
}


def _table() -> npt.NDArray[np.uint8]:
    """The letter of each mark."""
    table = np.zeros(256, dtype=np.uint8)
    for mark in range(256):
        state, how = mark & (1 << _HOW) - 1, mark >> _HOW
        letter = _BY_HOW.get((state, how)) or _LETTERS.get(state, page_map.LOST)
        table[mark] = ord(letter)
    return table


_OF_MARK: Final = _table()


def picture(marks: npt.NDArray[np.uint8], armed: bool) -> bytes:
    """A letter for each granule, or for each of page_map.CELLS_MOST cells where there are more.
    `armed`: START is done; until then no granule is armed, whatever its mark."""
    if not armed:
        return page_map.NOT_ARMED.encode() * min(len(marks), page_map.CELLS_MOST)
    return page_map.shrink(_OF_MARK[marks].tobytes(), page_map.CELLS_MOST)
