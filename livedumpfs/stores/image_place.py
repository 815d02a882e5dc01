# SPDX-License-Identifier: GPL-2.0-or-later
"""ImagePlace: how an image in a store is named where a path could stand, and how it is opened.

STORE#DUMP, with `store:` before it or without, DUMP as Store.resolve takes it; or the path of an
index, ours or of casync, whose chunks lie in `default.castr` beside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass

from livedumpfs.errors import InvalidDump, TargetError, UsageError, os_cause
from livedumpfs.stores.caibx import HEADER_SIZE, is_index, parse_index
from livedumpfs.stores.chunks import CastrChunks
from livedumpfs.stores.folder_objects import FolderObjects
from livedumpfs.stores.object_sizes import most_bytes
from livedumpfs.stores.store import INDEX, SCHEME, Store, is_store, open_store
from livedumpfs.stores.store_image import StoreImage


@dataclass(frozen=True)
class ImagePlace:
    """`store`: url or folder; `name`: of the dump; `alone`: an index in a folder that is no store
    of ours, and `name` is its file."""

    store: str
    name: str
    alone: bool = False


def image_place(path: str) -> ImagePlace | None:
    """What `path` means; None: a file or device, or nothing. A file of that name comes first, but
    for the scheme. UsageError: a store, and no dump in it."""
    if is_whole_store(path):
        raise UsageError(
            f"{path} is a store of dumps, and none of them is named",
            hint=f"{path}#latest, or another name of `livedump list {path}`",
        )
    store, mark, name = path.rpartition("#")
    if path.startswith(SCHEME):
        return ImagePlace(store, name)
    if os.path.isfile(path):
        return _index_file(path)
    if mark and not os.path.lexists(path) and is_store(store):
        return ImagePlace(store, name)
    return None


def is_whole_store(path: str) -> bool:
    """Whether `path` means a store, and no dump in it."""
    return "#" not in path if path.startswith(SCHEME) else is_store(path)


def _index_file(path: str) -> ImagePlace | None:
    folder, name = os.path.split(path)
    if name.endswith(INDEX) and is_store(folder or "."):
        return ImagePlace(folder or ".", name.removesuffix(INDEX))
    try:
        with open(path, "rb", buffering=0) as file:
            found = is_index(file.read(HEADER_SIZE))
    except OSError:  # it is said where it is opened as a file
        return None
    return ImagePlace(folder or ".", name, alone=True) if found else None


def open_image(place: ImagePlace) -> tuple[str, StoreImage, int]:
    """The image, which the caller closes; its full name; and when its index was written, ns since
    the epoch. TargetError; InvalidDump: the store or the index is damaged."""
    if place.alone:
        return _open_alone(place)
    store = open_store(place.store)
    try:
        name = store.resolve(place.name)
        return f"{place.store}#{name}", *open_stored(store, name)
    except BaseException:
        store.close()
        raise


def open_stored(store: Store, name: str) -> tuple[StoreImage, int]:
    """Image of the dump with exactly that name, which closes the store with itself; and when its
    index was written."""
    image = StoreImage(store.index(name), store.chunks, on_close=store.close)
    return image, store.written_ns(name)


def _open_alone(place: ImagePlace) -> tuple[str, StoreImage, int]:
    path = os.path.join(place.store, place.name)
    with contextlib.ExitStack() as stack:
        objects = FolderObjects(place.store, links=True)
        stack.callback(objects.close)
        status = _status(path)
        try:
            if status.st_size > most_bytes(INDEX):
                raise InvalidDump(f"it has {status.st_size} bytes")
            index = parse_index(objects.get(place.name))
        except InvalidDump as error:
            raise InvalidDump(f"the index {path} is not valid: {error.message}") from error
        image = StoreImage(index, CastrChunks(objects), on_close=objects.close)
        stack.pop_all()
        return path, image, status.st_mtime_ns


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        code = error.errno or errno.EIO
        raise TargetError(f"cannot read {path}: {os_cause(code)}", errno=code) from error
