# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump says of itself, for `info`: as a dict of JSON types, and as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from livedumpfs import pause
from livedumpfs.dumpfile.reader import DumpFile
from livedumpfs.dumpfile.verify import format_ranges
from livedumpfs.errors import printable
from livedumpfs.formats import table
from livedumpfs.units import format_duration, format_size, format_use

CHECKSUM: Final = "XXH3-64"
_TEXT_RANGES: Final = 8
MAX_RANGES: Final = 1000
"""Page ranges of each kind that a description lists."""

_PASSED_ON: Final = (
    "instant",
    "pause_ns",
    "policy",
    "backend",
    "arming",
    "host_version",
    "counters",
    "machine",
)


def describe_dump(dump: DumpFile) -> dict[str, Any]:
    """Format, map, time, verdict and counters. Keys that the dump does not have are left out."""
    counts = dump.state_counts()
    saved = dump.entries["state"] == table.SAVED
    how = np.bincount(dump.entries["how"][saved], minlength=table.BY_STEAL + 1)
    described: dict[str, Any] = {
        "path": dump.path,
        "sidecar": dump.sidecar,
        "format": dump.format,
        "compression": dump.compression,
        "verdict": dump.verdict,
        "sealed": dump.sealed,
        "dump_id": dump.dump_id.hex(),
        "name": dump.machine_name,
        "architecture": str(dump.meta.get("architecture", "")),
        "arena_size": dump.arena_size,
        "granule_size": dump.granule_size,
        "memory_map": [
            {"start": r.start, "size": r.size, "arena_offset": r.arena_offset}
            for r in dump.memory_map
        ],
        "granules": {table.STATE_NAMES[state]: count for state, count in counts.items()},
        "saved_by": {
            "sweep": int(how[table.BY_SWEEP]),
            "fault": int(how[table.BY_FAULT]),
            "steal": int(how[table.BY_STEAL]),
        },
        "kinds": {
            name: {
                "granules": kind.granules,
                "pages": [list(r) for r in kind.pages],
                "ranges": kind.runs,
            }
            for name, kind in dump_kinds(dump).items()
        },
        "checksums": CHECKSUM,
        "saved_bytes": min(counts[table.SAVED] * dump.granule_size, dump.arena_size),
        "stored_bytes": int(dump.entries["stored"][saved].sum(dtype=np.uint64)),
        "lost_pages": [list(r) for r in dump.pfn_ranges(table.LOST)[:MAX_RANGES]],
        "missing_pages": [list(r) for r in dump.pfn_ranges(table.ARMED)[:MAX_RANGES]],
        "damaged_table_blocks": len(dump.bad_blocks) if dump.sealed else 0,
        "registers": dump.registers,
        "arrays": [
            {"name": a.name, "dtype": str(a.dtype), "shape": list(a.shape), "offset": a.offset}
            for a in dump.arrays
        ],
    }
    described.update({key: dump.meta[key] for key in _PASSED_ON if key in dump.meta})
    return described


def dump_kinds(dump: DumpFile) -> dict[str, table.GranuleKind]:
    """Its granules by the way that they were saved, with their pages."""
    return table.kinds(dump.entries, dump.granule_size, dump.arena_size, MAX_RANGES)


def format_description(described: dict[str, Any], *, verbose: bool = False) -> str:
    """The text of `info`: one fact a line. Control characters in names are made harmless. What a
    dump can have many of is counted, and listed behind the facts when `verbose`."""
    return _lines(description_rows(described) + (_details(described) if verbose else []))


def _lines(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<10}  {printable(text)}" for name, text in rows)


def description_rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each fact that is known, as they come: a file's author chose them."""
    facts = [
        ("dump", described["path"]),
        ("verdict", _verdict_text(described)),
        ("format", _format_text(described)),
        ("machine", f"{described['name']} ({described['architecture']})"),
        ("memory", _memory_text(described)),
        ("left out", _left_out_text(described.get("machine"))),
        ("instant", _instant_text(described.get("instant"))),
        ("pause", _pause_text(described)),
        ("policy", described.get("policy")),
        ("backend", _backend_text(described)),
        ("stall", _stall_text(described.get("counters"))),
        ("pool", _pool_text(described.get("counters"))),
        ("granules", _granules_text(described)),
        ("saved by", ", ".join(f"{k} {v}" for k, v in described["saved_by"].items())),
        *[(_KIND_NAMES[name], _kind_text(name, kind)) for name, kind in _kinds(described)],
        ("checksums", f"{described['checksums']} of each granule"),
        ("arrays", _arrays_text(described["arrays"])),
        ("written by", _version_text(described.get("host_version"))),
    ]
    return [(name, str(text)) for name, text in facts if text]


