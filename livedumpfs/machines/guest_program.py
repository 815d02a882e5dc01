# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that runs without an operating system, the built-in ledger or one of the user's own,
and what it is told at its start."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from livedumpfs.errors import MachineError
from livedumpfs.machines import boot
from livedumpfs.machines.emulated import EmulatedMachine
from livedumpfs.machines.guest_image import GuestImage
from livedumpfs.machines.ledger_block import ledger_phases
from livedumpfs.machines.machine import PhysicalRange

_BUILT_IN: Final = Path(__file__).resolve().parent.parent / "guest"
BUILT_IN_GUEST: Final = _BUILT_IN / "ledger.elf"
"""The ledger program, with symbols; for debuggers that look into its dumps."""
BUILT_IN_RISCV64: Final = _BUILT_IN / "ledger-riscv64.elf"
"""The same for riscv64."""


class GuestProgram:
    """`path`: an ELF64 program (guest/boot.h says how it starts). `own`: it is the user's, not the
    ledger. dirty_share: the share of RAM that the ledger writes to, in (0, 1]. rate: its transfers
    a second and vCPU, 0: as fast as it can. seed: of its random choices.

    UsageError: numbers out of range.
    """

    def __init__(
        self,
        path: Path,
        *,
        own: bool,
        vcpus: int,
        memory_map: Sequence[PhysicalRange],
        dirty_share: float,
        rate: int,
        seed: int,
    ) -> None:
        self.name = "guest" if own else "ledger"
        self.path = path
        self._memory_map = memory_map
        self._told = {"dirty_share": dirty_share, "rate": rate, "seed": seed}
        share, (burst, ticks) = boot.share_of(dirty_share), boot.pace_of(rate)
        ranges = tuple((r.start, r.size) for r in memory_map)
        size = sum(r.size for r in memory_map)
        seeds = [(seed + i * 0x9E3779B97F4A7C15) % (1 << 64) for i in range(vcpus)]
        self._params = [
            boot.BootParams(i, vcpus, size, ranges, seeds[i], share, burst, ticks)
            for i in range(vcpus)
        ]

    @property
    def ram_start(self) -> int:
        """Physical address of the first byte of RAM."""
        return self._memory_map[0].start

    def load(self, elf_machine: int) -> GuestImage:
        """MachineError: it is not there, or no program for this machine."""
        if self.name == "ledger" and not self.path.exists():
            raise MachineError(
                f"the built-in guest {self.path} is not there",
                errno=errno.ENOENT,
                hint="`make guest` builds it in a source tree; `--guest FILE` runs another program",
            )
        image = GuestImage.load(self.path, elf_machine)
        image.check_fits(self._memory_map)
        return image

    def contents(self, image: GuestImage) -> list[tuple[int, bytes]]:
        """What lies in memory when it starts, by physical address; the rest is zeros."""
        told = [(boot.address(p.vcpu, self.ram_start), p.pack()) for p in self._params]
        return [*((s.address, s.data) for s in image.segments if s.data), *told]

    def wait_ready(self, machine: EmulatedMachine, timeout: float) -> None:
        """Until the ledger has filled its accounts. MachineError: it failed, or ETIMEDOUT.

        A guest of the user's own is ready at once.
        """
        end = time.monotonic() + timeout
        read, start = machine.read_physical, self.ram_start
        while self.name == "ledger" and not all(ledger_phases(read, start)):
            lines = "; ".join(map(str, machine.status()))
            if machine.state not in ("running", "new"):
                raise MachineError(f"the guest ended before it was ready: {lines}", errno=errno.EIO)
            if time.monotonic() > end:
                cause = f"the guest is not ready after {timeout:g} s: {lines}"
                raise MachineError(cause, errno=errno.ETIMEDOUT)
            time.sleep(0.005)

    def metadata(self) -> dict[str, object]:
        """What a dump says of it."""
        about: dict[str, object] = {"name": self.name, "guest": str(self.path)}
        return (
            {**about, "guest": "built-in ledger", **self._told} if self.name == "ledger" else about
        )
