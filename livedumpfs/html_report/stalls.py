# SPDX-License-Identifier: GPL-2.0-or-later
"""The histogram of stalls: how long each fault held its thread up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from livedumpfs.html_report.counter_values import bins, counter
from livedumpfs.units import format_duration


@dataclass(frozen=True)
class StallRow:
    """Faults that took from 2**bin ns to twice that."""

    bin: int
    begin: str
    end: str
    faults: int
    percent: float
    """Length of its bar: by the logarithm, for one long stall must be seen beside ten thousand
    short ones."""


@dataclass(frozen=True)
class Stalls:
    """All of them; no rows: there were none, or nothing is known."""

    rows: list[StallRow] = field(default_factory=list)
    faults: int = 0
    longest: str = ""
    half: str = ""
    """Half of them took less."""
    most: str = ""
    """99 of 100 took less."""


def stalls(counters: Mapping[str, object]) -> Stalls:
    """Of one dump."""
    counts = bins(counters)
    there = [number for number, count in enumerate(counts) if count]
    if not there:
        return Stalls()
    top = math.log2(max(counts) + 1)
    rows = [
        StallRow(
            number,
            format_duration(2.0**number),
            format_duration(2.0 ** (number + 1)),
            counts[number],
            100 * math.log2(counts[number] + 1) / top,
        )
        for number in range(there[0], there[-1] + 1)
    ]
    return Stalls(
        rows,
        sum(counts),
        format_duration(counter(counters, "stall_max_ns")),
        format_duration(_bound(counts, 0.5)),
        format_duration(_bound(counts, 0.99)),
    )


def _bound(counts: list[int], share: float) -> float:
    """Nanoseconds: the end of the first bin with which so many of all faults are counted."""
    need = share * sum(counts)
    sums = itertools.accumulate(counts)
    return 2.0 ** (next(number for number, done in enumerate(sums) if done >= need) + 1)
