# SPDX-License-Identifier: GPL-2.0-or-later
"""The mount: FUSE calls in, calls of Control out. No meaning lives here.

All files are direct I/O: they change under the reader, and a write then comes from the writing task
itself, so that its rights can be asked for.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import fuse

from livedumpfs import abi
from livedumpfs.control import Caller, Control
from livedumpfs.control.calls import DEVICE, MEMORY
from livedumpfs.hosts.mounted import FILE_SYSTEM
from livedumpfs.mount.attributes import OPTIONS, as_statfs
from livedumpfs.mount.hosttree import HostTree, Opened

log = logging.getLogger(__name__)

_IOCTL_DIRECTORY = 1 << 4

_view_of = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_view_of.restype = ctypes.py_object
_WRITABLE = 0x200
"""PyBUF_WRITE."""


class Handle:
    """An open file. A small file keeps what was read at offset 0, so that a reader in pieces never
    gets halves of two answers."""

    def __init__(self, name: str, opener: Caller, opened: Opened) -> None:
        self.name = name
        self.opened_by = (opener.uid, opener.gid)
        self.opened = opened
        """Of snapshot/: bound to the dump that there was at the open."""
        self.content: bytes | None = None


class Adapter(fuse.Operations):  # type: ignore[misc]
    """Control as a file system. libfuse calls it from many threads at once."""

    use_ns = True

    def __init__(self, control: Control, ready: Callable[[], None] = lambda: None) -> None:
        """`ready` is called, on a thread of libfuse, as soon as the mount answers."""
        self._control = control
        self._ready = ready
        self._calls = threading.Condition()
        self._under_way = 0
        self._stopped = False
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._owner = os.geteuid()
        group = control.access.group
        self._group = os.getegid() if group is None else group
        self._tree = HostTree(control, 0 if group is None else 0o070)

    def __call__(self, op: str, *args: Any) -> Any:
        """Every call of libfuse comes through here. Nothing but an OSError may leave: fusepy ends
        the mount on anything worse."""
        with self._calls:
            if self._stopped and op not in ("release", "destroy"):
                raise fuse.FuseOSError(errno.ENOTCONN)
            self._under_way += 1
        try:
            return getattr(self, op)(*args)
        except OSError as error:
            raise fuse.FuseOSError(error.errno or errno.EIO) from error
        except BaseException as error:
            log.exception("%s failed", op)
            raise fuse.FuseOSError(errno.EIO) from error
        finally:
            with self._calls:
                self._under_way -= 1
                self._calls.notify_all()

    def stop(self, timeout: float) -> bool:
        """Answer nothing more, and wait for the calls under way; False: after `timeout` seconds one
        still is. A mount can outlive this where a file of it stays open."""
        with self._calls:
            self._stopped = True
            return self._calls.wait_for(lambda: self._under_way == 0, timeout)

    def init(self, path: str) -> None:
        """The kernel has answered."""
        self._ready()

    # ------------------------------------------------------------------- the tree

    def getattr(self, path: str, fh: Any = None) -> dict[str, int]:
        """Of the file that is there now; by way of an open file of snapshot/, of that one."""
        handle = self._handles.get(fh.fh) if fh else None
        found = self._tree.attributes(path.lstrip("/"), _caller())
        bound = handle.opened.bound if handle else None
        if bound and bound.number != found.number:
            found = replace(bound, links=0)
        return found.as_stat(self._owner, self._group)

    def readdir(self, path: str, fh: Any) -> list[tuple[str, dict[str, int], int]]:
        """Names of a directory, with kind and inode number."""
        return self._tree.now().entries(path.lstrip("/"))

    def statfs(self, path: str) -> dict[str, int]:
        """Asks nobody: this is how others find out whether the mount is alive."""
        return as_statfs(*self._tree.totals())

    # ------------------------------------------------------------------ open files

    def open(self, path: str, info: Any) -> int:
        """The kernel has compared the mode with the caller already (default_permissions)."""
        name = path.lstrip("/")
        if info.flags & os.O_ACCMODE != os.O_RDONLY and not (
            name == DEVICE or self._control.writable(name)
        ):
            raise PermissionError(errno.EACCES, path)
        caller = _caller()
        opened = self._tree.open(name, caller)
        with self._lock:
            info.fh = next(self._numbers)
            self._handles[info.fh] = Handle(name, caller, opened)
        info.direct_io = True
        return 0

    def release(self, path: str, info: Any) -> int:
        """Last close of an open file."""
        with self._lock:
            self._handles.pop(info.fh, None)
        self._control.closed(info.fh)
        self._tree.now()
        return 0

    def read_into(self, view: memoryview, offset: int, info: Any) -> int:
        """Small files, from the start: what it is now; further on: the rest of that."""
        handle = self._handles[info.fh]
        if handle.opened.image:
            return handle.opened.image.read_into(offset, view)
        data = self._read(handle, offset, len(view))
        view[: len(data)] = data
        return len(data)

    def _read(self, handle: Handle, offset: int, size: int) -> bytes:
        if handle.name == MEMORY:
            return self._control.read_memory(offset, size)
        content, caller = handle.content, _caller(handle)
        if content is None or offset == 0:
            content = handle.content = self._tree.content(handle.opened, caller)
        elif handle.opened.bound:
            handle.opened.make(caller)  # ENODATA: the rest has gone
        return content[offset : offset + size]

    def write(self, path: str, data: bytes, offset: int, info: Any) -> int:
        """One write is one value, wherever the file offset stands."""
        handle = self._handles[info.fh]
        caller = _caller(handle)
        with self._tree.changing(caller):
            self._control.write(handle.name, data, caller)
        return len(data)

    def truncate(self, path: str, length: int, fh: Any = None) -> int:
        """What a shell's `>` does first: nothing to do, the write replaces the value."""
        if not self._control.writable(path.lstrip("/")):
            raise PermissionError(errno.EACCES, path)
        return 0

    def ioctl(
        self, path: str, command: int, argument: int | None, info: Any, flags: int, data: int | None
    ) -> int:
        """`data` is a buffer for in and out when the number has a size, else NULL."""
        if flags & _IOCTL_DIRECTORY:
            raise OSError(errno.ENOTTY, path)
        handle = self._handles[info.fh]
        if handle.name != DEVICE:
            raise OSError(errno.ENOTTY, path)
        size = abi.payload_size(command) if data else 0
        payload = ctypes.string_at(data, size) if data and size else b""
        caller = _caller(handle)
        with self._tree.changing(caller, told=command == abi.STATUS):
            reply = self._control.ioctl(command, argument or 0, payload, caller, info.fh)
        if reply and data:
            ctypes.memmove(data, reply, min(len(reply), size))
        return 0


