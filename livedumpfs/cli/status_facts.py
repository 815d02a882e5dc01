# SPDX-License-Identifier: GPL-2.0-or-later
"""The status of a dump for programs: of `status`, `finish` and `dump`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livedumpfs import pause
from livedumpfs.abi import Verdict

if TYPE_CHECKING:
    from livedumpfs.client import DumpStatus


def _named(verdict: Verdict) -> str | None:
    """The verdict's name; None: there is none."""
    return verdict.name.lower() if verdict else None


def status_facts(status: DumpStatus, device: str, stats: dict[str, Any]) -> dict[str, object]:
    """Null for a value that does not exist. `stats`: the host's stats.json."""
    return {
        "device": device,
        "state": status.state.name,
        "id": stats.get("id"),
        "held": stats.get("held"),
        "target": status.target,
        "verdict": _named(status.verdict),
        "so_far": _named(status.so_far),
        "failure": stats["failure"],
        "reason": stats.get("reason"),
        "expired": stats["expired"],
        "released": stats.get("released"),
        **status.settings,
        "bytes_total": status.bytes_total,
        "bytes_done": status.bytes_done,
        "bytes_lost": status.lost,
        "pause": pause.parts(status.counters),
        "counters": status.counters,
        "lost_pages": stats["lost_pages"],
    }
