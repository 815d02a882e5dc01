# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening a target and its sidecar: what is refused, and to which file the dump is written.

A dump to a regular file is written to a new file beside it, which gets the name when the dump is
sealed: the last dump stays until the next one is finished. A dump is written in place where no name
can be given: to devices, pipes, files behind /proc/PID/fd, and files in a folder where the caller
cannot make one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final, Protocol

from livedumpfs.errors import TargetError, os_cause
from livedumpfs.rights.folder import (
    FolderLike,
    Found,
    Refused,
    Standing,
    by_descriptor,
    find,
    open_standing,
    read_mounts,
)
from livedumpfs.targets.check import refuse_kind, refuse_mode, target_error
from livedumpfs.targets.content import read_content, refuse_content, sealed_as
from livedumpfs.targets.leftover import is_as_made, lock, make_way, open_leftover
from livedumpfs.targets.names import incomplete_name, incomplete_sidecar, is_dated, with_date
from livedumpfs.targets.sidecar import finish_rename, read_superblock
from livedumpfs.targets.target import Goal, Kind, Target

_HINTS: Final = {
    errno.EAGAIN: "it became another file meanwhile",
    errno.EBUSY: "it is mounted or in use",
    errno.EEXIST: "it is a link that leads nowhere",
    errno.ENXIO: "no process reads it: start the reader first",
    errno.ETIMEDOUT: "the device did not answer in time",
}
_TRIES: Final = 3
_A_SECOND: Final = 1000
"""Most dumps of one name in one second."""
_NO_RIGHT: Final = (errno.EACCES, errno.EPERM)


class Rights(Protocol):
    """The process whose rights open a target."""

    def find(self, path: str) -> Found:
        """See folder.find."""


class Own:
    """The rights of this process."""

    def find(self, path: str) -> Found:
        """See folder.find."""
        return find(path, read_mounts(), by_descriptor)


class _NoRoom(Exception):
    """No file can be made beside that one, or take its name."""


# ---------------------------------------------------------------------------------- targets


def open_target(
    path: str | os.PathLike[str], *, force: bool = False, rights: Rights | None = None
) -> Target:
    """Open `path` for a dump, with the rights of this process or with `rights`. A regular file is
    left as it is: the dump goes to a new file beside it, see publish().

    TargetError with the system's errno where opening fails: ENOENT (no such directory, or device),
    EACCES, EROFS, EBUSY (a device in use), ENXIO (no process reads the pipe), ENAMETOOLONG; or as
    adopt_target. A {date} in the last part of the path becomes the local time.
    """
    name = os.fspath(path)
    found = _find_new(name, rights) if is_dated(name) else _find(name, rights)
    with _closing(found):
        if found.folder is None:
            return adopt_target(os.dup(found.fd), found.path, force=force)
        try:
            return _open_beside(found, found.folder, force, name)
        except _NoRoom:
            return _open_here(found, found.folder, force)
        except OSError as error:
            raise open_error(name, error) from error


def open_in_place(
    path: str | os.PathLike[str], *, force: bool = False, rights: Rights | None = None
) -> Target:
    """As open_target, but a regular file is written in place from the first moment on."""
    name = os.fspath(path)
    found = _find(name, rights)
    with _closing(found):
        if found.folder is None:
            return adopt_target(os.dup(found.fd), found.path, force=force)
        return _open_here(found, found.folder, force)


def adopt_target(fd: int, path: str, *, force: bool = False, created: bool = False) -> Target:
    """Make a Target of an open fd, which is written in place; `path` is for messages.

    Owns `fd` from the call on: it is closed when a check fails. `created`: the file did not exist
    before. TargetError: EISDIR, EINVAL (character device, socket), EACCES (not open for reading and
    writing), EBUSY (mounted, or another dump goes there), EEXIST (a file system, a partition table,
    a file that is not ours, or a finished dump, and no `force`).
    """
    target = _adopt(fd, path, created)
    with _abandoning(target):
        target.check(force=force)
    return target


