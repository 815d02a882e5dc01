# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages, sizes and times, and their notation for people."""

from __future__ import annotations

import mmap
import re
from typing import Final, NewType

PAGE_SIZE = 4096
"""Bytes of what a PFN numbers, on every kernel and in every format."""
HOST_PAGE: Final = mmap.PAGESIZE
"""Bytes of a page of this kernel's, the least that can be protected or mapped: 4096, or on arm64
16 or 64 KiB."""

Pfn = NewType("Pfn", int)
"""Page frame number (PFN): the number of a page of the arena, from 0."""

_SIZE = re.compile(r"\s*(\d+)\s*([kmgt]?)(i?b)?\s*", re.IGNORECASE)
_TIME = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|min|h|d|)\s*", re.ASCII)
_SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def align_up(value: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is not below `value`."""
    return -(-value // alignment) * alignment


def parse_size(text: str | int) -> int:
    """Bytes. `text`: "4096", "64K", "64KiB", "1GiB" (powers of 1024). ValueError: not a size."""
    if isinstance(text, int):
        if text < 0:
            raise ValueError(f"size is negative: {text}")
        return text
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"not a size: {text!r} (write 4096, 64K or 1GiB)")
    return int(match[1]) << (10 * _POWER[match[2].lower()])


def parse_duration(text: str) -> float:
    """Seconds. `text`: "30", "0.5", "30s", "5min", "2h", "1d". ValueError: not a time."""
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(f"not a time: {text!r} (write 30, 30s, 5min or 2h)")
    return float(match[1]) * _SECONDS[match[2]]


def format_size(size: float) -> str:
    """Bytes as "512 MiB" or "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def format_use(most: int, used: int) -> str:
    """How much there was at most and how much of it was in use at once, in bytes; "": none was."""
    return f"{format_size(most)} at most, {format_size(used)} in use" if most else ""


def format_duration(nanoseconds: float) -> str:
    """Nanoseconds as "85 us", "1.2 ms" or "3 s"."""
    if nanoseconds < 1000:
        return f"{nanoseconds:.0f} ns"
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1000:.3g} us"
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1_000_000:.3g} ms"
    return f"{nanoseconds / 1_000_000_000:.4g} s"
