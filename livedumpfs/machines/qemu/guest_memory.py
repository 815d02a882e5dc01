# SPDX-License-Identifier: GPL-2.0-or-later
"""GuestMemory: the RAM of a QEMU process, through the memfd or file that it shares."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.core.array_info import ArrayInfo
from livedumpfs.errors import LivedumpError, MachineError, UsageError, os_cause
from livedumpfs.machines.qemu.refusals import refuse
from livedumpfs.settings import MAX_GRANULE
from livedumpfs.units import HOST_PAGE, format_size

_LINE: Final = re.compile(
    r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) rw.s (?P<offset>[0-9a-f]+) "
    r"(?P<major>[0-9a-f]+):(?P<minor>[0-9a-f]+) (?P<inode>\d+)"
)


@dataclass(frozen=True)
class Mapping:
    """A shared, writable mapping of a whole file in another process."""

    address: int
    size: int
    device: int
    inode: int


def find_mapping(maps: str, size: int) -> Mapping:
    """Find the RAM in the text of /proc/PID/maps: `size` bytes from offset 0 of a file. UsageError:
    several mappings could be it; MachineError: there is none."""
    found = [one for line in maps.split("\n") if (one := _parse(line)) and one.size == size]
    if len(found) > 1:
        raise UsageError(
            f"QEMU has {len(found)} shared mappings of {format_size(size)}, and one is its RAM",
            hint="give ivshmem, or what else has the same size as the RAM, another size",
        )
    if not found:
        raise MachineError(
            f"QEMU has no shared mapping of {format_size(size)}",
            errno=errno.ENOENT,
            hint="its RAM must be one memory backend with share=on",
        )
    return found[0]


def _parse(line: str) -> Mapping | None:
    match = _LINE.match(line)
    if match is None or int(match["offset"], 16):
        return None
    start, end = int(match["start"], 16), int(match["end"], 16)
    device = os.makedev(int(match["major"], 16), int(match["minor"], 16))
    return Mapping(start, end - start, device, int(match["inode"]))


def open_mapped(pid: int, mapping: Mapping) -> int:
    """An fd of the mapped file, opened through one of the fds that the process has.
    MachineError."""
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            fd = _open_if(f"{folder}/{name}", mapping)
            if fd is not None:
                return fd
    except OSError as error:
        raise MachineError(f"cannot look at QEMU's files: {error.strerror}") from error
    raise MachineError("QEMU has closed the file of its RAM", errno=errno.ENOENT)


def _open_if(path: str, mapping: Mapping) -> int | None:
    try:
        status = os.stat(path)
    except OSError:  # closed since, or on a mount that does not answer: not this one
        return None
    if (status.st_dev, status.st_ino) != (mapping.device, mapping.inode):
        return None
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return None


class GuestMemory(Closing):
    """The live memory, read-only in this process. It has no named arrays."""

    named: Sequence[ArrayInfo] = ()

    def __init__(self, fd: int, size: int) -> None:
        """Owns `fd` from the call on."""
        self.fd = fd
        self.size = size
        self.page_size = max(os.fstatvfs(fd).f_bsize, HOST_PAGE)
        """Bytes of a page: a hugetlbfs has larger ones."""

    def expect_pages(self) -> None:
        """UsageError: a page is larger than what a store can wait for."""
        if self.page_size > MAX_GRANULE:
            raise refuse(
                f"memory of {format_size(self.page_size)} pages",
                "a store would wait until as much is copied",
                "use pages of 2 MiB (hugetlbsize=2M)",
            )

    def read(self, offset: int, length: int) -> bytes:
        """Live bytes [offset, offset+length). LivedumpError EINVAL: not inside the memory."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise LivedumpError(
                f"[{offset:#x}, +{length:#x}) is outside the memory", errno=errno.EINVAL
            )
        parts = []
        while length > 0:
            part = os.pread(self.fd, length, offset)
            if not part:
                raise MachineError(f"QEMU's memory: {os_cause(errno.EIO)}", errno=errno.EIO)
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def data(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of each range that is allocated, as bytes; all else reads as zeros."""
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self.fd, end, os.SEEK_DATA)
                end = os.lseek(self.fd, start, os.SEEK_HOLE)
            except OSError:  # ENXIO: no data behind `end`
                return
            yield start, end - start

    def close(self) -> None:
        """Close; harmless when done twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
