# SPDX-License-Identifier: GPL-2.0-or-later
"""Source: a file or block device that a dump is read from."""

from __future__ import annotations

import errno
import os
import stat

from livedumpfs.errors import InvalidDump, TargetError, os_cause


class Source:
    """An open file, read-only. Positions are explicit, so any number of threads may read."""

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
        except BaseException:
            os.close(self.fd)
            raise

    def _refused(self, code: int) -> TargetError:
        return TargetError(f"cannot read dump {self.path}: {os_cause(code)}", errno=code)

    @property
    def is_file(self) -> bool:
        """True for a regular file, False for a block device."""
        return stat.S_ISREG(self.status.st_mode)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes at `offset`, fewer only at the end. TargetError."""
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
