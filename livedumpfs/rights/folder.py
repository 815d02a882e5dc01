# SPDX-License-Identifier: GPL-2.0-or-later
"""What a target's path leads to, and its folder: where a file is made beside it, gets its name, and
goes.

The folder is held open, and names in it are single words: nobody can lead a later step to another
place by moving folders or links. All of it goes by the rights of this process. That may be the
helper of opener.py, which has those of who asked for the dump: so there is nothing here but the
standard library.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol

_COMMON: Final = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PLACE: Final = os.O_DIRECTORY | os.O_CLOEXEC
_LINKS_MOST: Final = 40
"""As the kernel follows."""
_ACCESS_LIST: Final = "system.posix_acl_access"
OURS: Final = "fuse.livedumpfs"
"""The kind of file system that we are ourselves."""
_KERNELS: Final = frozenset({
    "autofs", "bdev", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset",
    "debugfs", "devpts", "devtmpfs", "efivarfs", "functionfs", "fusectl", "hugetlbfs", "mqueue",
    "nfsd", "nsfs", "pipefs", "proc", "pstore", "resctrl", "rpc_pipefs", "securityfs", "selinuxfs",
    "smackfs", "sockfs", "sysfs", "tracefs",
})  # fmt: skip
"""Kinds of file systems that are the kernel's own: what is made or written there is no data."""

_NO_DEVICE: Final = "it is a file in /dev, and no device"

Mounts = Mapping[int, str]
"""Device numbers and kinds of the mounted file systems."""


class Refused(OSError):
    """Why something was not opened or made. `mode` is st_mode when it was its type, else 0."""

    mode = 0
    reason = ""
    """The whole sentence when the path is in it, else what comes behind "cannot open ...: "."""


class Standing(NamedTuple):
    """A file that there is: what the new one is to have of it."""

    device: int
    inode: int
    mode: int
    uid: int
    gid: int


def refused(code: int, reason: str = "", mode: int = 0) -> Refused:
    """With the system's sentence for that errno."""
    error = Refused(code, os.strerror(code))
    error.mode, error.reason = mode, reason
    return error


