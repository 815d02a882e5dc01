# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page says of a running host, by what the host tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from livedumpfs import page_map
from livedumpfs.html_report.counter_values import counter
from livedumpfs.html_report.subject import Facts, SavedKind, Subject
from livedumpfs.html_report.ways_saved import kinds_in

_GONE: Final = ("UNDEFINED", "UNINIT")
"""States in which there is no dump."""
_NOT_KNOWN: Final = (
    "The host says how each granule stands at the moment of this page. The moments are those of "
    "the dump that there is, or of the last one."
)
_BY_COUNTERS: Final = (
    " The numbers are those of its counters, which have stolen granules among those by fault, and "
    "what is under way among those that are not saved yet."
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
    total = int(stats["progress"].get("total", 0))
    kinds = _kinds(counters, said.pages, total)
    exact = len(said.pages) == counter(counters, "granules")
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
        arena_size=total,
        granule_size=counter(counters, "granule_size"),
        letters=said.pages,
        no_map="" if said.pages else "There is a page map from INIT to RELEASE, and no dump now.",
        kinds=kinds,
        not_known=_NOT_KNOWN + (_BY_COUNTERS if kinds and not exact else ""),
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
        return "There is no dump yet." if gone else "A dump is prepared, and was not started."
    if gone:
        return f"The last dump is {verdict}, and was released" + (f": {reason}" if reason else ".")
    if stats.get("verdict"):
        return f"The dump is sealed, and {verdict}" + (f": {reason}" if reason else ".")
    if verdict == "consistent":
        return f"A dump is in state {stats['state']}; nothing is known against it so far."
    return f"A dump is in state {stats['state']}, and will be {verdict}" + (
        f": {reason}" if reason else "."
    )


def _kinds(counters: Mapping[str, object], pages: bytes, total: int) -> list[SavedKind]:
    """By the map, where that has each granule; else by the counters of what is final."""
    granule = counter(counters, "granule_size")
    if pages and len(pages) == counter(counters, "granules"):
        return kinds_in(pages, granule, total)
    numbers = {
        letter: counter(counters, name)
        for letter, name in (
            (page_map.ARMED, "remaining"),
            (page_map.ZEROS, "holes"),
            (page_map.SWEPT, "by_sweep"),
            (page_map.BY_FAULT, "by_fault"),
            (page_map.LOST, "lost"),
        )
    }
    return [
        SavedKind(letter, number, min(number * granule, total))
        for letter, number in numbers.items()
        if number
    ]
