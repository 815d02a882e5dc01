# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmcore in the mount of a running host, as the memory in which tasks are looked for."""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.formats import MemoryRange, elf, processors
from livedumpfs.formats.note import Note, find_notes
from livedumpfs.html_report.task_list import LinuxMemory

_MACHINE: Final = slice(18, 20)
"""Of e_machine in an ELF header."""


@contextlib.contextmanager
def living_core(path: str) -> Iterator[LinuxMemory]:
    """Until the end of the `with`. OSError; InvalidDump: it is no core of ours."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _memory(fd)
    finally:
        os.close(fd)


def _memory(fd: int) -> LinuxMemory:
    head = os.pread(fd, elf.HEAD_SIZE, 0)
    segments = elf.parse_segments(os.pread(fd, elf.headers_end(head), 0))
    loads = elf.load_segments(segments)
    notes = [one for one in segments if one not in loads and one.size <= elf.MAX_NOTES]
    processor = processors.of_elf_machine(int.from_bytes(head[_MACHINE], "little"))
    meta = {
        "architecture": processor.architecture if processor else "",
        "notes": [one.describe() for part in notes for one in _notes(fd, part)],
    }
    ranges = sorted((MemoryRange(one.physical, one.size, one.offset) for one in loads), key=_start)

    def read(address: int, length: int) -> bytes:
        parts, end = [], address + length
        while address < end:
            one = ranges[max(0, bisect.bisect_right(ranges, address, key=_start) - 1)]
            if not one.start <= address < one.end:
                raise OSError(errno.EFAULT, f"no memory at physical address {address:#x}")
            part = os.pread(fd, min(end, one.end) - address, address - one.start + one.arena_offset)
            if not part:
                raise OSError(errno.EIO, "the vmcore ends")
            parts.append(part)
            address += len(part)
        return b"".join(parts)

    return LinuxMemory(meta, tuple(ranges), read)


def _start(one: MemoryRange) -> int:
    return one.start


def _notes(fd: int, part: elf.ProgramHeader) -> Iterator[Note]:
    data = os.pread(fd, part.size, part.offset)
    for name, kind, content, size in find_notes(data):
        if content + size > len(data):
            raise InvalidDump("its notes are cut off")
        yield Note(name, kind, data[content : content + size])
