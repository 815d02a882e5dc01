# SPDX-License-Identifier: GPL-2.0-or-later
"""Manifests where they are kept: beside the dumps, in the folder or the store that the fleet dump
went to. In an encrypted store they are sealed as all else."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from livedumpfs.errors import InvalidDump, LivedumpError, TargetError, os_cause
from livedumpfs.fleet.manifest import SUFFIX, Manifest, decode, encode
from livedumpfs.stores import is_store, open_store
from livedumpfs.stores.folder_objects import FolderObjects
from livedumpfs.stores.objects import Objects
from livedumpfs.stores.store import SCHEME

_LONGEST = 256 << 20


def write_manifest(to: str, manifest: Manifest) -> str:
    """Write it whole: it is there when all of it is. Its name, for read_manifest. TargetError."""
    with _objects(to, make=True) as objects:
        objects.put(manifest.id + SUFFIX, encode(manifest))
        objects.sync()
    return manifest_name(to, manifest.id)


def expect_writable(to: str) -> None:
    """Before a machine is touched: the store takes the manifest, and this process has its identity.
    UsageError, TargetError, InvalidDump: see open_store."""
    if is_store(to):
        open_store(to).close()


def manifest_name(place: str, fleet: str) -> str:
    """What read_manifest takes."""
    if place.startswith(SCHEME):
        return f"{place}#{fleet}"
    return os.path.join(place, fleet + SUFFIX)


def read_manifest(name: str) -> Manifest:
    """`name`: path of the file; or STORE#ID. InvalidDump: it is none. TargetError: it cannot be
    read."""
    place, mark, fleet = name.rpartition("#")
    if mark and is_store(place):
        file = fleet + SUFFIX
    else:
        place, file = os.path.split(os.path.abspath(name))
    with _objects(place) as objects:
        return _read(objects, file, name)


def _read(objects: Objects, file: str, name: str) -> Manifest:
    try:
        data = objects.get_range(file, 0, _LONGEST + 1)
    except InvalidDump as error:
        raise InvalidDump(f"{name} is damaged: {error.message}") from error
    if len(data) > _LONGEST:
        raise InvalidDump(f"{name} is not the manifest of a fleet dump: it is too long")
    return decode(data, name)


def list_manifests(place: str) -> Iterator[tuple[str, Manifest | LivedumpError]]:
    """Name and manifest of each in that folder or store, sorted; or why one cannot be read.
    TargetError: the place cannot be read."""
    with _objects(place) as objects:
        for file in sorted(one.name for one in objects.names("", deep=False)):
            if file.endswith(SUFFIX):
                name = manifest_name(place, file.removesuffix(SUFFIX))
                try:
                    yield name, _read(objects, file, name)
                except LivedumpError as error:
                    yield name, error


@contextmanager
def _objects(place: str, *, make: bool = False) -> Iterator[Objects]:
    """The store's, or the folder's."""
    if is_store(place):
        with open_store(place) as store:
            yield store.objects
        return
    if make:
        try:
            os.makedirs(place, exist_ok=True)
        except OSError as error:
            code = error.errno or errno.EIO
            raise TargetError(f"cannot make {place}: {os_cause(code)}", errno=code) from error
    with contextlib.closing(FolderObjects(place)) as objects:
        yield objects
