# SPDX-License-Identifier: GPL-2.0-or-later
"""The notes that make a dump of a QEMU guest a vmcore for crash, drgn and makedumpfile, or for
elf2dmp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from livedumpfs.formats.note import HEADER, Note, padded
from livedumpfs.machines.kernels.information_note import information_note
from livedumpfs.machines.qemu.registers import STATE_SIZE, VcpuState
from livedumpfs.machines.qemu.vcpu import Vcpu
from livedumpfs.settings import CpuNotes

_QEMU: Final = b"QEMU\0"
_TYPE: Final = 0

NOTE_OF_VCPU: Final = HEADER.size + len(padded(_QEMU)) + STATE_SIZE
"""Bytes of QEMU's note for one vCPU."""


def vcpu_notes(
    vcpus: Sequence[Vcpu],
    vmcoreinfo: bytes | None = None,
    choice: CpuNotes = "auto",
    is_windows: Callable[[], bool] = lambda: False,
) -> list[Note]:
    """The notes behind the NT_PRSTATUS notes of all vCPUs, as in QEMU's own dumps: QEMU's note for
    each vCPU of x86-64, then VMCOREINFO. By "auto" a guest without VMCOREINFO has no note of QEMU,
    because drgn refuses a core with those alone; but Windows has them, because elf2dmp takes the
    vCPUs' states from nowhere else."""
    kept = choice == "on" or (choice == "auto" and (vmcoreinfo is not None or is_windows()))
    x86 = (vcpu for vcpu in vcpus if kept and isinstance(vcpu, VcpuState))
    notes = [Note(_QEMU, _TYPE, vcpu.qemu_state()) for vcpu in x86]
    return notes if vmcoreinfo is None else [*notes, information_note(vmcoreinfo)]
