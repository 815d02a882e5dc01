# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers as a page shows them: hexadecimal, of a vCPU each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

VCPUS_MOST: Final = 64
_REGISTERS_MOST: Final = 128
_POINTERS: Final = ("rip", "pc", "epc")
"""Names of the register that says where a vCPU is."""
_MOST: Final = 1 << 64
_LONGEST: Final = 32


@dataclass(frozen=True)
class RegisterBlock:
    """Of one vCPU."""

    vcpu: str
    place: str
    """The register that says where it is, and its value; "": none is known."""
    values: Sequence[tuple[str, str]]


def register_blocks(
    found: Sequence[tuple[str, Mapping[str, object]]],
) -> tuple[list[RegisterBlock], int]:
    """The first VCPUS_MOST of them, and how many more there are."""
    blocks = [_block(name, values) for name, values in found[:VCPUS_MOST]]
    return blocks, len(found) - len(blocks)


def _block(vcpu: str, values: Mapping[str, object]) -> RegisterBlock:
    shown = [(str(name)[:_LONGEST], _word(value)) for name, value in values.items()]
    place = next((f"{name} {word}" for name, word in shown if name in _POINTERS), "")
    return RegisterBlock(vcpu, place, shown[:_REGISTERS_MOST])


def _word(value: object) -> str:
    """Of 64 bits; what is none is shown as it is, but no longer than one."""
    if isinstance(value, int) and 0 <= value < _MOST:
        return f"{value:#018x}"
    return str(value)[:_LONGEST]
