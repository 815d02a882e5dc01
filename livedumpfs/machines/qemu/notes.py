# SPDX-License-Identifier: GPL-2.0-or-later
"""The notes that make a dump of a QEMU guest a vmcore for crash, drgn and makedumpfile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from livedumpfs.formats.note import HEADER, OWN_NAME, Note, padded
from livedumpfs.machines.qemu.registers import STATE_SIZE, VcpuState
from livedumpfs.machines.qemu.vmcoreinfo import MAX_SIZE

_QEMU: Final = b"QEMU\0"
_INFORMATION: Final = b"VMCOREINFO\0"
_TYPE: Final = 0

NOTE_OF_VCPU: Final = HEADER.size + len(padded(_QEMU)) + STATE_SIZE
"""Bytes of QEMU's note for one vCPU."""
INFORMATION_ROOM: Final = (
    HEADER.size + len(padded(_INFORMATION)) + MAX_SIZE + HEADER.size + len(padded(OWN_NAME))
)
"""Bytes of room for a VMCOREINFO note, and for the note that fills the rest."""


def vcpu_notes(vcpus: Sequence[VcpuState], vmcoreinfo: bytes | None = None) -> list[Note]:
    """The notes behind the NT_PRSTATUS notes of all vCPUs, as in QEMU's own dumps: QEMU's note for
    each vCPU, then VMCOREINFO. Without VMCOREINFO there are none, because drgn refuses a core with
    QEMU's notes alone."""
    if vmcoreinfo is None:
        return []
    notes = [Note(_QEMU, _TYPE, vcpu.qemu_state()) for vcpu in vcpus]
    return [*notes, Note(_INFORMATION, _TYPE, vmcoreinfo)]
