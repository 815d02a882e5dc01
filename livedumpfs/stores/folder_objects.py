# SPDX-License-Identifier: GPL-2.0-or-later
"""FolderObjects: objects as files of a folder."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from livedumpfs.errors import TargetError, os_cause
from livedumpfs.stores.file_calls import is_full, name_first, sync_file_systems
from livedumpfs.stores.file_locks import expect_lockable, seen_by_others
from livedumpfs.stores.object_sizes import most_bytes
from livedumpfs.stores.objects import Bytes, Listed
from livedumpfs.stores.quick_ways import QuickWays

_LOCK: Final = "lock"
_UNFINISHED: Final = ".unfinished"
DAMAGED: Final = ".damaged"
"""Behind the name of what was set aside."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOOK_S: Final = 0.1
"""Seconds between two attempts to get the lock."""


class FolderObjects:
    """Each object is a file, written beside its name and renamed. See Objects.

    Files and folders are this user's alone, whatever the umask: they have a machine's memory. Where
    the folder of them all can be written by its group, they are the group's, too.
    """

    def __init__(self, path: str, *, links: bool = False) -> None:
        """Of the folder `path`, which exists. `links`: those in it are followed, as another program
        may have them; for reading alone. TargetError: it does not exist, or is none."""
        self.path, self._links = path, links
        self._numbers = itertools.count()
        self._token = os.urandom(6).hex()  # a process's number may come back, or be another host's
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            status = os.fstat(self._fd)
            self._shared, self._group = bool(status.st_mode & stat.S_IWGRP), status.st_gid
        except OSError as error:
            raise self._refused("open", path, error) from error
        self._quick = QuickWays(self._fd, lambda: not links and not self.seen_by_others)

    @property
    def url(self) -> str:
        """See Objects."""
        return self.path

    def _place(self, name: str) -> str:
        """In the folder that was opened, also when it has another name now: makedirs would make a
        new one else, and a dump would have its chunks in two places."""
        return f"/proc/self/fd/{self._fd}/{name}"

    def _named(self, name: str) -> str:
        """For messages."""
        return os.path.join(self.path, name)

    @property
    def seen_by_others(self) -> bool:
        """Whether other computers may write it, too."""
        return seen_by_others(self._fd)

    @staticmethod
    def _refused(action: str, path: str, error: OSError) -> TargetError:
        code = error.errno or errno.EIO
        hint = "links in a store are not followed" if code in (errno.ELOOP, errno.ENOTDIR) else ""
        return TargetError(f"cannot {action} {path}: {os_cause(code)}", errno=code, hint=hint)

    @contextmanager
    def _folder(self, name: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """Descriptor of the folder that `name` is in, and its name there. OSError ENOTDIR: there is
        a link on the way, which could lead out of the store. `make`: missing ones are made."""
        *folders, last = name.split("/")
        fd = self._fd
        try:
            for one in filter(None, folders):
                before, fd = fd, self._enter(fd, one, make)
                if before != self._fd:
                    os.close(before)
            yield fd, last
        finally:
            if fd != self._fd:
                os.close(fd)

    def _enter(self, fd: int, folder: str, make: bool) -> int:
        flags = _FOLDER if self._links else _FOLDER | os.O_NOFOLLOW
        try:
            return os.open(folder, flags, dir_fd=fd)
        except FileNotFoundError:
            if not make:
                raise
        try:
            os.mkdir(folder, 0o700, dir_fd=fd)
        except FileExistsError:  # of another dump
            return os.open(folder, flags, dir_fd=fd)
        found = os.open(folder, flags, dir_fd=fd)
        try:
            self._share(found, 0o2770)
        except BaseException:
            os.close(found)
            raise
        return found

    def _share(self, fd: int, mode: int) -> None:
        """A file or folder that was just made is the group's, where the store is."""
        if self._shared:
            with suppress(PermissionError):  # this user is not of the group: root's, or another's
                os.fchown(fd, -1, self._group)
            os.fchmod(fd, mode)

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, int]]:
        """Descriptor and bytes of a regular file, to read. A device would have no end, and a FIFO
        would wait."""
        with self._folder(name) as (folder, last):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            fd = os.open(last, flags if self._links else flags | os.O_NOFOLLOW, dir_fd=folder)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL, "")
            yield fd, status.st_size
        finally:
            os.close(fd)

    def get(self, name: str) -> bytes:
        """See Objects. TargetError EFBIG: it is larger than any object with such a name."""
        try:
            with self._opened(name) as (fd, size):
                if size > most_bytes(name):
                    raise OSError(errno.EFBIG, "")
                return _read_all(fd, size)
        except OSError as error:
            raise self._refused("read", self._named(name), error) from error

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See Objects."""
        try:
            with self._opened(name) as (fd, size):
                return os.pread(fd, max(0, min(length, size - start)), start)
        except OSError as error:
            raise self._refused("read", self._named(name), error) from error

    def put(self, name: str, data: Bytes) -> None:
        """See Objects. What a killed process leaves is `name` with ".unfinished" behind it, which
        clean() removes. Objects without a folder, few and small, are durable before they have their
        name: of an index whose bytes a power loss took, it cannot be said what it needs. A chunk
        that is there already, and not empty, stays as it is: see name_first."""
        ending = f".{self._token}-{next(self._numbers)}{_UNFINISHED}"
        if self._quick.put(name, ending, memoryview(data).cast("B")):
            return
        try:
            with self._folder(name, make=True) as (folder, last):
                beside = last + ending
                try:
                    self._write(folder, beside, data, durable="/" not in name)
                    if name.count("/") == 2:  # a chunk
                        name_first(folder, beside, last)
                    else:
                        os.rename(beside, last, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with suppress(OSError):
                        os.unlink(beside, dir_fd=folder)
                    raise
        except OSError as error:
            raise self._refused("write", self._named(name), error) from error

    def _write(self, folder: int, name: str, data: Bytes, durable: bool) -> None:
        fd = self._create(folder, name)
        try:
            _write_all(fd, memoryview(data).cast("B"))
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _create(self, folder: int, name: str) -> int:
        """FileExistsError: it is there, perhaps as a link."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            self._share(fd, 0o660)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def has(self, name: str) -> bool:
        """See Objects. An empty file is none: a power loss may leave that of one that was not
        synced. It is opened: NFS asks the server then, and not for each stat."""
        if (there := self._quick.has(name)) is not None:
            return there
        try:
            with self._opened(name) as (_, size):
                return size > 0
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EINVAL):  # a link, a FIFO: put() replaces it
                return False
            raise self._refused("read", self._named(name), error) from error

    def has_every(self, prefix: str, names: Iterable[str]) -> bool:
        """Whether there are all objects `prefix` + name, each in a folder of its own. Unlike has()
        it opens none, which is a quarter of the work; on NFS that may be what was true seconds
        ago."""
        self._quick.watch(prefix.partition("/")[0])
        try:
            with self._folder(prefix) as (fd, _):
                folders = {one.name for one, is_folder in _kinds(fd) if is_folder}
                return all(
                    name.partition("/")[0] in folders and is_full(name, fd) for name in names
                )
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._refused("read", self._named(prefix), error) from error

    def set_aside(self, name: str) -> None:
        """Give the object a name that means nothing to anything here, so that it can be put
        again."""
        try:
            with self._folder(name) as (folder, last):
                aside = last + DAMAGED
                os.rename(last, aside, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            raise self._refused("rename", self._named(name), error) from error

    def names(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """See Objects."""
        for name, status in self._walk(prefix, deep):
            if status and name != _LOCK and not name.endswith((_UNFINISHED, DAMAGED)):
                yield Listed(name, status.st_size, status.st_mtime_ns)

    def _walk(self, prefix: str, deep: bool = True) -> Iterator[tuple[str, os.stat_result | None]]:
        try:
            with self._folder(prefix) as (fd, _):
                found = _entries(fd)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refused("list", self._named(prefix), error) from error
        for entry, is_folder, status in found:
            name = prefix + entry.name
            if not is_folder:
                yield name, status
            elif deep:
                yield from self._walk(name + "/")

    def expect_no_links(self) -> None:
        """TargetError ELOOP: there is a link that may be to a folder, so it cannot be seen what is
        behind it, nor whose. Links to files are harmless: none is read or followed."""
        for name, status in self._walk(""):
            if status and stat.S_ISLNK(status.st_mode) and not os.path.isfile(self._place(name)):
                raise TargetError(
                    f"{self._named(name)} is a link to a folder, or to nothing: it cannot be known "
                    "what is in use behind it",
                    errno=errno.ELOOP,
                    hint="move the folder itself there, or remove the link",
                )

    def delete(self, names: Iterable[str]) -> None:
        """See Objects."""
        for name in names:
            try:
                with self._folder(name) as (folder, last):
                    os.unlink(last, dir_fd=folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._refused("remove", self._named(name), error) from error

    def withdraw(self, names: Iterable[str]) -> None:
        """See Objects."""
        self.delete(names)

    def clean(self) -> int:
        """See Objects."""
        left = [name for name, _ in self._walk("") if name.endswith(_UNFINISHED)]
        self.delete(left)
        return len(left)

    def sync(self) -> None:
        """See Objects: syncfs of the folder's file system, and of one mounted at a folder in it."""
        if gone := self._quick.moved():
            raise self._refused("write", self._named(gone), OSError(errno.ESTALE, ""))
        try:
            folders = (one.name for one, is_folder in _kinds(self._fd) if is_folder)
            sync_file_systems(self._fd, folders)
        except OSError as error:
            raise self._refused("sync", self.path, error) from error

    @contextmanager
    def lock(self, *, alone: bool, wait_s: float) -> Iterator[None]:
        """See Objects: flock of the file `lock`."""
        expect_lockable(self._fd, self.path)
        try:
            fd = self._open_lock()
        except OSError as error:
            raise self._refused("open", self._named(_LOCK), error) from error
        try:
            self._take(fd, alone, time.monotonic() + wait_s)
            yield
        finally:
            os.close(fd)

    def _open_lock(self) -> int:
        """A link could name any file, which would be made, or get our mode."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(_LOCK, flags, dir_fd=self._fd)
        except FileNotFoundError:
            try:
                return self._create(self._fd, _LOCK)
            except FileExistsError:  # made just now
                fd = os.open(_LOCK, flags, dir_fd=self._fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "")
        return fd

    def _take(self, fd: int, alone: bool, deadline: float) -> None:
        how = (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB
        while True:
            try:
                fcntl.flock(fd, how)
                return
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    by = "a dump or another command" if alone else "gc or forget"
                    raise TargetError(
                        f"the store {self.path} is in use by {by}", errno=errno.EBUSY
                    ) from error
            time.sleep(_LOOK_S)

    def close(self) -> None:
        """See Objects."""
        if self._fd >= 0:
            self._quick.close()
            os.close(self._fd)
            self._fd = -1


def _kinds(folder: int) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Each entry with whether it is a folder."""
    own = os.open(".", _FOLDER, dir_fd=folder)  # another thread may be reading that one
    try:
        with os.scandir(own) as entries:
            for one in entries:
                yield one, one.is_dir(follow_symlinks=False)
    finally:
        os.close(own)


def _entries(folder: int) -> list[tuple[os.DirEntry[str], bool, os.stat_result | None]]:
    """Each with whether it is a folder, and its status; None: it is gone."""
    return [(one, is_folder, _status(one)) for one, is_folder in _kinds(folder)]


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return entry.stat(follow_symlinks=False)
    return None


def _read_all(fd: int, size: int) -> bytes:
    """As much as it had when it was opened: it may grow meanwhile."""
    parts: list[bytes] = []
    while size and (part := os.read(fd, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts) if len(parts) != 1 else parts[0]


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]
