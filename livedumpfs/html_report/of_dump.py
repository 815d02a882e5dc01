# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page says of a dump that lies on a target or in a store."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from livedumpfs import page_map
from livedumpfs.dumpfile import (
    DumpFile,
    FilteredDump,
    describe_dump,
    description_rows,
    filtered_rows,
    missing_pages,
)
from livedumpfs.formats import table
from livedumpfs.html_report.subject import Facts, Subject
from livedumpfs.html_report.ways_saved import kinds_in
from livedumpfs.units import format_size

_AT_THE_INSTANT: Final = "at the instant"
_NOT_KNOWN: Final = (
    "The file says of each granule by what it was saved, but not when, and not how it stood in "
    "between. The moments are those that its counters had when it was sealed."
)
_NOT_SEALED: Final = (
    "This dump was not sealed: its counters are those of its start, and its table may be behind "
    "what lies on the target."
)
_FILTERED: Final = (
    "makedumpfile wrote this file, and its record has no table of granules: by what a page was "
    "saved is not known any more."
)


def of_dump(dump: DumpFile) -> Subject:
    """All but tasks and what has changed, which need its memory. OSError: it cannot be read."""
    described, letters = describe_dump(dump), letters_of(dump.entries)
    return Subject(
        name=dump.path,
        machine=dump.machine_name,
        verdict=dump.verdict,
        saying=_saying(dump.verdict, missing_pages(dump), dump.arena_size),
        facts=description_rows(described),
        counters=_counters(described),
        arena_size=dump.arena_size,
        granule_size=dump.granule_size,
        letters=letters,
        kinds=kinds_in(letters, dump.granule_size, dump.arena_size),
        not_known=_NOT_KNOWN if dump.sealed else _NOT_SEALED,
        memory=_memory(described["memory_map"]),
        arrays=[(one["name"], _array(one)) for one in described["arrays"]],
        registers=_registers(dump.registers),
        registers_of=_AT_THE_INSTANT,
    )


def of_filtered(dump: FilteredDump) -> Subject:
    """The same of a kdump from which makedumpfile has left pages out."""
    described = dump.describe()
    machine, registers = described.get("machine"), described.get("registers")
    verdict = described["verdict"]
    return Subject(
        name=dump.path,
        machine=str(machine.get("name", "")) if isinstance(machine, dict) else "",
        verdict=verdict,
        saying=_saying(verdict, None, described["arena_size"]),
        facts=filtered_rows(described),
        counters=_counters(described),
        arena_size=described["arena_size"],
        granule_size=described["granule_size"],
        no_map=_FILTERED,
        not_known=_FILTERED,
        registers=_registers(registers if isinstance(registers, list) else []),
        registers_of=_AT_THE_INSTANT,
    )


def letters_of(entries: table.Entries) -> bytes:
    """A letter of page_map for each granule."""
    found = np.full(len(entries), ord(page_map.ARMED), dtype=np.uint8)
    states, how = entries["state"], entries["how"]
    saved = states == table.SAVED
    found[saved] = ord(page_map.SWEPT)
    found[saved & (how == table.BY_FAULT)] = ord(page_map.BY_FAULT)
    found[saved & (how == table.BY_STEAL)] = ord(page_map.STOLEN)
    found[states == table.HOLE] = ord(page_map.ZEROS)
    found[states == table.LOST] = ord(page_map.LOST)
    return found.tobytes()


def _saying(verdict: str, missing: int | None, size: int) -> str:
    """`missing`: pages; None: not known."""
    if verdict == "consistent":
        return f"All {format_size(size)} are as they were at one instant."
    pages = "pages" if missing is None else "1 page" if missing == 1 else f"{missing:,} pages"
    was, is_ = ("was", "is") if missing == 1 else ("were", "are")
    if verdict == "torn":
        return f"Of its memory {pages} {was} lost; all else is as it was at one instant."
    return f"It was broken off, or its target failed: {pages} of its memory {is_} missing."


def _counters(described: dict[str, Any]) -> dict[str, object]:
    found = described.get("counters")
    return found if isinstance(found, dict) else {}


def _memory(ranges: list[dict[str, int]]) -> Facts:
    return [
        (f"{r['start']:#x}-{r['start'] + r['size'] - 1:#x}", f"{r['arena_offset']:#x}")
        for r in ranges
    ]


def _array(one: dict[str, Any]) -> str:
    shape = "x".join(map(str, one["shape"])) or "scalar"
    return f"{one['dtype']} {shape} at {one['offset']:#x}"


def _registers(found: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    blocks = (one for one in found if isinstance(one, dict))
    return [(f"vCPU {number}", one) for number, one in enumerate(blocks)]
