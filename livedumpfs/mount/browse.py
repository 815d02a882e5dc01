# SPDX-License-Identifier: GPL-2.0-or-later
"""snapshot/ of a finished or broken-off dump, mounted read-only. No machine runs.

The files never change, so that the kernel may keep what it has read, and map it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from livedumpfs.dumpfile import StoredFiles
from livedumpfs.errors import HostError
from livedumpfs.formats.snapshot_files import OpenFile
from livedumpfs.mount.attributes import (
    Attributes,
    Tree,
    as_statfs,
    blocks,
    dump_numbers,
    numbered,
)
from livedumpfs.mount.mountpoint import check_mountpoint, clean_up, mount_hint
from livedumpfs.mount.open_files import OpenFiles
from livedumpfs.mount.operations import FuseMount, TreeOperations

DIRECTORY = "/snapshot"
"""Where the files are, as in the mount of a host."""


class Browser(TreeOperations):
    """StoredFiles as a file system."""

    def __init__(self, files: StoredFiles, ready: Callable[[], None] = lambda: None) -> None:
        """`ready`: see TreeOperations."""
        super().__init__(ready)
        self._files = files
        self._open: OpenFiles[OpenFile] = OpenFiles()
        first = dump_numbers(files.dump_id, int.from_bytes(files.dump_id[:2], "little"))
        above = DIRECTORY[1:]
        names = (above, *(f"{above}/{name}" for name in files.names))
        self._tree = Tree(numbered(names, first))
        self._time = files.instant_ns

    def tree(self) -> Tree:
        """The same for ever."""
        return self._tree

    def attributes(self, name: str) -> Attributes:
        """All is the mounting user's, for reading."""
        if self._tree.is_directory(name):
            return self._tree.directory(name, 0o500, self._time)
        own = name.rpartition("/")[2]
        size, stored = self._files.size(own), self._files.stored(own)
        mode = stat.S_IFREG | 0o400
        return Attributes(self._tree.numbers[name], mode, self._time, size, stored)

    def statfs(self, path: str) -> dict[str, int]:
        """All of it is used."""
        stored = sum(blocks(self._files.stored(name)) for name in self._files.names)
        return as_statfs(len(self._tree.numbers), stored)

    def open(self, path: str, flags: int) -> int:
        """The kernel has seen to the mode (ro, default_permissions)."""
        return self._open.add(self._files.open(path.rpartition("/")[2]))

    def release(self, path: str, fh: int) -> int:
        """Last close of an open file."""
        self._open.drop(fh)
        return 0

    def read_into(self, view: memoryview, offset: int, handle: Any) -> int:
        """All of it or EIO: the kernel would take less for the end of the file. After EIO for what
        it wanted to read ahead it asks again, page by page."""
        return self._open[handle].read_into(offset, view)


def browse(
    files: StoredFiles, mountpoint: str, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Mount `files` at an empty directory, and answer until it is unmounted, or SIGINT, SIGTERM or
    SIGHUP; then it is unmounted. Main thread only. HostError: it could not be mounted."""
    place = os.path.abspath(mountpoint)
    clean_up(place)
    check_mountpoint(place)
    try:
        FuseMount(Browser(files, on_ready), place, ro=True)
    except RuntimeError as error:
        raise HostError(f"cannot mount at {place}", errno=errno.EIO, hint=mount_hint()) from error
