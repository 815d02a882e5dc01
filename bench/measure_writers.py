# SPDX-License-Identifier: GPL-2.0-or-later
"""The writers' speed during a dump, and the time until it is back.

Two writers on two cores, as fast as possible; the target is in memory. The share is relative to the
stores per second before the dump: during the way's own dump, and over the same time for all ways,
that of the longest dump.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from measurement import Bar, Curve, Effort, Measurement, Plot
from peers.build import PATTERNS, PeerError, run
from ways import Found, in_turns, memory_target, without_ticks

WAYS = ("ours", "fork", "mprotect", "uffd-sigbus", "uffd")
BACK = 0.95
TIMES = 2.0
BEFORE_MS, AFTER_MS = 300, 800
STEADY = 5
"""Number of ticks (5 ms each) over which the speed is taken."""


class Speed:
    """The writers' stores over time in one dump."""

    def __init__(self, found: Found) -> None:
        self._ticks: Sequence[tuple[int, int]] = found["ticks"]
        dump = found["dumps"][0]
        self.begun, self.swept = int(dump["begun"]), int(dump["swept"])
        self.before = self._between(self.begun - BEFORE_MS * 1_000_000 // 2, self.begun)
        if not self.before:
            raise PeerError("the writers never ran before the dump: the computer is too busy")

    def _at(self, when: int) -> float:
        """Stores up to that time, interpolated between two ticks."""
        last = self._ticks[0]
        for tick in self._ticks:
            if tick[0] >= when:
                width = max(1, tick[0] - last[0])
                return last[1] + (tick[1] - last[1]) * (when - last[0]) / width
            last = tick
        return float(last[1])

    def _between(self, first: int, last: int) -> float:
        """Stores per ns."""
        return (self._at(last) - self._at(first)) / max(1, last - first)

    def share(self, length: int) -> float:
        """Share of the speed in the first `length` ns after the request to stop."""
        return self._between(self.begun, self.begun + length) / self.before

    @property
    def length(self) -> int:
        """Nanoseconds of the dump."""
        return self.swept - self.begun

    def back(self) -> float:
        """Seconds from the request to stop until the speed is back."""
        ticks = self._ticks
        for first, last in zip(ticks, ticks[STEADY:], strict=False):
            if first[0] > self.begun and self._between(first[0], last[0]) >= BACK * self.before:
                return (first[0] - self.begun) / 1e9
        return float("inf")

    def curve(self) -> tuple[list[float], list[float]]:
        """Seconds after the request to stop, and the share of the speed."""
        pairs = list(zip(self._ticks, self._ticks[STEADY:], strict=False))[:: STEADY // 2]
        x = [(last[0] - self.begun) / 1e9 for _, last in pairs]
        return x, [self._between(first[0], last[0]) / self.before for first, last in pairs]


def measure(effort: Effort) -> Measurement:
    """Table, a plot for each pattern, bars."""
    found = Measurement(
        "writers",
        "Writers during a dump: share of their speed before it",
        ["pattern", "way", "during its dump", "in the same time", "dump s", "back at 95 % after s"],
    )
    size = effort.repeats(512 << 20, 64 << 20)
    with memory_target() as target:
        for pattern in PATTERNS:
            _measure_one(
                found, pattern, size, effort.repeats(3, 1), target, effort.repeats(AFTER_MS, 300)
            )
    return found


def _measure_one(
    found: Measurement, pattern: str, size: int, rounds: int, target: Path, after: int
) -> None:
    def call(way: str) -> Found:
        return run(
            way, size=size, writers=2, pattern=PATTERNS[pattern], dumps=1, target=target,
            before=BEFORE_MS, after=after,
        )  # fmt: skip

    runs = in_turns(WAYS, rounds, call)
    speeds = {way: [Speed(one) for one in runs[way]] for way in WAYS}
    window = int(max(statistics.median(s.length for s in speeds[way]) for way in WAYS))
    own, same = {}, {}
    for way in WAYS:
        own[way] = statistics.median(s.share(s.length) for s in speeds[way])
        same[way] = statistics.median(s.share(window) for s in speeds[way])
        length = statistics.median(s.length for s in speeds[way]) / 1e9
        back = statistics.median(s.back() for s in speeds[way])
        found.rows.append(
            [pattern, way, f"{own[way]:.1%}", f"{same[way]:.1%}", f"{length:.2f}", f"{back:.2f}"]
        )
    for text, shares in (("during its dump", own), ("in the same time", same)):
        ratio = shares["ours"] / shares["fork"]
        found.bars.append(Bar(f"{pattern}: speed kept {text}, ours / fork", ratio, TIMES))
    found.plots.append(_plot(pattern, {way: speeds[way][0] for way in WAYS}))
    found.samples += [without_ticks(way, one, pattern=pattern) for way in WAYS for one in runs[way]]


def _plot(pattern: str, speeds: dict[str, Speed]) -> Plot:
    curves = []
    for way, speed in speeds.items():
        x, y = speed.curve()
        curves.append(Curve(way, x, y))
    return Plot(
        f"writers-{pattern}",
        f"Writers' speed around a dump, {pattern} stores",
        "seconds after the request to stop",
        "share of the speed before",
        curves,
    )
