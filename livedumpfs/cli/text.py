# SPDX-License-Identifier: GPL-2.0-or-later
"""The numbers of a dump as text. No I/O; the names are those of ldfs_counters."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from livedumpfs import pause
from livedumpfs.errors import printable
from livedumpfs.units import format_duration, format_size, format_use

Numbers = Mapping[str, int]


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Lines of a label and a value, aligned. Rows without a value are left out. Values are
    escaped: they may be paths that other users chose."""
    kept = [(label, value) for label, value in rows if value]
    width = max((len(label) for label, _ in kept), default=0)
    return "\n".join(f"{label:<{width}}  {printable(value)}" for label, value in kept)


def columns(rows: list[tuple[str, ...]]) -> str:
    """Lines of cells, aligned. Escaped: names may be another user's."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in shown)
    return "\n".join(line.rstrip() for line in lines)


def count(number: int, noun: str) -> str:
    """ "1 fault", "2 faults"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def saved(numbers: Numbers) -> str:
    """Granules by the path that saved them. "" when there are none."""
    if not numbers.get("granules"):
        return ""
    ways = (
        ("by_fault", "by fault"),
        ("by_sweep", "by sweep"),
        ("holes", "holes"),
        ("lost", "lost"),
    )
    parts = [f"{numbers.get(key, 0)} {name}" for key, name in ways]
    size = format_size(numbers["granule_size"])
    return f"{numbers['granules']} of {size}: {', '.join(parts)}"


def faults(numbers: Numbers) -> str:
    """Page faults, and their cost for the writers. "" when there were none."""
    if not numbers.get("faults"):
        return ""
    words = [
        count(numbers["faults"], "fault"),
        count(numbers.get("steals", 0), "steal"),
        f"longest stall {format_duration(numbers.get('stall_max_ns', 0))}",
    ]
    if numbers.get("slot_waits"):
        words.append(f"{count(numbers['slot_waits'], 'wait')} for a slot")
    return ", ".join(words)


def throughput(numbers: Numbers) -> str:
    """Bytes written to the target, and the rate. "" when there were none."""
    written = numbers.get("bytes_written", 0)
    if not written:
        return ""
    took = numbers.get("drained_ns", 0) - numbers.get("sweep_start_ns", 0)
    if not numbers.get("drained_ns") or took <= 0:
        return format_size(written)
    rate = format_size(written * 1e9 / took)
    return f"{format_size(written)} in {format_duration(took)}, {rate}/s"


def pages(ranges: Sequence[Sequence[int]], limit: int = 8) -> str:
    """Page ranges [first, end) as "pages 0x10-0x1f, 0x30 and 3 more ranges". "" for none."""
    shown = [f"{a:#x}" if b == a + 1 else f"{a:#x}-{b - 1:#x}" for a, b in ranges[:limit]]
    more = f" and {count(len(ranges) - limit, 'more range')}" if len(ranges) > limit else ""
    return f"pages {', '.join(shown)}{more}" if shown else ""


def instant(wall_ns: int) -> str:
    """The snapshot instant (ns since the epoch) as local time with its offset from UTC. "" for
    0."""
    if not wall_ns:
        return ""
    moment = datetime.datetime.fromtimestamp(wall_ns / 1e9).astimezone()
    return moment.isoformat(sep=" ", timespec="milliseconds")


def pool(numbers: Numbers) -> str:
    """How large the pool was, and how much of it was in use at once."""
    size = numbers.get("granule_size", 0)
    return format_use(numbers.get("slots_most", 0) * size, numbers.get("slots_peak", 0) * size)


def counter_rows(numbers: Numbers, machine: str = "") -> list[tuple[str, str]]:
    """The rows that `status` and `finish` share. `machine`: the machine's name."""
    return [
        ("taken", instant(numbers.get("instant_wall_ns", 0))),
        ("pause", pause.text(numbers, machine)),
        ("faults", faults(numbers)),
        ("granules", saved(numbers)),
        ("pool", pool(numbers)),
        ("written", throughput(numbers)),
    ]
