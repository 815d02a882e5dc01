# SPDX-License-Identifier: GPL-2.0-or-later
"""The page map in letters: how each cell, a run of granules of the arena, stands in a dump."""

from __future__ import annotations

from typing import Final

import numpy as np

NOT_ARMED: Final = "-"
ARMED: Final = "."
ZEROS: Final = "0"
SWEEPING: Final = "s"
SWEPT: Final = "S"
IN_SLOT: Final = "f"
BY_FAULT: Final = "F"
STEALING: Final = "t"
STOLEN: Final = "T"
LOST: Final = "L"
LETTERS: Final = "-.0SsfFtTL"
"""All of them; docs/control.md says what they mean. A small letter: under way."""
CELLS_MOST: Final = 65536
"""Cells of control/pages."""

WRITTEN: Final = 16
"""Times that what the machine wrote counts in a cell."""
_WEIGHTS: Final = np.array([1, 1, 1, 1, *[WRITTEN] * 5, 2**31], dtype=np.int64)
"""For each of LETTERS. What the machine wrote, or the sweep is at, must be seen in a cell that is
mostly something else; a single lost granule must be seen in any cell."""
_INDEX: Final = np.zeros(256, dtype=np.intp)
_INDEX[list(LETTERS.encode())] = range(len(LETTERS))
_CODES: Final = np.frombuffer(LETTERS.encode(), dtype=np.uint8)


def shrink(letters: bytes, cells: int) -> bytes:
    """The map in at most `cells` cells, at least 1, of as equal sizes as possible. A cell gets the
    letter that most of its parts have, where those that were written count sixteen times; one lost
    part makes it lost."""
    if len(letters) <= cells:
        return letters
    parts = _INDEX[np.frombuffer(letters, dtype=np.uint8)]
    cell = np.arange(len(parts)) * cells // len(parts)
    counts = np.bincount(cell * len(LETTERS) + parts, minlength=cells * len(LETTERS))
    weighed = counts.reshape(cells, len(LETTERS)) * _WEIGHTS
    last = len(LETTERS) - 1 - np.argmax(weighed[:, ::-1], axis=1)  # of equals, the later letter
    return bytes(_CODES[last])


def spread(letters: bytes, cells: int) -> bytes:
    """The map in exactly `cells` cells, for a map of any size: cells of a smaller one are repeated.
    b"" for an empty one."""
    if not letters or len(letters) >= cells:
        return shrink(letters, cells) if cells else b""
    return bytes(letters[i * len(letters) // cells] for i in range(cells))
