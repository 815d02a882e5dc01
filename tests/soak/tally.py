# SPDX-License-Identifier: GPL-2.0-or-later
"""Tally: what a soak has counted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from choices import DumpChoice
from judge import Verdict
from rich.table import Table


@dataclass
class Tally:
    """Counts over all dumps. Faults, steals and so on are not known of hosts that were killed."""

    seed: int
    largest: int
    """MiB of a machine at the most."""
    seconds: float = 0.0
    dumps: int = 0
    pages: int = 0
    """Compared with a reference: on targets, and read from snapshots while a dump ran."""
    live_pages: int = 0
    """Of these, read from snapshots."""
    differences: int = 0
    """Pages."""
    faults: int = 0
    steals: int = 0
    waits: int = 0
    """For a slot."""
    spilled: int = 0
    widened: int = 0
    lost_allowed: int = 0
    """Pages that a policy lost, and that the dump names."""
    lost: int = 0
    """Pages lost under a policy that may lose none."""
    consistent: int = 0
    torn: int = 0
    partial: int = 0
    """Released or killed before the end; what they had saved was compared."""
    releases: int = 0
    kills: int = 0
    hangs: int = 0
    failed: list[int] = field(default_factory=list)
    """Numbers of the dumps with which something was wrong."""
    by: dict[str, int] = field(default_factory=dict)
    """Dumps by what was chosen."""

    def add(self, choice: DumpChoice, verdict: Verdict, done: dict[str, Any] | None) -> None:
        """One dump."""
        self.dumps += 1
        self.pages += verdict.pages
        self.differences += verdict.different
        self.releases += choice.end == "release"
        self.kills += choice.end == "kill"
        self.partial += verdict.unsealed
        if choice.may_lose:
            self.lost_allowed += verdict.lost
        else:
            self.lost += verdict.lost
        if done:
            self._add_counters(done)
        if choice.end == "finish":
            self.torn += verdict.lost > 0
            self.consistent += verdict.lost == 0
        if verdict.problems:
            self.failed.append(choice.index)
        settings = choice.settings
        kind = settings.compression if settings.format == "kdump" else settings.format
        names = (kind, settings.policy, settings.backend, settings.arming, choice.target)
        for name in (*names, choice.machine.kind, *(["discards"] * choice.discards)):
            self.by[name] = self.by.get(name, 0) + 1

    def _add_counters(self, done: dict[str, Any]) -> None:
        counters = done["counters"]
        self.live_pages += done["pages"]
        self.faults += counters["faults"]
        self.steals += counters["steals"]
        self.waits += counters["slot_waits"]
        self.spilled += counters["spilled"]
        self.widened += counters["widened"]

    @property
    def good(self) -> bool:
        """Nothing was wrong."""
        return not (self.failed or self.differences or self.lost or self.hangs)

    def line(self) -> str:
        """JSON in one line."""
        return json.dumps({**asdict(self), "good": self.good})

    def table(self) -> Table:
        """For people."""
        shown = Table(title=f"soak, seed {self.seed}", show_header=False)
        for name, value in asdict(self).items():
            if isinstance(value, int | float):
                shown.add_row(name.replace("_", " "), f"{value:,.0f}")
        choices = ", ".join(f"{name} {n}" for name, n in sorted(self.by.items()))
        shown.add_row("dumps by choice", choices)
        shown.add_row("failed", ", ".join(map(str, self.failed)) or "none")
        return shown
