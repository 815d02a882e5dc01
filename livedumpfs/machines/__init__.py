# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines: whatever has an arena and can be held at an instant."""

from livedumpfs.formats import Registers
from livedumpfs.machines.capabilities import (
    BringsInstant,
    ChecksFirst,
    ChoosesBackend,
    HasCpuNotes,
    HasPages,
    HasStatus,
    HoldsNobody,
    InOtherProcess,
    LetRunByOthers,
    LimitsVcpus,
    LooksAhead,
    NumbersVcpus,
    Outliving,
    StopsLater,
    StopTimes,
    StoresFromPython,
    TakesTyping,
    best_backend,
    page_size_of,
    shim_of,
)
from livedumpfs.machines.choice import machine_for
from livedumpfs.machines.emulated import VcpuStatus
from livedumpfs.machines.guest_program import BUILT_IN_GUEST, BUILT_IN_RISCV64
from livedumpfs.machines.ledger import LedgerReport, verify_ledger
from livedumpfs.machines.machine import Machine, PhysicalRange
from livedumpfs.machines.riscv.guest_machine import RiscvMachine
from livedumpfs.machines.riscv.linux_machine import LinuxMachine
from livedumpfs.machines.threads import ThreadMachine
from livedumpfs.machines.unicorn import UnicornMachine
from livedumpfs.machines.writers import HoldsWriters, Writers

__all__ = [
    "BUILT_IN_GUEST",
    "BUILT_IN_RISCV64",
    "BringsInstant",
    "ChecksFirst",
    "ChoosesBackend",
    "HasCpuNotes",
    "HasPages",
    "HasStatus",
    "HoldsNobody",
    "HoldsWriters",
    "InOtherProcess",
    "LedgerReport",
    "LetRunByOthers",
    "LimitsVcpus",
    "LinuxMachine",
    "LooksAhead",
    "Machine",
    "NumbersVcpus",
    "Outliving",
    "PhysicalRange",
    "Registers",
    "RiscvMachine",
    "StopTimes",
    "StopsLater",
    "StoresFromPython",
    "TakesTyping",
    "ThreadMachine",
    "UnicornMachine",
    "VcpuStatus",
    "Writers",
    "best_backend",
    "machine_for",
    "page_size_of",
    "shim_of",
    "verify_ledger",
]
