# SPDX-License-Identifier: GPL-2.0-or-later
"""snapshot/ of a finished or broken-off dump, mounted read-only. No machine runs.

The files never change, so that the kernel may keep what it has read, and map it.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import threading
from collections.abc import Callable
from typing import Any

import fuse

from livedumpfs.dumpfile import StoredFiles
from livedumpfs.errors import HostError
from livedumpfs.formats.snapshot_files import OpenFile
from livedumpfs.hosts.mounted import FILE_SYSTEM
from livedumpfs.mount.attributes import (
    OPTIONS,
    Attributes,
    Tree,
    as_statfs,
    blocks,
    dump_numbers,
    numbered,
)
from livedumpfs.mount.fs import Mount
from livedumpfs.mount.host import check_mountpoint, clean_up, mount_hint

DIRECTORY = "/snapshot"
"""Where the files are, as in the mount of a host."""

log = logging.getLogger(__name__)


class Browser(fuse.Operations):  # type: ignore[misc]
    """StoredFiles as a file system. libfuse calls it from many threads at once."""

    use_ns = True

    def __init__(self, files: StoredFiles, ready: Callable[[], None] = lambda: None) -> None:
        """`ready` is called, on a thread of libfuse, as soon as the mount answers."""
        self._files = files
        self._ready = ready
        self._open: dict[int, OpenFile] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._owner, self._group = os.geteuid(), os.getegid()
        first = dump_numbers(files.dump_id, int.from_bytes(files.dump_id[:2], "little"))
        above = DIRECTORY[1:]
        names = (above, *(f"{above}/{name}" for name in files.names))
        self._tree = Tree(numbered(names, first))
        self._time = files.instant_ns

    def __call__(self, op: str, *args: Any) -> Any:
        """Every call of libfuse. Nothing but an OSError may leave: fusepy ends the mount then."""
        try:
            return getattr(self, op)(*args)
        except OSError as error:
            raise fuse.FuseOSError(error.errno or errno.EIO) from error
        except BaseException as error:
            log.exception("%s failed", op)
            raise fuse.FuseOSError(errno.EIO) from error

    def init(self, path: str) -> None:
        """The kernel has answered."""
        self._ready()

    def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
        """All is the mounting user's, for reading."""
        return self._attributes(path.lstrip("/")).as_stat(self._owner, self._group)

    def _attributes(self, path: str) -> Attributes:
        if self._tree.is_directory(path):
            return self._tree.directory(path, 0o500, self._time)
        name = path.rpartition("/")[2]
        size, stored = self._files.size(name), self._files.stored(name)
        mode = stat.S_IFREG | 0o400
        return Attributes(self._tree.numbers[path], mode, self._time, size, stored)

    def readdir(self, path: str, fh: Any) -> list[tuple[str, dict[str, int], int]]:
        """Names of a directory, with kind and inode number."""
        return self._tree.entries(path.lstrip("/"))

    def statfs(self, path: str) -> dict[str, int]:
        """All of it is used."""
        stored = sum(blocks(self._files.stored(name)) for name in self._files.names)
        return as_statfs(len(self._tree.numbers), stored)

    def open(self, path: str, flags: int) -> int:
        """The kernel has seen to the mode (ro, default_permissions)."""
        file = self._files.open(path.rpartition("/")[2])
        with self._lock:
            number = next(self._numbers)
            self._open[number] = file
        return number

    def release(self, path: str, fh: int) -> int:
        """Last close of an open file."""
        with self._lock:
            self._open.pop(fh, None)
        return 0

    def read_into(self, view: memoryview, offset: int, fh: int) -> int:
        """All of it or EIO: the kernel would take less for the end of the file. After EIO for what
        it wanted to read ahead it asks again, page by page."""
        return self._open[fh].read_into(offset, view)


def browse(
    files: StoredFiles, mountpoint: str, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Mount `files` at an empty directory, and answer until it is unmounted, or SIGINT, SIGTERM or
    SIGHUP; then it is unmounted. Main thread only. HostError: it could not be mounted."""
    place = os.path.abspath(mountpoint)
    clean_up(place)
    check_mountpoint(place)
    try:
        Mount(
            Browser(files, on_ready), place, foreground=True, default_permissions=True, ro=True,
            fsname=FILE_SYSTEM, subtype=FILE_SYSTEM, **OPTIONS,
        )  # fmt: skip
    except RuntimeError as error:
        raise HostError(f"cannot mount at {place}", errno=errno.EIO, hint=mount_hint()) from error
