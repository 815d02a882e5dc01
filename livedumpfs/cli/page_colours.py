# SPDX-License-Identifier: GPL-2.0-or-later
"""The page map on a terminal: colours for its letters, and the letters where there are none."""

from __future__ import annotations

import itertools
from typing import Final

from rich.console import Console
from rich.text import Text

from livedumpfs import page_map

_COLOURS: Final = {
    page_map.NOT_ARMED: "default",
    page_map.ARMED: "bright_black",
    page_map.ZEROS: "black",
    page_map.SWEEPING: "bright_cyan",
    page_map.SWEPT: "blue",
    page_map.IN_SLOT: "bright_yellow",
    page_map.BY_FAULT: "yellow",
    page_map.STEALING: "bright_magenta",
    page_map.STOLEN: "magenta",
    page_map.LOST: "red",
}
"""The sixteen colours that each terminal has."""
_LEGEND: Final = (
    (page_map.ARMED, "armed"),
    (page_map.SWEEPING + page_map.SWEPT, "by sweep"),
    (page_map.IN_SLOT + page_map.BY_FAULT, "by fault"),
    (page_map.STEALING + page_map.STOLEN, "stolen"),
    (page_map.ZEROS, "zeros"),
    (page_map.LOST, "lost"),
)


def has_colours(console: Console) -> bool:
    """Whether the terminal shows colours, and they are wanted."""
    return console.color_system is not None and not console.no_color


def cells(letters: str, *, coloured: bool, lettered: bool = False) -> Text:
    """A row of the map. `lettered`: letters on the colours; without colours they are always
    there."""
    row = Text(no_wrap=True, overflow="crop")
    for letter, run in itertools.groupby(letters):
        text = "".join(run)
        if coloured:
            text = text if lettered else " " * len(text)
            row.append(text, style=f"white on {_COLOURS.get(letter, 'default')}")
        else:
            row.append(text)
    return row


def legend(*, coloured: bool, lettered: bool = False) -> Text:
    """What the cells mean: the first of two is under way, the second done."""
    line = Text(no_wrap=True, overflow="crop")
    for letters, meaning in _LEGEND:
        line.append_text(cells(letters, coloured=coloured, lettered=lettered))
        line.append(f" {meaning}  ")
    return line
