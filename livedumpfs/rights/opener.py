# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening a file with another task's rights: uid, gid, groups, capabilities, root and cwd.

The host usually has more rights than who asks it for a dump, so it must not just open what it is
told to: the caller's own rights decide (no confused deputy). A process of its own does it, because
rights and root directory are those of a whole process; it becomes the caller, opens, passes the
descriptor back over a socket pair, and stays for as long as its folders are used: names are given
and taken with the caller's rights, too, also when the caller has long ended. The host's end is in
helper.py.

The helper is this file run as a script, isolated, on the standard library alone (and folder.py,
which is, too): it starts fast and nothing in the environment can change what it does. Rules of a
security module or of seccomp that bind the caller do not bind the helper.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING or __package__:
    from livedumpfs.rights.folder import Folder, Standing, by_name, find, read_mounts
else:
    sys.path.append(str(Path(__file__).resolve().parent))
    from folder import Folder, Standing, by_name, find, read_mounts

_CAPABILITY_VERSION_3 = 0x20080522
MESSAGE_MAX = 128 * 1024
GIVE = ("make", "open")
"""Steps whose result is a descriptor; find may have one."""


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


@contextmanager
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


class Server:
    """The helper: one question, one answer, until the host's end is closed."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._folders: list[Folder] = []
        self._mounts: dict[int, str] | None = None

    def serve(self) -> None:
        """To the end."""
        while request := self._channel.recv(MESSAGE_MAX):
            reply: dict[str, Any] = {"errno": 0, "text": "", "mode": 0, "reason": ""}
            fds: list[int] = []
            try:
                details = json.loads(request)
                step = details.pop("step")
                fds = self._take(step, details, reply)
            except Exception as error:
                reply |= describe(error)
            socket.send_fds(self._channel, [json.dumps(reply).encode()], fds)
            for fd in fds:
                os.close(fd)

    def _take(self, step: str, details: dict[str, Any], reply: dict[str, Any]) -> list[int]:
        """The descriptors that go with the answer."""
        if step == "become":
            mounts = read_mounts(details["tid"])
            reply["same_root"] = become(**details)
            self._mounts = mounts
            return []
        if self._mounts is None:
            raise PermissionError(errno.EPERM, "it has not become the caller")
        if step == "find":
            return self._find(details["path"], self._mounts, reply)
        if details.get("like"):
            details["like"] = Standing(*details["like"])
        result = getattr(self._folders[details.pop("folder")], step)(**details)
        reply["result"] = None if step in GIVE else result
        return [result] if step in GIVE else []

    def _find(self, path: str, mounts: dict[int, str], reply: dict[str, Any]) -> list[int]:
        found = find(path, mounts, by_name)
        reply["path"], reply["folder"] = absolute(found.path), None
        if isinstance(found.folder, Folder):
            reply["folder"] = len(self._folders)
            self._folders.append(found.folder)
        return [] if found.fd < 0 else [found.fd]


def describe(error: Exception) -> dict[str, Any]:
    """Why not."""
    if not isinstance(error, OSError):
        return {"errno": errno.EINVAL, "text": str(error), "mode": 0, "reason": ""}
    code, text = error.errno or errno.EIO, error.strerror
    # No such /proc entry: that is the caller's end, not the path's.
    if str(error.filename or "").startswith("/proc/") and code == errno.ENOENT:
        code, text = errno.ESRCH, None
    return {
        "errno": code,
        "text": text or os.strerror(code),  # a right that the host would need is named there
        "mode": getattr(error, "mode", 0),
        "reason": getattr(error, "reason", ""),
    }


def absolute(path: str) -> str:
    """`path` in front of which the cwd stands, where that can be told."""
    try:
        return os.path.join(os.getcwd(), path)
    except OSError:
        return path


if __name__ == "__main__":
    # The terminal's Ctrl-C is for the host, which has its reasons to go on for a while.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing is imported any more, be it for a traceback: it might come from the caller's root.
    with suppress(BaseException), socket.socket(fileno=int(sys.argv[1])) as end:
        Server(end).serve()
    os._exit(0)
