# SPDX-License-Identifier: GPL-2.0-or-later
"""Target: an open file or block device that takes a dump."""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.errors import TargetError
from livedumpfs.formats.plan import Role, Step, Sync, Write, Zero
from livedumpfs.formats.raw import tail_superblock_offset
from livedumpfs.formats.superblock import VerdictWord
from livedumpfs.rights.folder import FolderLike, Standing
from livedumpfs.targets import tail as tails
from livedumpfs.targets.check import find_signature, is_mounted, refuse_read_only, target_error
from livedumpfs.targets.content import read_content, refuse_content
from livedumpfs.units import PAGE_SIZE, format_size

_ZERO_PIECE: Final = 1 << 20
_BLKZEROOUT: Final = 0x127F


class Kind(enum.Enum):
    """The kind of file of a target."""

    BLOCK = "block device"
    FILE = "regular file"
    STREAM = "pipe"


@dataclass(frozen=True)
class Goal:
    """The name in a folder that a file gets when it is a finished dump."""

    path: str
    standing: Standing | None
    """The file that has the name now; None: there is none."""
    verdict: VerdictWord | None
    """The verdict if that file is a sealed dump; None: it is not one."""
    force: bool
    """True: a torn dump may replace a consistent one."""

    @property
    def name(self) -> str:
        """The last part of `path`."""
        return os.path.basename(self.path)


