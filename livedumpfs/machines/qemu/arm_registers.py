# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of an AArch64 vCPU, as QEMU's monitor prints them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from livedumpfs.formats.processors import AARCH64
from livedumpfs.machines.qemu.vcpu import GeneralVcpu, missing_registers, split_vcpus

_VALUE: Final = re.compile(r"\b(PC|SP|X\d\d)=([0-9a-f]{16})\b")
_STATE: Final = re.compile(r"\b(?:PSTATE|PSR)=([0-9a-f]{8})\b")
_NARROW: Final = re.compile(r"\bR(\d\d)=([0-9a-f]{8})\b")
"""A register while the vCPU runs code of 32 bits."""
_NARROW_COUNTER: Final = 15
_LEVEL: Final = 3 << 2
"""Bits of PSTATE: the exception level; user space is 0."""
_KERNEL_HALF: Final = 1 << 63


def parse_arm_registers(text: str) -> list[GeneralVcpu]:
    """Each vCPU in the output of `info registers -a`, sorted by number. MachineError: the output is
    of another processor, or lacks a register."""
    return split_vcpus(text, _parse)


def arm_vcpu(number: int, registers: Mapping[str, int]) -> GeneralVcpu:
    """Of all registers of AARCH64."""
    user = not registers["pstate"] & _LEVEL
    return GeneralVcpu(number, registers, int(user or registers["pc"] >= _KERNEL_HALF))


def narrow_registers(values: Mapping[int, int]) -> dict[str, int]:
    """Those of AArch64, but pstate, of a vCPU that runs code of 32 bits with registers r0 to r15,
    which are numbered so. As Linux has them for its processes of 32 bits: the stack pointer is
    r13."""
    found = dict.fromkeys(AARCH64.registers, 0) | {
        f"x{number}": value for number, value in values.items() if number < _NARROW_COUNTER
    }
    return {**found, "pc": values[_NARROW_COUNTER]}


def _parse(number: int, text: str) -> GeneralVcpu:
    found = {_named(name): int(value, 16) for name, value in _VALUE.findall(text)}
    narrow = {int(name): int(value, 16) for name, value in _NARROW.findall(text)}
    if not found and len(narrow) > _NARROW_COUNTER:
        found = narrow_registers(narrow)
    state = _STATE.search(text)
    if state:
        found["pstate"] = int(state[1], 16)
    missing = {*AARCH64.registers} - found.keys()
    if missing:
        raise missing_registers(missing, number, "qemu-system-aarch64")
    return arm_vcpu(number, {name: found[name] for name in AARCH64.registers})


def _named(name: str) -> str:
    """X07 is x7 to Linux."""
    return f"x{int(name[1:])}" if name.startswith("X") else name.lower()
