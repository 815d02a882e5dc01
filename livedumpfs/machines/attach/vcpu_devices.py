# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump needs of the devices in a migration stream: the registers of the vCPUs, and the place
of VMCOREINFO."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from livedumpfs.formats.processors import AARCH64, RISCV64
from livedumpfs.machines.attach.description import DeviceState
from livedumpfs.machines.attach.window import strange
from livedumpfs.machines.qemu.arm_registers import arm_vcpu, narrow_registers
from livedumpfs.machines.qemu.registers import SegmentState, VcpuState
from livedumpfs.machines.qemu.vcpu import GeneralVcpu, Vcpu, in_order

# fmt: off
_REGISTERS: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)
# fmt: on
"""Order of env.regs."""
_SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs")
"""Order of env.segs."""
_TABLES: Final = ("ldt", "tr", "gdt", "idt")
_MEMBERS: Final = frozenset({"selector", "base", "limit", "flags"})
_CPU: Final = "cpu"
_NARROW: Final = 1 << 4
"""Of PSTATE: the vCPU runs code of 32 bits."""
_CONTROLS: Final = (0, 2, 3, 4)
_INFORMATION: Final = "vmcoreinfo"
_ELF: Final = 1
"""FW_CFG_VMCOREINFO_FORMAT_ELF: at the place is an ELF note."""


def read_vcpus(devices: Sequence[DeviceState], architecture: str) -> list[Vcpu]:
    """The registers of each vCPU, by number. StreamError: there is none, or one without a
    register."""
    read = _OF[architecture]
    found = [read(one) for one in devices if one.name == _CPU]
    if not found:
        raise strange(f"it has no vCPU of {architecture}")
    return in_order(found)


def _numbers(device: DeviceState, name: str, count: int, size: int = 8) -> list[int]:
    """StreamError: these are not as many numbers."""
    found = device.numbers(name, size)
    if len(found) != count:
        raise strange(f"a vCPU has {len(found)} registers in {name}, not {count}")
    return found


def _x86(device: DeviceState) -> Vcpu:
    values = _numbers(device, "env.regs", len(_REGISTERS))
    segments = device.structs("env.segs")
    if len(segments) < len(_SEGMENTS):
        raise strange("a vCPU has not the segment registers of x86-64")
    general = dict(zip(_REGISTERS, values, strict=True))
    general |= {"rip": device.number("env.eip"), "eflags": device.number("env.eflags")}
    states = {name: _segment(one) for name, one in zip(_SEGMENTS, segments, strict=False)}
    for name in _TABLES:
        found = device.structs(f"env.{name}")
        if len(found) != 1:
            raise strange(f"a vCPU has {len(found)} times env.{name}")
        states[name] = _segment(found[0])
    controls = {number: device.number(f"env.cr[{number}]") for number in _CONTROLS}
    return VcpuState(
        general,
        states,
        tuple(controls.get(number, 0) for number in range(5)),
        device.number("env.kernelgsbase"),
        device.instance,
    )


def _aarch64(device: DeviceState) -> Vcpu:
    state = device.number("cpsr")
    if state & _NARROW:
        registers = narrow_registers(dict(enumerate(_numbers(device, "env.regs", 16, size=4))))
    else:
        values = [*_numbers(device, "env.xregs", 32), device.number("env.pc")]
        registers = dict(zip(AARCH64.registers, values, strict=False))
    return arm_vcpu(device.instance, registers | {"pstate": state})


def _riscv64(device: DeviceState) -> Vcpu:
    """x0 is always 0, and no register to Linux, which has the pc in its place."""
    _, *values = _numbers(device, "env.gpr", 32)
    registers = dict(zip(RISCV64.registers, [device.number("env.pc"), *values], strict=True))
    return GeneralVcpu(device.instance, registers, device.number("env.satp"))


_OF: Final[Mapping[str, Callable[[DeviceState], Vcpu]]] = {
    "aarch64": _aarch64, "riscv64": _riscv64, "x86_64": _x86,
}  # fmt: skip


def _segment(members: Mapping[str, int]) -> SegmentState:
    if not members.keys() >= _MEMBERS:
        raise strange("a segment register of a vCPU has not its members")
    return SegmentState(members["selector"], members["limit"], members["flags"], members["base"])


def told_information(devices: Sequence[DeviceState]) -> tuple[int, int] | None:
    """(physical address, bytes) of the ELF note with VMCOREINFO that the guest has reported to
    QEMU's device `vmcoreinfo`. None: it has not, or there is no such device."""
    for one in devices:
        if one.name == _INFORMATION and one.number("vmcoreinfo.guest_format") == _ELF:
            return one.number("vmcoreinfo.paddr"), one.number("vmcoreinfo.size")
    return None
