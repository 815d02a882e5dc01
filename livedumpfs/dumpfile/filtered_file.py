# SPDX-License-Identifier: GPL-2.0-or-later
"""Kdumps that makedumpfile filtered out of a living snapshot: sealing, and reading the seal."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import xxhash

from livedumpfs.closing import Closing
from livedumpfs.dumpfile.layout import read_meta
from livedumpfs.dumpfile.source import FileSource, Source, open_source
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.formats import elf, filtered, kdump, superblock
from livedumpfs.formats.note import VMCOREINFO, find_notes
from livedumpfs.formats.plan import new_dump_id
from livedumpfs.formats.superblock import Superblock, VerdictWord
from livedumpfs.targets import (
    SIDECAR,
    Kind,
    incomplete_name,
    open_target,
    publish,
    retire_sidecar,
)

_PIECE: Final = 1 << 20
_BITMAP_PIECE: Final = 1 << 20
_TOO_FAR: Final = 1 << 62
_UNFINISHED: Final = "user.livedumpfs.unfinished"
"""Extended attribute of a file while makedumpfile writes it."""
OnBytes = Callable[[int, int], None]
"""on_bytes(done, total)."""


def has_vmcoreinfo(path: str) -> bool:
    """Whether an ELF core has a VMCOREINFO note: without it makedumpfile cannot know what a page
    is. TargetError."""
    source = FileSource(path)
    try:
        found = elf.first_note(source.read(0, elf.HEAD_SIZE))
        notes = source.read_exact(found.offset, found.size, "notes")
    except InvalidDump:
        return False
    finally:
        source.close()
    return any(name == VMCOREINFO for name, *_ in find_notes(notes))


class NewFiltered(Closing):
    """The file that makedumpfile is to write. It gets its name with the seal, as any dump does;
    closed before that, it goes."""

    def __init__(self, path: str, *, force: bool) -> None:
        """TargetError as of open_target, and for what is no regular file."""
        _remove_unfinished(incomplete_name(path))
        self.target = open_target(path, force=force)
        self._begun = self._sealed = False
        if self.target.kind is not Kind.FILE:
            kind = self.target.kind.value
            self.target.abandon()
            raise TargetError(
                f"makedumpfile cannot write to {path}: it is a {kind}",
                errno=errno.EINVAL,
                hint="name a regular file, or - for standard output",
            )

    def begin(self) -> int:
        """Empty it. Returns its fd, which stays ours. TargetError."""
        self._begun = True
        try:
            retire_sidecar(self.target.path + SIDECAR)
        except OSError as error:
            raise TargetError(f"cannot remove {self.target.path}{SIDECAR}: {error}") from error
        self.target.prepare(0)
        with contextlib.suppress(OSError):
            os.setxattr(self.target.fd, _UNFINISHED, b"")
        return self.target.fd

    def seal(
        self,
        level: int,
        verdict: VerdictWord,
        meta: Mapping[str, object],
        *,
        arena_size: int,
        granule_size: int,
    ) -> None:
        """Write the record behind the kdump, durably, the superblock after all else; then give the
        file its name, and close it. InvalidDump: it is no whole kdump of makedumpfile's -d `level`;
        TargetError."""
        target = self.target
        source = FileSource(f"/proc/self/fd/{target.fd}")
        try:
            written = _written(source, level)
            notes = source.read_exact(written.note_offset, written.note_size, "notes")
            record = filtered.plan_record(source.size, notes)
            target.pwrite(record.pointer[1], record.pointer[0])
            target.pwrite(record.notes, record.note_offset)
            source.size = target.size
            checksum = _checksum(source, record.superblock_offset)
        finally:
            source.close()
        target.sync()
        sealed = record.seal(
            meta, dump_id=new_dump_id(), verdict=verdict, sizes=(arena_size, granule_size),
            checksum=checksum,
        )  # fmt: skip
        target.pwrite(sealed, record.superblock_offset)
        target.sync()
        self._sealed = True
        with contextlib.suppress(OSError):
            os.removexattr(target.fd, _UNFINISHED)
        try:
            publish(target, None, verdict, describes_itself=True)
        finally:
            self.close()

    @property
    def path(self) -> str:
        """Where the dump is, or will be. An incomplete one has not got its name."""
        goal = self.target.goal
        return goal.path if goal and not self._sealed else self.target.path

    def close(self) -> None:
        """Close it; harmless when done twice."""
        target = self.target
        if self._sealed or target.fd < 0:
            target.close()
            return
        if self._begun:
            with contextlib.suppress(TargetError):
                target.truncate(0)  # one that is written in place stays
        target.abandon()


def _remove_unfinished(path: str) -> None:
    """A file that this class had begun when its process was killed: nothing in it says so but its
    attribute."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.getxattr(fd, _UNFINISHED)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
                os.unlink(path)
        finally:
            os.close(fd)


