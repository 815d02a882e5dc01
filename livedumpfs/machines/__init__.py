# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines: whatever has an arena and can be held at an instant."""

from livedumpfs.machines.choice import machine_for
from livedumpfs.machines.ledger import LedgerReport, verify_ledger
from livedumpfs.machines.machine import (
    ChecksFirst,
    HoldsNobody,
    Machine,
    Outliving,
    PhysicalRange,
    Registers,
)
from livedumpfs.machines.threads import ThreadMachine
from livedumpfs.machines.unicorn import BUILT_IN_GUEST, UnicornMachine, VcpuStatus

__all__ = [
    "BUILT_IN_GUEST",
    "ChecksFirst",
    "HoldsNobody",
    "LedgerReport",
    "Machine",
    "Outliving",
    "PhysicalRange",
    "Registers",
    "ThreadMachine",
    "UnicornMachine",
    "VcpuStatus",
    "machine_for",
    "verify_ledger",
]
