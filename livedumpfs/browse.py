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
import time
from collections.abc import Callable
from typing import Any

import fuse

from livedumpfs.errors import HostError
from livedumpfs.fs import Mount
from livedumpfs.host import check_mountpoint, clean_up
from livedumpfs.mounts import FILE_SYSTEM
from livedumpfs.snapshot import OpenFile, SnapshotFiles

DIRECTORY = "/snapshot"
"""Where the files are, as in the mount of a host."""

log = logging.getLogger(__name__)


class Browser(fuse.Operations):  # type: ignore[misc]
    """SnapshotFiles as a file system. libfuse calls it from many threads at once."""

    use_ns = True

    def __init__(self, files: SnapshotFiles, ready: Callable[[], None] = lambda: None) -> None:
        """`ready` is called, on a thread of libfuse, as soon as the mount answers."""
        self._files = files
        self._ready = ready
        self._open: dict[int, OpenFile] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._time = time.time_ns()
        self._sizes = {f"{DIRECTORY}/{name}": files.size(name) for name in files.names}

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
        if path in self._sizes:
            mode, links = stat.S_IFREG | 0o400, 1
        elif path in ("/", DIRECTORY):
            mode, links = stat.S_IFDIR | 0o500, 2
        else:
            raise FileNotFoundError(errno.ENOENT, path)
        return {
            "st_mode": mode,
            "st_nlink": links,
            "st_uid": os.geteuid(),
            "st_gid": os.getegid(),
            "st_size": self._sizes.get(path, 0),
            "st_atime": self._time,
            "st_mtime": self._time,
            "st_ctime": self._time,
        }

    def readdir(self, path: str, fh: Any) -> list[str]:
        """Names of a directory."""
        names = self._files.names if path == DIRECTORY else (DIRECTORY[1:],)
        return [".", "..", *names]

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
    files: SnapshotFiles, mountpoint: str, on_ready: Callable[[], None] = lambda: None
) -> None:
    """Mount `files` at an empty directory, and answer until it is unmounted, or SIGINT, SIGTERM or
    SIGHUP; then it is unmounted. Main thread only. HostError: it could not be mounted."""
    place = os.path.abspath(mountpoint)
    clean_up(place)
    check_mountpoint(place)
    try:
        Mount(
            Browser(files, on_ready), place, foreground=True, default_permissions=True, ro=True,
            fsname=FILE_SYSTEM, subtype=FILE_SYSTEM,
        )  # fmt: skip
    except RuntimeError as error:
        hint = "libfuse says why above" if os.path.exists("/dev/fuse") else "there is no /dev/fuse"
        raise HostError(f"cannot mount at {place}", errno=errno.EIO, hint=hint) from error
