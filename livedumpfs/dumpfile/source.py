# SPDX-License-Identifier: GPL-2.0-or-later
"""Source: what a dump is read from: a file, a block device, or an image in a store."""

from __future__ import annotations

import errno
import os
import stat
from abc import abstractmethod
from typing import TYPE_CHECKING

from livedumpfs.closing import Closing
from livedumpfs.errors import InvalidDump, TargetError, os_cause

if TYPE_CHECKING:
    from livedumpfs.stores.store_image import StoreImage


class Source(Closing):
    """Bytes, read-only. Positions are explicit, so any number of threads may read."""

    path: str
    """What it was opened by, for messages."""
    size: int
    fd: int = -1
    """A descriptor of the same bytes, for what reads or maps them by itself; -1: there is none."""
    status: os.stat_result | None = None
    """Of the file or device; None: it is neither."""
    changed_ns: int = 0
    """When it was written last, or, of a device, its name was made."""

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes at `offset`, fewer only at the end. TargetError; of a store also
        DamagedChunk, which is an OSError EIO and an InvalidDump."""
        length = min(length, max(0, self.size - offset))
        data = memoryview(bytearray(length))
        return bytes(data[: self.read_into(offset, data)])

    def read_exact(self, offset: int, length: int, what: str) -> bytes:
        """`length` bytes at `offset`. InvalidDump: the file ends before that."""
        if offset + length > self.size:
            raise InvalidDump(f"it ends within its {what}")
        data = self.read(offset, length)
        if len(data) != length:
            raise InvalidDump(f"it ends within its {what}")
        return data

    @abstractmethod
    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; the number of bytes, fewer only at the end. Errors: see
        read."""

    @abstractmethod
    def is_hole(self, offset: int, length: int) -> bool:
        """True when it is known without reading that [offset, +length) is zeros."""

    def known_equal(
        self, offset: int, other: Source, other_offset: int, length: int
    ) -> list[tuple[int, int]]:
        """[start, end) of parts of [offset, +length), counted from `offset`, in order, that are
        known without reading to be the same in `other` from `other_offset` on."""
        del offset, other, other_offset, length
        return []

    def check_rest(self) -> list[str]:
        """Look at what is known without reading, and is kept all the same. What is wrong with it,
        a sentence each."""
        return []


class FileSource(Source):
    """A regular file or a block device."""

    status: os.stat_result

    def __init__(self, path: str) -> None:
        """Open `path`. TargetError: ENOENT, EISDIR..., EINVAL for neither file nor device."""
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (OSError, ValueError) as error:
            code = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
            raise self._refused(code) from error
        try:
            self.status = os.fstat(self.fd)
            mode = self.status.st_mode
            if stat.S_ISDIR(mode):
                raise self._refused(errno.EISDIR)
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise self._refused(errno.EINVAL)
            self.size = os.lseek(self.fd, 0, os.SEEK_END)
            self.changed_ns = self.status.st_mtime_ns
        except BaseException:
            os.close(self.fd)
            raise

    def _refused(self, code: int) -> TargetError:
        return TargetError(f"cannot read dump {self.path}: {os_cause(code)}", errno=code)

    @property
    def is_file(self) -> bool:
        """True for a regular file, False for a block device."""
        return stat.S_ISREG(self.status.st_mode)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset`; the number of bytes, fewer only at the end. TargetError."""
        done = 0
        try:
            while done < len(view):
                count = os.preadv(self.fd, [view[done:]], offset + done)
                if count == 0:
                    break
                done += count
        except OSError as error:
            code = error.errno or errno.EIO
            raise TargetError(f"cannot read {self.path}: {os_cause(code)}", errno=code) from error
        return done

    def is_hole(self, offset: int, length: int) -> bool:
        """True when the file system knows that [offset, +length) was never written: all zeros."""
        if not self.is_file:
            return False
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA) >= offset + length
        except OSError as error:
            return error.errno == errno.ENXIO and offset + length <= self.size

    def close(self) -> None:
        """Close; harmless when done twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ImageSource(Source):
    """An image in a store."""

    def __init__(self, path: str, image: StoreImage, changed_ns: int = 0) -> None:
        """Closes the image with itself."""
        self.path, self._image, self.changed_ns = path, image, changed_ns
        self.size = image.size

    def read_into(self, offset: int, view: memoryview) -> int:
        """See Source."""
        return self._image.read_into(offset, view)

    def is_hole(self, offset: int, length: int) -> bool:
        """See Source: the index says it."""
        return offset + length <= self.size and self._image.is_zero(offset, length)

    def known_equal(
        self, offset: int, other: Source, other_offset: int, length: int
    ) -> list[tuple[int, int]]:
        """See Source: the indexes say it, also those of two stores."""
        if not isinstance(other, ImageSource):
            return []
        return self._image.known_equal(offset, other._image, other_offset, length)

    def check_rest(self) -> list[str]:
        """See Source."""
        return self._image.check_rest()

    def close(self) -> None:
        """See Closing."""
        self._image.close()


def open_source(path: str) -> Source:
    """A dump in a store where `path` names one (see stores.image_place), else a file or device.
    TargetError; InvalidDump: the store or its index is damaged; UsageError: a store alone."""
    from livedumpfs.stores.image_place import image_place, open_image

    place = image_place(path)
    if place is None:
        return FileSource(path)
    name, image, changed_ns = open_image(place)
    return ImageSource(name, image, changed_ns)