def _written(source: Source, level: int) -> filtered.Written:
    found = filtered.parse_written(source.read(0, kdump.HEAD_SIZE))
    if found.level != level:
        raise InvalidDump(f"its kdump header has dump level {found.level}, not {level}")
    end, index = 0, 0
    for at in range(0, found.bitmap_size, _BITMAP_PIECE):
        size = min(_BITMAP_PIECE, found.bitmap_size - at)
        bits = np.frombuffer(source.read_exact(found.bitmap_offset + at, size, "bitmap"), np.uint8)
        count = int(np.unpackbits(bits).sum())
        data = source.read_exact(
            found.descriptors_offset + index * kdump.DESCRIPTOR.itemsize,
            count * kdump.DESCRIPTOR.itemsize,
            "page descriptors",
        )
        pages = np.frombuffer(data, kdump.DESCRIPTOR)
        ends = (pages["offset"] + pages["size"])[pages["offset"] < _TOO_FAR]
        if len(ends) < count:
            raise InvalidDump("its page descriptors have impossible values")
        end, index = max(end, int(ends.max(initial=0))), index + count
    if end > source.size:
        raise InvalidDump(f"it is cut off: {source.size} of {end} bytes")
    return found


def _checksum(source: Source, end: int, on_bytes: OnBytes | None = None) -> int:
    """XXH3-64 of bytes [0, end). InvalidDump: the file is shorter."""
    hashed, at = xxhash.xxh3_64(), 0
    while at < end:
        hashed.update(source.read_exact(at, min(_PIECE, end - at), "pages"))
        at = min(end, at + _PIECE)
        if on_bytes:
            on_bytes(at, end)
    return hashed.intdigest()


class FilteredDump(Closing):
    """A filtered kdump with its record, open for reading."""

    def __init__(self, source: Source, block: Superblock, offset: int) -> None:
        """Use open_filtered. InvalidDump: the record is damaged or impossible. `offset`: where the
        superblock was found."""
        self._source, self.superblock = source, block
        ends = (block.meta_offsets[0] + block.meta_room, block.superblock_offset + superblock.ROOM)
        if block.superblock_offset != offset or max(*ends, block.total_size) > source.size:
            raise InvalidDump("it is cut off, or its record belongs to another dump")
        self.path = source.path
        self.meta: dict[str, Any] = read_meta(source, block)
        self.head = kdump.parse_head(source.read(0, kdump.HEAD_SIZE), anywhere=True)
        self.level = filtered.parse_written(source.read(0, kdump.HEAD_SIZE)).level

    def close(self) -> None:
        """Close the file; harmless when done twice."""
        self._source.close()

    def describe(self) -> dict[str, Any]:
        """JSON types, for `info`. Keys that the record does not have are left out."""
        known = {name: self.meta[name] for name in _PASSED_ON if name in self.meta}
        return {
            "path": self.path,
            "format": self.superblock.format,
            "compression": self.head.compression,
            "verdict": self.superblock.verdict,
            "sealed": self.superblock.sealed,
            "dump_id": self.superblock.dump_id.hex(),
            "arena_size": self.superblock.arena_size,
            "granule_size": self.superblock.granule_size,
            "level": self.level,
            **known,
        }

    def problems(self, on_bytes: OnBytes | None = None) -> list[str]:
        """Read all of it: what is wrong, a sentence each."""
        block = self.superblock
        found = [] if block.verdict == "consistent" else [f"the snapshot was {block.verdict}"]
        if _checksum(self._source, block.superblock_offset, on_bytes) != block.header_checksum:
            found.append("it was changed since makedumpfile wrote it (checksum)")
        return found


_PASSED_ON: Final[tuple[str, ...]] = (
    "excluded", "makedumpfile", "instant", "pause_ns", "policy", "backend", "arming",
    "host_version", "counters", "machine", "registers",
)  # fmt: skip


def open_filtered(path: str) -> FilteredDump | None:
    """The filtered dump in a file; None: it is something else, for open_dump. InvalidDump;
    TargetError."""
    source = open_source(path)
    try:
        dump = _find(source)
    except InvalidDump as error:
        source.close()
        raise InvalidDump(f"{path} is not a valid dump: {error.message}") from error
    except BaseException:
        source.close()
        raise
    if dump is None:
        source.close()
    return dump


def _find(source: Source) -> FilteredDump | None:
    try:
        head = kdump.parse_head(source.read(0, kdump.HEAD_SIZE), anywhere=True)
        notes = source.read_exact(head.note_offset, head.note_size, "notes")
        position = elf.own_note_position(notes)
        block = superblock.parse(notes[position : position + superblock.SIZE])
    except InvalidDump:
        return None
    if block.format != superblock.FILTERED:
        return None
    return FilteredDump(source, block, head.note_offset + position)
