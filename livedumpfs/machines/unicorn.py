# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine in this process: Unicorn runs guest code on an arena.

The vCPUs are threads of the C core (native/vcpu/); no Python runs on them. Each has a
Unicorn instance of its own, so a locked instruction is not atomic against another vCPU: guests give
each vCPU its own memory to write, as the built-in one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from livedumpfs.core.arena import Arena, wanted_size
from livedumpfs.core.capi import check, ffi, lib
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.huge import Huge
from livedumpfs.machines import boot
from livedumpfs.machines.emulated import WHY_SIZE, EmulatedMachine, EmulatorCore, unicorn_library
from livedumpfs.machines.guest_image import EM_X86_64
from livedumpfs.machines.guest_program import BUILT_IN_GUEST, GuestProgram
from livedumpfs.machines.machine import PhysicalRange
from livedumpfs.units import HOST_PAGE, PAGE_SIZE, format_size

RAM_MIN = 4 << 20
LOW_RAM = 3 << 30
"""RAM beyond this begins at 4 GiB, as on a PC."""
HIGH_START = 4 << 30


def memory_map_of(ram_size: int, low_ram: int = LOW_RAM) -> tuple[PhysicalRange, ...]:
    """One range from 0, or two with the hole of a PC. UsageError: sizes that make no sense."""
    if ram_size % HOST_PAGE or ram_size < RAM_MIN:
        raise UsageError(
            f"RAM size is {ram_size} bytes, not a multiple of {HOST_PAGE} from"
            f" {format_size(RAM_MIN)} up"
        )
    if low_ram % PAGE_SIZE or not RAM_MIN <= low_ram <= HIGH_START:
        raise UsageError(f"low RAM is {low_ram} bytes, not whole pages in [4 MiB, 4 GiB]")
    if ram_size <= low_ram:
        return (PhysicalRange(0, ram_size, 0),)
    return (
        PhysicalRange(0, low_ram, 0),
        PhysicalRange(HIGH_START, ram_size - low_ram, low_ram),
    )


class UnicornMachine(EmulatedMachine):
    """x86-64 vCPUs on an arena of their own. A context manager that starts it and closes it.

    ram_size: bytes or "512MiB", at least 4 MiB. vcpus: 1 to 4. guest: an ELF64 program
    (guest/boot.h says how it starts); None: the built-in ledger. dirty_share: the share of RAM that
    the ledger writes to, in (0, 1]. rate: its transfers a second and vCPU, 0: as fast as it can.
    seed: of its random choices. low_ram: bytes of RAM from address 0; the rest begins at 4 GiB.
    huge: see Arena.

    UsageError: numbers out of range. MachineError: no Unicorn, not enough memory, or a guest that
    is no program for this machine.
    """

    architecture = "x86_64"
    elf_machine = EM_X86_64
    kept_registers = "x86"

    def __init__(
        self,
        ram_size: int | str,
        vcpus: int = 1,
        guest: str | Path | None = None,
        *,
        dirty_share: float = 1.0,
        rate: int = 0,
        seed: int = 1,
        low_ram: int = LOW_RAM,
        huge: Huge | None = None,
    ) -> None:
        size = wanted_size(ram_size)
        if not 1 <= vcpus <= lib.LDFS_MAX_VCPUS:
            raise UsageError(f"number of vCPUs is {vcpus}, not 1 to {lib.LDFS_MAX_VCPUS}")
        self.vcpus = vcpus
        self.memory_map: Sequence[PhysicalRange] = memory_map_of(size, low_ram)
        self._program = GuestProgram(
            Path(guest or BUILT_IN_GUEST),
            own=bool(guest),
            vcpus=vcpus,
            memory_map=self.memory_map,
            dirty_share=dirty_share,
            rate=rate,
            seed=seed,
        )
        self.name = self._program.name
        image = self._program.load(self.elf_machine)
        arena = Arena(size, huge)
        try:
            # The arena is all holes: the zeros behind a segment's data are there already.
            for address, data in self._program.contents(image):
                self._write(arena, address, data)
            core = self._create(arena, image.entry)
        except BaseException:
            arena.close()
            raise
        self._adopt(arena, core)

    # ------------------------------------------------------------------ making one

    def _write(self, arena: Arena, address: int, data: bytes) -> None:
        """The bytes lie in one range."""
        r = next(r for r in self.memory_map if r.start <= address < r.end)
        offset = r.arena_offset + address - r.start
        arena.live[offset : offset + len(data)] = memoryview(data)

    def _create(self, arena: Arena, entry: int) -> EmulatorCore:
        out, why = ffi.new("ldfs_machine **"), ffi.new("char[]", WHY_SIZE)
        ranges = [(r.start, r.size, r.arena_offset) for r in self.memory_map]
        rc = lib.ldfs_machine_create(
            unicorn_library().encode(),
            lib.ldfs_arena_live(arena._handle),
            ffi.new("ldfs_ram_range[]", ranges),
            len(ranges),
            self.vcpus,
            out,
            why,
            WHY_SIZE,
        )
        cause = ffi.string(why).decode(errors="replace")
        check(rc, "make a Unicorn machine", MachineError, cause)
        for i in range(self.vcpus):
            registers = ffi.new("ldfs_registers *", boot.first_registers(i, entry))
            lib.ldfs_machine_set_registers(out[0], i, registers)
        return EmulatorCore(
            *(out[0], out[0]),
            *(lib.ldfs_machine_start, lib.ldfs_machine_stop, lib.ldfs_machine_destroy),
        )

    def wait_ready(self, timeout: float = 60.0) -> None:
        """See GuestProgram."""
        self._program.wait_ready(self, timeout)

    def metadata(self) -> dict[str, object]:
        """What the dump says of the machine."""
        about = {"vcpus": self.vcpus, "ram_size": self.arena.size}
        return {**self._program.metadata(), **about}
