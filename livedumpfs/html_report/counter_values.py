# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters that a file or a host gives: anything may stand there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_MOST: Final = 1 << 63
_BINS: Final = 64


def counter(counters: Mapping[str, object], name: str) -> int:
    """One of them, 0 to 2**63; 0 where it is not there or makes no sense."""
    value = counters.get(name)
    return value if isinstance(value, int) and 0 < value < _MOST else 0


def bins(counters: Mapping[str, object]) -> list[int]:
    """The histogram `handler_ns`: [i] is how many faults took [2**i, 2**(i+1)) ns. []: there is
    none."""
    found = counters.get("handler_ns")
    if not isinstance(found, list | tuple) or len(found) > _BINS:
        return []
    return [one if isinstance(one, int) and 0 < one < _MOST else 0 for one in found]
