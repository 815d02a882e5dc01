# SPDX-License-Identifier: GPL-2.0-or-later
"""AArch64: user_pt_regs of arch/arm64/include/uapi/asm/ptrace.h."""

from __future__ import annotations

from typing import Final

from livedumpfs.formats.processors.processor import Processor

AARCH64: Final = Processor(
    "aarch64", 183, (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")
)
