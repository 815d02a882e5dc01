# SPDX-License-Identifier: GPL-2.0-or-later
"""GuestKind: what differs between guests of one processor and of another."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from livedumpfs.errors import MachineError
from livedumpfs.formats.processors import AARCH64, RISCV64, X86_64, Processor
from livedumpfs.machines.kernels.arm_kernel import ARM_KERNEL
from livedumpfs.machines.kernels.kernel_kind import KernelKind
from livedumpfs.machines.kernels.riscv_kernel import RISCV_KERNEL
from livedumpfs.machines.kernels.x86_kernel import X86_KERNEL
from livedumpfs.machines.qemu.arm_registers import parse_arm_registers
from livedumpfs.machines.qemu.qmp_commands import QmpCommands
from livedumpfs.machines.qemu.registers import parse_registers
from livedumpfs.machines.qemu.riscv_registers import parse_riscv_registers
from livedumpfs.machines.qemu.vcpu import Vcpu


class _Target(msgspec.Struct):
    arch: str


@dataclass(frozen=True)
class GuestKind:
    """Guests of one processor."""

    processor: Processor
    parse_registers: Callable[[str], Sequence[Vcpu]]
    """Each vCPU in the output of `info registers -a`, sorted by number. MachineError."""
    kernel: KernelKind
    has_notes: bool
    """QEMU has a note of its own for each vCPU, with more registers than its monitor shows."""


X86_GUEST: Final = GuestKind(X86_64, parse_registers, X86_KERNEL, has_notes=True)
_KINDS: Final = {
    one.processor.architecture: one
    for one in (
        GuestKind(AARCH64, parse_arm_registers, ARM_KERNEL, has_notes=False),
        GuestKind(RISCV64, parse_riscv_registers, RISCV_KERNEL, has_notes=False),
        X86_GUEST,
    )
}
_TELL_OF_32_BITS: Final = "qemu-system-x86_64 runs guests of 32 bits, too"


def guest_kind(architecture: str) -> GuestKind:
    """Of what QEMU is built for, as in the name qemu-system-*. MachineError ENOTSUP: it is not
    known here."""
    if architecture not in _KINDS:
        *most, last = sorted(_KINDS)
        raise MachineError(
            f"the guest is one of {architecture}, only {', '.join(most)} and {last} are known here",
            errno=errno.ENOTSUP,
            hint=_TELL_OF_32_BITS if architecture == "i386" else "",
        )
    return _KINDS[architecture]


def ask_kind(monitor: QmpCommands) -> GuestKind:
    """Of a QEMU that runs. MachineError: ENOTSUP, its processor is not known here; EPROTO."""
    found = monitor.execute("query-target")
    try:
        return guest_kind(msgspec.convert(found, _Target).arch)
    except msgspec.ValidationError as error:
        raise MachineError(
            f"QEMU does not say what processor it is for: {error}", errno=errno.EPROTO
        ) from error
