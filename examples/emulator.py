# SPDX-License-Identifier: GPL-2.0-or-later
"""An emulator of one's own, here of Unicorn, whose guest is dumped while it runs.

    python examples/emulator.py DIR

Guest RAM and registers are arrays of an arena. The emulator runs in slices; a dump may stop it
between two of them, where the registers are in their array. The dump is then run on in a second
emulator, which ends with what the first one ends with.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from unicorn import UC_ARCH_X86, UC_MODE_64, UC_PROT_ALL, Uc
from unicorn.x86_const import UC_X86_REG_RBX, UC_X86_REG_RCX, UC_X86_REG_RIP

from livedumpfs import Arena, LiveDump, WriterLock

RAM = 8 << 20
CODE = 0x1000
ROUNDS = 3_000_000
SLICE = 20_000
"""Instructions: the longest that a dump waits."""
REGISTERS = (UC_X86_REG_RIP, UC_X86_REG_RCX, UC_X86_REG_RBX)
# rcx += 1, and store it to page rcx % 1024 behind 1 MiB, until rcx == ROUNDS
PROGRAM = bytes.fromhex("48ffc1 4889cb 81e3ff030000 c1e30c 48898b00001000 4881f9") + (
    ROUNDS.to_bytes(4, "little") + bytes.fromhex("75e1")
)
END = CODE + len(PROGRAM)


class Emulator:
    """One processor on the RAM of an arena."""

    def __init__(self, arena: Arena) -> None:
        ram, self.registers = arena.arrays["ram"], arena.arrays["registers"]
        self.writers = WriterLock()
        self.cpu = Uc(UC_ARCH_X86, UC_MODE_64)
        # Unicorn stores straight into the arena: the first store to a page that is not saved yet
        # is a page fault, and livedumpfs saves the page in it.
        self.cpu.mem_map_ptr(0, RAM, UC_PROT_ALL, arena.address + arena.offset_of(ram))
        for register, value in zip(REGISTERS, self.registers, strict=True):
            self.cpu.reg_write(register, int(value))

    def run(self) -> None:
        """To the end of the program."""
        while self.registers[0] != END:
            with self.writers:
                self.cpu.emu_start(int(self.registers[0]), END, count=SLICE)
                self.registers[:] = [self.cpu.reg_read(one) for one in REGISTERS]


def new_arena() -> Arena:
    """With the program in RAM."""
    arena = Arena(RAM + (1 << 20))
    ram: Any = arena.zeros(RAM, "u1", name="ram")
    ram[CODE:END] = list(PROGRAM)
    arena.from_array([CODE, 0, 0], name="registers")
    return arena


def main(folder: str) -> None:
    """Run, dump in the middle, run the dump on, compare."""
    path = Path(folder) / "emulator.elf"
    with new_arena() as arena:
        emulator = Emulator(arena)
        thread = threading.Thread(target=emulator.run)
        thread.start()
        LiveDump(arena, writers=emulator.writers).save(path)
        thread.join()
        whole = arena.arrays["ram"].copy()
        del emulator
    with Arena.load(path) as arena:
        rounds = int(arena.arrays["registers"][1])
        again = Emulator(arena)
        again.run()
        assert (arena.arrays["ram"] == whole).all(), "the dump is not of one instant"
        del again
    print(f"dumped in round {rounds} of {ROUNDS}; run on from there it ends alike")


if __name__ == "__main__":
    main(sys.argv[1])
