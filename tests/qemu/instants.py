# SPDX-License-Identifier: GPL-2.0-or-later
"""What one instant of the firmware's memory and of its registers is."""

from __future__ import annotations

from typing import Any

import numpy as np
from firmware import ROUNDS

from livedumpfs.machines.qemu.registers import VcpuState
from livedumpfs.units import PAGE_SIZE

FIRST = 256
"""Pages from here on follow the number of rounds."""
FLAGS = 0x00FF_FF00
"""Bits of a segment's flags that the human monitor shows."""


def shown(vcpu: VcpuState) -> dict[str, Any]:
    """What the human monitor shows."""
    segments = {
        name: (0 if name in ("gdt", "idt") else one.selector, one.limit, one.base)
        for name, one in vcpu.segments.items()
    }
    flags = {name: one.flags & FLAGS for name, one in vcpu.segments.items() if name in "cs ds es"}
    return {**vcpu.general, **segments, "flags": flags, "controls": vcpu.controls}


def check_instant(content: bytes) -> None:
    """The pages were stored to in order: those up to some page have the number of this round, the
    rest that of the one before."""
    words = np.frombuffer(content, "<u4").reshape(-1, PAGE_SIZE // 4)[:, 0]
    behind = words[ROUNDS // PAGE_SIZE] - words[FIRST:].astype(np.int64)
    assert set(behind.tolist()) <= {0, 1}
    assert (np.diff(behind) >= 0).all(), "no later page is newer"
