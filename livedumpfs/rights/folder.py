# SPDX-License-Identifier: GPL-2.0-or-later
"""Resolves a target's path and holds its folder open: files are made, renamed and removed there.

Names in the folder are single words, so moving folders or links cannot lead a later step to another
place. All calls use the rights of this process. That may be the helper process of opener.py, which
has taken over the rights of the caller that asks for the dump; so this module imports nothing but
the standard library.
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
"""The kernel's own limit (path_resolution(7))."""
_ACCESS_LIST: Final = "system.posix_acl_access"
OURS: Final = "fuse.livedumpfs"
"""The kind of file system that livedumpfs itself mounts."""
_KERNELS: Final = frozenset({
    "autofs", "bdev", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset",
    "debugfs", "devpts", "devtmpfs", "efivarfs", "functionfs", "fusectl", "hugetlbfs", "mqueue",
    "nfsd", "nsfs", "pipefs", "proc", "pstore", "resctrl", "rpc_pipefs", "securityfs", "selinuxfs",
    "smackfs", "sockfs", "sysfs", "tracefs",
})  # fmt: skip
"""Kinds of the kernel's own file systems: they do not store data."""

_NO_DEVICE: Final = "it is a file in /dev, and no device"

Mounts = Mapping[int, str]
"""Device number of each mounted file system -> its kind."""


class Refused(OSError):
    """Why a file was not opened or made. `mode`: its st_mode when its type is why, else 0."""

    mode = 0
    reason = ""
    """A whole sentence when it contains the path, else the text behind "cannot open ...: "."""


class Standing(NamedTuple):
    """An existing file: its owner and rights, which the new file is to get."""

    device: int
    inode: int
    mode: int
    uid: int
    gid: int


def refused(code: int, reason: str = "", mode: int = 0) -> Refused:
    """The error with this errno; without a `reason` its text is the system's."""
    error = Refused(code, os.strerror(code))
    error.mode, error.reason = mode, reason
    return error


def read_mounts(task: int | str = "self") -> dict[int, str]:
    """The file systems in the mount namespace of that task."""
    found = {}
    with open(f"/proc/{task}/mountinfo", "rb") as lines:  # names may be of any bytes
        for line in lines:
            before, _, after = line.partition(b" - ")
            major, minor = before.split(b" ")[2].split(b":")
            found[os.makedev(int(major), int(minor))] = after.split(b" ")[0].decode()
    return found


class FolderLike(Protocol):
    """A folder, with the rights of the process that acts in it. Every call may raise OSError."""

    def make(self, name: str, like: Standing | None) -> int:
        """A new file, open for reading and writing. Its mode is 0600, or mode and owner are those
        of `like` where that is allowed. FileExistsError."""

    def open(self, name: str, *, write: bool) -> int:
        """Open an existing regular file; a link is not followed."""

    def look(self, name: str) -> Standing | None:
        """The file with that name; None: there is none."""

    def replace(self, old: str, new: str) -> None:
        """Rename `old` to `new`, atomically and durably. A file named `new` loses its name."""

    def remove(self, name: str) -> None:
        """Remove the name, durably."""

    def names(self, first: str, last: str) -> list[str]:
        """The names that start with `first` and end with `last`."""

    def keeps(self, name: str) -> bool:
        """Whether the file with that name cannot be replaced, though this process can make files
        here: the folder has the sticky bit, and the file belongs to another user."""

    def user(self) -> int:
        """User id of the process that acts here."""

    def sync(self) -> None:
        """Make new names durable where the system supports it. OSError: they may not be durable."""

    def close(self) -> None:
        """Harmless when done twice."""


_NO_SYNC: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSUP, errno.EROFS)
"""No right to read the folder, so it cannot be synced; or the file system has no sync."""