def read_mounts(task: int | str = "self") -> dict[int, str]:
    """What is mounted where that task is."""
    found = {}
    with open(f"/proc/{task}/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            major, minor = before.split()[2].split(":")
            found[os.makedev(int(major), int(minor))] = after.split()[0]
    return found


class FolderLike(Protocol):
    """A folder, and who acts in it. Every call: OSError."""

    def make(self, name: str, like: Standing | None) -> int:
        """A new file (0600, or with mode and owner of `like` where that may be), open for reading
        and writing. FileExistsError."""

    def open(self, name: str, *, write: bool) -> int:
        """A regular file that there is; a link is not followed."""

    def look(self, name: str) -> Standing | None:
        """What has that name; None: nothing."""

    def replace(self, old: str, new: str) -> None:
        """The file gets the new name, and what had it has it no more: at once, and for good."""

    def remove(self, name: str) -> None:
        """The name goes, for good."""

    def names(self, first: str, last: str) -> list[str]:
        """What is there whose name begins and ends so."""

    def keeps(self, name: str) -> bool:
        """Whether what has that name cannot be replaced, though files can be made here: by the
        sticky bit it is another user's."""

    def user(self) -> int:
        """The user that acts here."""

    def sync(self) -> None:
        """New names are durable, where that can be asked for."""

    def close(self) -> None:
        """Harmless when done twice."""


class Folder:
    """The folder of an open descriptor, which it owns; with the rights of this process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def make(self, name: str, like: Standing | None) -> int:
        """See FolderLike."""
        flags = os.O_RDWR | _COMMON | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL
        fd = os.open(name, flags, 0o600, dir_fd=self.fd)
        try:
            if like:
                _resemble(fd, like)
            self.sync()
        except BaseException:  # also a signal that ends the command: nobody would know of the file
            os.unlink(name, dir_fd=self.fd)
            os.close(fd)
            raise
        return fd

    def open(self, name: str, *, write: bool) -> int:
        """See FolderLike."""
        how = os.O_RDWR if write else os.O_RDONLY
        found = self.look(name)  # first: opening some devices does something
        if found and not stat.S_ISREG(found.mode):
            raise refused(errno.EINVAL, mode=found.mode)
        fd = os.open(name, how | _COMMON | os.O_NOFOLLOW, dir_fd=self.fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise refused(errno.EAGAIN)
        return fd

    def look(self, name: str) -> Standing | None:
        """See FolderLike."""
        try:
            return standing(os.stat(name, dir_fd=self.fd, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def replace(self, old: str, new: str) -> None:
        """See FolderLike."""
        os.rename(old, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        self.sync()

    def remove(self, name: str) -> None:
        """See FolderLike."""
        os.unlink(name, dir_fd=self.fd)
        self.sync()

    def names(self, first: str, last: str) -> list[str]:
        """See FolderLike."""
        return [one for one in os.listdir(self.fd) if one.startswith(first) and one.endswith(last)]

    def keeps(self, name: str) -> bool:
        """See FolderLike."""
        here, user = os.fstat(self.fd), os.geteuid()
        found = self.look(name)
        if found is None or not here.st_mode & stat.S_ISVTX:
            return False
        return user not in (0, here.st_uid, found.uid)

    def user(self) -> int:
        """See FolderLike."""
        return os.geteuid()

    def sync(self) -> None:
        """See FolderLike."""
        with contextlib.suppress(OSError):  # who may not read it cannot ask
            os.fsync(self.fd)

    def close(self) -> None:
        """See FolderLike."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def standing(status: os.stat_result) -> Standing:
    """Of a stat."""
    return Standing(status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid)


def open_standing(fd: int) -> Standing:
    """Of an open file. Where it has an access list the group's bits are what the list allows at the
    most, to other users; the group itself may have no right at all, so a new file gives it none."""
    found = standing(os.fstat(fd))
    try:
        os.getxattr(fd, _ACCESS_LIST)
    except OSError:
        return found
    return found._replace(mode=found.mode & ~stat.S_IRWXG)


def _resemble(fd: int, like: Standing) -> None:
    """Owner and rights of the file that it will replace. Who cannot give it to that owner gives
    nobody else a right to it; nor does the folder's default access list."""
    own = os.fstat(fd)
    with contextlib.suppress(OSError):
        _drop_access_list(fd)
        if (own.st_uid, own.st_gid) != (like.uid, like.gid):
            os.fchown(fd, like.uid, like.gid)
        os.fchmod(fd, stat.S_IMODE(like.mode) & 0o777)


def _drop_access_list(fd: int) -> None:
    try:
        os.removexattr(fd, _ACCESS_LIST)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise


# ------------------------------------------------------------------------- where a path leads


class Found(NamedTuple):
    """What a path leads to. The receiver owns `fd` and `folder`."""

    path: str
    """As it was given, or where its last link leads."""
    fd: int
    """It, open for reading and writing, a pipe for writing; -1: there is nothing."""
    folder: FolderLike | None
    """Where it lies under the last part of `path`; None: it is no file, or its name cannot be
    given to another."""


Reopen = Callable[[int, str, int], int]
"""Open, with those flags, what is open with O_PATH and was found under that path."""


def find(path: str, mounts: Mounts, reopen: Reopen) -> Found:
    """Open what is there; nothing is made or changed. Block devices are opened exclusively.

    Refused, or another OSError: what the system says (ENXIO: a pipe that nobody reads); EISDIR or
    EINVAL for what takes no dump; EAGAIN when the path led to another file meanwhile; ENOENT, with
    a reason, where nothing may be made.
    """
    try:
        look = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return find_room(path, mounts)
    try:
        seen = os.fstat(look)
        fd = reopen(look, path, _flags_for(seen, mounts))
        if not os.path.samestat(seen, os.fstat(fd)):
            os.close(fd)
            raise refused(errno.EAGAIN)
    finally:
        os.close(look)
    try:
        return _in_its_folder(path, fd, seen, mounts)
    except BaseException:
        os.close(fd)
        raise


def by_name(look: int, path: str, flags: int) -> int:
    """A Reopen where /proc/self/fd is not to be used: the root of who asks may have no /proc, and a
    directory of ours, held open for that, would be a way out of that root. `look` is held
    meanwhile: so no other file can have its inode number."""
    del look
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        raise refused(errno.EAGAIN) from None


def by_descriptor(look: int, path: str, flags: int) -> int:
    """A Reopen that gets the very file that was looked at, wherever its name leads by now."""
    del path
    return os.open(f"/proc/self/fd/{look}", flags)


def _flags_for(seen: os.stat_result, mounts: Mounts) -> int:
    """How to open a file of that kind."""
    mode = seen.st_mode
    if stat.S_ISFIFO(mode):
        return os.O_WRONLY | _COMMON  # ENXIO: nobody reads it
    if stat.S_ISBLK(mode):
        return os.O_RDWR | os.O_EXCL | _COMMON  # EBUSY: it is mounted
    if not stat.S_ISREG(mode):
        raise refused(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, mode=mode)
    kind = mounts.get(seen.st_dev, "")
    if kind == OURS:
        raise refused(errno.EINVAL, "it is a file of livedumpfs itself")
    if kind == "devtmpfs":
        raise refused(errno.EINVAL, _NO_DEVICE)
    if kind in _KERNELS:
        raise refused(errno.EINVAL, "it holds no data")
    return os.O_RDWR | _COMMON


def _in_its_folder(path: str, fd: int, seen: os.stat_result, mounts: Mounts) -> Found:
    if not stat.S_ISREG(seen.st_mode):
        return Found(path, fd, None)
    place = _last_place(path, mounts)
    if place is None:
        return Found(path, fd, None)
    folder, text, name = place
    try:
        found = folder.look(name)
        if found and (found.device, found.inode) == (seen.st_dev, seen.st_ino):
            _refuse_devices(folder, text, there=True)
            return Found(os.path.join(text, name), fd, folder)
    except BaseException:
        folder.close()
        raise
    folder.close()  # it got another name meanwhile
    return Found(path, fd, None)


def find_room(path: str, mounts: Mounts) -> Found:
    """Where a file of that path would be made, where there is nothing. As find."""
    text, name = os.path.split(path)
    if os.path.islink(path):
        raise refused(errno.EEXIST, "it is a link that leads nowhere")
    if name in ("", ".", ".."):
        raise refused(errno.ENOENT, f"there is no directory {path}")
    try:
        folder = Folder(_open_folder(text))
    except FileNotFoundError:
        raise refused(errno.ENOENT, f"there is no directory {text}") from None
    try:
        _refuse_devices(folder, text, there=False, name=name)
        kind = mounts.get(os.fstat(folder.fd).st_dev, "")
        if kind == OURS:
            raise refused(errno.EROFS, "a mount of livedumpfs takes no files")
        if kind in _KERNELS:
            raise refused(errno.ENOENT, f"there is no {name} in {text or '.'}, which is {kind}")
    except BaseException:
        folder.close()
        raise
    return Found(path, -1, folder)


def _refuse_devices(folder: Folder, text: str, *, there: bool, name: str = "") -> None:
    """/dev holds devices; a file there is one whose name was mistyped, or is in memory."""
    try:
        here, devices = os.fstat(folder.fd), os.stat("/dev")
        own = devices.st_dev != os.stat("/").st_dev
        within = f"{os.path.realpath(text or '.')}/".startswith("/dev/")
    except OSError:
        return
    if here.st_dev != devices.st_dev or not (own or within):
        return
    if there:
        raise refused(errno.EINVAL, _NO_DEVICE)
    raise refused(errno.ENOENT, f"there is no device {os.path.join(text, name)}")


def _open_folder(text: str) -> int:
    """To sync and list it too, where that may be."""
    try:
        return os.open(text or ".", os.O_RDONLY | _PLACE)
    except PermissionError:
        return os.open(text or ".", os.O_PATH | _PLACE)


def _last_place(path: str, mounts: Mounts) -> tuple[Folder, str, str] | None:
    """The folder of the file to which that path leads, how it is called, and the file's name in it:
    past all links but those of /proc, which lead to open files and not to names (None)."""
    for _ in range(_LINKS_MOST):
        text, name = os.path.split(path)
        if name in ("", ".", ".."):
            return None
        try:
            folder = Folder(_open_folder(text))
        except OSError:
            return None
        try:
            link = os.readlink(name, dir_fd=folder.fd)
        except OSError:
            return folder, text, name
        kind = mounts.get(os.fstat(folder.fd).st_dev, "")
        folder.close()
        if kind == "proc":
            return None
        path = os.path.join(text, link)
    return None
