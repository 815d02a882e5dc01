# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding: what one check has found."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

PARTS: Final = ("host", "qemu", "libvirt", "fleet", "huge")
"""What users may want to do: `host`, which all others need, is a machine of livedumpfs and its
dumps."""


class Health(enum.StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    LIMITED = "limited"
    """It works, with less than it could, and the finding says what that costs."""
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    """What was looked at, in a word or two."""
    purpose: str
    """What it is for."""
    health: Health
    found: str
    """What there is, or what is missing."""
    mend: str = ""
    """The command that mends it, or where none can, a sentence. "" of what is ok."""
    needed_by: tuple[str, ...] = ()
    """Those of PARTS that do not work without it; (): it only makes things better."""

    def needed(self, parts: Collection[str]) -> bool:
        """Whether one of these parts does not work without it."""
        return not set(parts).isdisjoint(self.needed_by)

    def stops(self, parts: Collection[str]) -> bool:
        """Whether it keeps one of these parts from working."""
        return self.health is Health.MISSING and self.needed(parts)
