# SPDX-License-Identifier: GPL-2.0-or-later
"""PackedPages: the memory in a kdump, page by page through its descriptors.

Descriptors and data may be damaged or hostile: what they say is looked at here before it is used,
and by the C core again.
"""

from __future__ import annotations

import errno
import os
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.core.capi import CData, ffi, lib
from livedumpfs.dumpfile.source import Source
from livedumpfs.errors import InvalidDump, TargetError, os_cause
from livedumpfs.formats.kdump import CODECS, DESCRIPTOR
from livedumpfs.units import PAGE_SIZE

Descriptors = npt.NDArray[np.void]
"""One-dimensional array of DESCRIPTOR."""

BATCH: Final = 1024
"""Pages whose descriptors are in memory at once."""
_FLAGS: Final = np.array(sorted(CODECS.values()), dtype=np.uint32)


class DamagedPage(InvalidDump, OSError):
    """EIO: a page that the dump has according to its table, and that cannot be unpacked."""


def _unpack(fd: int, found: Descriptors, buffer: npt.NDArray[np.uint8]) -> int:
    """The C core's -errno, 0 when it has read all these pages."""
    descriptors: CData = ffi.from_buffer("ldfs_page_desc[]", found)
    to: CData = ffi.from_buffer(buffer, require_writable=True)
    return int(lib.ldfs_pages_read(fd, descriptors, len(found), to))


class PackedPages:
    """Pages by the number of their descriptor. Any number of threads may read."""

    def __init__(self, source: Source, descriptors: int, data: int, end: int) -> None:
        """`descriptors`: offset of the first; `data`, `end`: where stored pages may lie, and at
        `data` the page of zeros. TargetError."""
        self._source = source
        self._descriptors, self._data, self._end = descriptors, data, end
        self._zeros = np.frombuffer(source.read_exact(data, PAGE_SIZE, "memory"), np.uint8)
        self._zeros_are = not self._zeros.any()

    def read(self, index: int, view: memoryview, page: int) -> None:
        """Fill `view`, which has whole pages, from descriptor `index` on. `page`: number of the
        first for messages. DamagedPage (OSError EIO); TargetError."""
        buffer = np.frombuffer(view, np.uint8).reshape(-1, PAGE_SIZE)
        for first in range(0, len(buffer), BATCH):
            self._read_batch(index + first, buffer[first : first + BATCH], page + first)

    def all_zeros(self, index: int, count: int) -> bool:
        """True when so many descriptors say that their pages are the page of zeros."""
        if not self._zeros_are:
            return False
        for first in range(index, index + count, BATCH):
            if not self._are_zeros(self._load(first, min(BATCH, index + count - first))).all():
                return False
        return True

    def _load(self, index: int, count: int) -> Descriptors:
        size = DESCRIPTOR.itemsize
        data = self._source.read_exact(
            self._descriptors + index * size, count * size, "page descriptors"
        )
        return np.frombuffer(data, DESCRIPTOR)

    def _are_zeros(self, found: Descriptors) -> npt.NDArray[np.bool_]:
        same: npt.NDArray[np.bool_] = found["offset"] == self._data
        same &= (found["flags"] == 0) & (found["size"] == PAGE_SIZE)
        return same

    def _read_batch(self, index: int, buffer: npt.NDArray[np.uint8], page: int) -> None:
        found = self._load(index, len(buffer))
        zeros = self._are_zeros(found)
        if zeros.any():
            buffer[zeros] = self._zeros
            stored = np.flatnonzero(~zeros)
            unpacked = np.empty((len(stored), PAGE_SIZE), np.uint8)
            self._unpack(found[stored], unpacked, page + stored)
            buffer[stored] = unpacked
        else:
            self._unpack(found, buffer, page + np.arange(len(buffer)))

    def _unpack(
        self, found: Descriptors, buffer: npt.NDArray[np.uint8], pages: npt.NDArray[np.int64]
    ) -> None:
        self._check(found, pages)
        code = self._call(found, buffer)
        if code == 0:
            return
        for i in range(len(found)):  # which one is it
            code = self._call(found[i : i + 1], buffer[i : i + 1])
            if code == -errno.EBADMSG:
                raise self._damaged(int(pages[i]), "its data is damaged")
            if code:
                cause = os_cause(-code)
                raise TargetError(
                    f"cannot read page {int(pages[i]):#x} of {self._source.path}: {cause}",
                    errno=-code,
                )

    def _call(self, found: Descriptors, buffer: npt.NDArray[np.uint8]) -> int:
        if len(found) == 0:
            return 0
        if self._source.fd < 0:
            return self._call_on_copy(found, buffer)
        return _unpack(self._source.fd, found, buffer)

    def _call_on_copy(self, found: Descriptors, buffer: npt.NDArray[np.uint8]) -> int:
        """The C core reads from a descriptor: it gets one of a copy of the stored bytes."""
        copied = found.copy()
        copied["offset"] = np.cumsum(found["size"]) - found["size"]
        places = zip(found["offset"].tolist(), found["size"].tolist(), strict=True)
        data = b"".join(self._source.read(*place) for place in places)
        with open(os.memfd_create("livedump-pages"), "w+b") as file:
            file.write(data)
            file.flush()
            return _unpack(file.fileno(), copied, buffer)

    def _check(self, found: Descriptors, pages: npt.NDArray[np.int64]) -> None:
        offset, size, flags = found["offset"], found["size"], found["flags"]
        empty = (offset == 0) & (size == 0)
        wrong = (size == 0) | (size > PAGE_SIZE) | ~np.isin(flags, _FLAGS)
        wrong |= (flags == 0) & (size != PAGE_SIZE)
        # In this order: no sum of two numbers from the file, which may be anything.
        outside = (offset < self._data) | (offset > self._end) | (self._end - offset < size)
        bad = np.flatnonzero(empty | wrong | outside)
        if len(bad) == 0:
            return
        first = int(bad[0])
        cause = "its descriptor points outside the data"
        if wrong[first]:
            cause = "its descriptor has an impossible size or compression"
        if empty[first]:
            cause = "its descriptor is empty"
        raise self._damaged(int(pages[first]), cause)

    def _damaged(self, page: int, cause: str) -> DamagedPage:
        return DamagedPage(
            f"page {page:#x} of {self._source.path} is damaged: {cause}", errno=errno.EIO
        )