class Folder:
    """The folder of an open descriptor, which it owns; acts with the rights of this process."""

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
        except BaseException:  # also a signal that ends the command: the file would be left behind
            os.unlink(name, dir_fd=self.fd)
            os.close(fd)
            raise
        return fd

    def open(self, name: str, *, write: bool) -> int:
        """See FolderLike."""
        how = os.O_RDWR if write else os.O_RDONLY
        found = self.look(name)  # look first: opening some devices has side effects
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
        try:
            os.fsync(self.fd)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise

    def close(self) -> None:
        """See FolderLike."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def standing(status: os.stat_result) -> Standing:
    """From the result of stat."""
    return Standing(status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid)


def open_standing(fd: int) -> Standing:
    """From an open file. If it has an access list (acl(5)), the mode's group bits are its mask, the
    most that it allows; the group itself may have no right, so a new file gives it none."""
    found = standing(os.fstat(fd))
    try:
        os.getxattr(fd, _ACCESS_LIST)
    except OSError:
        return found
    return found._replace(mode=found.mode & ~stat.S_IRWXG)


def _resemble(fd: int, like: Standing) -> None:
    """Give the new file the owner and the rights of the file that it will replace. When the owner
    cannot be set, no other user gets a right to it, nor by the folder's default access list."""
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


class Found(NamedTuple):
    """The result of resolving a path. The receiver owns `fd` and `folder`."""

    path: str
    """The path as given, or where its last link leads."""
    fd: int
    """The file, open for reading and writing (a pipe: for writing); -1: there is none."""
    folder: FolderLike | None
    """Its folder, in which its name is the last part of `path`; None: it is no regular file, or no
    other file can take its name."""


Reopen = Callable[[int, str, int], int]
"""reopen(fd, path, flags): open again, with those flags, the file that is open as `fd` (O_PATH) and
was found under that path."""


def find(path: str, mounts: Mounts, reopen: Reopen) -> Found:
    """Open an existing file; nothing is made or changed. Block devices are opened exclusively.

    Refused, or another OSError: the system's errors (ENXIO: no process reads the pipe); EISDIR or
    EINVAL for what takes no dump; EAGAIN when the path led to another file meanwhile; ENOENT, with
    a reason, where no file may be made.
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
    """A Reopen without /proc/self/fd, for the caller's root directory: that may have no /proc, and
    a /proc of ours, held open, would be a way out of that root. The caller keeps `look` open, so no
    other file can have its inode number meanwhile."""
    others = [errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR]
    others += [errno.ENXIO, errno.ENODEV] if stat.S_ISREG(os.fstat(look).st_mode) else []
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno in others:  # no error of the file that was there before
            raise refused(errno.EAGAIN) from None
        raise


def by_descriptor(look: int, path: str, flags: int) -> int:
    """A Reopen that opens the very file of `look`, even if its name now leads elsewhere."""
    del path
    return os.open(f"/proc/self/fd/{look}", flags)


def _flags_for(seen: os.stat_result, mounts: Mounts) -> int:
    """Flags for opening a file of that kind."""
    mode = seen.st_mode
    if stat.S_ISFIFO(mode):
        return os.O_WRONLY | _COMMON  # ENXIO: no process reads it
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
    folder.close()  # the file got another name meanwhile
    return Found(path, fd, None)


def find_room(path: str, mounts: Mounts) -> Found:
    """The folder for a new file of that path, where no file exists. Errors as in find."""
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
    """/dev holds devices. A new file there would come from a mistyped name, or be in memory."""
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
    """Open a folder: for sync and listing too, where that is allowed."""
    try:
        return os.open(text or ".", os.O_RDONLY | _PLACE)
    except PermissionError:
        return os.open(text or ".", os.O_PATH | _PLACE)


def _last_place(path: str, mounts: Mounts) -> tuple[Folder, str, str] | None:
    """The folder of the file to which the path leads, the folder's path, and the file's name in
    it. All links are followed but those of /proc: they lead to open files, not to names (None)."""
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
