# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening a file with another task's rights: uid, gid, groups, capabilities, root and cwd.

The host usually has more rights than who asks it for a dump, so it must not just open what it is
told to: the caller's own rights decide (no confused deputy). A process of its own does it, because
rights and root directory are those of a whole process; it becomes the caller, opens, passes the
descriptor back over a socket pair, and ends. `open_as` is the host's end; the rest is the helper's.

The helper is this file run as a script, isolated, on the standard library alone: it starts fast and
nothing in the environment can change what it does. Rules of a security module or of seccomp that
bind the caller do not bind the helper.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT = 10.0
"""Seconds that an open may take: longer than a disk needs to spin up."""

_CAPABILITY_VERSION_3 = 0x20080522
_MESSAGE_MAX = 32 * 1024


class Opened(NamedTuple):
    """An open file. The receiver owns `fd`."""

    fd: int
    created: bool
    """It did not exist before."""
    path: str
    """Absolute, as the caller sees it."""
    same_root: bool
    """The path names the same file for this process."""


class Refused(OSError):
    """Why the file was not opened; `mode` is st_mode when it was its type, else 0."""

    mode = 0


# ------------------------------------------------------------------ the host's end


def open_as(
    tid: int, uid: int, gid: int, path: bytes, timeout: float = TIMEOUT, *, create: bool = True
) -> Opened:
    """Open `path` for reading and writing, made (0600) where it is missing, with the rights of task
    `tid`, which must still have file system uid and gid `uid` and `gid`. Block devices are opened
    exclusively, pipes for writing; nothing is truncated; no other kind of file is opened at all.
    Not `create`: what is missing is ENOENT.

    Refused (OSError): the errno of the open (ENXIO: a pipe that nobody reads), EISDIR or EINVAL for
    other kinds of files, EAGAIN when the path led to another file meanwhile, EPERM when this
    process may not become the caller, ESRCH when that is gone, ETIMEDOUT after `timeout` s.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            helper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),), cwd="/", env={}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            request = {
                "tid": tid, "uid": uid, "gid": gid, "path": path.hex(), "create": create,
            }  # fmt: skip
            return _exchange(ours, request, time.monotonic() + timeout)
        finally:
            _end(helper)


def _exchange(ours: socket.socket, request: dict[str, Any], deadline: float) -> Opened:
    fds: list[int] = []
    try:
        ours.settimeout(max(deadline - time.monotonic(), 0.001))
        ours.send(json.dumps(request).encode())
        data, fds, _, _ = socket.recv_fds(ours, _MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError:
        raise Refused(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
    except OSError:
        data = b""
    if not data:
        raise Refused(errno.EIO, "the helper process that opens it ended early")
    reply = json.loads(data)
    if reply["errno"] or not fds:
        for fd in fds:
            os.close(fd)
        error = Refused(reply["errno"] or errno.EIO, reply["text"])
        error.mode = reply["mode"]
        raise error
    path = os.fsdecode(bytes.fromhex(reply["path"]))
    return Opened(fds[0], reply["created"], path, reply["same_root"])


def _end(helper: subprocess.Popen[bytes]) -> None:
    """Reap the helper. One that hangs in a dead device cannot be killed: it is left behind."""
    try:
        helper.wait(0.2)
    except subprocess.TimeoutExpired:
        helper.kill()
        # If that fails too, Popen's own list of abandoned children reaps it later.
        with contextlib.suppress(subprocess.TimeoutExpired):
            helper.wait(1)


# ------------------------------------------------------------------ in the helper


class Task(NamedTuple):
    """What /proc says of the caller."""

    uid: int
    gid: int
    groups: list[int]
    capabilities: int
    umask: int


def read_task(tid: int | str) -> Task:
    """The file system uid and gid (what an open goes by), groups and effective capabilities."""
    fields = {}
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            fields[name] = value.split()
    return Task(
        uid=int(fields["Uid"][3]),
        gid=int(fields["Gid"][3]),
        groups=[int(one) for one in fields["Groups"]],
        capabilities=int(fields["CapEff"][0], 16),
        umask=int(fields["Umask"][0], 8),
    )


def same_namespace(tid: int, name: str) -> bool:
    """Whether the task shares our namespace of that kind."""
    return os.readlink(f"/proc/{tid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")


def same_file(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def become(tid: int, uid: int, gid: int) -> bool:
    """Take the task's root, cwd, umask and rights, for good; whether its root was ours already.
    Of a host's rights only those are needed that make a difference: none where host and caller are
    the same user in the same place.

    PermissionError, with the right that is missing, when we cannot.
    """
    task, own = read_task(tid), read_task("self")
    if (task.uid, task.gid) != (uid, gid):
        raise PermissionError(errno.EPERM, "the caller's rights changed meanwhile")
    place = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    with needed("CAP_SYS_PTRACE", "look at the caller's root directory"):
        root = os.open(f"/proc/{tid}/root", place)
        cwd = os.open(f"/proc/{tid}/cwd", place)
        capabilities = task.capabilities & own.capabilities
        if not same_namespace(tid, "user"):
            capabilities = 0
        same_root = same_file(os.fstat(root), os.stat("/")) and same_namespace(tid, "mnt")
    if not same_root:
        with needed("CAP_SYS_CHROOT", "enter the caller's root directory"):
            os.fchdir(root)
            os.chroot(".")
    os.fchdir(cwd)
    os.umask(task.umask)
    take_ids(task, own)
    if uid in (0, own.uid):  # else the kernel has taken them all away
        set_capabilities(capabilities)
    return same_root


def take_ids(task: Task, own: Task) -> None:
    """User, group and supplementary groups of the task; what is so already needs no right. A host
    that is not root keeps its own supplementary groups: they are the same user's."""
    same_user = (task.uid, task.gid) == (os.geteuid(), os.getegid())
    if same_user and task.uid != 0:
        return
    if set(task.groups) != set(own.groups):
        denied = " (denied in the user namespace of the host)" if setgroups_denied() else ""
        with needed("CAP_SETGID", f"take the caller's supplementary groups{denied}"):
            os.setgroups(task.groups)
    if os.getresgid() != (task.gid,) * 3:
        with needed("CAP_SETGID", f"act for group {task.gid}"):
            os.setresgid(task.gid, task.gid, task.gid)
    if os.getresuid() != (task.uid,) * 3:
        with needed("CAP_SETUID", f"act for user {task.uid}"):
            os.setresuid(task.uid, task.uid, task.uid)


