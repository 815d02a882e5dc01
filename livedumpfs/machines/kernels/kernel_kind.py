# SPDX-License-Identifier: GPL-2.0-or-later
"""KernelKind: how Linux on one processor is told from one that ran in the same memory before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot

Map = Sequence[PhysicalRange]


@dataclass(frozen=True)
class KernelKind:
    """The last argument of both: of each vCPU the register by which it finds its page tables, such
    as CR3; 0: it has none."""

    is_current: Callable[[bytes, ReadSnapshot, Map, Iterable[int]], bool]
    """Whether a VMCOREINFO belongs to the kernel that a vCPU runs. After a guest's reboot, the text
    of the kernel before may still be in memory, with other addresses."""
    kernel_tables: Callable[[ReadSnapshot, Map, Iterable[int]], frozenset[bytes]]
    """What tells the kernel that runs from another one. A kernel keeps some of it as long as it
    runs; empty: no kernel runs yet."""