def format_filtered(described: dict[str, Any]) -> str:
    """The same for what FilteredDump.describe() gives."""
    return _lines(filtered_rows(described))


def filtered_rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """As description_rows, for what FilteredDump.describe() gives."""
    machine = described.get("machine")
    name = str(machine.get("name", "")) if isinstance(machine, dict) else ""
    packed = described["compression"]
    facts = [
        ("dump", described["path"]),
        ("verdict", described["verdict"]),
        ("format", "kdump" + (f", compressed with {packed}" if packed != "none" else "")),
        ("machine", name),
        ("memory", format_size(described["arena_size"])),
        ("excluded", excluded_text(described["level"], described.get("excluded"))),
        ("instant", _instant_text(described.get("instant"))),
        ("pause", _pause_text({**described, "name": name})),
        ("policy", described.get("policy")),
        ("backend", _backend_text(described)),
        ("stall", _stall_text(described.get("counters"))),
        ("pool", _pool_text(described.get("counters"))),
        ("checksums", f"{CHECKSUM} of the file"),
        ("written by", _makedumpfile_text(described)),
    ]
    return [(name, str(text)) for name, text in facts if text]


def excluded_text(level: int, pages: object) -> str:
    """What makedumpfile left out. `pages`: by kind, with their sum as "all" and "of", if known."""
    known = pages if isinstance(pages, dict) else {}
    kinds = [f"{name} {_number(known[name])}" for name in _EXCLUDED if _number(known.get(name))]
    parts = f": {', '.join(kinds)}" if kinds else ""
    of = _number(known.get("of"))
    sum_ = f", {_number(known.get('all'))} of {of} pages" if of else ""
    return f"makedumpfile -d {level}{sum_}{parts}"


_EXCLUDED: Final = ("zero", "cache", "private cache", "user", "free", "hwpoison", "offline")


def _makedumpfile_text(described: dict[str, Any]) -> str:
    own = _version_text(described.get("host_version"))
    version = described.get("makedumpfile")
    return ", ".join(filter(None, (f"makedumpfile {version}" if version else "", own)))


_KIND_NAMES: Final = {
    "fault": "by fault",
    "sweep": "by sweep",
    "steal": "by steal",
    "hole": "holes",
    "lost": "lost",
    "missing": "missing",
}


_WRONG: Final = ("lost", "missing")
"""Kinds whose pages belong to the summary."""


