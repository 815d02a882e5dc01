# SPDX-License-Identifier: GPL-2.0-or-later
"""The pause of a START in parts that add up to it. The names are those of ldfs_counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from livedumpfs.units import format_duration

PARTS: Final = ("quiesce_ns", "arm_ns", "resume_ns")
"""Until all writers stood (quiesce); until the memory was write-protected (arm); until all ran
again."""
PROGRAM: Final = "threads"
"""Name of the machine whose quiesce is a function of the program itself: it waits for one writer
after the other, and the rest of them run on meanwhile."""
_LONGEST: Final = 1 << 63


def parts(counters: Mapping[str, object]) -> dict[str, int]:
    """Nanoseconds: `pause_ns`, its PARTS, and `other_ns` (registers, and calls to the machine's
    process). PARTS and `other_ns` add up to `pause_ns`. `stood_still_ns` is all but quiesce: the
    time when no writer ran. {} before START. `counters` may come from a file."""
    known = {name: _time(counters.get(name)) for name in ("pause_ns", *PARTS)}
    if not known["pause_ns"]:
        return {}
    known["other_ns"] = max(0, known["pause_ns"] - sum(known[name] for name in PARTS))
    return {**known, "stood_still_ns": max(0, known["pause_ns"] - known["quiesce_ns"])}


def text(counters: Mapping[str, object], machine: str = "") -> str:
    """A sentence: how long the machine of that name stood still, and why. "" before START."""
    known = parts(counters)
    if not known:
        return ""
    shown = ("arm_ns", "resume_ns", "other_ns")
    if machine == PROGRAM:
        still, waited = (format_duration(known[n]) for n in ("stood_still_ns", "quiesce_ns"))
        return f"{still} ({_listed(known, shown)}), after {waited} of waiting for the writers"
    whole = format_duration(known["pause_ns"])
    if not any(known[name] for name in PARTS):
        return f"{whole} (as the machine itself has counted it)"
    return f"{whole} ({_listed(known, ('quiesce_ns', *shown))})"


def _listed(known: Mapping[str, int], names: tuple[str, ...]) -> str:
    return ", ".join(f"{n.removesuffix('_ns')} {format_duration(known[n])}" for n in names)


def _time(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < _LONGEST else 0
