# SPDX-License-Identifier: GPL-2.0-or-later
"""How the pages of a kdump are compressed, and by how many threads. This module is a leaf."""

from __future__ import annotations

import os
from typing import Final, Literal, get_args

from livedumpfs.errors import UsageError
from livedumpfs.kinds import Choice, Count

Compression = Literal["zstd", "zlib", "lzo", "snappy", "none"]

# The order of the words is that of their numbers in both C interfaces.
COMPRESSIONS: Final[tuple[Compression, ...]] = get_args(Compression)
"""The fastest good one first."""
COMPRESSION: Final[Compression] = "zstd"
"""The default."""
MAX_LEVELS: Final[dict[Compression, int]] = {
    "zstd": 22, "zlib": 9, "lzo": 0, "snappy": 0, "none": 0,
}  # fmt: skip
"""Highest level of each compression; 0: it has no levels."""
LEVELS: Final = ", ".join(f"{one} 1 to {most}" for one, most in MAX_LEVELS.items() if most)
"""The same as text."""
MAX_THREADS: Final = 64
"""The same as LDFS_MAX_PACKERS."""
USUAL_THREADS: Final = 4
"""Most threads by default: the machine runs beside them."""


class Level(Count):
    """The range depends on the compression, so check_compression() checks it."""

    def values(self) -> str:
        """See ValueKind."""
        return LEVELS

    def check(self, noun: str, value: int) -> None:
        """See ValueKind."""


def check_compression(compression: str, level: int) -> None:
    """UsageError: no such compression, or not with that level."""
    Choice(COMPRESSIONS).check("compression", compression)
    highest = next(most for one, most in MAX_LEVELS.items() if one == compression)
    if not 0 <= level <= highest:
        raise UsageError(
            f"{compression} has no level {level}",
            hint=f"from 1 to {highest}, 0: its default" if highest else "it has no levels",
        )


def usual_threads(threads: int = 0) -> int:
    """Number of compressing threads: `threads`, or for 0 the number of CPUs, at most 4."""
    return threads or min(USUAL_THREADS, len(os.sched_getaffinity(0)))
