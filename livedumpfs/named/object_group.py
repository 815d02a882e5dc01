# SPDX-License-Identifier: GPL-2.0-or-later
"""ObjectGroup: a Zarr group in an object store, through obstore, which takes the credentials from
the environment as it does elsewhere.

There is no rename: the group's document is written last, and before it nothing opens the group. A
whole group is not replaced, since no order of writes could do that at one instant. An Icechunk
repository can.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping
from typing import Any, Final

from livedumpfs.errors import TargetError
from livedumpfs.named import nodes
from livedumpfs.named.extra import extra
from livedumpfs.named.group_target import GroupTarget, Stamp
from livedumpfs.named.library_errors import cannot_reach, cannot_write
from livedumpfs.named.local_group import MARK
from livedumpfs.named.save_record import KEY, SaveRecord

_MANY: Final = 500
"""Objects that are deleted with one request."""


class ObjectGroup(GroupTarget):
    """See above."""

    def __init__(self, path: str, *, force: bool = False) -> None:
        """TargetError EEXIST: something is there; or the store cannot be read."""
        self.path = path.rstrip("/")
        self._force = force
        self._objects = object_store(self.path)
        self._begun = self._published = False
        self._stale = False
        self._store = extra("zarr.storage").ObjectStore(self._objects)
        try:
            self._look()
        except TargetError:
            raise
        except Exception as error:  # the library has its own
            raise cannot_reach(self.path, error) from error

    def _look(self) -> None:
        found = {name for page in self._objects.list(chunk_size=_MANY) for name in _paths(page)}
        self._stale = bool(found)
        if not found or self._force or (MARK in found and nodes.DOCUMENT not in found):
            return
        if nodes.DOCUMENT in found:
            raise TargetError(
                f"{self.path} is a Zarr group, and an object store cannot replace one at once",
                errno=errno.EEXIST,
                hint="another name, a name that ends with .icechunk, which keeps all saves, or "
                "<force>, which deletes it first",
            )
        raise TargetError(
            f"{self.path} has objects, and is no Zarr group",
            errno=errno.EEXIST,
            hint="another name, or <force>, which deletes them",
        )

    def begin(self, documents: Mapping[str, bytes]) -> None:
        """See GroupTarget."""
        try:
            if self._stale:
                self._clear()
            nodes.write(self._store, MARK, b"livedumpfs\n")
            self._begun = True
            for name, document in documents.items():
                nodes.write(self._store, f"{name}/{nodes.DOCUMENT}", document)
        except Exception as error:
            raise cannot_write(self.path, error) from error

    def _clear(self) -> None:
        """All objects, and the group's document first: no moment shows a part of the group."""
        nodes.delete(self._store, nodes.DOCUMENT)
        names = [name for page in self._objects.list(chunk_size=_MANY) for name in _paths(page)]
        rest = sorted(set(names) - {MARK})
        for at in range(0, len(rest), _MANY):
            self._objects.delete(rest[at : at + _MANY])
        if MARK in names:
            self._objects.delete(MARK)

    @property
    def store(self) -> Any:
        """See GroupTarget."""
        return self._store

    def previous_document(self, name: str) -> bytes | None:
        """None: nothing is kept."""
        del name
        return None

    def keep(self, key: str, stamp: Stamp | None) -> bool:
        """Nothing is kept."""
        del key, stamp
        return False

    def leave_out(self, key: str) -> None:
        """Nothing is there."""

    def publish(self, record: SaveRecord) -> None:
        """The group's document."""
        try:
            nodes.write(self._store, nodes.DOCUMENT, nodes.group_document({KEY: record.to_json()}))
            self._published = True
        except Exception as error:
            raise cannot_write(self.path, error) from error
        with contextlib.suppress(Exception):  # the group is whole with it, too
            self._objects.delete(MARK)

    def close(self) -> None:
        """See GroupTarget."""
        if self._begun and not self._published:
            with contextlib.suppress(Exception):  # a store that is gone keeps the mark
                self._clear()
        self._begun = False


def object_store(url: str) -> Any:
    """Of obstore. TargetError: no such kind of store, or not with the environment's settings."""
    try:
        return extra("obstore.store", "obstore").from_url(url)
    except TargetError:
        raise
    except ImportError:
        raise
    except Exception as error:
        raise cannot_reach(url, error) from error


def _paths(page: Any) -> list[str]:
    return [str(one["path"]) for one in page]
