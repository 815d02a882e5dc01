# SPDX-License-Identifier: GPL-2.0-or-later
"""A program without an operating system on the RISC-V board: the built-in ledger, or another."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from livedumpfs.core.arena import Arena, wanted_size
from livedumpfs.core.capi import lib
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.huge import Huge
from livedumpfs.machines import boot
from livedumpfs.machines.guest_program import BUILT_IN_RISCV64, GuestProgram
from livedumpfs.machines.machine import PhysicalRange
from livedumpfs.machines.riscv.board_machine import RAM_START, BoardMachine
from livedumpfs.units import PAGE_SIZE, format_size

_RAM_MIN = 4 << 20


class RiscvMachine(BoardMachine):
    """One riscv64 vCPU on an arena of its own. A context manager that starts it and closes it.

    ram_size: bytes or "512MiB", at least 4 MiB, in whole pages. guest, dirty_share, rate, seed: see
    GuestProgram; None: the built-in ledger. huge: see Arena.

    UsageError: numbers out of range. MachineError: no Unicorn, not enough memory, or a guest that
    is no program for this machine.
    """

    def __init__(
        self,
        ram_size: int | str,
        guest: str | Path | None = None,
        *,
        dirty_share: float = 1.0,
        rate: int = 0,
        seed: int = 1,
        huge: Huge | None = None,
    ) -> None:
        size = wanted_size(ram_size)
        if size % PAGE_SIZE or size < _RAM_MIN:
            cause = f"not a multiple of {PAGE_SIZE} from {format_size(_RAM_MIN)} up"
            raise UsageError(f"RAM size is {size} bytes, {cause}")
        self.memory_map: Sequence[PhysicalRange] = (PhysicalRange(RAM_START, size, 0),)
        self._program = GuestProgram(
            Path(guest or BUILT_IN_RISCV64),
            own=bool(guest),
            vcpus=1,
            memory_map=self.memory_map,
            dirty_share=dirty_share,
            rate=rate,
            seed=seed,
        )
        self.name = self._program.name
        image = self._program.load(self.elf_machine)
        parts = self._program.contents(image)
        if len(parts) > lib.LDFS_BOARD_PARTS:
            raise MachineError(
                f"cannot run guest {self._program.path}: it has more than"
                f" {lib.LDFS_BOARD_PARTS - 1} segments with contents",
                errno=errno.ENOEXEC,
            )
        arena = Arena(size, huge)
        try:
            told = boot.address(0, RAM_START)
            core = self._make_board(arena, parts, image.entry, told)
        except BaseException:
            arena.close()
            raise
        self._adopt(arena, core)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """See GuestProgram."""
        self._program.wait_ready(self, timeout)

    def metadata(self) -> dict[str, object]:
        """What the dump says of the machine."""
        about = {"vcpus": self.vcpus, "ram_size": self.arena.size}
        return {**self._program.metadata(), **about}
