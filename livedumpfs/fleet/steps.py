# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fleet wants of the host of one member, as steps. Each step is asked by dump id, so one
that is asked twice is taken once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from livedumpfs.fleet.manifest import Taken, Word


@dataclass(frozen=True)
class Wanted:
    """What a member is to dump, and how."""

    dump_id: bytes
    """16 bytes."""
    target: str | None
    """A path for the host; None: memory only."""
    options: dict[str, Any]
    """Settings of INIT, by the names of DumpSettings."""
    since: bytes = b""
    """Dump id of the base, of which it leaves out what did not change; b"": none."""


@dataclass(frozen=True)
class Saved:
    """How far the dump of one member is."""

    done: int
    """Bytes that it has."""
    total: int
    lost: int
    finished: bool
    """It is sealed, and `verdict` is final."""
    verdict: Word | None = None
    reason: str | None = None
    all_read: str | None = None
    """Why the host has read all, or does not track, though it was to; None: as it was to."""


class Steps(Protocol):
    """One open host. Every method may raise LivedumpError or OSError. `release` and `close` may be
    called while another thread is inside a step, which then ends."""

    def bases(self) -> Sequence[bytes] | None:
        """Ids of the dumps since which it knows what has changed; None: it keeps no track."""

    def init(self, wanted: Wanted) -> int:
        """INIT. The host releases the dump when this process ends. Bytes of memory."""

    def hold(self, seconds: float) -> None:
        """Stop the machine. It runs again after `seconds` whatever happens here."""

    def arm(self) -> None:
        """The instant; the machine still stands."""

    def go(self) -> Taken:
        """Let it run. Taken.stood is False when the time of `hold` was over before."""

    def start(self, at_ns: int, late_ns: int) -> Taken:
        """The instant at a CLOCK_REALTIME of this computer; it waits until then."""

    def sweep(self) -> None:
        """Begin to save the rest."""

    def saved(self) -> Saved:
        """How far it is."""

    def release(self) -> None:
        """The machine at full speed, whatever the state."""

    def close(self) -> None:
        """Close the file; harmless when done twice."""


Open = Callable[[str], Steps]
"""Opens the host with that livedump file."""
