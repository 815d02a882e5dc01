# SPDX-License-Identifier: GPL-2.0-or-later
"""StateDump: the exact vCPU states from QEMU's own dump command, which is told to dump one page of
the memory."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.errors import MachineError
from livedumpfs.formats.note import VMCOREINFO, find_notes
from livedumpfs.machines.qemu.monitor import Monitor
from livedumpfs.machines.qemu.registers import VcpuState
from livedumpfs.machines.qemu.vcpu import in_order
from livedumpfs.units import PAGE_SIZE

_NAME: Final = "livedump-state"
_NOTE: Final = b"QEMU\0"
_PRSTATUS: Final = b"CORE\0"
_NUMBER_AT: Final = {144: 24, 336: 32}
"""Size of elf_prstatus (32 and 64 bits) -> offset of its pr_pid, which is QEMU's number of the
vCPU, plus 1. QEMU writes the kind of the code that the vCPU runs."""
_ELF64: Final = b"\x7fELF\x02\x01"
_EHDR: Final = struct.Struct("<32xQ14xHH6x")
"""e_phoff, e_phentsize, e_phnum. In QEMU's dumps the program headers stand behind the section
headers."""
_PHDR: Final = struct.Struct("<I4xQ16xQ")
_PT_NOTE: Final = 4
_MOST: Final = 64 << 20
"""Most bytes that are read of such a file."""


class StateDump(Closing):
    """A file for QEMU to write into. The human monitor's text lacks some registers, and takes as
    long. With QEMU's device `vmcoreinfo`, by which the guest's kernel reports its VMCOREINFO, the
    dump has that too."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._fd = os.memfd_create("livedump-state")

    def prepare(self) -> None:
        """Give QEMU the file, for one `take`. MachineError."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._monitor.send_file(_NAME, self._fd)

    def take(self, *, timeout: float | None = None) -> tuple[list[VcpuState], bytes | None]:
        """Each vCPU of a stopped guest, and its VMCOREINFO. MachineError: EINVAL, QEMU refuses
        (another dump or a migration is under way); EPROTO, it is not a dump of an x86-64 guest."""
        arguments: dict[str, object] = {
            "paging": False,
            "protocol": f"fd:{_NAME}",
            "begin": 0,
            "length": PAGE_SIZE,
        }
        self._monitor.execute("dump-guest-memory", arguments, timeout=timeout)
        return parse_states(os.pread(self._fd, _MOST, 0))

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def parse_states(core: bytes) -> tuple[list[VcpuState], bytes | None]:
    """The vCPUs in a core that QEMU wrote, sorted by number, and VMCOREINFO if there is one.
    MachineError EPROTO."""
    try:
        notes = list(_notes(core))
        numbers = [_number(content) for name, content in notes if name == _PRSTATUS]
        contents = [content for name, content in notes if name == _NOTE]
        states = [VcpuState.parse(*one) for one in zip(contents, numbers, strict=True)]
    except (struct.error, ValueError) as error:
        raise _strange() from error
    if not states or len(set(numbers)) < len(numbers):
        raise _strange()
    told = next((content for name, content in notes if name == VMCOREINFO), None)
    return in_order(states), told


def _number(prstatus: bytes) -> int:
    """QEMU's number of the vCPU. ValueError: the note has another size."""
    if len(prstatus) not in _NUMBER_AT:
        raise ValueError(f"{len(prstatus)} bytes are no elf_prstatus")
    return int.from_bytes(prstatus[_NUMBER_AT[len(prstatus)] :][:4], "little") - 1


def _strange() -> MachineError:
    return MachineError("QEMU's dump has no vCPU that we know", errno=errno.EPROTO)


def _notes(core: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names, a NUL at the end, and contents. The guest stands still meanwhile, so no library does
    it: pyelftools takes a hundred times as long."""
    if not core.startswith(_ELF64):
        raise _strange()
    offset, size, count = _EHDR.unpack_from(core)
    for index in range(count):
        kind, start, length = _PHDR.unpack_from(core, offset + size * index)
        if kind == _PT_NOTE:
            notes = core[start : start + length]
            for name, _, content, content_size in find_notes(notes):
                yield name, notes[content : content + content_size]
