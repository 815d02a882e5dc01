# SPDX-License-Identifier: GPL-2.0-or-later
"""SnapshotVcpus: what dumps of a QEMU guest say of its vCPUs, whichever way its memory comes."""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

from livedumpfs.errors import MachineError
from livedumpfs.formats import Registers
from livedumpfs.formats.note import Note
from livedumpfs.machines.kernels.information import KernelInformation
from livedumpfs.machines.kernels.information_note import INFORMATION_ROOM
from livedumpfs.machines.kernels.vmcoreinfo import check_vmcoreinfo
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.machines.qemu.guest_kind import X86_GUEST, GuestKind
from livedumpfs.machines.qemu.notes import NOTE_OF_VCPU, vcpu_notes
from livedumpfs.machines.qemu.registers import VcpuState
from livedumpfs.machines.qemu.vcpu import Vcpu
from livedumpfs.machines.qemu.windows import is_windows
from livedumpfs.settings import CpuNotes


class SnapshotVcpus:
    """Part of a machine, which sets `_captured` at START."""

    memory_map: Sequence[PhysicalRange]
    _kind: GuestKind = X86_GUEST
    _captured: Sequence[Vcpu] = ()
    """The registers of the last START; none: there was no START."""
    _information: KernelInformation
    _cpu_notes: CpuNotes = "auto"

    @abstractmethod
    def _look(self, timeout: float | None = None) -> Sequence[Vcpu]:
        """The registers now, of vCPUs that may be running. MachineError."""

    @abstractmethod
    def _told_note(self, read: ReadSnapshot) -> bytes | None:
        """What the guest has reported to QEMU's device `vmcoreinfo`; None: nothing."""

    @property
    def architecture(self) -> str:
        """As `uname -m` says it."""
        return self._kind.processor.architecture

    @property
    def elf_machine(self) -> int:
        """e_machine of an ELF dump of it."""
        return self._kind.processor.elf_machine

    def registers(self) -> list[Registers]:
        """Registers now, of vCPUs that may be running. MachineError."""
        return [one.registers for one in self._look()]

    def registers_by_number(self) -> dict[int, Registers]:
        """As `registers`, by QEMU's number of the vCPU. MachineError."""
        return {one.number: one.registers for one in self._look()}

    def snapshot_registers(self) -> list[Registers]:
        """Registers of the last START. MachineError: there was none."""
        return list(self.snapshot_by_number().values())

    def snapshot_by_number(self) -> dict[int, Registers]:
        """As `snapshot_registers`, by QEMU's number of the vCPU. MachineError: no START."""
        if not self._captured:
            raise MachineError("there was no START", errno=errno.ENODATA)
        return {one.number: one.registers for one in self._captured}

    def note_room(self, vcpus: int) -> int:
        """Bytes for QEMU's note of each vCPU, and for VMCOREINFO."""
        return NOTE_OF_VCPU * vcpus * self._kind.has_notes + INFORMATION_ROOM

    def keep_cpu_notes(self, choice: CpuNotes) -> None:
        """See HasCpuNotes."""
        self._cpu_notes = choice

    def snapshot_notes(self, read: ReadSnapshot) -> Sequence[Note]:
        """QEMU's notes for the vCPUs, and VMCOREINFO if the guest has one."""
        told = self._told_note(read)
        x86 = [one for one in self._captured if isinstance(one, VcpuState)]
        windows = partial(is_windows, read, self.memory_map, x86, told)
        text = self._find_information(read, told)
        return vcpu_notes(self._captured, text, self._cpu_notes, windows)

    def _find_information(self, read: ReadSnapshot, told: bytes | None) -> bytes | None:
        """The VMCOREINFO that the guest has reported to QEMU; else the one in the snapshot."""
        checked = told and check_vmcoreinfo(told)
        return checked or self._information.find(read, [one.tables for one in self._captured])
