# SPDX-License-Identifier: GPL-2.0-or-later
"""Subject: what a page is about, a dump that lies somewhere or the dump of a running host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Facts = Sequence[tuple[str, str]]
"""Name and text of each fact."""


@dataclass(frozen=True)
class SavedKind:
    """Granules that came to the dump in one way, or did not."""

    letter: str
    """Of page_map."""
    granules: int
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Subject:
    """All of it may be hostile text: the page escapes it."""

    name: str
    """Path of the dump, or of the host's livedump file."""
    machine: str
    verdict: str
    """"consistent", "torn", "incomplete"; "": there is none."""
    saying: str
    """What the verdict means here, in one sentence."""
    facts: Facts
    living: bool = False
    counters: Mapping[str, object] = field(default_factory=dict)
    arena_size: int = 0
    """Bytes."""
    granule_size: int = 0
    """Bytes; 0: not known."""
    letters: bytes = b""
    """The page map in letters of page_map, of parts of the arena of equal sizes; b"": not known."""
    no_map: str = ""
    """Why there is no page map, in one sentence."""
    kinds: Sequence[SavedKind] = ()
    not_known: str = ""
    """What the dump does not know of the time after its instant."""
    memory: Facts = ()
    """Physical range, and its place in the arena."""
    arrays: Facts = ()
    """Name and shape."""
    registers: Sequence[tuple[str, Mapping[str, object]]] = ()
    """The name of each vCPU, and its registers."""
    registers_of: str = ""
    """Of when they are."""
