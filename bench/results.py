# SPDX-License-Identifier: GPL-2.0-or-later
"""What one run of the suite has found."""

from dataclasses import dataclass, field
from typing import Any

from measurement import Effort, Measurement


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one measurement; `found` is None where it `failed`, for the reason told there."""

    name: str
    seconds: float
    load: float
    """Of the computer, when it began."""
    found: Measurement | None
    failed: str = ""


@dataclass(slots=True)
class Results:
    """`computer` as computer.describe() gives it; `absent`: asked for, but nobody wrote it."""

    command: str
    """How it was started."""
    effort: Effort
    computer: dict[str, Any]
    began: str
    """Date and time, UTC."""
    outcomes: list[Outcome] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def measurements(self) -> list[Measurement]:
        """Those that did not fail."""
        return [outcome.found for outcome in self.outcomes if outcome.found]
