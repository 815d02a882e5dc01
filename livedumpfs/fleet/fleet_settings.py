# SPDX-License-Identifier: GPL-2.0-or-later
"""How a fleet dump is taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from livedumpfs.errors import UsageError
from livedumpfs.fleet.landing import check_place
from livedumpfs.fleet.manifest import How

LEASE_S: Final = 15.0
"""Seconds after which a worker that hears nothing of the coordinator releases what it has."""


@dataclass(frozen=True)
class FleetSettings:
    """How a fleet dump is taken."""

    to: str
    """Where the dumps and the manifest go."""
    how: How = "clock"
    best_effort: bool = False
    """Go on without members that cannot; else one that cannot fails the whole."""
    deadline_s: float = 1.0
    """By barrier: how long a machine may stand, from HOLD on."""
    most_skew_s: float = 0.1
    """By clock: how far apart the instants may be, errors of the clocks included, for the verdict
    "consistent"."""
    late_s: float = 0.1
    """By clock: how long after the agreed time a host may still begin."""
    lease_s: float = LEASE_S
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of INIT for all members, by the names of DumpSettings."""

    def check(self) -> None:
        """UsageError: times that make no sense."""
        for name in ("deadline_s", "most_skew_s", "late_s", "lease_s"):
            if not 0 < getattr(self, name) <= 600:
                raise UsageError(f"{name.removesuffix('_s')} is {getattr(self, name)} s")
        check_place(self.to, str(self.options.get("format") or "elf"))
        if self.how == "barrier" and self.deadline_s > 60:
            raise UsageError(f"no machine is held for {self.deadline_s:g} s", hint="60 s at most")
