# SPDX-License-Identifier: GPL-2.0-or-later
"""LocalGroup: a Zarr group in a directory. It is written beside its place, as NAME.incomplete, and
takes the place at once when it is whole.

Files of pieces that did not change are hard links to those of the group before. No save changes a
file: what another program did to one shows in its time of change, and then it is written anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, Final

from livedumpfs.errors import LivedumpError, TargetError, os_cause
from livedumpfs.named import nodes
from livedumpfs.named.extra import extra
from livedumpfs.named.group_target import GroupTarget, Stamp
from livedumpfs.named.library_errors import cannot_write
from livedumpfs.named.save_record import KEY, SaveRecord, read_record
from livedumpfs.targets.names import incomplete_name

MARK: Final = ".livedump-incomplete"
"""A file in a group that is being written."""
_EXCHANGE: Final = 2
_HERE: Final = -100
"""RENAME_EXCHANGE and AT_FDCWD."""
_NO_EXCHANGE: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class LocalGroup(GroupTarget):
    """See above."""

    stamped = True

    def __init__(self, path: str, *, force: bool = False) -> None:
        """TargetError EEXIST: something else is there."""
        self.path = os.path.realpath(path)
        self._force = force
        self._new = incomplete_name(self.path)
        self._lock = -1
        self._before: SaveRecord | None = None
        self._published = False
        self._look()
        self._store: Any = None

    def _look(self) -> None:
        self.previous = self._before = None
        if not os.path.lexists(self.path) or is_empty_folder(self.path):
            return
        if not os.path.isfile(os.path.join(self.path, nodes.DOCUMENT)):
            raise TargetError(
                f"{self.path} is there, and is no Zarr group",
                errno=errno.EEXIST,
                hint="take it away, or choose another name",
            )
        try:
            self._before = _record_in(self.path)
        except LivedumpError:
            self._before = None  # as of another program
        if self._before is None and not self._force:
            raise TargetError(
                f"{self.path} is a Zarr group that was not saved by livedumpfs",
                errno=errno.EEXIST,
                hint="<force> replaces it",
            )
        if self._before and self._before.verdict == "consistent":
            self.previous = self._before

    def begin(self, documents: Mapping[str, bytes]) -> None:
        """See GroupTarget. TargetError EBUSY: another save writes there."""
        try:
            self._begin(documents)
        except OSError as error:
            if isinstance(error, LivedumpError):
                raise
            raise cannot_write(self.path, error) from error

    def _begin(self, documents: Mapping[str, bytes]) -> None:
        if os.path.lexists(self._new):
            self._remove_broken_off()
        os.mkdir(self._new)
        self._lock = lock_folder(self._new)
        self._look()  # again: another save may have come to its end
        with open(os.path.join(self._new, MARK), "xb"):
            pass
        for name, document in documents.items():
            os.mkdir(os.path.join(self._new, name))
            with open(os.path.join(self._new, name, nodes.DOCUMENT), "xb") as file:
                file.write(document)
        self._store = extra("zarr.storage").LocalStore(self._new)

    def _remove_broken_off(self) -> None:
        """What a save left that was killed, or was about to take away."""
        if not is_broken_off(self._new) and not _is_ours(self._new):
            raise TargetError(
                f"{self._new} is there, and is none of a save that was broken off",
                errno=errno.EEXIST,
                hint="take it away: a save needs that name",
            )
        lock = lock_folder(self._new)
        try:
            shutil.rmtree(self._new)
        finally:
            os.close(lock)

    @property
    def store(self) -> Any:
        """See GroupTarget."""
        return self._store

    def previous_document(self, name: str) -> bytes | None:
        """See GroupTarget."""
        try:
            with open(os.path.join(self.path, name, nodes.DOCUMENT), "rb") as file:
                return file.read()
        except OSError:
            return None

    def keep(self, key: str, stamp: Stamp | None) -> bool:
        """A second link to the file."""
        old, new = os.path.join(self.path, key), os.path.join(self._new, key)
        try:
            os.makedirs(os.path.dirname(new), exist_ok=True)
            os.link(old, new, follow_symlinks=False)
        except OSError:  # no such file; too many links; a file system without them
            return False
        # Looked at after the link is made: it stays this file, whatever comes to the old name.
        if self.stamp(key) == stamp:
            return True
        os.unlink(new)
        return False

    def stamp(self, key: str) -> Stamp:
        """See GroupTarget."""
        status = os.stat(os.path.join(self._new, key), follow_symlinks=False)
        return status.st_size, status.st_mtime_ns

    def leave_out(self, key: str) -> None:
        """Nothing is there."""

    def publish(self, record: SaveRecord) -> None:
        """Sync it, then exchange the two directories."""
        self.expect_its_turn(record.verdict, self._before, force=self._force)
        try:
            _sync_tree(self._new)
            nodes.write(self._store, nodes.DOCUMENT, nodes.group_document({KEY: record.to_json()}))
            os.unlink(os.path.join(self._new, MARK))
            _sync(os.path.join(self._new, nodes.DOCUMENT))
            _sync(self._new)
            self._take_place()
            self._published = True
            _sync(os.path.dirname(self.path))
        except OSError as error:
            if isinstance(error, LivedumpError):
                raise
            raise cannot_write(self.path, error) from error

    def _take_place(self) -> None:
        if not os.path.lexists(self.path) or is_empty_folder(self.path):
            os.rename(self._new, self.path)
            return
        try:
            _exchange(self._new, self.path)
        except OSError as error:
            if error.errno not in _NO_EXCHANGE:
                raise
            self._take_place_in_two_steps()
        shutil.rmtree(self._new, ignore_errors=True)

    def _take_place_in_two_steps(self) -> None:
        """On a file system that cannot exchange two names. In between there is none."""
        old = self.path + ".old"
        os.rename(self.path, old)
        os.rename(self._new, self.path)
        shutil.rmtree(old, ignore_errors=True)

    def close(self) -> None:
        """See GroupTarget."""
        if self._lock < 0:
            return
        if not self._published:
            shutil.rmtree(self._new, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def is_empty_folder(path: str) -> bool:
    """A directory with nothing in it."""
    try:
        return not os.listdir(path)
    except OSError:
        return False


def is_broken_off(path: str) -> bool:
    """Whether a save was killed while it wrote that directory."""
    return os.path.isfile(os.path.join(path, MARK))


def _is_ours(path: str) -> bool:
    """A group of a save, which was to be taken away. OSError."""
    if not os.path.isfile(os.path.join(path, nodes.DOCUMENT)):
        return False
    try:
        return _record_in(path) is not None
    except LivedumpError:
        return False


def _record_in(path: str) -> SaveRecord | None:
    """What the group in that directory says of its save. InvalidDump; None: it is of none."""
    store = extra("zarr.storage").LocalStore(path, read_only=True)
    attributes = extra("zarr").open_group(store, mode="r").attrs.asdict()
    return read_record(attributes)


def lock_folder(path: str) -> int:
    """An open directory that is this save's. TargetError EBUSY: it is another's, which runs."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise TargetError(
            f"another save writes {path}", errno=errno.EBUSY, hint="wait for its end"
        ) from None
    except OSError:
        os.close(fd)
        raise
    return fd


def _exchange(one: str, other: str) -> None:
    """Each of two paths gets what the other one had, at one instant. OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os_cause(errno.ENOSYS))
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os_cause(code), one)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_tree(top: str) -> None:
    for path in _in_tree(top):
        _sync(path)


def _in_tree(top: str) -> Iterator[str]:
    """Files and directories, what is in one before itself."""
    for folder, _, files in os.walk(top, topdown=False):
        with contextlib.suppress(ValueError):
            files.remove(MARK)
        yield from (os.path.join(folder, one) for one in files)
        yield folder
