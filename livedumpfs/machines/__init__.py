# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines: whatever has an arena and can be held at an instant."""

from livedumpfs.formats import Registers
from livedumpfs.machines.capabilities import (
    ChecksFirst,
    ChoosesBackend,
    HasStatus,
    HoldsNobody,
    InOtherProcess,
    LimitsVcpus,
    LooksAhead,
    NumbersVcpus,
    Outliving,
    StopsLater,
    StoresFromPython,
    best_backend,
    shim_of,
)
from livedumpfs.machines.choice import machine_for
from livedumpfs.machines.ledger import LedgerReport, verify_ledger
from livedumpfs.machines.machine import Machine, PhysicalRange
from livedumpfs.machines.threads import ThreadMachine
from livedumpfs.machines.unicorn import BUILT_IN_GUEST, UnicornMachine, VcpuStatus

__all__ = [
    "BUILT_IN_GUEST",
    "ChecksFirst",
    "ChoosesBackend",
    "HasStatus",
    "HoldsNobody",
    "InOtherProcess",
    "LedgerReport",
    "LimitsVcpus",
    "LooksAhead",
    "Machine",
    "NumbersVcpus",
    "Outliving",
    "PhysicalRange",
    "Registers",
    "StopsLater",
    "StoresFromPython",
    "ThreadMachine",
    "UnicornMachine",
    "VcpuStatus",
    "best_backend",
    "machine_for",
    "shim_of",
    "verify_ledger",
]
