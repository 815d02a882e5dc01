# SPDX-License-Identifier: GPL-2.0-or-later
"""Processor: what a dump says of a processor architecture, and its struct elf_prstatus.

Linux gives every architecture of 64 bits the same elf_prstatus (include/uapi/linux/elfcore.h); only
pr_reg, the elf_gregset_t in it, is the architecture's own.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

PID_OFFSET: Final = 32
"""Of pr_pid, in bytes."""
_ALL_BITS: Final = (1 << 64) - 1
_HEAD: Final = "3ih2xQQ4i8Q"
"""What stands before pr_reg: signal information, signal sets, process ids, times."""
_HEAD_FIELDS: Final = 18
_TAIL: Final = "i4x"
"""pr_fpvalid."""


@dataclass(frozen=True)
class Processor:
    """A little-endian processor of 64 bits."""

    architecture: str
    """As `uname -m` says it."""
    elf_machine: int
    """e_machine, the EM_ number of elf.h."""
    registers: tuple[str, ...]
    """Names of the registers of elf_gregset_t, in its order; each has 64 bits."""

    @cached_property
    def _prstatus(self) -> struct.Struct:
        return struct.Struct(f"<{_HEAD}{len(self.registers)}Q{_TAIL}")

    @property
    def prstatus_size(self) -> int:
        """Bytes of struct elf_prstatus."""
        return self._prstatus.size

    def prstatus(self, registers: Mapping[str, int], pid: int) -> bytes:
        """struct elf_prstatus with the general registers; those not in `registers` are 0."""
        values = [registers.get(name, 0) & _ALL_BITS for name in self.registers]
        return self._prstatus.pack(0, 0, 0, 0, 0, 0, pid, 0, 0, 0, *[0] * 8, *values, 0)

    def parse_prstatus(self, content: bytes) -> dict[str, int]:
        """The registers in struct elf_prstatus. ValueError: `content` has another size."""
        if len(content) != self.prstatus_size:
            raise ValueError(f"{len(content)} bytes are no elf_prstatus of {self.architecture}")
        values = self._prstatus.unpack(content)[_HEAD_FIELDS:]
        return dict(zip(self.registers, values, strict=False))
