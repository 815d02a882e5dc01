# SPDX-License-Identifier: GPL-2.0-or-later
"""The page itself: one HTML file that needs nothing else, and no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from livedumpfs import __version__, page_map
from livedumpfs.errors import printable
from livedumpfs.html_report.changes import STEPS, Changes
from livedumpfs.html_report.counter_values import counter
from livedumpfs.html_report.page_map_picture import Picture, cell_count, picture
from livedumpfs.html_report.register_blocks import register_blocks
from livedumpfs.html_report.stalls import stalls
from livedumpfs.html_report.subject import Facts, Subject
from livedumpfs.html_report.task_list import TaskList
from livedumpfs.html_report.ways_saved import CLASSES, kind_rows, moments
from livedumpfs.units import format_duration, format_size

_FOLDER: Final = Path(__file__).parent
_TEMPLATE: Final = "page.html"
_STYLE: Final = "page.css"
_ROWS_MOST: Final = 1000
"""Of a table, of which a hostile dump could have any number."""
_SECTIONS: Final[tuple[tuple[str, str], ...]] = (
    ("map", "Page map"),
    ("saving", "How it was saved"),
    ("stalls", "Stalls"),
    ("changes", "Changes"),
    ("registers", "Registers"),
    ("tasks", "Tasks"),
    ("facts", "All facts"),
)


@dataclass(frozen=True)
class Figure:
    """One of the large numbers at the top."""

    name: str
    value: str
    more: str = ""


def render(subject: Subject, tasks: TaskList, changes: Changes | None = None) -> str:
    """HTML, the same for the same input. All text in it is escaped, and what could turn its
    direction or is no text is spelled out."""
    style = (_FOLDER / _STYLE).read_text(encoding="utf-8")
    blocks, more_vcpus = register_blocks(subject.registers)
    cells = page_map.shrink(subject.letters, cell_count(len(subject.letters)))
    text = _environment().get_template(_TEMPLATE).render(
        subject=subject,
        version=__version__,
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        sections=[one for one in _SECTIONS if changes or one[0] != "changes"],
        figures=_figures(subject),
        kinds=kind_rows(
            subject.kinds, subject.letters, subject.arena_size, living=subject.living
        ),
        letters=len(cells),
        cell_granules=_cell_granules(subject, cells),
        written=page_map.WRITTEN,
        map=_map(cells),
        cell_size=_cell_size(subject, cells),
        row_size=_row_size(subject, cells),
        last_address=f"{max(subject.arena_size - 1, 0):#x}",
        moments=moments(subject.counters),
        stalls=stalls(subject.counters),
        changes=changes,
        changes_map=_changes_map(changes) if changes else None,
        changed_cell_size=_cell_size(subject, changes.cells) if changes else "",
        granule_size=format_size(subject.granule_size),
        memory=subject.memory[:_ROWS_MOST],
        more_memory=_more(subject.memory),
        arrays=subject.arrays[:_ROWS_MOST],
        more_arrays=_more(subject.arrays),
        blocks=blocks,
        more_vcpus=more_vcpus,
        tasks=tasks,
    )  # fmt: skip
    return text + "\n"


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    return printable(value) if type(value) is str else value


def _cell_size(subject: Subject, cells: bytes) -> str:
    return format_size(subject.arena_size / len(cells)) if cells else ""


def _cell_granules(subject: Subject, cells: bytes) -> int:
    """How many a cell has; 0: not known."""
    size = len(cells) * subject.granule_size
    return -(-subject.arena_size // size) if size else 0


def _row_size(subject: Subject, cells: bytes) -> str:
    """ "": there is one row, or none."""
    found = _map(cells)
    if found is None or found.rows == 1:
        return ""
    return format_size(subject.arena_size * found.columns / len(cells))


def _more(rows: Facts) -> str:
    """What a caption says of rows that are left out."""
    left = len(rows) - _ROWS_MOST
    return f": the first {_ROWS_MOST:,}, and {left:,} more" if left > 0 else ""


def _map(cells: bytes) -> Picture | None:
    return picture(cells, lambda value: CLASSES.get(chr(value), "lost")) if cells else None


def _changes_map(changes: Changes) -> Picture:
    names = ["same", *(f"step{number}" for number in range(1, STEPS + 1)), "missing"]
    return picture(changes.cells, lambda value: names[value])


def _figures(subject: Subject) -> list[Figure]:
    """Those that are known."""
    counters = subject.counters
    faults, waits = counter(counters, "faults"), counter(counters, "slot_waits")
    stop, longest = counter(counters, "pause_ns"), counter(counters, "stall_max_ns")
    found = [
        _instant(counters),
        Figure("Stop", format_duration(stop) if stop else "", "the machine stood still"),
        _memory(subject),
        Figure("Longest stall", format_duration(longest) if longest else "", "of one store"),
        Figure("Faults", f"{faults:,}" if faults else "", f"{waits:,} waits for a slot"),
    ]
    return [one for one in found if one.value]


def _memory(subject: Subject) -> Figure:
    size, granule = subject.arena_size, subject.granule_size
    granules = f"{-(-size // granule):,} granules of {format_size(granule)}" if granule else ""
    return Figure("Memory", format_size(size) if size else "", granules)


def _instant(counters: Mapping[str, object]) -> Figure:
    """To the millisecond; the facts have all of it."""
    wall, boot = counter(counters, "instant_wall_ns"), counter(counters, "instant_mono_ns")
    if not wall:
        return Figure("Instant", "")
    moment = datetime.fromtimestamp(wall // 1_000_000_000, UTC)
    day = f"{moment:%Y-%m-%d}, {boot / 1e9:,.1f} s after boot"
    return Figure("Instant (UTC)", f"{moment:%H:%M:%S}.{wall % 1_000_000_000 // 1_000_000:03}", day)