def _open_here(found: Found, folder: FolderLike, force: bool) -> Target:
    created = found.fd < 0
    fd = _make(folder, found.path) if created else os.dup(found.fd)
    target = Target(fd, found.path, created=created, folder=folder)
    with _abandoning(target):
        target.check(force=force)
    return target


def _open_beside(found: Found, folder: FolderLike, force: bool, given: str) -> Target:
    """Open the new file beside it. `given`: the path for messages, before links were followed."""
    there, verdict = None, None
    if found.fd >= 0:
        there = _expect_replaceable(found, folder)
        content = read_content(found.fd, folder, os.path.basename(found.path))
        if os.fstat(found.fd).st_size and not force:
            refuse_content(content, given, keep=())
        verdict = sealed_as(content)
    goal = Goal(found.path, there, verdict, force)
    target = _open_unfinished(folder, incomplete_name(found.path), goal)
    with _keeping(folder, target):
        _expect_same_mount(found.fd, target.fd)
        target.check(force=force)
    return target


def _expect_replaceable(found: Found, folder: FolderLike) -> Standing:
    """EBUSY: a dump is being written to it; _NoRoom: no other file can take its name."""
    name = os.path.basename(found.path)
    if folder.keeps(name):
        raise _NoRoom
    lock(found.fd, found.path)
    return open_standing(found.fd)


def _open_unfinished(folder: FolderLike, path: str, goal: Goal, *, sidecar: bool = False) -> Target:
    """The file beside it: a new one, or the one that an earlier dump left when it was broken
    off."""
    name = os.path.basename(path)
    for _ in range(_TRIES):
        try:
            fd = folder.make(name, goal.standing)
            return Target(fd, path, created=True, folder=folder, goal=goal)
        except OSError as error:
            if error.errno in _NO_RIGHT and goal.standing:
                raise _NoRoom from error
            if error.errno != errno.EEXIST:
                raise
        left = open_leftover(folder, path)
        if left is not None:
            target = Target(left, path, folder=folder, goal=goal)
            if is_as_made(left, folder.user(), goal.standing):
                return target
            make_way(target, force=goal.force, sidecar=sidecar)
    raise Refused(errno.EAGAIN, os_cause(errno.EAGAIN))


def _expect_same_mount(there: int, beside: int) -> None:
    """_NoRoom: the file itself is a mount point, so no other file can take its name."""
    if there >= 0 and _mount_of(there) != _mount_of(beside):
        raise _NoRoom


