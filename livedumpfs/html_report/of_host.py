# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page says of a running host, by what the host tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from livedumpfs import page_map
from livedumpfs.html_report.counter_values import counter
from livedumpfs.html_report.subject import Facts, SavedKind, Subject

_GONE: Final = ("UNDEFINED", "UNINIT")
"""States in which there is no dump."""
_NOT_KNOWN: Final = (
    "The host says how each granule stands at the moment of this page. The moments are those of "
    "the dump that there is, or of the last one."
)


@dataclass(frozen=True)
class HostSaid:
    """The files of its mount, and what `status` prints."""

    device: str
    stats: Mapping[str, Any]
    """stats.json."""
    pages: bytes
    """control/pages."""
    registers: Mapping[str, Any]
    """machine/registers.json."""
    ranges: Facts
    """Of machine/map."""
    rows: Facts


def of_host(said: HostSaid) -> Subject:
    """Its dump now, or its last one."""
    stats = said.stats
    counters = stats.get("counters") or {}
    verdict = str(stats.get("verdict") or stats.get("so_far") or "")
    gone = stats["state"] in _GONE
    registers = said.registers
    at_start = registers.get("snapshot")
    blocks = at_start if at_start else registers.get("live") or []
    return Subject(
        name=said.device,
        machine=str(stats["machine"].get("name", "")),
        verdict=verdict,
        saying=_saying(stats, verdict, gone),
        facts=[(name, text) for name, text in said.rows if text],
        living=True,
        counters=counters,
        arena_size=int(stats["progress"].get("total", 0)),
        granule_size=counter(counters, "granule_size"),
        letters=said.pages,
        no_map="" if said.pages else "There is a page map from INIT to RELEASE, and no dump now.",
        kinds=_kinds(counters, int(stats["progress"].get("total", 0))),
        not_known=_NOT_KNOWN,
        memory=said.ranges,
        registers=[
            (f"vCPU {number}", one)
            for number, one in zip(registers.get("numbers") or [], blocks, strict=False)
            if isinstance(one, dict)
        ],
        registers_of="at the last START" if at_start else "now, while it runs",
    )


def _saying(stats: Mapping[str, Any], verdict: str, gone: bool) -> str:
    reason = str(stats.get("reason") or stats.get("failure") or "")
    if not verdict:
        return "There is no dump yet."
    if gone:
        return f"The last dump is {verdict}, and was released" + (f": {reason}" if reason else ".")
    if stats.get("verdict"):
        return f"The dump is sealed, and {verdict}" + (f": {reason}" if reason else ".")
    if verdict == "consistent":
        return f"A dump is in state {stats['state']}; nothing is known against it so far."
    return f"A dump is in state {stats['state']}, and will be {verdict}" + (
        f": {reason}" if reason else "."
    )


def _kinds(counters: Mapping[str, object], total: int) -> list[SavedKind]:
    """Stolen granules are among those that the counters have by fault."""
    granule = counter(counters, "granule_size")
    stolen = counter(counters, "steals")
    numbers = {
        page_map.ARMED: counter(counters, "remaining"),
        page_map.ZEROS: counter(counters, "holes"),
        page_map.SWEPT: counter(counters, "by_sweep"),
        page_map.BY_FAULT: max(0, counter(counters, "by_fault") - stolen),
        page_map.STOLEN: stolen,
        page_map.LOST: counter(counters, "lost"),
    }
    return [
        SavedKind(letter, number, min(number * granule, total))
        for letter, number in numbers.items()
        if number
    ]