class Target(Closing):
    """An open target. Owns `fd`; offsets and sizes in bytes. Only pread and pwrite may be called
    from several threads at once.

    Every failure is a TargetError (OSError) that names path, operation and cause.
    """

    def __init__(
        self,
        fd: int,
        path: str,
        *,
        created: bool = False,
        folder: FolderLike | None = None,
        goal: Goal | None = None,
    ) -> None:
        """Take over an fd that has passed the checks; see open_target and adopt_target."""
        status = os.fstat(fd)
        self.fd = fd
        self.path = path
        """Present path."""
        self.created = created
        self.folder = folder
        """The folder of a regular file, for all changes of names there. None: the file has no name
        that could be changed."""
        self.goal = goal
        """The name that the file gets when it is a finished dump; None: it keeps the one that it
        has."""
        self.kind = Kind.BLOCK if stat.S_ISBLK(status.st_mode) else Kind.FILE
        block = self.kind is Kind.BLOCK
        self.capacity: int | None = os.lseek(fd, 0, os.SEEK_END) if block else None
        self.identity: tuple[int, int] = (
            (status.st_rdev, 0) if block else (status.st_dev, status.st_ino)
        )
        """(device number, 0) of a block device, else (device, inode) of the file."""
        self.reads_zero = False
        """True when bytes that were never written read as zeros; for ldfs_dump_config."""
        self.emptied = False
        """True when older data is lost: prepare() has begun."""
        self._claim: int | None = None
        self._locked = False
        self._had_name = status.st_nlink > 0

    def __repr__(self) -> str:
        return f"<Target {self.path} ({self.kind.value})>"

    @property
    def name(self) -> str:
        """Its name in its folder."""
        return os.path.basename(self.path)

    @property
    def size(self) -> int:
        """Present size in bytes. TargetError: some files of /proc have no size."""
        try:
            return os.lseek(self.fd, 0, os.SEEK_END)
        except OSError as error:
            raise target_error("find the end of", self.path, error.errno or errno.EIO) from error

    def check_format(self, format: str) -> None:
        """UsageError: a dump of that format cannot be written to this target."""

    @contextlib.contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """For a pipe: how many seconds the reader may stop reading within the block. For other
        targets it does nothing."""
        del seconds
        yield

    def complete(self) -> None:
        """Called when the dump is sealed; a pipe is told the end."""

    def expect_room(self, total_size: int) -> None:
        """Check that a dump of `total_size` bytes fits; nothing is changed. TargetError: ENOSPC,
        EFBIG, the device, or the file system's limit for one file, is too small."""
        if self.capacity is not None:
            if self.capacity < total_size:
                raise TargetError(
                    f"cannot dump to {self.path}: the dump needs {format_size(total_size)} "
                    f"({total_size} bytes), the device has {format_size(self.capacity)}",
                    errno=errno.ENOSPC,
                )
            return
        before = self.size
        if total_size > before:
            self._resize(total_size)
            self._refuse_pseudo_file(total_size)
            self._resize(before)

    def prepare(self, total_size: int) -> None:
        """Make room for a dump of `total_size` bytes. This is the first call that destroys older
        data; before it, the older dump's sidecar must be removed, so that it does not describe the
        new one. A regular file is emptied and gets the size, as one hole. Errors as in expect_room,
        which is called first: nothing is lost then."""
        self.expect_room(total_size)
        self.emptied = True
        if self.capacity is not None:
            self._retire_tail(self.capacity)
            return
        self._resize(0)
        self._resize(total_size)
        self._refuse_pseudo_file(total_size)
        self.reads_zero = True

    def _resize(self, size: int) -> None:
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise target_error("make room in", self.path, error.errno or errno.EIO) from error

    def _refuse_pseudo_file(self, size: int) -> None:
        """Refuse a file of /proc or /sys, which does not take a size. A write to one is an order
        to the kernel, and some go by the rights of the writing process, which may exceed the
        caller's."""
        if self.size != size:
            raise target_error("dump to", self.path, errno.EINVAL, "it holds no data")

    def reserve(self, offset: int, length: int) -> None:
        """Allocate [offset, offset+length) of a file, after prepare(): the description of which
        pages are good must have room, even when the file system gets full later. ENOSPC: the file
        is empty then."""
        if self.kind is not Kind.FILE or length <= 0:
            return
        try:
            os.posix_fallocate(self.fd, offset, length)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not supported
                self.truncate(0)
                raise target_error("make room in", self.path, error.errno or errno.EIO) from error

    def _retire_tail(self, capacity: int) -> None:
        """Wipe an older raw dump's superblock at the device's tail: a reader would take it for the
        new dump's."""
        if tails.read_superblock(self.fd, capacity) is not None:
            self.pwrite(bytes(PAGE_SIZE), tail_superblock_offset(capacity))
            self.sync()

    def pread(self, length: int, offset: int) -> bytes:
        """`length` bytes at `offset`, fewer only at the end of the target."""
        pieces = []
        try:
            while length > 0:
                piece = os.pread(self.fd, length, offset)
                if not piece:
                    break
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
        except OSError as error:
            raise target_error("read", self.path, error.errno or errno.EIO) from error
        return b"".join(pieces)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        view = memoryview(data).cast("B")
        try:
            while view:
                written = os.pwrite(self.fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise target_error("write", self.path, error.errno or errno.EIO) from error

    def zero(self, offset: int, length: int) -> None:
        """Make [offset, offset+length) read as zeros, without allocating blocks where that is
        possible.

        A regular file is not made longer by it.
        """
        if self.kind is Kind.FILE:
            length = max(0, min(length, self.size - offset))
        if length == 0 or self.reads_zero or self._zero_by_kernel(offset, length):
            return
        piece = memoryview(bytes(min(length, _ZERO_PIECE)))
        for position in range(offset, offset + length, _ZERO_PIECE):
            self.pwrite(piece[: offset + length - position], position)

    def _zero_by_kernel(self, offset: int, length: int) -> bool:
        if self.kind is Kind.FILE:
            return False
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, _BLKZEROOUT, struct.pack("=QQ", offset, length))
            return True
        return False

    def truncate(self, size: int) -> None:
        """Set a regular file's size; does nothing for a block device."""
        if self.kind is Kind.BLOCK:
            return
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise target_error("set the size of", self.path, error.errno or errno.EIO) from error

    def sync(self) -> None:
        """Wait until all written data is durable."""
        if self.fd < 0:
            raise target_error("sync", self.path, errno.EBADF)
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise target_error("sync", self.path, error.errno or errno.EIO) from error

    def expect_name(self) -> None:
        """TargetError ENOENT: the file has lost its name, and would be gone once it is closed."""
        if self._had_name and os.fstat(self.fd).st_nlink == 0:
            raise target_error("keep", self.path, errno.ENOENT, "it was removed during the dump")

    def close(self) -> None:
        """Close; harmless when done twice. Errors of close() are ignored: sync() has reported
        them."""
        for fd in (self.fd, self._claim):
            if fd is not None and fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.fd, self._claim = -1, None
        if self.folder:
            self.folder.close()

    def abandon(self) -> None:
        """Close, and remove a file that this process made, or emptied for a dump beside the last
        one: it holds nothing of a dump yet."""
        ours = self.created or (self.emptied and self.goal is not None)
        if self.folder and ours and self._locked and self.fd >= 0:
            with contextlib.suppress(OSError):
                if self.has_name():
                    self.folder.remove(self.name)
        self.close()

    def has_name(self) -> bool:
        """Whether the file at `path` is the open one. OSError."""
        found = self.folder.look(self.name) if self.folder else None
        return found is not None and (found.device, found.inode) == self.identity

    def check(self, *, force: bool, ours: bool | None = None) -> None:
        """All checks that need the open fd; nothing is written.

        `ours`: what lies in the file may be overwritten without `force`; None: may_go() decides. A
        block device is always checked for signatures (blkid): mkfs may leave the header of an older
        dump in place.
        """
        if self.kind is Kind.BLOCK:
            refuse_read_only(self.fd, self.path)
            self._claim_device()
            if not force:
                self._refuse_signature()
            return
        self.lock()
        if self.size and not (force or ours):
            content = read_content(self.fd, self.folder, self.name)
            refuse_content(content, self.path, keep=self._worth_keeping())

    def _worth_keeping(self) -> tuple[VerdictWord, ...]:
        """Verdicts of sealed dumps that must not be overwritten. Where the last good dump stays
        beside it, a torn one may be."""
        return ("consistent",) if self.goal else ("consistent", "torn")

    def lock(self) -> None:
        """Lock the file. TargetError EBUSY: another dump is written to it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            hint = "another dump writes to it"
            raise target_error("dump to", self.path, errno.EBUSY, hint) from error
        self._locked = True

    def holds_dump(self) -> bool:
        """Whether the file holds one of our dumps, whole or not. A raw dump is known only by a
        sidecar file that is not older than the file."""
        return read_content(self.fd, self.folder, self.name) is not None

    def _claim_device(self) -> None:
        """Make sure that no other process uses the device. An fd from another process may have been
        opened without O_EXCL, so claim it here, too. EBUSY comes from the fd's own claim
        (O_EXCL), or from a mount."""
        try:
            self._claim = os.open(
                f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK
            )
        except OSError as error:
            if error.errno == errno.EBUSY and is_mounted(self.identity[0]):
                raise target_error("dump to", self.path, errno.EBUSY, "it is mounted") from error

    def _refuse_signature(self) -> None:
        found = find_signature(self.fd, self.path)
        if found:
            raise TargetError(
                f"cannot dump to {self.path}: it carries {_article(found)}",
                errno=errno.EEXIST,
                hint="use <force> to overwrite it",
            )


def _article(noun: str) -> str:
    if noun.startswith(("a ", "several")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def apply(steps: Iterable[Step], target: Target, sidecar: Target | None = None) -> None:
    """Carry out a plan's steps in their order. TargetError: the steps after the failed one are not
    done."""
    files: dict[Role, Target] = {"target": target}
    if sidecar is not None:
        files["sidecar"] = sidecar
    for step in steps:
        file = files[step.file]
        match step:
            case Write():
                file.pwrite(step.data, step.offset)
            case Zero():
                file.zero(step.offset, step.length)
            case Sync():
                file.sync()
