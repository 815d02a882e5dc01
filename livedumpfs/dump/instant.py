# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshot: the memory at the instant of one START, until that dump is released."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from livedumpfs.dump.core_dump import Core
from livedumpfs.dump.core_image import CoreImage
from livedumpfs.errors import LivedumpError, UsageError
from livedumpfs.formats import Image, MachineInfo, Registers
from livedumpfs.formats.note import Note
from livedumpfs.formats.snapshot_files import ImageFile, OpenFile
from livedumpfs.machines import Machine

READ_PIECE: Final = 128 << 10
"""Bytes that are read in one go: what FUSE asks for, too. In between a RELEASE gets through."""


def machine_info(machine: Machine, vcpus: int) -> MachineInfo:
    """What the formats say of a machine with so many vCPUs."""
    return MachineInfo.of(
        machine.name,
        machine.memory_map,
        architecture=machine.architecture,
        elf_machine=machine.elf_machine,
        vcpus=vcpus,
        identity_mapped=machine.identity_mapped,
        note_room=machine.note_room(vcpus),
    )


class Snapshot:
    """One dump's memory at its instant, by arena offset. Belongs to that dump for good: OSError
    ENODATA from its RELEASE on, also when there is a next one. Any thread may read."""

    def __init__(
        self,
        machine: Machine,
        core: Core,
        registers: Sequence[Registers],
        generation: int,
        describe: Callable[[], dict[str, object]],
        notes: Sequence[Note] = (),
    ) -> None:
        self.generation = generation
        """Number of the dump, from 1 on, among those of its LiveDump."""
        self.size = machine.arena.size
        """Bytes."""
        self.registers = tuple(registers)
        """Of the instant, one for each vCPU."""
        self.machine = replace(machine_info(machine, len(self.registers)), notes=tuple(notes))
        self._named = {one.name: one for one in machine.arena.named}
        self.instant_ns = core.counters().instant_wall_ns
        """When it was taken, in nanoseconds since the epoch."""
        self._core = core
        self._describe = describe

    def read(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length). OSError ENODATA: released; EIO: a granule is lost.
        LivedumpError EINVAL: outside the arena."""
        if offset < 0 or not 0 <= length <= self.size:
            raise LivedumpError(
                f"cannot read {length} bytes of the snapshot at offset {offset:#x}",
                errno=errno.EINVAL,
            )
        found = bytearray(length)
        self.read_into(offset, memoryview(found))
        return bytes(found)

    def read_into(self, offset: int, view: memoryview) -> None:
        """As read, of len(view) bytes into `view`."""
        for at in range(0, len(view) or 1, READ_PIECE):
            self._core.read_into(offset + at, view[at : at + READ_PIECE])

    def open_image(self, image: Image) -> OpenFile:
        """An image of this memory, as a file. By way of C where the memory is in this process."""
        gate = self._core.gate
        return CoreImage(image, gate) if gate else ImageFile(image, self.read_into)

    def file(self) -> SnapshotFile:
        """A seekable file object over all of it, with a position of its own."""
        return SnapshotFile(self)

    def array(self, name: str) -> npt.NDArray[Any]:
        """The arena's named array as it was: a copy, read-only. UsageError: none of that name."""
        if name not in self._named:
            raise UsageError(f"the arena has no array named {name!r}")
        info = self._named[name]
        found: npt.NDArray[Any] = np.empty(info.shape, dtype=info.dtype)
        self.read_into(info.offset, found.reshape(-1).view(np.uint8).data)
        found.flags.writeable = False
        return found

    def describe(self) -> dict[str, object]:
        """What the dump says of itself now; JSON types. OSError ENODATA: released."""
        found = self._describe()
        self.read(0, 0)
        return found


class SnapshotFile(io.RawIOBase):
    """A snapshot as a file: read-only, seekable; wrap it in io.BufferedReader for small reads."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position on; 0 at the end. OSError ENODATA, EIO."""
        self._check_open()
        out = memoryview(buffer).cast("B")
        count = max(0, min(len(out), self._snapshot.size - self._position, READ_PIECE))
        # Also of 0 bytes: the end of a snapshot that has gone is no end.
        self._snapshot.read_into(self._position if count else 0, out[:count])
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As for any file; also behind the end. OSError EINVAL: in front of the start."""
        self._check_open()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._snapshot.size}
        if whence not in bases or bases[whence] + offset < 0:
            raise OSError(errno.EINVAL, f"cannot seek to {offset} from {whence}")
        self._position = bases[whence] + offset
        return self._position

    def tell(self) -> int:
        """The position, in bytes."""
        self._check_open()
        return self._position

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
