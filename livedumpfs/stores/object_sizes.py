# SPDX-License-Identifier: GPL-2.0-or-later
"""The most bytes that an object of a store may have, by its name. Others may be allowed to write
the store, and could else make each reader read without an end."""

from __future__ import annotations

from typing import Final

_INDEX: Final = (40 << 27) + 4096
"""Of an image of 2^27 chunks, the most that one may have."""
_MOST: Final = {
    ".fleet.json": 256 << 20,
    ".json": 1 << 20,
    ".caibx": _INDEX,
    ".caidx": _INDEX,
    ".cacnk": 160 << 20,  # casync's largest chunk, 128 MiB, and what a compressor may add to it
    ".index": 64 << 20,  # of a pack of 16 MiB and one chunk, also where all chunks are zeros
}
_OTHER: Final = 1 << 30


def most_bytes(name: str) -> int:
    """Readers refuse more."""
    return next((most for kind, most in _MOST.items() if name.endswith(kind)), _OTHER)
