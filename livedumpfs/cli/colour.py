# SPDX-License-Identifier: GPL-2.0-or-later
"""Colours of a terminal. `--no-color` sets the variable NO_COLOR, by which rich and argparse go,
too (https://no-color.org)."""

from __future__ import annotations

import os
import sys
from typing import Final

from livedumpfs.cli.output import is_terminal

VARIABLE: Final = "NO_COLOR"
_CODES: Final = {"green": 32, "yellow": 33, "red": 31}


def in_colour(text: str, colour: str) -> str:
    """The text for standard output, in that colour where it is a terminal that has colours."""
    plain = os.environ.get(VARIABLE) or os.environ.get("TERM") == "dumb"
    if plain or not is_terminal(sys.stdout):
        return text
    return f"\033[{_CODES[colour]}m{text}\033[0m"
