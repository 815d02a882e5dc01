# SPDX-License-Identifier: GPL-2.0-or-later
"""The processors whose registers a dump can have."""

from __future__ import annotations

from typing import Final

from livedumpfs.formats.processors.aarch64 import AARCH64
from livedumpfs.formats.processors.processor import Processor
from livedumpfs.formats.processors.riscv64 import RISCV64
from livedumpfs.formats.processors.x86_64 import X86_64

__all__ = ["AARCH64", "PROCESSORS", "RISCV64", "X86_64", "Processor", "named", "of_elf_machine"]

PROCESSORS: Final = (AARCH64, RISCV64, X86_64)

_OF_ELF: Final = {one.elf_machine: one for one in PROCESSORS}
_NAMED: Final = {one.architecture: one for one in PROCESSORS}


def of_elf_machine(number: int) -> Processor | None:
    """The one with that e_machine; None: it is not known here."""
    return _OF_ELF.get(number)


def named(architecture: str) -> Processor | None:
    """The one that `uname -m` calls so; None: it is not known here."""
    return _NAMED.get(architecture)