def _mount_of(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        return next((line for line in lines if line.startswith("mnt_id:")), "")


def _make(folder: FolderLike, path: str) -> int:
    try:
        return folder.make(os.path.basename(path), None)
    except OSError as error:
        raise open_error(path, error) from error


def _adopt(fd: int, path: str, created: bool) -> Target:
    try:
        refuse_kind(os.fstat(fd), path)
        refuse_mode(fd, path)
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            from livedumpfs.targets.pipe import PipeTarget

            return PipeTarget(fd, path)
        return Target(fd, path, created=created)
    except BaseException:
        os.close(fd)
        raise


# --------------------------------------------------------------------------------- sidecars


def open_sidecar(
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    beside: Target | None = None,
    rights: Rights | None = None,
    make_folder: bool = False,
) -> Target:
    """As open_target, for a sidecar file, which may replace another sidecar file only. It is
    written in place unless its target gets its name later (`beside`). `make_folder`: make its
    directory (0700) where it is missing, as for the state directory, which is ours."""
    name = os.fspath(path)
    if make_folder:
        with contextlib.suppress(OSError):  # the error of _find says what is wrong
            os.makedirs(os.path.dirname(os.path.abspath(name)), mode=0o700, exist_ok=True)
    found = _find(name, rights)
    with _closing(found):
        if found.folder is None:
            return adopt_sidecar(os.dup(found.fd), found.path, force=force)
        if beside is None or beside.goal is None:
            return _sidecar_here(found, found.folder, force)
        try:
            return _sidecar_beside(found, found.folder, force, beside.goal)
        except _NoRoom:
            return _sidecar_here(found, found.folder, force, keep=True)
        except OSError as error:
            raise open_error(name, error) from error


def adopt_sidecar(fd: int, path: str, *, force: bool = False, created: bool = False) -> Target:
    """As adopt_target, for a sidecar file."""
    target = _adopt(fd, path, created)
    with _abandoning(target):
        if target.kind is not Kind.FILE:
            raise target_error(
                "use sidecar file", path, errno.EINVAL, f"it is a {target.kind.value}"
            )
        target.check(force=force, ours=read_superblock(target.fd) is not None)
    return target


def _sidecar_here(found: Found, folder: FolderLike, force: bool, keep: bool = False) -> Target:
    """`keep`: the file describes a dump that is not being overwritten."""
    created = found.fd < 0
    fd = _make(folder, found.path) if created else os.dup(found.fd)
    target = Target(fd, found.path, created=created, folder=folder)
    with _abandoning(target):
        content = read_superblock(fd)
        target.check(force=force, ours=content is not None)
        if keep and content and not force:
            refuse_content(content, found.path, keep=("consistent", "torn"))
    return target


def _sidecar_beside(found: Found, folder: FolderLike, force: bool, of: Goal) -> Target:
    there, verdict = None, None
    if found.fd >= 0:
        there = _expect_replaceable(found, folder)
        content = read_superblock(found.fd)
        if content is None and there and os.fstat(found.fd).st_size and not force:
            refuse_content(None, found.path, keep=())
        verdict = sealed_as(content)
    if of.standing:
        finish_rename(folder, os.path.basename(found.path), of.standing)
        there = folder.look(os.path.basename(found.path))
    goal = Goal(found.path, there, verdict, force)
    target = _open_unfinished(folder, incomplete_sidecar(found.path), goal, sidecar=True)
    with _keeping(folder, target):
        _expect_same_mount(found.fd, target.fd)
        target.check(force=force, ours=read_superblock(target.fd) is not None)
    return target


# ----------------------------------------------------------------------------------- errors


def _find_new(pattern: str, rights: Rights | None) -> Found:
    """Resolve the pattern with the date; a number follows when this second has a dump already."""
    for number in range(_A_SECOND):
        found = _find(with_date(pattern, number), rights)
        unfinished = incomplete_name(os.path.basename(found.path))
        if found.fd < 0 and found.folder and found.folder.look(unfinished) is None:
            return found
        with _closing(found):
            if found.folder:
                found.folder.close()
    raise target_error("make a new", pattern, errno.EEXIST)


def _find(path: str, rights: Rights | None) -> Found:
    try:
        return (rights or Own()).find(path)
    except (OSError, ValueError) as error:
        raise open_error(path, error) from error


def open_error(path: str, error: OSError | ValueError) -> TargetError:
    """The error for a target that was not opened or made."""
    if isinstance(error, TargetError):
        return error
    code = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
    hint = _HINTS.get(code, "")
    if isinstance(error, Refused):
        if error.strerror not in (None, os_cause(code)):
            hint = str(error.strerror)  # the right that the host lacks
        if error.mode:
            try:
                refuse_kind(os.stat_result((error.mode, *(0,) * 9)), path)
            except TargetError as found:
                return found
        if error.reason:
            whole = path in error.reason
            return TargetError(
                error.reason if whole else f"cannot open {path}: {error.reason}", errno=code
            )
    return target_error("open", path, code, hint)


@contextlib.contextmanager
def _closing(found: Found) -> Iterator[None]:
    """Close what is not needed any more: `fd` always (what is kept is a duplicate), the folder when
    an error ends the block."""
    try:
        yield
    except BaseException:
        if found.folder:
            found.folder.close()
        raise
    finally:
        if found.fd >= 0:
            os.close(found.fd)


@contextlib.contextmanager
def _abandoning(target: Target) -> Iterator[None]:
    try:
        yield
    except BaseException:
        target.abandon()
        raise


@contextlib.contextmanager
def _keeping(folder: FolderLike, target: Target) -> Iterator[None]:
    """As _abandoning, but _NoRoom removes only the new file and leaves the folder open for another
    attempt."""
    try:
        yield
    except _NoRoom:
        if target.created:
            folder.remove(target.name)
        os.close(target.fd)
        raise
    except BaseException:
        target.abandon()
        raise