def _caller(handle: Handle | None = None) -> Caller:
    """Who made the call that this thread of libfuse answers, on that open file."""
    uid, gid, tid = fuse.fuse_get_context()
    return Caller(uid, gid, tid, handle.opened_by if handle else None)


class Mount(fuse.FUSE):  # type: ignore[misc]
    """A mount whose operations read straight into libfuse's buffer: their `read_into(view, offset,
    handle)` returns the number of bytes. fusepy's own `read` would copy all once more."""

    def read(self, path: bytes, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Called by libfuse. The view is good for this call only."""
        handle = info.contents if self.raw_fi else info.contents.fh
        view = _view_of(buffer, size, _WRITABLE)
        return int(self.operations("read_into", view, offset, handle))


def serve(adapter: Adapter, mountpoint: str, *, allow_other: bool) -> None:
    """Mount, and answer until it is unmounted. RuntimeError: libfuse could not mount.

    The kernel keeps no names and sizes: snapshot/ comes and goes.
    """
    options: dict[str, Any] = {"allow_other": True} if allow_other else {}
    Mount(
        adapter, mountpoint, raw_fi=True, foreground=True, default_permissions=True,
        fsname=FILE_SYSTEM, subtype=FILE_SYSTEM, entry_timeout=0, attr_timeout=0, **OPTIONS,
        **options,
    )  # fmt: skip
