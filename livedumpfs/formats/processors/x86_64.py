# SPDX-License-Identifier: GPL-2.0-or-later
"""x86-64: user_regs_struct of arch/x86/include/asm/user_64.h."""

from __future__ import annotations

from typing import Final

from livedumpfs.formats.processors.processor import Processor

# fmt: off
X86_64: Final = Processor(
    "x86_64",
    62,
    (
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx",
        "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds",
        "es", "fs", "gs",
    ),
)
# fmt: on
