# SPDX-License-Identifier: GPL-2.0-or-later
"""Tally: what is counted over the whole life of a host, and does not begin anew with each dump."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from livedumpfs.dump import DumpEvent, Happened

VERDICTS: Final = ("consistent", "torn", "incomplete")
STEPS: Final = ("INIT", "START", "HOLD", "ARM", "GO", "SWEEP")


@dataclass(frozen=True)
class Tallied:
    """At one moment."""

    dumps: Mapping[str, int]
    """By verdict, which was theirs for good."""
    failed_steps: Mapping[str, int]
    """By step."""
    consistent_wall_ns: int
    """The instant of the newest consistent dump, since the epoch; 0: there was none."""


class Tally:
    """Any thread may look; the thread that takes a step tells it, as an observer of the dump."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dumps = dict.fromkeys(VERDICTS, 0)
        self._failed = dict.fromkeys(STEPS, 0)
        self._consistent_wall_ns = 0
        self._counted = b""
        """Id of the dump that was counted last."""

    def note(self, event: DumpEvent) -> None:
        """A dump counts once: at its seal, or at its RELEASE if that comes before."""
        with self._lock:
            if event.what is Happened.FAILED:
                if event.step in self._failed:
                    self._failed[event.step] += 1
            elif self._is_final(event) and event.verdict and event.dump_id != self._counted:
                self._counted = event.dump_id
                self._dumps[event.verdict] += 1
                if event.verdict == "consistent":
                    self._consistent_wall_ns = event.counters.instant_wall_ns

    @staticmethod
    def _is_final(event: DumpEvent) -> bool:
        """A snapshot in memory may still lose pages until its RELEASE."""
        sealed = event.what is Happened.FINISH and event.target is not None
        return sealed or event.what is Happened.RELEASE

    def look(self) -> Tallied:
        """Now."""
        with self._lock:
            return Tallied(dict(self._dumps), dict(self._failed), self._consistent_wall_ns)
