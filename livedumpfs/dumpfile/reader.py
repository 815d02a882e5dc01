# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpFile: the snapshot in a dump that lies on a target, finished or broken off."""

from __future__ import annotations

import bisect
import errno
import itertools
import os
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from livedumpfs.closing import Closing
from livedumpfs.dumpfile import layout
from livedumpfs.dumpfile.arrays import read_array
from livedumpfs.dumpfile.checksums import ChecksumReport, verify_checksums
from livedumpfs.dumpfile.granules import Granules
from livedumpfs.dumpfile.layout import DumpArray
from livedumpfs.dumpfile.pages import PackedPages
from livedumpfs.dumpfile.source import FileSource, Source, open_source
from livedumpfs.errors import InvalidDump, LivedumpError
from livedumpfs.formats import elf, kdump, superblock, table
from livedumpfs.formats.machine_info import MemoryRange
from livedumpfs.formats.superblock import Superblock, VerdictWord
from livedumpfs.targets import current_sidecar, sidecar_path

_SAMPLES: Final = 16
_SAMPLE_GRANULE: Final = 4 << 20


class DumpFile(Granules, Closing):
    """A dump, open for reading. Any number of threads may read; close it once.

    Memory that the dump does not have - lost, or never saved - reads as OSError EIO.
    """

    def __init__(self, target: Source, book: Source, block: Superblock) -> None:
        """Use open_dump. InvalidDump: the description is damaged or impossible."""
        self._book = book
        self.superblock: Superblock = block
        self.sidecar: str | None = book.path if book is not target else None
        self.format: str = block.format
        self.sealed: bool = block.sealed
        self.dump_id: bytes = block.dump_id
        layout.check_regions(block, book)
        if block.total_size > target.size:
            raise InvalidDump(f"it is cut off: {target.size} of {block.total_size} bytes")
        self.meta: dict[str, Any] = layout.read_meta(book, block)
        self.memory_map: tuple[MemoryRange, ...] = layout.parse_map(self.meta, block.arena_size)
        extents = layout.find_extents(block, self.memory_map)
        self._header = b"" if block.format == "raw" else layout.read_header(target, block)
        packed: PackedPages | None = None
        if block.format == "elf":
            layout.check_segments(self._header, block, self.memory_map)
        elif block.format == "kdump":
            packed = self._find_pages(target, block)
        elif book is target:
            layout.check_tail(block, target, self.memory_map)
        self.arrays: tuple[DumpArray, ...] = layout.parse_arrays(self.meta, block.arena_size)
        entries, self.bad_blocks = layout.read_table(book, block)
        if block.format == "kdump":
            layout.check_stored(entries, block.total_size if block.sealed else target.size)
        super().__init__(
            target,
            extents,
            entries,
            packed,
            granule_size=block.granule_size,
            arena_size=block.arena_size,
        )

    def _find_pages(self, target: Source, block: Superblock) -> PackedPages:
        found = layout.check_kdump(self._header, block, target, self.memory_map)
        # A dump that was broken off does not know how far its data went.
        end = block.total_size if block.sealed else target.size
        return PackedPages(target, found.descriptors_offset, block.data_offset, end)

    def close(self) -> None:
        """Close the files; harmless when done twice."""
        self._target.close()
        if self._book is not self._target:
            self._book.close()

    @property
    def machine_name(self) -> str:
        """Machine.name: "ledger", "guest", "threads"."""
        return str(self.meta.get("name", ""))

    @property
    def compression(self) -> str | None:
        """Of a kdump: "zstd", "zlib", "lzo", "snappy", "none"; None: of another format."""
        return kdump.parse_head(self._header).compression if self._packed else None

    @property
    def verdict(self) -> VerdictWord:
        """What the dump is worth: the seal's word, unless the table knows worse."""
        counts = self.state_counts()
        return superblock.judge(self.superblock, counts[table.ARMED], counts[table.LOST])

    @property
    def registers(self) -> list[dict[str, int]]:
        """Registers of each vCPU at the snapshot instant; empty when the dump has none."""
        if self.format == "elf":
            return elf.parse_registers(self._header)
        if self.format == "kdump":
            return kdump.parse_registers(self._header)
        found = self.meta.get("registers", [])
        return [r for r in found if isinstance(r, dict)] if isinstance(found, list) else []

    @property
    def instant_ns(self) -> int:
        """The snapshot instant in nanoseconds since the epoch; 0: the dump does not say it."""
        instant = self.meta.get("instant")
        wall = instant.get("wall_ns") if isinstance(instant, dict) else None
        return wall if isinstance(wall, int) and 0 < wall < 1 << 63 else 0

    @property
    def changed_ns(self) -> int:
        """When the target was written last, or, of a device, its name was made."""
        return self._target.changed_ns

    def read_arena(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length) of the arena at the snapshot instant.

        ValueError: not within the arena; OSError EIO: a page of it is lost or was never saved.
        """
        data = bytearray(length) if 0 <= length <= self.arena_size else bytearray()
        if offset < 0 or length < 0 or offset + length > self.arena_size:
            raise ValueError(f"[{offset:#x}, +{length:#x}) is not within the arena")
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_physical(self, address: int, length: int) -> bytes:
        """As read_arena, by physical address. OSError EFAULT: no memory at some of it."""
        if length < 0 or length > self.arena_size:
            raise OSError(errno.EFAULT, f"no memory at physical [{address:#x}, +{length:#x})")
        data = bytearray(length)
        view, position = memoryview(data), address
        first = bisect.bisect_right(self.memory_map, address, key=lambda r: r.end)
        for r in itertools.islice(self.memory_map, first, None):
            if not r.start <= position < address + length:
                break
            end = min(r.end, address + length)
            part = view[position - address : end - address]
            self.read_into(position - r.start + r.arena_offset, part)
            position = end
        if position < address + length:
            raise OSError(errno.EFAULT, f"no memory at physical address {position:#x}")
        return bytes(data)

    def array(self, name: str) -> npt.NDArray[Any]:
        """The array with that name; what is stored into it changes no dump. A large one of an
        `elf` or `raw` dump is mapped, and needs no memory until it is used: the target must stay as
        it is so long, as under numpy.memmap. KeyError: none; OSError EIO: not all is there."""
        for a in self.arrays:
            if a.name == name:
                return read_array(self, a)
        raise KeyError(name)

    def verify_checksums(
        self, progress: Callable[[int, int], None] | None = None, *, threads: int = 2
    ) -> ChecksumReport:
        """As checksums.verify_checksums, of this dump."""
        return verify_checksums(self, progress, threads=threads)

    def check_rest(self) -> list[str]:
        """Of a store: look at the chunks that no read has needed, as those of holes. What is wrong
        with them, a sentence each."""
        return self._target.check_rest()

    def matches_target(self) -> bool:
        """False when of a few saved granules that have data most have another checksum: then a
        sidecar file belongs to something else that was on the target before. What is zeros or
        cannot be read says nothing."""
        saved = np.flatnonzero(self.entries["state"] == table.SAVED)
        if len(saved) == 0 or self.granule_size > _SAMPLE_GRANULE:
            return True
        chosen = saved[np.linspace(0, len(saved) - 1, min(_SAMPLES, len(saved))).astype(int)]
        right = [one for one in map(self._is_as_saved, chosen.tolist()) if one is not None]
        return 2 * sum(right) >= len(right)

    def has_saved(self) -> bool:
        """True when of a few saved granules that have data at least one has its checksum: so the
        target has not been given to something else altogether."""
        saved = np.flatnonzero(self.entries["state"] == table.SAVED)
        chosen = saved[np.linspace(0, len(saved) - 1, min(_SAMPLES, len(saved))).astype(int)]
        return any(map(self._is_as_saved, chosen.tolist()))

    def _is_as_saved(self, granule: int) -> bool | None:
        data = bytearray(self.granule_length(granule))
        try:
            self.read_stored(granule * self.granule_size, memoryview(data))
        except OSError:
            return None
        if not data.strip(b"\0"):
            return None
        return bool(xxhash.xxh3_64_intdigest(data) == int(self.entries["checksum"][granule]))


def open_dump(
    path: str | os.PathLike[str], sidecar: str | os.PathLike[str] | None = None
) -> DumpFile:
    """Open the dump on a block device, in a file or in a store ("STORE#DUMP"); `sidecar`: of a raw
    dump, if elsewhere.

    InvalidDump (ValueError): not a dump, of another version, cut off or damaged, in one sentence.
    TargetError (OSError): it cannot be opened or read.
    """
    target = open_source(os.fspath(path))
    return read_dump(target, None if sidecar is None else os.fspath(sidecar))


def read_dump(target: Source, sidecar: str | None = None) -> DumpFile:
    """As open_dump: the dump in `target`, which is closed with it, or at once when it is none."""
    book = target
    try:
        book, block = _find_book(target, sidecar)
        dump = DumpFile(target, book, block)
        if book is not target and not dump.matches_target():
            raise InvalidDump(f"the sidecar file {book.path} describes something else")
        return dump
    except BaseException as error:
        target.close()
        book.close()
        name = target.path
        if isinstance(error, InvalidDump):
            raise InvalidDump(
                f"{name} is not a valid dump: {error.message}", hint=error.hint
            ) from error
        if isinstance(error, OSError) and not isinstance(error, LivedumpError):
            raise InvalidDump(f"{name} is not a valid dump: {error.strerror}") from error
        raise


def _find_book(target: Source, sidecar: str | None) -> tuple[Source, Superblock]:
    """The file that describes the dump, and its superblock. A dump that describes itself in its
    head is newer than any sidecar file: a raw dump would have wiped its header."""
    try:
        block = layout.find_superblock(target)
    except InvalidDump as error:
        reason = error
    else:
        if sidecar is not None:
            kind = "an ELF dump" if block.format == "elf" else f"a {block.format}"
            raise InvalidDump(f"it is {kind} and has no sidecar file")
        return target, block
    tail = layout.find_tail_superblock(target)
    if target.status is None:
        place = sidecar or ""  # beside an image in a store there is none
    else:
        place = sidecar_path(target.path, target.status) if sidecar is None else sidecar
        place = current_sidecar(place, target.status)
    if sidecar is None and not os.path.exists(place):
        if tail is not None:
            return target, tail
        known = reason.hint
        missing = f"and there is no sidecar file {place}" if place else ""
        raise InvalidDump(reason.message, hint=known or missing) from reason
    book = FileSource(place)
    try:
        block = superblock.parse(book.read(0, superblock.SIZE))
        if block.format != "raw" or block.superblock_offset != 0:
            raise InvalidDump("it is not that of a raw dump")
    except InvalidDump as error:
        book.close()
        if sidecar is None and tail is not None:
            return target, tail
        raise InvalidDump(f"its sidecar file {place} is not valid: {error.message}") from error
    if sidecar is None and tail is not None and block.total_size != target.size:
        # The sidecar file of an older dump: the tail of that one would be a page of its memory.
        book.close()
        return target, tail
    return book, block
