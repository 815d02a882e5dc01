# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory map: the guest-physical addresses of the RAM, as QEMU reports them (`info mtree -f`); and
the memory beside it (`info ramblock`)."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from typing import Final

from livedumpfs.errors import MachineError
from livedumpfs.machines.machine import PhysicalRange

_VIEW: Final = re.compile(r"^FlatView #\d+\s*$", re.MULTILINE)
# The address space of the CPUs; those of devices may differ.
_SPACE: Final = re.compile(r'^ AS "(?:memory|cpu-[^"]*)", root: ', re.MULTILINE)
_BLOCK: Final = re.compile(
    r"^ *(\S+) +\d+ [KMG]iB +0x[0-9a-f]+ +0x([0-9a-f]+) +0x[0-9a-f]+", re.MULTILINE
)
_FILE: Final = "/rom@"
"""What QEMU's fw_cfg hands out is no memory of the guest."""
_MOST_GUESSED: Final = 16 << 20
"""Most bytes of a hole whose place is known from one side only: the size of the largest window of
system management memory (TSEG)."""


def read_memory_map(text: str, backend: str, size: int) -> list[PhysicalRange]:
    """Physical ranges of the memory backend with id `backend`, sorted; they cover its `size` bytes
    exactly.

    RAM that is hidden by ROM, VGA or system management memory gets the place that its neighbours
    imply. MachineError: the text does not show the backend, or cannot be understood.
    """
    views = (_pieces(view, backend) for view in _VIEW.split(text)[1:] if _SPACE.search(view))
    shown = max(views, key=_shown, default=[])
    if not shown:
        raise MachineError(
            f"QEMU shows no memory of the backend {backend!r}",
            errno=errno.ENODATA,
            hint="see `info mtree -f` in its monitor",
        )
    _check(shown, backend, size)
    return sorted(_merge(_filled(shown, backend, size)), key=lambda one: one.start)


def read_left_out(text: str, backend: str) -> dict[str, int]:
    """Name and bytes of each block of memory that is not the backend: VGA RAM, BIOS, ROMs of
    cards. `text`: of `info ramblock`."""
    found = {match[1]: int(match[2], 16) for match in _BLOCK.finditer(text)}
    ours = {backend, f"/objects/{backend}"}
    return {
        name: size
        for name, size in found.items()
        if name not in ours and not name.startswith(_FILE)
    }


def _pieces(view: str, backend: str) -> list[PhysicalRange]:
    """The ranges of the backend in one view, in arena order."""
    # QEMU shows a region that the chipset write-protects as rom.
    line = re.compile(
        r"^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:nv-)?(?:ram|rom|romd)\): "
        rf"(?:/objects/)?{re.escape(backend)}(?: @([0-9a-f]+))?(?: .*)?$",
        re.MULTILINE,
    )
    found = (
        PhysicalRange(start, int(match[2], 16) + 1 - start, int(match[3] or "0", 16))
        for match in line.finditer(view)
        for start in [int(match[1], 16)]
    )
    return sorted(found, key=lambda one: one.arena_offset)


def _shown(pieces: Sequence[PhysicalRange]) -> int:
    return sum(one.size for one in pieces)


def _check(pieces: Sequence[PhysicalRange], backend: str, size: int) -> None:
    end = 0
    for one in pieces:
        if one.size <= 0 or one.arena_offset < end:
            raise _strange(backend, one, "is shown twice")
        end = one.arena_offset + one.size
        if end > size:
            raise _strange(backend, one, f"is behind its end, {size:#x}")


def _strange(backend: str, one: PhysicalRange, how: str) -> MachineError:
    return MachineError(
        f"QEMU's memory map: [{one.arena_offset:#x}, +{one.size:#x}) of {backend} {how}",
        errno=errno.EINVAL,
    )


def _filled(pieces: Sequence[PhysicalRange], backend: str, size: int) -> Iterator[PhysicalRange]:
    """The pieces, and the ranges between them."""
    at, before = 0, None
    for after in (*pieces, None):
        until = after.arena_offset if after else size
        if at < until:
            yield _hidden(pieces, before, after, (at, until), backend)
        if after:
            yield after
            at, before = after.arena_offset + after.size, after


def _hidden(
    pieces: Sequence[PhysicalRange],
    before: PhysicalRange | None,
    after: PhysicalRange | None,
    hole: tuple[int, int],
    backend: str,
) -> PhysicalRange:
    """The physical range of arena [hole[0], hole[1]), which other memory hides from the CPUs."""
    shifts = [one.start - one.arena_offset for one in (before, after) if one]
    size = hole[1] - hole[0]
    agreed = before and after and shifts[0] == shifts[1]
    if agreed or size <= _MOST_GUESSED:
        for shift in shifts:
            guess = PhysicalRange(hole[0] + shift, size, hole[0])
            if guess.start >= 0 and not any(_overlap(guess, one) for one in pieces):
                return guess
    raise _strange(backend, PhysicalRange(0, size, hole[0]), "is nowhere in the guest")


def _overlap(one: PhysicalRange, other: PhysicalRange) -> bool:
    return one.start < other.end and other.start < one.end


def _merge(pieces: Iterator[PhysicalRange]) -> list[PhysicalRange]:
    """Merge ranges that are neighbours both in the arena and in the guest."""
    merged: list[PhysicalRange] = []
    for one in pieces:
        last = merged[-1] if merged else None
        if last and last.end == one.start and last.arena_offset + last.size == one.arena_offset:
            merged[-1] = PhysicalRange(last.start, last.size + one.size, last.arena_offset)
        else:
            merged.append(one)
    return merged
