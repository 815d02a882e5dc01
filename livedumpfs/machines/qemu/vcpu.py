# SPDX-License-Identifier: GPL-2.0-or-later
"""Vcpu: what a dump of a QEMU guest needs of a vCPU, whatever processor it is."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from livedumpfs.errors import MachineError
from livedumpfs.formats import Registers

_VCPU: Final = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)


class Vcpu(Protocol):
    """The state of one vCPU."""

    @property
    def number(self) -> int:
        """QEMU's cpu-index: fixed by socket, core and thread, whatever else is plugged in."""

    @property
    def registers(self) -> Registers:
        """Under the names of its Processor."""

    @property
    def tables(self) -> int:
        """By which it finds its page tables; see KernelKind."""


_Kind = TypeVar("_Kind", bound=Vcpu)


@dataclass(frozen=True)
class GeneralVcpu:
    """A vCPU of which the general registers are all that a dump has."""

    number: int
    registers: Registers
    tables: int


def in_order(vcpus: Iterable[_Kind]) -> list[_Kind]:
    """Sorted by number: QEMU lists a vCPU that was plugged in again behind all others."""
    return sorted(vcpus, key=lambda one: one.number)


def split_vcpus(text: str, parse: Callable[[int, str], _Kind]) -> list[_Kind]:
    """`parse(number, part)` of each vCPU in the output of `info registers -a`, sorted by number.
    MachineError: there is none."""
    parts = _VCPU.split(text)
    if len(parts) < 3:
        raise MachineError("QEMU shows no vCPU", errno=errno.ENODATA)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return in_order(parse(int(number), part) for number, part in pairs)


def missing_registers(missing: Iterable[str], number: int, program: str) -> MachineError:
    """The error for a text without some registers. `program`: the QEMU whose text it should be."""
    return MachineError(
        f"QEMU shows no {', '.join(sorted(missing))} of vCPU {number}",
        errno=errno.EPROTO,
        hint=f"the guest must be one of {program}",
    )
