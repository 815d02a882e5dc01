# SPDX-License-Identifier: GPL-2.0-or-later
"""How the memory was saved: the kinds of granules, and the moments that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from livedumpfs import page_map
from livedumpfs.html_report.counter_values import counter
from livedumpfs.html_report.subject import SavedKind
from livedumpfs.units import format_duration, format_size

CLASSES: Final = {
    page_map.NOT_ARMED: "idle",
    page_map.ARMED: "waiting",
    page_map.ZEROS: "zeros",
    page_map.SWEEPING: "sweeping",
    page_map.SWEPT: "sweep",
    page_map.IN_SLOT: "slot",
    page_map.BY_FAULT: "fault",
    page_map.STEALING: "stealing",
    page_map.STOLEN: "steal",
    page_map.LOST: "lost",
}
"""By the letter of page_map: a class of the style sheet."""
_NAMES: Final = {
    page_map.SWEPT: (
        "by sweep",
        "nothing wrote to it before the sweep came: saved as it lay there",
    ),
    page_map.BY_FAULT: ("by fault", "written to first: its old bytes were copied before the store"),
    page_map.STOLEN: ("stolen", "written to while the sweep's I/O on it was under way"),
    page_map.ZEROS: ("zeros", "a hole, or all zeros: there was nothing to save"),
    page_map.LOST: ("lost", "overwritten before it was saved: the dump does not have it"),
    page_map.SWEEPING: ("sweep's I/O", "under way"),
    page_map.IN_SLOT: ("in a slot", "copied, and on its way to the target"),
    page_map.STEALING: ("being stolen", "under way"),
}
_WAITING: Final = {
    False: ("missing", "never saved: the dump ended before"),
    True: ("not saved yet", "write-protected, and it waits for a store or the sweep"),
}
"""By whether the machine still runs."""
_IDLE: Final = ("not armed", "START has not come yet")


@dataclass(frozen=True)
class KindRow:
    """A row of the legend."""

    style: str
    """A class of CLASSES."""
    name: str
    meaning: str
    granules: int | None
    """None: only the picture knows it."""
    size: str = ""
    percent: float = 0.0
    """Of the arena."""


@dataclass(frozen=True)
class Moment:
    """What began at a known time after the instant, and how long it lasted."""

    name: str
    meaning: str
    begin: str
    lasted: str
    left: float
    """Percent of all the time."""
    width: float


def kinds_in(letters: bytes, granule_size: int, arena_size: int) -> list[SavedKind]:
    """Each letter of a map that has one for each granule; the last granule may be shorter."""
    short = len(letters) * granule_size - arena_size
    found = []
    for letter in page_map.LETTERS:
        count = letters.count(letter.encode())
        if count:
            less = short if letters.endswith(letter.encode()) else 0
            found.append(SavedKind(letter, count, count * granule_size - less))
    return found


def kind_rows(
    kinds: Sequence[SavedKind], letters: bytes, arena_size: int, *, living: bool
) -> list[KindRow]:
    """All kinds that there are. Those that are under way have no counter, but are in the map."""
    found = {one.letter: one for one in kinds}
    order = [*_NAMES, page_map.ARMED, page_map.NOT_ARMED]
    rows = []
    for letter in order:
        kind = found.get(letter)
        if kind is None and letter.encode() not in letters:
            continue
        name, meaning = name_of(letter, living=living)
        if kind is None:
            rows.append(KindRow(CLASSES[letter], name, meaning, None))
            continue
        share = 100 * kind.size / arena_size if arena_size else 0.0
        size = format_size(kind.size)
        rows.append(KindRow(CLASSES[letter], name, meaning, kind.granules, size, share))
    return rows


def name_of(letter: str, *, living: bool) -> tuple[str, str]:
    """Name and meaning."""
    if letter == page_map.ARMED:
        return _WAITING[living]
    return _NAMES.get(letter, _IDLE)


def moments(counters: Mapping[str, object]) -> list[Moment]:
    """What the counters say of the time after the instant; []: nothing."""
    instant, sweep, drained = (
        counter(counters, name) for name in ("instant_mono_ns", "sweep_start_ns", "drained_ns")
    )
    if not instant or sweep < instant or drained < sweep or drained == instant:
        return []
    whole = drained - instant
    steps = (
        ("stores alone", "only what the machine wrote to was saved, by fault", instant, sweep),
        ("sweep", "the sweep saved the rest, and faults went before it", sweep, drained),
    )
    return [
        Moment(
            name,
            meaning,
            format_duration(begin - instant),
            format_duration(end - begin),
            100 * (begin - instant) / whole,
            100 * (end - begin) / whole,
        )
        for name, meaning, begin, end in steps
    ]
