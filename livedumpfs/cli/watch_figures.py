# SPDX-License-Identifier: GPL-2.0-or-later
"""What `watch` shows in numbers: samples of a host, and what changed between them. No I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

WINDOW_S: Final = 3.0
"""Seconds over which rates are taken."""


@dataclass(frozen=True)
class Sample:
    """What the host said at one moment."""

    at: float
    """Seconds of a clock that only goes forward."""
    stats: dict[str, Any]
    """stats.json."""
    pages: bytes = b""
    """control/pages; b"": there is no dump, or the host is too old to say."""

    @property
    def counters(self) -> dict[str, Any]:
        """Of the dump that there is, or of the last one."""
        return dict(self.stats.get("counters") or {})

    @property
    def progress(self) -> dict[str, Any]:
        """In bytes."""
        return dict(self.stats.get("progress") or {})


@dataclass(frozen=True)
class Rates:
    """Of the last seconds; None: not known."""

    saved: float | None = None
    """Bytes a second that came to a final state without loss."""
    written: float | None = None
    """Bytes a second that went to the target."""
    faults: float | None = None
    """A second."""
    left_s: float | None = None
    """Seconds until all is saved, at this rate; only while the sweep runs."""


@dataclass
class History:
    """The samples of the last seconds, all of one dump, and its last page map."""

    samples: deque[Sample] = field(default_factory=deque)
    pages: bytes = b""
    """The last that there was: a release takes it away, and it is worth a look still."""

    @property
    def last(self) -> Sample | None:
        """The newest."""
        return self.samples[-1] if self.samples else None

    def add(self, sample: Sample) -> None:
        """Take a sample; one of another dump begins anew."""
        if self.last and self.last.stats.get("id") != sample.stats.get("id"):
            self.samples.clear()
            self.pages = b""
        self.pages = sample.pages or self.pages
        self.samples.append(sample)
        while len(self.samples) > 2 and self.samples[1].at <= sample.at - WINDOW_S:
            self.samples.popleft()

    def rates(self) -> Rates:
        """Between the oldest and the newest sample."""
        if len(self.samples) < 2 or self.samples[-1].at <= self.samples[0].at:
            return Rates()
        first, last = self.samples[0], self.samples[-1]
        took = last.at - first.at

        def rate(part: str, name: str) -> float:
            before, now = getattr(first, part).get(name, 0), getattr(last, part).get(name, 0)
            return max(0.0, float(now - before) / took)

        saved = rate("progress", "done")
        left = None
        if last.stats["state"] == "SWEEP" and saved:
            left = left_of(last.progress) / saved
        return Rates(saved, rate("counters", "bytes_written"), rate("counters", "faults"), left)


def left_of(progress: dict[str, Any]) -> int:
    """Bytes that are not in a final state yet."""
    total, done, lost = (int(progress.get(name, 0)) for name in ("total", "done", "lost"))
    return max(0, total - done - lost)


def histogram(bins: list[int]) -> tuple[int, list[int]]:
    """The part of the histogram that has something in it: the first bin's number, and counts. []:
    there was no fault."""
    there = [number for number, count in enumerate(bins) if count]
    return (there[0], bins[there[0] : there[-1] + 1]) if there else (0, [])
