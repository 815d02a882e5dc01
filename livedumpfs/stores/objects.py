# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects: a place of named byte strings, which is all that a store needs of a folder or of an
object store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from livedumpfs.errors import UsageError

Bytes = bytes | bytearray | memoryview


_FILE: Final = "file://"


def folder_path(place: str) -> str:
    """The path of a folder that may be named as file:///PATH or file://localhost/PATH. UsageError:
    of another computer, or no whole path."""
    path = place.removeprefix(_FILE)
    if path == place:
        return place
    path = path.removeprefix("localhost")
    if not path.startswith("/"):
        raise UsageError(f"{place} names no folder of this computer", hint="write file:///PATH")
    return path


@dataclass(frozen=True)
class Listed:
    """An object in a list."""

    name: str
    size: int
    """Bytes."""
    changed_ns: int
    """When it was written, in ns since the epoch."""


class Objects(Protocol):
    """Names are relative paths with "/". Any number of threads may call. Every failure is a
    TargetError that names the object and the cause; ENOENT: there is no such object."""

    @property
    def url(self) -> str:
        """The place, for messages; it has no secrets."""

    def get(self, name: str) -> bytes:
        """The object's bytes."""

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of the object, fewer only at its end."""

    def put(self, name: str, data: Bytes) -> None:
        """Write it whole: readers see the old object or the new one, also after a kill. Durable
        only after sync()."""

    def has(self, name: str) -> bool:
        """Whether there is such an object."""

    def names(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """All objects whose names start with `prefix`, which ends with "/" or is empty, in no
        order. Unfinished ones are not among them. Not `deep`: only those without a further "/"."""

    def delete(self, names: Iterable[str]) -> None:
        """Remove them; those that are not there are no error."""

    def withdraw(self, names: Iterable[str]) -> None:
        """Remove, in this order, what this process itself has just put: a dump that is not to be
        published after all. Needs no lock."""

    def sync(self) -> None:
        """Return when all that was put before is durable."""

    def clean(self) -> int:
        """Remove what killed processes have left unfinished, while this one holds the lock alone.
        Returns how many objects that were."""

    def lock(self, *, alone: bool, wait_s: float) -> AbstractContextManager[None]:
        """The store's lock: any number may hold it together, or one `alone` (gc). It is free again
        when the process that holds it has ended, however it ended. TargetError EBUSY: not to be
        had within `wait_s` seconds; says what holds it, where that is known."""

    def close(self) -> None:
        """Give back what it holds."""
