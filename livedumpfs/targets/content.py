# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose data an open file holds: one of our dumps, sealed or not, or something else."""

from __future__ import annotations

import errno
import os

from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.formats import elf, kdump, superblock
from livedumpfs.formats.superblock import Superblock, VerdictWord
from livedumpfs.rights.folder import FolderLike
from livedumpfs.targets import sidecar as sidecars
from livedumpfs.targets import tail as tails


def read_content(fd: int, folder: FolderLike | None, name: str) -> Superblock | None:
    """The superblock of the dump in the regular file `fd`, which has that name in its folder; None:
    it is not one of our dumps. A raw dump is known by its sidecar file only, if that was written
    last."""
    size = os.fstat(fd).st_size
    return _in_head(fd) or tails.read_superblock(fd, size) or _beside(fd, folder, name)


def sealed_as(content: Superblock | None) -> VerdictWord | None:
    """The verdict of a finished dump; None: there is no dump, or it was broken off."""
    finished = content is not None and content.sealed and content.verdict != "incomplete"
    return content.verdict if content and finished else None


def refuse_content(content: Superblock | None, path: str, *, keep: tuple[VerdictWord, ...]) -> None:
    """TargetError EEXIST: the file is not ours, or a finished dump with a verdict in `keep`."""
    if content is None:
        raise TargetError(
            f"cannot dump to {path}: it is not empty and not a dump",
            errno=errno.EEXIST,
            hint="use <force> to overwrite it",
        )
    verdict = sealed_as(content)
    if verdict in keep:
        raise TargetError(
            f"cannot dump to {path}: it holds a {verdict} dump, which would be lost from the first "
            "moment on",
            errno=errno.EEXIST,
            hint="use <force> to overwrite it",
        )


def _in_head(fd: int) -> Superblock | None:
    """The superblock of an `elf` dump or a `kdump`."""
    try:
        offset, size = _notes(os.pread(fd, max(elf.HEAD_SIZE, kdump.HEAD_SIZE), 0))
        notes = os.pread(fd, size, offset)
        position = elf.own_note_position(notes)
        return superblock.parse(notes[position : position + superblock.SIZE])
    except (InvalidDump, OSError, OverflowError):
        return None


def _notes(head: bytes) -> tuple[int, int]:
    """Offset and size in bytes of the notes of the dump that starts with `head`. InvalidDump."""
    if head.startswith(kdump.MAGIC):
        found = kdump.parse_head(head, anywhere=True)
        return found.note_offset, found.note_size
    note = elf.first_note(head)
    return note.offset, note.size


def _beside(fd: int, folder: FolderLike | None, name: str) -> Superblock | None:
    if folder is None:
        return None
    for place in sidecars.places(name):
        try:
            beside = folder.open(place, write=False)
        except OSError:
            continue
        try:
            if sidecars.describes_open(beside, fd):
                return sidecars.read_superblock(beside)
        finally:
            os.close(beside)
    return None
