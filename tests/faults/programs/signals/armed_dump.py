# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump into memory that has begun."""

from __future__ import annotations

from caught import SETTINGS

from livedumpfs import Arena, LiveDump


def armed(arena: Arena, target: str | None = None) -> LiveDump:
    live = LiveDump(arena)
    live.init(target, SETTINGS)
    live.start()
    return live
