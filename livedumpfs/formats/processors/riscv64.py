# SPDX-License-Identifier: GPL-2.0-or-later
"""RISC-V of 64 bits: user_regs_struct of arch/riscv/include/uapi/asm/ptrace.h."""

from __future__ import annotations

from typing import Final

from livedumpfs.formats.processors.processor import Processor

# fmt: off
RISCV64: Final = Processor(
    "riscv64",
    243,
    (
        "pc", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1",
        "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7",
        "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11",
        "t3", "t4", "t5", "t6",
    ),
)
# fmt: on
