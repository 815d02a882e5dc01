# SPDX-License-Identifier: GPL-2.0-or-later
"""The results of one run of the suite."""

from dataclasses import dataclass, field
from typing import Any

from measurement import Effort, Measurement


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one measurement; `found` is None when it has `failed`, for the reason given
    there."""

    name: str
    seconds: float
    load: float
    """Load of the computer when the measurement began."""
    found: Measurement | None
    failed: str = ""


@dataclass(slots=True)
class Results:
    """`computer`: from computer.describe(); `absent`: measurements that were asked for but do not
    exist."""

    command: str
    """The command line of the run."""
    effort: Effort
    computer: dict[str, Any]
    began: str
    """Date and time, UTC."""
    outcomes: list[Outcome] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def measurements(self) -> list[Measurement]:
        """The measurements that did not fail."""
        return [outcome.found for outcome in self.outcomes if outcome.found]
