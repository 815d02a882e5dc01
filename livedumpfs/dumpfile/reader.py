# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpFile: the snapshot in a dump that lies on a target, finished or broken off."""

from __future__ import annotations

import bisect
import errno
import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from livedumpfs.closing import Closing
from livedumpfs.dumpfile import layout
from livedumpfs.dumpfile.arrays import load_array
from livedumpfs.dumpfile.layout import DumpArray
from livedumpfs.dumpfile.pages import PackedPages
from livedumpfs.dumpfile.source import Source
from livedumpfs.errors import InvalidDump, LivedumpError
from livedumpfs.formats import elf, kdump, superblock, table
from livedumpfs.formats.plan import MemoryRange
from livedumpfs.formats.superblock import Superblock, Verdict
from livedumpfs.targets import current_sidecar, sidecar_path
from livedumpfs.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from livedumpfs.dumpfile.checksums import ChecksumReport

_SAMPLES: Final = 16
_SAMPLE_GRANULE: Final = 4 << 20


class DumpFile(Closing):
    """A dump, open for reading. Any number of threads may read; close it once.

    Memory that the dump does not have - lost, or never saved - reads as OSError EIO.
    """

    def __init__(self, target: Source, book: Source, block: Superblock) -> None:
        """Use open_dump. InvalidDump: the description is damaged or impossible."""
        self._target, self._book = target, book
        self.superblock: Superblock = block
        self.path: str = target.path
        self.sidecar: str | None = book.path if book is not target else None
        self.format: str = block.format
        self.sealed: bool = block.sealed
        self.dump_id: bytes = block.dump_id
        self.granule_size: int = block.granule_size
        self.arena_size: int = block.arena_size
        layout.check_regions(block, book)
        if block.total_size > target.size:
            raise InvalidDump(f"it is cut off: {target.size} of {block.total_size} bytes")
        self.meta: dict[str, Any] = layout.read_meta(book, block)
        self.memory_map: tuple[MemoryRange, ...] = layout.parse_map(self.meta, block.arena_size)
        self.extents = layout.find_extents(block, self.memory_map)
        self._header = b"" if block.format == "raw" else layout.read_header(target, block)
        self._packed: PackedPages | None = None
        if block.format == "elf":
            layout.check_segments(self._header, block, self.memory_map)
        elif block.format == "kdump":
            self._packed = self._find_pages(target, block)
        elif book is target:
            layout.check_tail(block, target, self.memory_map)
        self.arrays: tuple[DumpArray, ...] = layout.parse_arrays(self.meta, block.arena_size)
        self.entries, self.bad_blocks = layout.read_table(book, block)
        if block.format == "kdump":
            layout.check_stored(self.entries, block.total_size if block.sealed else target.size)
        self._starts = np.array([e.arena_offset for e in self.extents])

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
    def verdict(self) -> Verdict:
        """What the dump is worth: the seal's word, unless the table knows worse."""
        counts = self.state_counts()
        if not self.sealed or counts[table.ARMED]:
            return "incomplete"
        if counts[table.LOST] and self.superblock.verdict == "consistent":
            return "torn"
        return self.superblock.verdict

    def state_counts(self) -> dict[int, int]:
        """Granules in each of the states ARMED (missing), SAVED, HOLE and LOST."""
        counts = np.bincount(self.entries["state"], minlength=table.LOST + 1)
        return {state: int(counts[state]) for state in table.STATE_NAMES}

    def pfn_ranges(self, state: int) -> list[tuple[int, int]]:
        """Page ranges [first, end) of the arena whose granules are in that state, in order."""
        pages, last = self.granule_size // PAGE_SIZE, self.arena_size // PAGE_SIZE
        return [(a * pages, min(b * pages, last)) for a, b in runs(self.entries["state"] == state)]

    def missing(self) -> list[tuple[int, int]]:
        """Bytes [start, end) of the arena that are lost or were never saved, in order."""
        states = self.entries["state"]
        gone = runs((states != table.SAVED) & (states != table.HOLE))
        size = self.granule_size
        return [(first * size, min(end * size, self.arena_size)) for first, end in gone]

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
        return self._target.status.st_mtime_ns

    def granule_length(self, granule: int) -> int:
        """Bytes of that granule: the last one may be shorter."""
        return min(self.granule_size, self.arena_size - granule * self.granule_size)

    def read_arena(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length) of the arena at the snapshot instant.

        ValueError: not within the arena; OSError EIO: a page of it is lost or was never saved.
        """
        data = bytearray(length) if 0 <= length <= self.arena_size else bytearray()
        if offset < 0 or length < 0 or offset + length > self.arena_size:
            raise ValueError(f"[{offset:#x}, +{length:#x}) is not within the arena")
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, view: memoryview) -> None:
        """As read_arena, into a writable buffer of bytes."""
        if not view:
            return
        if offset < 0 or offset + len(view) > self.arena_size:
            raise ValueError(f"[{offset:#x}, +{len(view):#x}) is not within the arena")
        self.check_there(offset, len(view))
        size = self.granule_size
        first, end = offset // size, (offset + len(view) - 1) // size + 1
        states = self.entries["state"][first:end]
        boundaries = [*(np.flatnonzero(np.diff(states)) + 1).tolist(), end - first]
        begin = 0
        for boundary in boundaries:
            low = max(offset, (first + begin) * size)
            high = min(offset + len(view), (first + boundary) * size)
            part = view[low - offset : high - offset]
            if states[begin] == table.HOLE:
                np.frombuffer(part, np.uint8)[:] = 0
            else:
                self.read_stored(low, part)
            begin = boundary

    def _missing(self, offset: int) -> OSError:
        state = int(self.entries["state"][offset // self.granule_size])
        why = "is lost" if state == table.LOST else "was not saved"
        return OSError(errno.EIO, f"page {offset // PAGE_SIZE:#x} of {self.path} {why}")

    def target_pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(arena offset, target offset, bytes) of the pieces that [offset, +length) lies in; of a
        kdump PAGE_SIZE times the number of the page's descriptor is the target offset."""
        index = int(np.searchsorted(self._starts, offset, side="right")) - 1
        while length > 0:
            extent = self.extents[index]
            inside = offset - extent.arena_offset
            size = min(length, extent.length - inside)
            yield offset, extent.target_offset + inside, size
            offset, length, index = offset + size, length - size, index + 1

    def read_stored(self, offset: int, view: memoryview) -> None:
        """What the target has for arena [offset, ...), whatever the table says of it. OSError, of
        a kdump also DamagedPage."""
        for position, place, size in self.target_pieces(offset, len(view)):
            part = view[position - offset : position - offset + size]
            if self._packed is not None:
                _read_packed(self._packed, place, part, position // PAGE_SIZE)
            elif self._target.read_into(place, part) != size:
                raise OSError(errno.EIO, f"{self.path} ends before page {position // PAGE_SIZE:#x}")

    def is_stored_hole(self, offset: int, length: int) -> bool:
        """True when the target's file system, or the descriptors of a kdump, know that all of arena
        [offset, +length) is zeros."""
        pieces = self.target_pieces(offset, length)
        if self._packed is not None:
            return all(
                self._packed.all_zeros(place // PAGE_SIZE, pages_of(place, size))
                for _, place, size in pieces
            )
        return all(self._target.is_hole(place, size) for _, place, size in pieces)

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
                return load_array(self, a)
        raise KeyError(name)

    def place(self, offset: int, length: int) -> tuple[int, int] | None:
        """(descriptor, offset in it) where arena [offset, +length), length > 0, lies as it is and
        in one piece; None: nowhere."""
        if self._packed is not None:
            return None
        (_, first, size), *more = self.target_pieces(offset, length)
        end = first + size
        for _, place, size in more:
            if place != end:
                return None
            end += size
        return self._target.fd, first

    def check_there(self, offset: int, length: int) -> None:
        """OSError EIO unless all of arena [offset, +length), length > 0, was saved."""
        size = self.granule_size
        first = offset // size
        states = self.entries["state"][first : (offset + length - 1) // size + 1]
        gone = np.flatnonzero((states != table.SAVED) & (states != table.HOLE))
        if len(gone):
            raise self._missing(max(offset, (first + int(gone[0])) * size))

    def holes(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """(arena offset, bytes) of what is zeros in arena [offset, +length), length > 0, whatever
        the target has there; without what its file system knows to be zeros."""
        size, end = self.granule_size, offset + length
        first = offset // size
        states = self.entries["state"][first : (end - 1) // size + 1]
        for low, high in runs(states == table.HOLE):
            at = max(offset, (first + low) * size)
            count = min(end, (first + high) * size) - at
            if not self.is_stored_hole(at, count):
                yield at, count

    def verify_checksums(
        self, progress: Callable[[int, int], None] | None = None, *, threads: int = 2
    ) -> ChecksumReport:
        """Read all that was saved and compare checksums; see snapshot.checksums."""
        from livedumpfs.dumpfile.checksums import verify_checksums

        return verify_checksums(self, progress, threads=threads)

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


def _read_packed(packed: PackedPages, place: int, view: memoryview, page: int) -> None:
    """Bytes from `place` on, where page n of the descriptors begins at n * PAGE_SIZE; `page`: what
    the first is called in messages."""
    index, inside = divmod(place, PAGE_SIZE)
    done = 0
    while done < len(view):
        if inside or len(view) - done < PAGE_SIZE:
            # A part of a page: its first, or its last.
            size = min(PAGE_SIZE - inside, len(view) - done)
            buffer = memoryview(bytearray(PAGE_SIZE))
            packed.read(index, buffer, page)
            view[done : done + size] = buffer[inside : inside + size]
            inside = 0
        else:
            size = (len(view) - done) // PAGE_SIZE * PAGE_SIZE
            packed.read(index, view[done : done + size], page)
        pages = -(-size // PAGE_SIZE)
        done, index, page = done + size, index + pages, page + pages


def pages_of(place: int, length: int) -> int:
    """How many pages [place, +length) lies in."""
    return -(-(place + length) // PAGE_SIZE) - place // PAGE_SIZE


def runs(chosen: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[first, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def open_dump(
    path: str | os.PathLike[str], sidecar: str | os.PathLike[str] | None = None
) -> DumpFile:
    """Open the dump on a block device or in a file; `sidecar`: of a raw dump, if elsewhere.

    InvalidDump (ValueError): not a dump, of another version, cut off or damaged, in one sentence.
    TargetError (OSError): it cannot be opened or read.
    """
    name = os.fspath(path)
    target = Source(name)
    book = target
    try:
        book, block = _find_book(target, None if sidecar is None else os.fspath(sidecar))
        dump = DumpFile(target, book, block)
        if book is not target and not dump.matches_target():
            raise InvalidDump(f"the sidecar file {book.path} describes something else")
        return dump
    except BaseException as error:
        target.close()
        book.close()
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
    place = sidecar_path(target.path, target.status) if sidecar is None else sidecar
    place = current_sidecar(place, target.status)
    if sidecar is None and not os.path.exists(place):
        if tail is not None:
            return target, tail
        known = reason.hint
        raise InvalidDump(
            reason.message, hint=known or f"and there is no sidecar file {place}"
        ) from reason
    book = Source(place)
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