@contextlib.contextmanager
def needed(right: str, action: str) -> Iterator[None]:
    """Says which right is missing. PermissionError EPERM."""
    try:
        yield
    except OSError as error:
        # EINVAL: a user or group that the namespace of the host does not have.
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL):
            raise
        raise PermissionError(
            errno.EPERM, f"the host cannot {action}: run it as the caller's user, or with {right}"
        ) from error


def setgroups_denied() -> bool:
    """As in a user namespace that its user has made without a right."""
    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            return file.read().strip() == "deny"
    except OSError:
        return False


def set_capabilities(keep: int) -> None:
    """Keep those alone: root need not mean all of them, and another user may have some."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = keep & 0xFFFFFFFF, keep >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def open_path(path: bytes, create: bool) -> tuple[int, bool]:
    """(fd, made it). Looks at the type first, since opening some devices does something, and after
    it whether that was the file: who may write a directory can swap it at any moment."""
    common = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    flags = os.O_RDWR | common
    try:
        look = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        if not create:
            raise
        # O_EXCL: a link that leads nowhere is not followed.
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        sync_directory(path)
        return fd, True
    seen = os.fstat(look)
    if stat.S_ISFIFO(seen.st_mode):
        flags = os.O_WRONLY | common
    elif stat.S_ISBLK(seen.st_mode):
        flags |= os.O_EXCL
    elif not stat.S_ISREG(seen.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(seen.st_mode) else errno.EINVAL
        error = Refused(code, os.strerror(code))
        error.mode = seen.st_mode
        raise error
    # By its name again, not by /proc/self/fd: the caller's root may have no /proc, and a directory
    # of ours, held open for that, would be his way out of that root. `look` is held meanwhile: so
    # no other file can have its inode number.
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise Refused(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    if not same_file(seen, os.fstat(fd)):
        os.close(fd)
        raise Refused(errno.EAGAIN, os.strerror(errno.EAGAIN))
    os.close(look)
    return fd, False


def sync_directory(path: bytes) -> None:
    """Make the new name durable where the caller may; a dump's data is synced at its own end."""
    with contextlib.suppress(OSError):
        fd = os.open(os.path.dirname(path) or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(fd)
        os.close(fd)


def serve(channel: socket.socket) -> None:
    """One request, one answer."""
    request = json.loads(channel.recv(_MESSAGE_MAX))
    reply: dict[str, Any] = {"errno": 0, "text": "", "mode": 0}
    fds: list[int] = []
    try:
        reply["same_root"] = become(request["tid"], request["uid"], request["gid"])
        path = bytes.fromhex(request["path"])
        fd, reply["created"] = open_path(path, request["create"])
        fds.append(fd)
        reply["path"] = absolute(path).hex()
    except OSError as error:
        code = error.errno or errno.EIO
        # No such /proc entry: that is the caller's end, not the path's.
        gone = str(error.filename or "").startswith("/proc/") and code == errno.ENOENT
        reply["errno"] = errno.ESRCH if gone else code
        reply["text"] = error.strerror or os.strerror(code)
        reply["mode"] = getattr(error, "mode", 0)
    socket.send_fds(channel, [json.dumps(reply).encode()], fds)


def absolute(path: bytes) -> bytes:
    """`path` in front of which the cwd stands, where that can be told."""
    try:
        return os.path.join(os.getcwdb(), path)
    except OSError:
        return path


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as end:
        serve(end)
