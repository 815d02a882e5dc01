# SPDX-License-Identifier: GPL-2.0-or-later
"""StopEvents: when QEMU stopped the guest and let it run, as it reports that itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

STOP: Final = "STOP"
RESUME: Final = "RESUME"


@dataclass(frozen=True)
class SnapshotTimes:
    """What QEMU says of the stop."""

    stopped_wall_ns: int = 0
    """Event STOP, by CLOCK_REALTIME. Of a guest that was paused before: when it was asked."""
    resumed_wall_ns: int = 0
    """Event RESUME; 0: the guest was paused before, or there was no event."""
    downtime_ms: int = 0
    """As `query-migrate` has it."""
    total_s: float = 0.0
    """From `migrate` to the end of the stream, by our clock."""

    @property
    def stop_ns(self) -> int:
        """By the events; where there are none, by `query-migrate`."""
        by_events = self.resumed_wall_ns - self.stopped_wall_ns
        return by_events if by_events > 0 else self.downtime_ms * 1_000_000


class StopEvents:
    """Is called on the thread of the monitor."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._times: dict[str, int] = {}
        self._on_resume: Callable[[], object] = lambda: None

    def clear(self, on_resume: Callable[[], object] = lambda: None) -> None:
        """Forget all: a snapshot begins. `on_resume` is called at its first RESUME, on the thread
        of the monitor, and must not wait."""
        with self._news:
            self._times.clear()
            self._on_resume = on_resume

    def __call__(self, event: Mapping[str, Any]) -> None:
        """An event. The first of each kind counts: later ones are of other monitors."""
        name, at = event.get("event"), event.get("timestamp", {})
        if name in (STOP, RESUME):
            ns = int(at.get("seconds", 0)) * 10**9 + int(at.get("microseconds", 0)) * 1000
            with self._news:
                first = name not in self._times
                self._times.setdefault(str(name), ns)
                self._news.notify_all()
                if first and name == RESUME:
                    self._on_resume()

    def time(self, name: str) -> int:
        """In ns of CLOCK_REALTIME; 0: it has not come."""
        with self._news:
            return self._times.get(name, 0)

    def wait_for(self, name: str, seconds: float) -> bool:
        """Whether it has come in time."""
        with self._news:
            return self._news.wait_for(lambda: name in self._times, seconds)
