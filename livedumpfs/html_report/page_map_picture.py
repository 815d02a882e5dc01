# SPDX-License-Identifier: GPL-2.0-or-later
"""The page map as a picture: cells in rows, a path of SVG for each kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

CELLS_MOST: Final = 4608
"""More would be smaller than a point on most screens."""
_COLUMNS: Final = ((2048, 128), (512, 64), (0, 32))
"""From so many cells on, so many columns: powers of two, so that a row is a round size."""


@dataclass(frozen=True)
class Picture:
    """For an `svg` whose view box is `columns` wide and `rows` high."""

    columns: int
    rows: int
    paths: Sequence[tuple[str, str]]
    """Class, and the value of `d`: all cells of that class."""
    grid: str
    """`d` of the lines between the cells."""


def cell_count(parts: int) -> int:
    """How many cells a map of so many parts gets: one for each part, or for each 2, 4, 8... of
    them."""
    together = 1
    while parts > together * CELLS_MOST:
        together *= 2
    return -(-parts // together)


def picture(cells: bytes, named: Callable[[int], str]) -> Picture:
    """From the first cell, in the upper left corner, row by row. `named`: the class of a cell's
    value; "": it is not drawn."""
    columns = next(number for least, number in _COLUMNS if len(cells) >= least)
    rows = max(1, -(-len(cells) // columns))
    drawn: dict[str, list[str]] = {}
    for row in range(rows):
        line = cells[row * columns : (row + 1) * columns]
        x = 0
        for name, run in itertools.groupby(line, named):
            width = sum(1 for _ in run)
            if name:
                drawn.setdefault(name, []).append(f"M{x} {row}h{width}v1h-{width}z")
            x += width
    upright = (f"M{x} 0v{rows}" for x in range(1, columns))
    level = (f"M0 {y}h{columns}" for y in range(1, rows))
    paths = [(name, "".join(parts)) for name, parts in drawn.items()]
    return Picture(columns, rows, paths, "".join([*upright, *level]))
