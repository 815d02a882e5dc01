# SPDX-License-Identifier: GPL-2.0-or-later
"""What other views of a dump need of it: its machine, its states by range, zeros for what it lacks.

As all that reads dumps: a file may be hostile, and is refused with InvalidDump.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from livedumpfs.dumpfile.describe import describe_dump
from livedumpfs.dumpfile.reader import DumpFile
from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import Image, MachineInfo, Registers, table
from livedumpfs.formats.note import parse_notes
from livedumpfs.formats.snapshot_files import (
    ImageFile,
    ReadArena,
    SnapshotFiles,
    standard_images,
)
from livedumpfs.formats.typed import typed
from livedumpfs.linux.kcore import kcore_image
from livedumpfs.units import PAGE_SIZE

_ElfMachine = Annotated[int, Meta(ge=0, le=0xFFFF)]
_MAX_REGISTER = (1 << 64) - 1


def machine_of(dump: DumpFile) -> MachineInfo:
    """The machine that the dump shows, with as many vCPUs as it has registers of."""
    try:
        number = typed(dump.meta.get("elf_machine"), _ElfMachine, "ELF machine")
        notes = parse_notes(dump.meta.get("notes", []))
    except InvalidDump as error:
        raise InvalidDump(f"{dump.path} is not a valid dump: {error.message}") from error
    return MachineInfo(
        dump.machine_name,
        str(dump.meta.get("architecture", "")),
        number,
        len(dump.registers),
        dump.memory_map,
        dump.meta.get("identity_mapped", True) is True,
        sum(len(note.pack()) for note in notes),
        notes,
    )


def registers_of(dump: DumpFile) -> list[Registers]:
    """Registers of each vCPU, each a number of 64 bits."""
    found = dump.registers
    for values in found:
        for value in values.values():
            if not isinstance(value, int) or not 0 <= value <= _MAX_REGISTER:
                raise InvalidDump(f"{dump.path} is not a valid dump: its registers are damaged")
    return list(found)


def images_of(dump: DumpFile) -> dict[str, Image]:
    """The dump as vmcore, mem.raw and mem.lime, by these names."""
    try:
        images = standard_images(machine_of(dump), dump.arena_size, registers_of(dump))
    except UsageError as error:
        raise InvalidDump(f"{dump.path} is not a valid dump: {error.message}") from error
    return {image.name: image for image in images}


class StoredFiles(SnapshotFiles):
    """snapshot/ of a dump that lies on a target."""

    def __init__(self, dump: DumpFile, read: ReadArena) -> None:
        described = describe_dump(dump)
        machine, registers = machine_of(dump), registers_of(dump)
        holes = sum(b - a for a, b in dump.pfn_ranges(table.HOLE)) * PAGE_SIZE
        super().__init__(
            list(images_of(dump).values()),
            partial(ImageFile, read=read),
            lambda: described,
            holes=holes,
            make_kcore=kcore_image(machine, dump.arena_size, registers),
        )
        self.dump_id = dump.dump_id
        """Its own, of 16 bytes."""
        self.instant_ns = dump.instant_ns or dump.changed_ns
        """When the memory was so; of a dump that does not say it: when its target was written."""


def files_of(dump: DumpFile, *, zero_missing: bool = False) -> StoredFiles:
    """snapshot/ of the dump. What it lacks reads as OSError EIO, or as zeros."""
    return StoredFiles(dump, partial(read_or_zeros, dump) if zero_missing else dump.read_into)


def missing_pages(dump: DumpFile) -> int:
    """Pages of the arena that are lost or were never saved."""
    return sum(b - a for state in (table.ARMED, table.LOST) for a, b in dump.pfn_ranges(state))


def state_runs(dump: DumpFile, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """(arena offset, bytes, state) of the parts of [offset, +length), length > 0, which lies within
    the arena."""
    size, end = dump.granule_size, offset + length
    first = offset // size
    states = dump.entries["state"][first : (end - 1) // size + 1]
    changes = [*(np.flatnonzero(np.diff(states)) + 1).tolist(), len(states)]
    begin, at = 0, offset
    for change in changes:
        stop = min(end, (first + change) * size)
        yield at, stop - at, int(states[begin])
        begin, at = change, stop


def read_or_zeros(dump: DumpFile, offset: int, view: memoryview) -> None:
    """Fill `view` from the arena's `offset` on; zeros where the dump has nothing. OSError: the
    target cannot be read."""
    if not view:
        return
    for at, size, state in state_runs(dump, offset, len(view)):
        part = view[at - offset : at - offset + size]
        if state == table.SAVED:
            dump.read_stored(at, part)
        else:
            np.frombuffer(part, np.uint8)[:] = 0


def pages_there(dump: DumpFile, offset: int, length: int) -> npt.NDArray[np.bool_]:
    """For each page of arena [offset, +length), length > 0: whether the dump has it."""
    return _pages_in(dump, offset, length, (table.SAVED, table.HOLE))


def pages_saved(dump: DumpFile, offset: int, length: int) -> npt.NDArray[np.bool_]:
    """The same: whether its bytes are on the target, and so no hole by the table alone."""
    return _pages_in(dump, offset, length, (table.SAVED,))


def _pages_in(
    dump: DumpFile, offset: int, length: int, chosen: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    there = np.zeros(length // PAGE_SIZE, dtype=np.bool_)
    for at, size, state in state_runs(dump, offset, length):
        page = (at - offset) // PAGE_SIZE
        there[page : page + size // PAGE_SIZE] = state in chosen
    return there
