# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs on the RISC-V board of the C core (native/board/): one hart, a serial line, and perhaps
a disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import CData, check, ffi, lib
from livedumpfs.errors import MachineError
from livedumpfs.machines.emulated import WHY_SIZE, EmulatedMachine, EmulatorCore, unicorn_library
from livedumpfs.machines.guest_image import EM_RISCV
from livedumpfs.machines.riscv.disk_image import DiskImage

RAM_START: Final[int] = lib.LDFS_BOARD_RAM
"""Physical address of the first byte of RAM."""
_EXCEPTIONS: Final = {
    0: "misaligned instruction",
    1: "instruction access fault",
    2: "illegal instruction",
    3: "breakpoint",
    4: "misaligned load",
    5: "load access fault",
    6: "misaligned store",
    7: "store access fault",
    8: "call from user mode",
    12: "instruction page fault",
    13: "load page fault",
    15: "store page fault",
}


class BoardMachine(EmulatedMachine):
    """A subclass calls _adopt with what _make_board gives."""

    architecture = "riscv64"
    elf_machine = EM_RISCV
    kept_registers = "riscv"
    exceptions = _EXCEPTIONS
    vcpus = 1

    def _make_board(
        self,
        arena: Arena,
        parts: Sequence[tuple[int, bytes]],
        entry: int,
        told: int,
        disk: DiskImage | None = None,
    ) -> EmulatorCore:
        """The board boots from `parts`, bytes at physical addresses, and does so again when the
        guest reboots. It enters at `entry` with the address `told` in a1."""
        kept = [(address, ffi.from_buffer(data), len(data)) for address, data in parts]
        given = ffi.new("ldfs_boot_part[]", kept)
        about = {
            "ram_size": arena.size,
            "entry": entry,
            "told": told,
            "parts": given,
            "part_count": len(parts),
            "disk": disk.descriptor if disk else -1,
            "disk_size": disk.size if disk else 0,
            "read_only": bool(disk and disk.read_only),
        }
        out, why = ffi.new("ldfs_board **"), ffi.new("char[]", WHY_SIZE)
        rc = lib.ldfs_board_create(
            *(unicorn_library().encode(), lib.ldfs_arena_live(arena._handle)),
            *(ffi.new("ldfs_board_plan *", about), out, why, WHY_SIZE),
        )
        cause = ffi.string(why).decode(errors="replace")
        check(rc, "make a RISC-V board", MachineError, cause)
        return EmulatorCore(
            *(lib.ldfs_board_machine(out[0]), out[0]),
            *(lib.ldfs_board_start, lib.ldfs_board_stop, lib.ldfs_board_destroy),
            kept,
        )

    def type(self, text: bytes) -> None:
        """See TakesTyping."""
        rc = lib.ldfs_board_type(self._owner, text, len(text))
        check(rc, "type at the console", MachineError, "the guest has not read what was typed")

    def ended(self) -> bool:
        """The guest has switched itself off."""
        return not self._closed and bool(self.board_status().off)

    def board_status(self) -> CData:
        """ldfs_board_status: boots, ticks, requests of the disk."""
        out = ffi.new("ldfs_board_status *")
        lib.ldfs_board_status_of(self._owner, out)
        return out
