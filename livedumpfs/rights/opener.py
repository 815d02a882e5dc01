# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening a file with another task's rights: uid, gid, groups, capabilities, root and cwd.

The host usually has more rights than the caller that asks it for a dump. So the host must not just
open the path that it gets: the caller's own rights decide (else the host is a confused deputy). A
process of its own does it, the helper, because rights and root directory belong to a whole process.
The helper takes over the caller's rights, opens the file and passes the descriptor back over a
socket pair. It stays for as long as its folders are used: files are renamed and removed with the
caller's rights, too, also after the caller's end. The host's end is in helper.py.

The helper is this file run as a script, isolated, with the standard library and folder.py alone. So
it starts fast, and no environment variable can change what it does. Rules of a security module or
of seccomp that bind the caller do not bind the helper.
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
"""Steps whose result is a descriptor; find may have one, too."""


class Task(NamedTuple):
    """The rights of the caller, from /proc."""

    uid: int
    gid: int
    groups: list[int]
    capabilities: int
    umask: int


def read_task(tid: int | str) -> Task:
    """The task's file system uid and gid (which decide about an open), groups, effective
    capabilities and umask."""
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
    """Whether the task is in this process's namespace of that kind."""
    return os.readlink(f"/proc/{tid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")


def same_file(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def become(tid: int, uid: int, gid: int) -> bool:
    """Take over the task's root, cwd, umask and rights, for good. Returns whether its root is the
    root of this process. Only changes need a right of the host: none is needed when host and caller
    are the same user in the same place.

    PermissionError names the right that is missing.
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
    if uid in (0, own.uid):  # for any other user the kernel has dropped all of them
        set_capabilities(capabilities)
    return same_root


def take_ids(task: Task, own: Task) -> None:
    """Take over user, group and supplementary groups of the task. What is equal already needs no
    right. A host that is not root keeps its supplementary groups when the user is the same."""
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
    """Turns a failure into one that names the missing right. PermissionError EPERM."""
    try:
        yield
    except OSError as error:
        # EINVAL: the host's namespace does not have that user or group.
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL):
            raise
        raise PermissionError(
            errno.EPERM, f"the host cannot {action}: run it as the caller's user, or with {right}"
        ) from error


def setgroups_denied() -> bool:
    """Whether setgroups is denied, as in a user namespace made without a right to it."""
    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            return file.read().strip() == "deny"
    except OSError:
        return False


def set_capabilities(keep: int) -> None:
    """Keep only these capabilities: root may lack some, and another user may have some."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = keep & 0xFFFFFFFF, keep >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Server:
    """The helper: answers one question after the other until the host's end is closed."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._folders: list[Folder] = []
        self._mounts: dict[int, str] | None = None

    def serve(self) -> None:
        """Serve until the socket is closed."""
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
        """Carry out a step and fill in `reply`. Returns the descriptors that go with it."""
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
    """The error as an answer."""
    if not isinstance(error, OSError):
        return {"errno": errno.EINVAL, "text": str(error), "mode": 0, "reason": ""}
    code, text = error.errno or errno.EIO, error.strerror
    # A missing /proc entry means that the caller has ended, not that the path is wrong.
    if str(error.filename or "").startswith("/proc/") and code == errno.ENOENT:
        code, text = errno.ESRCH, None
    return {
        "errno": code,
        "text": text or os.strerror(code),  # it names a right that the host would need
        "mode": getattr(error, "mode", 0),
        "reason": getattr(error, "reason", ""),
    }


def absolute(path: str) -> str:
    """`path` made absolute with the cwd, where the cwd is known."""
    try:
        return os.path.join(os.getcwd(), path)
    except OSError:
        return path


if __name__ == "__main__":
    # The terminal's Ctrl-C is for the host, which may have to go on for a while.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # From here on nothing may be imported, not even for a traceback: it could come from the
    # caller's root.
    with suppress(BaseException), socket.socket(fileno=int(sys.argv[1])) as end:
        Server(end).serve()
    os._exit(0)
