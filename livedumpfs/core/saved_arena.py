# SPDX-License-Identifier: GPL-2.0-or-later
"""SavedArena: what Arena.load reads, and how it is opened by its path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from livedumpfs.core.array_info import SavedArray
from livedumpfs.errors import InconsistentDump, UsageError
from livedumpfs.units import PAGE_SIZE


class SavedArena(Protocol):
    """What Arena.load reads: an open dump (livedumpfs.dumpfile.open_dump)."""

    @property
    def path(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def granule_size(self) -> int: ...
    @property
    def arena_size(self) -> int: ...
    @property
    def arrays(self) -> Sequence[SavedArray]: ...
    def read_into(self, offset: int, view: memoryview) -> None: ...
    def missing(self) -> Sequence[tuple[int, int]]: ...


def inconsistent_arena(dump: SavedArena, missing: Sequence[tuple[int, int]]) -> InconsistentDump:
    size = dump.granule_size
    gone = sum(-(-(end - first) // size) for first, end in missing)
    return InconsistentDump.of(
        dump.verdict,
        dump.path,
        None,
        0,
        granules=(-(-dump.arena_size // size), gone, 0),
        pages=size // PAGE_SIZE,
    )


SavedOpen = AbstractContextManager[SavedArena]
Opener = Callable[[str], SavedOpen]
_openers: list[Opener] = []


def open_paths_by(opener: Opener) -> None:
    """From now on `opened` calls it. The core itself knows no files."""
    _openers[:] = [opener]


def opened(path: str) -> SavedOpen:
    """What is saved at that path. What the opener raises; UsageError: there is none."""
    if not _openers:
        raise UsageError(
            f"cannot open {path} by its path here", hint="livedumpfs.open_dump opens it"
        )
    return _openers[0](path)
