# SPDX-License-Identifier: GPL-2.0-or-later
"""GroupTarget: where arrays are written as a Zarr group, and how it becomes the group there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from livedumpfs.closing import Closing
from livedumpfs.errors import TargetError
from livedumpfs.formats import VerdictWord
from livedumpfs.named.save_record import SaveRecord

Stamp = tuple[int, int]
"""Size and time of change, in ns, of a piece's file."""
NO_FILE: Stamp = (0, 0)


class GroupTarget(Closing):
    """A group that is being written. Nothing opens as a group of this save until `publish` is
    over; close() without it takes away what was written."""

    path: str
    previous: SaveRecord | None = None
    """Of the whole group that is there and will be replaced, where its pieces can be kept."""
    sharded = True
    """Whether a piece is a shard of several chunks."""
    stamped = False
    """Whether the record needs stamps."""

    @abstractmethod
    def begin(self, documents: Mapping[str, bytes]) -> None:
        """Make it ready for arrays with these documents, by name. TargetError."""

    @property
    @abstractmethod
    def store(self) -> Any:
        """The Zarr store to write to."""

    @abstractmethod
    def previous_document(self, name: str) -> bytes | None:
        """Of the array in the group that is replaced; None: it has none."""

    @abstractmethod
    def keep(self, key: str, stamp: Stamp | None) -> bool:
        """Take a piece over from the group that is replaced. False: it cannot, or it is not as that
        save left it."""

    def stamp(self, key: str) -> Stamp:
        """Of a piece that is written."""
        del key
        return NO_FILE

    @abstractmethod
    def leave_out(self, key: str) -> None:
        """The piece is zeros: there is to be none of that key."""

    @abstractmethod
    def publish(self, record: SaveRecord) -> None:
        """All is written: make it durable, and the group there. TargetError: it is not."""

    def expect_its_turn(
        self, verdict: VerdictWord, before: SaveRecord | None, *, force: bool
    ) -> None:
        """TargetError: a torn group does not take the place of a consistent one."""
        if before and before.verdict == "consistent" and verdict != "consistent" and not force:
            raise TargetError(
                f"the dump is {verdict}, and {self.path} holds a consistent one", hint="<force>"
            )


def gone(before: Iterable[str], now: Iterable[str]) -> set[str]:
    """Names of arrays that the new group does not have."""
    return set(before) - set(now)
