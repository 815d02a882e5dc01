# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump would lose, or not find, on its target: asked before anything is written."""

from __future__ import annotations

import errno
import os

from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import lib
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.formats import Plan, VerdictWord
from livedumpfs.machines.machine import Memory
from livedumpfs.targets import Kind, Target, expect_space, sealed_as


def refuse_sealed(target: Target, sidecar: Target | None) -> None:
    """TargetError EEXIST: a finished dump lies on the block device; what was broken off may go.
    `sidecar`: what will describe the new one, and may describe that."""
    if target.kind is not Kind.BLOCK:
        return
    for book in (None, sidecar):
        verdict = _finished(target, book)
        if verdict:
            raise TargetError(
                f"cannot dump to {target.path}: it holds a {verdict} dump",
                errno=errno.EEXIST,
                hint="use <force> to overwrite it",
            )


def _finished(target: Target, book: Target | None) -> VerdictWord | None:
    """Of the dump on the device, which is described on it, at the usual place, or by `book`."""
    place = None if book is None else f"/proc/self/fd/{book.fd}"
    try:
        with open_dump(f"/proc/self/fd/{target.fd}", place) as dump:
            # A sidecar file may be of a dump that went long ago, by another way than ours.
            if not dump.sealed or (dump.sidecar and not dump.has_saved()):
                return None
            return sealed_as(dump.superblock)
    except (InvalidDump, OSError):
        return None


def expect_room(memory: Memory, plan: Plan, target: Target, sidecar: Target | None) -> None:
    """TargetError ENOSPC: what is in the memory will not fit. What a kdump will need is not known;
    memory that exists and is all zeros counts, though it takes no room."""
    occupied = occupied_bytes(memory)
    if occupied is None or plan.format == "kdump":
        return
    described = plan.description[1] if plan.book == "target" else 0
    needed = occupied + described
    if sidecar and os.fstat(sidecar.fd).st_dev == os.fstat(target.fd).st_dev:
        needed += plan.book_size
    expect_space(target, needed)


def occupied_bytes(memory: Memory) -> int | None:
    """Bytes of the memory that exist; None: that is not known."""
    fd = lib.ldfs_arena_memfd(memory.handle) if isinstance(memory, Arena) else None
    if fd is None:
        fd = getattr(memory, "fd", None)
    if not isinstance(fd, int) or fd < 0:
        return None
    return min(memory.size, os.fstat(fd).st_blocks * 512)