def _kinds(described: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The kinds that there are."""
    return [(name, kind) for name, kind in described["kinds"].items() if kind["granules"]]


def _kind_text(name: str, kind: dict[str, Any]) -> str:
    """How many granules; of those that are no good the first of their page ranges."""
    granules = _count(kind["granules"], "granule")
    if name not in _WRONG:
        return f"{granules} in {_count(kind['ranges'], 'range')}"
    more = kind["ranges"] - _TEXT_RANGES
    shown = format_ranges(kind["pages"][:_TEXT_RANGES])
    return f"{granules}: pages {shown}" + (f" and {_count(more, 'more range')}" if more > 0 else "")


def _details(described: dict[str, Any]) -> list[tuple[str, str]]:
    """A line for each range and each array. Of a kind at most MAX_RANGES are known."""
    lines = [("range", _range_text(r)) for r in described["memory_map"]]
    for name, kind in _kinds(described):
        label = _KIND_NAMES[name]
        lines += [(label, f"pages {format_ranges([r])}") for r in kind["pages"]]
        more = kind["ranges"] - len(kind["pages"])
        lines += [(label, f"and {_count(more, 'more range')}")] if more > 0 else []
    return lines + [("array", _array_text(a)) for a in described["arrays"]]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _backend_text(described: dict[str, Any]) -> str:
    parts = [str(described.get("backend", "")), f"armed by {described.get('arming')}"]
    return ", ".join(part for part in parts if part) if described.get("arming") else ""


def _stall_text(counters: object) -> str:
    """The longest that a writer was held up by the dump."""
    longest = counters.get("stall_max_ns") if isinstance(counters, dict) else None
    text = _duration_text(longest)
    return f"{text} at the longest" if text else ""


def _pool_text(counters: object) -> str:
    """How large the pool was, and how much of it was in use at once."""
    if not isinstance(counters, dict):
        return ""
    names = ("granule_size", "slots_most", "slots_peak")
    size, most, used = (_number(counters.get(name)) for name in names)
    return format_use(most * size, used * size)


def _number(value: object) -> int:
    """What is in a file may be anything."""
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


def _verdict_text(described: dict[str, Any]) -> str:
    return str(described["verdict"]) + ("" if described["sealed"] else ", not sealed")


def _format_text(described: dict[str, Any]) -> str:
    sidecar, compression = described["sidecar"], described["compression"]
    packed = f", compressed with {compression}" if compression not in (None, "none") else ""
    return f"{described['format']}{packed}" + (f", described by {sidecar}" if sidecar else "")


def _memory_text(described: dict[str, Any]) -> str:
    ranges = _count(len(described["memory_map"]), "range")
    return f"{format_size(described['arena_size'])} in {ranges}"


def _left_out_text(machine: object) -> str:
    """Memory of the machine that is not in the dump. What is in a file may be anything."""
    found = machine.get("left_out") if isinstance(machine, dict) else None
    if not isinstance(found, dict):
        return ""
    parts = [f"{name} {format_size(_number(size))}" for name, size in found.items()]
    more = len(parts) - _TEXT_RANGES
    return ", ".join(parts[:_TEXT_RANGES]) + (f" and {more} more" if more > 0 else "")


def _arrays_text(arrays: list[dict[str, Any]]) -> str:
    """The first of them by name. "" for none."""
    if not arrays:
        return ""
    names = ", ".join(one["name"] for one in arrays[:_TEXT_RANGES])
    more = len(arrays) - _TEXT_RANGES
    return f"{len(arrays)}: {names}" + (f" and {more} more" if more > 0 else "")


def _range_text(item: dict[str, int]) -> str:
    end = item["start"] + item["size"] - 1
    return f"{item['start']:#x}-{end:#x} at arena offset {item['arena_offset']:#x}"


def _instant_text(instant: object) -> str:
    """Wall clock of the snapshot instant in UTC, or "" when the dump was not started."""
    wall = instant.get("wall_ns") if isinstance(instant, dict) else None
    if not isinstance(wall, int) or not 0 < wall < 1 << 63:
        return ""
    moment = datetime.fromtimestamp(wall // 1_000_000_000, UTC)
    text = f"{moment:%Y-%m-%d %H:%M:%S}.{wall % 1_000_000_000 // 1000:06} UTC"
    mono = instant.get("mono_ns") if isinstance(instant, dict) else None
    if not isinstance(mono, int) or not 0 < mono < 1 << 63:
        return text
    return f"{text}, {mono // 1_000_000_000}.{mono % 1_000_000_000 // 1000:06} s after boot"


def _duration_text(value: object) -> str:
    return format_duration(value) if isinstance(value, int) and 0 < value < 1 << 63 else ""


def _granules_text(described: dict[str, Any]) -> str:
    counts = ", ".join(f"{k} {v}" for k, v in described["granules"].items() if v)
    return f"{counts} of {format_size(described['granule_size'])}"


def _array_text(item: dict[str, Any]) -> str:
    shape = "x".join(map(str, item["shape"])) or "scalar"
    return f"{item['name']}: {item['dtype']} {shape} at arena offset {item['offset']:#x}"


def _pause_text(described: dict[str, Any]) -> str:
    """In its parts, if the dump has them."""
    counters = described.get("counters")
    found = pause.text(counters, str(described["name"])) if isinstance(counters, dict) else ""
    return found or _duration_text(described.get("pause_ns"))


def _version_text(version: object) -> str:
    return f"livedumpfs {version}" if version else ""
