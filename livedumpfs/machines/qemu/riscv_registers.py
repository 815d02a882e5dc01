# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of a RISC-V vCPU of 64 bits, as QEMU's monitor prints them."""

from __future__ import annotations

import re
from typing import Final

from livedumpfs.formats.processors import RISCV64
from livedumpfs.machines.qemu.vcpu import GeneralVcpu, missing_registers, split_vcpus

_VALUE: Final = re.compile(r"(?:\bx\d+/| )(\w+) +([0-9a-f]{16})\b")
_TABLES: Final = "satp"


def parse_riscv_registers(text: str) -> list[GeneralVcpu]:
    """Each vCPU in the output of `info registers -a`, sorted by number. MachineError: the output is
    of another processor, or lacks a register."""
    return split_vcpus(text, _parse)


def _parse(number: int, text: str) -> GeneralVcpu:
    found = {name: int(value, 16) for name, value in _VALUE.findall(text)}
    missing = {*RISCV64.registers, _TABLES} - found.keys()
    if missing:
        raise missing_registers(missing, number, "qemu-system-riscv64")
    registers = {name: found[name] for name in RISCV64.registers}
    return GeneralVcpu(number, registers, found[_TABLES])
