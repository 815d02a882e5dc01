# SPDX-License-Identifier: GPL-2.0-or-later
"""The mount: FUSE calls in, calls of Control out. No meaning lives here.

All files but a dump's images are direct I/O: they change under the reader, and a write then comes
from the writing task itself, so that its rights can be asked for. Images never change, so that the
kernel may keep what it has read of them, read ahead, and map them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import fuse

from livedumpfs import abi
from livedumpfs.control import Caller, Control
from livedumpfs.control.calls import DEVICE, MEMORY
from livedumpfs.mount.attributes import Attributes, Tree, as_statfs
from livedumpfs.mount.core_reads import CoreHandle, CoreMount
from livedumpfs.mount.hosttree import HostTree, Opened
from livedumpfs.mount.open_files import OpenFiles
from livedumpfs.mount.operations import TreeOperations, name_of

_IOCTL_DIRECTORY = 1 << 4
_MOST_AHEAD = 0xFFFF
"""Requests that the kernel sends without waiting: reads ahead, and last closes. With its usual 12,
as many reads that hang in a target would keep a close from us, and with it the RELEASE that a
client asked for."""


class Handle:
    """An open file. A small file keeps what was read at offset 0, so that a reader in pieces never
    gets halves of two answers."""

    def __init__(self, name: str, opener: Caller, opened: Opened, others: int) -> None:
        """`others`: see CoreHandle."""
        self.for_core = CoreHandle(opened.image, others)
        self.name = name
        self.opened_by = (opener.uid, opener.gid)
        self.opened = opened
        """Of a dump: bound to the dump that there was at the open."""
        self.content: bytes | None = None


class Adapter(TreeOperations):
    """Control as a file system."""

    def __init__(self, control: Control, ready: Callable[[], None] = lambda: None) -> None:
        """`ready`: see TreeOperations."""
        group = control.access.group
        super().__init__(ready, group)
        self._control = control
        self._calls = threading.Condition()
        self._under_way = 0
        self._stopped = False
        self._libfuse: int | None = None
        self.read_others = 0
        """Address of the function that reads what the C core does not; set by the mount."""
        self._handles: OpenFiles[Handle] = OpenFiles()
        self._tree = HostTree(control, 0 if group is None else 0o070)

    def __call__(self, op: str, *args: Any) -> Any:
        """As TreeOperations; counts the calls under way, and answers nothing after stop()."""
        with self._calls:
            if self._stopped and op not in ("release", "destroy"):
                raise fuse.FuseOSError(errno.ENOTCONN)
            self._under_way += 1
        try:
            return super().__call__(op, *args)
        finally:
            with self._calls:
                self._under_way -= 1
                self._calls.notify_all()

    def init(self, path: str) -> None:
        """See TreeOperations."""
        self._libfuse = fuse._libfuse.fuse_get_context().contents.fuse
        super().init(path)

    def destroy(self, path: str) -> None:
        """The last call: libfuse ends."""
        with self._calls:
            self._libfuse = None

    def stop(self, timeout: float) -> bool:
        """Answer nothing more, and wait for the calls under way; False: after `timeout` seconds one
        still is. A mount can outlive this where a file of it stays open. Reads of the C core are
        none of these calls: the RELEASE of their dump ends them."""
        with self._calls:
            self._stopped = True
            return self._calls.wait_for(lambda: self._under_way == 0, timeout)

    def leave(self, *, mounted: bool) -> None:
        """Let serve() return when libfuse next looks: after one more request, or when a signal
        comes to the thread of serve(). Nothing to do where it has returned. `mounted`: it unmounts
        first; else what is mounted at that place now is none of ours, and stays."""
        with self._calls:
            if self._libfuse is None:
                return
            fuse._libfuse.fuse_exit(ctypes.c_void_p(self._libfuse))
            if not mounted:
                _hang_up(_device_of(self._libfuse))

    # ------------------------------------------------------------------- the tree

    def tree(self) -> Tree:
        """See TreeOperations."""
        return self._tree.now()

    def attributes(self, name: str) -> Attributes:
        """Of the file that is there now, or of one of a released dump that is still open: the
        kernel asks by name, also for fstat. The name alone is not found, for lack of its folder."""
        try:
            return self._tree.attributes(name, _caller())
        except FileNotFoundError:
            handle = self._handles.find(lambda one: one.name == name)
            if handle is None or handle.opened.bound is None:
                raise
            return replace(handle.opened.bound, links=0)

    def statfs(self, path: str) -> dict[str, int]:
        """Looks at nothing that could hang: others find out by it whether the mount is alive."""
        return as_statfs(*self._tree.totals())

    # ------------------------------------------------------------------ open files

    def open(self, path: str, info: Any) -> int:
        """The kernel has compared the mode with the caller already (default_permissions)."""
        name = name_of(path)
        if info.flags & os.O_ACCMODE != os.O_RDONLY and not (
            name == DEVICE or self._control.writable(name)
        ):
            raise PermissionError(errno.EACCES, path)
        caller = _caller()
        opened = self._tree.open(name, caller)
        handle = Handle(name, caller, opened, self.read_others)
        info.fh = self._handles.add_as(handle.for_core.number, handle)
        info.keep_cache = opened.image is not None
        info.direct_io = opened.image is None
        return 0

    def release(self, path: str, info: Any) -> int:
        """Last close of an open file."""
        try:
            self._control.closed(info.fh)
        finally:
            self._handles.drop(info.fh)  # after that another open file may get its number
        self._tree.now()
        return 0

    def read_into(self, view: memoryview, offset: int, handle: Any) -> int:
        """Small files, from the start: what it is now; further on: the rest of that. Images, where
        the C core does not read them: all that is asked for, or an error."""
        file = self._handles[handle.fh]
        if file.opened.image:
            return file.opened.image.read_into(offset, view)
        data = self._read(file, offset, len(view))
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
        """To 0, as an open with O_TRUNC does: see Control. To any other length: nothing."""
        name, caller = name_of(path), _caller(self._handles.get(fh.fh) if fh else None)
        if not self._control.writable(name):
            raise PermissionError(errno.EACCES, path)
        if length == 0:
            with self._tree.changing(caller):
                self._control.truncate(name, caller)
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
        with self._tree.changing(caller, told=command in (abi.STATUS, abi.STATUS_ID)):
            reply = self._control.ioctl(command, argument or 0, payload, caller, info.fh)
        if reply and data:
            ctypes.memmove(data, reply, min(len(reply), size))
        return 0


def _device_of(libfuse: int) -> int:
    """The descriptor of /dev/fuse of a struct fuse at that address."""
    session_of, channel_of = fuse._libfuse.fuse_get_session, fuse._libfuse.fuse_session_next_chan
    session_of.restype = channel_of.restype = ctypes.c_void_p
    session = ctypes.c_void_p(session_of(ctypes.c_void_p(libfuse)))
    return int(fuse._libfuse.fuse_chan_fd(ctypes.c_void_p(channel_of(session, None))))


def _hang_up(descriptor: int) -> None:
    """Put what poll calls an error in place of a device of FUSE: libfuse unmounts nothing then."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(reading)
    os.dup2(writing, descriptor, inheritable=False)
    os.close(writing)


def _caller(handle: Handle | None = None) -> Caller:
    """The task whose call this thread of libfuse answers, on that open file."""
    uid, gid, tid = fuse.fuse_get_context()
    return Caller(uid, gid, tid, handle.opened_by if handle else None)


def serve(adapter: Adapter, mountpoint: str, *, allow_other: bool) -> None:
    """Mount, and answer until it is unmounted. RuntimeError: libfuse could not mount.

    The kernel keeps no names and sizes: dumps come and go.
    """
    options: dict[str, Any] = {"allow_other": True} if allow_other else {}

    def read_others(address: int) -> None:
        adapter.read_others = address

    options |= {"entry_timeout": 0, "attr_timeout": 0, "max_background": _MOST_AHEAD}
    CoreMount(adapter, mountpoint, read_others, **options)
