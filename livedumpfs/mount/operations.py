# SPDX-License-Identifier: GPL-2.0-or-later
"""What the file systems of livedumpfs have in common: how errors leave, attributes and names from a
tree, reads into libfuse's own buffer, and the options of a mount."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

import fuse

from livedumpfs.errors import os_cause
from livedumpfs.hosts.mounted import FILE_SYSTEM
from livedumpfs.mount.attributes import Attributes, Tree

log = logging.getLogger(__name__)

OPTIONS: Final[dict[str, bool | str]] = {
    "default_permissions": True,
    "fsname": FILE_SYSTEM,
    "subtype": FILE_SYSTEM,
    "use_ino": True,
    "noforget": True,
}
"""For libfuse, of every mount: our inode numbers, not its own; and to know each file for good, so
that a handle of NFS stays one. That is some hundred bytes for each name that was looked at; each
dump has seven new names at the most."""

_view_of = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_view_of.restype = ctypes.py_object
_WRITABLE = 0x200
"""PyBUF_WRITE."""


def name_of(path: str) -> str:
    """A path as libfuse gives it, from the root of the mount, without its leading slash."""
    return path.lstrip("/")


class TreeOperations(fuse.Operations, ABC):  # type: ignore[misc]
    """Files of a Tree. libfuse calls it from many threads at once; what a call raises becomes its
    errno."""

    use_ns = True

    def __init__(self, ready: Callable[[], None], group: int | None = None) -> None:
        """`ready` is called, on a thread of libfuse, as soon as the mount answers. All files belong
        to the user of this process and to `group` (None: that of this process)."""
        self._ready = ready
        self._owner = os.geteuid()
        self._group = os.getegid() if group is None else group

    def __call__(self, op: str, *args: Any) -> Any:
        """Every call of libfuse comes through here. Nothing but an OSError may leave: fusepy ends
        the mount on anything worse."""
        try:
            return getattr(self, op)(*args)
        except OSError as error:
            raise fuse.FuseOSError(error.errno or errno.EIO) from error
        except BaseException as error:
            log.exception("%s failed", op)
            raise fuse.FuseOSError(errno.EIO) from error

    @abstractmethod
    def tree(self) -> Tree:
        """The names of now."""

    @abstractmethod
    def attributes(self, name: str) -> Attributes:
        """Of one file or directory, as stat shows it now. FileNotFoundError."""

    @abstractmethod
    def read_into(self, view: memoryview, offset: int, handle: Any) -> int:
        """Bytes of an open file from `offset` on; how many there were. `handle`: what open gave."""

    def init(self, path: str) -> None:
        """The kernel has answered."""
        self._ready()

    def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
        """struct stat."""
        return self.attributes(name_of(path)).as_stat(self._owner, self._group)

    def readlink(self, path: str) -> str:
        """Where a symbolic link leads. OSError EINVAL: it is none."""
        name, tree = name_of(path), self.tree()
        if name not in tree.links:
            raise OSError(errno.EINVAL, os_cause(errno.EINVAL), path)
        return tree.links[name]

    def readdir(self, path: str, fh: Any) -> list[tuple[str, dict[str, int], int]]:
        """Names of a directory, with kind and inode number."""
        return self.tree().entries(name_of(path))


class FuseMount(fuse.FUSE):  # type: ignore[misc]
    """A mount whose operations read straight into libfuse's buffer. fusepy's own `read` would copy
    all once more.

    To make one mounts, and returns when it is unmounted. RuntimeError: libfuse could not mount.
    """

    def __init__(self, operations: TreeOperations, mountpoint: str, **options: Any) -> None:
        """`options`: for libfuse and fusepy, besides OPTIONS."""
        super().__init__(operations, mountpoint, foreground=True, **OPTIONS, **options)

    def read(self, path: bytes, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Called by libfuse. The view is good for this call only."""
        handle = info.contents if self.raw_fi else info.contents.fh
        view = _view_of(buffer, size, _WRITABLE)
        return int(self.operations("read_into", view, offset, handle))
