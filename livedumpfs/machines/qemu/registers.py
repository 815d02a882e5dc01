# SPDX-License-Identifier: GPL-2.0-or-later
"""VcpuState: the registers of an x86-64 vCPU, as in QEMU's notes and as its monitor prints them."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from livedumpfs.formats import Registers
from livedumpfs.machines.qemu.vcpu import missing_registers, split_vcpus

STATE_SIZE: Final = 440
_STATE_VERSION: Final = 1
_NO_SYSTEM_CALL: Final = (1 << 64) - 1
"""Value of orig_rax of a task that is in no system call."""

# fmt: off
_GENERAL: Final = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "eflags",
)
_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt")
# fmt: on
"""Both in the order of QEMUCPUState (target/i386/arch_dump.c of QEMU)."""
_CONTROLS: Final = 5
_STATE: Final = struct.Struct(f"<II{len(_GENERAL)}Q{'IIIIQ' * len(_SEGMENTS)}{_CONTROLS}QQ")

_VALUE: Final = re.compile(r"\b([RE][A-Z0-9]{1,2}) *=([0-9a-f]{8,16})\b")
_CONTROL: Final = re.compile(r"\bCR([0-4])=([0-9a-f]{8,16})\b")
_SEGMENT: Final = re.compile(
    r"^(CS|DS|ES|FS|GS|SS|LDT|TR) *=([0-9a-f]{4}) ([0-9a-f]{8,16}) ([0-9a-f]{8}) ([0-9a-f]{8})",
    re.MULTILINE,
)
_TABLE: Final = re.compile(r"^(GDT|IDT)= +([0-9a-f]{8,16}) ([0-9a-f]{8})", re.MULTILINE)


@dataclass(frozen=True)
class SegmentState:
    """A segment or table register. From the human monitor `flags` lack the bits of base and
    limit."""

    selector: int = 0
    limit: int = 0
    flags: int = 0
    base: int = 0


@dataclass(frozen=True)
class VcpuState:
    """Registers of one vCPU."""

    general: Mapping[str, int]
    """rax .. r15, rip and eflags. r8 .. r15 are 0 from the human monitor when the vCPU runs code
    that is not 64-bit: it does not show them."""
    segments: Mapping[str, SegmentState]
    controls: tuple[int, ...]
    """cr0 .. cr4; cr1 is 0."""
    kernel_gs_base: int = 0
    """0 from QEMU's human monitor, which does not show it."""
    number: int = 0
    """QEMU's cpu-index: fixed by socket, core and thread, whatever else is plugged in."""

    @classmethod
    def parse(cls, content: bytes, number: int = 0) -> VcpuState:
        """Read QEMUCPUState, version 1. ValueError: `content` is something else."""
        if len(content) != STATE_SIZE:
            raise ValueError(f"{len(content)} bytes are no QEMUCPUState")
        version, size, *words = _STATE.unpack(content)
        if (version, size) != (_STATE_VERSION, STATE_SIZE):
            raise ValueError(f"a QEMUCPUState of version {version}, {size} bytes")
        general, words = words[: len(_GENERAL)], words[len(_GENERAL) :]
        fields = (words[5 * index : 5 * index + 5] for index in range(len(_SEGMENTS)))
        segments = [SegmentState(at, limit, flags, base) for at, limit, flags, _, base in fields]
        return cls(
            dict(zip(_GENERAL, general, strict=True)),
            dict(zip(_SEGMENTS, segments, strict=True)),
            tuple(words[-_CONTROLS - 1 : -1]),
            words[-1],
            number,
        )

    @property
    def registers(self) -> Registers:
        """Under the names of user_regs_struct."""
        selectors = {name: self.segments[name].selector for name in ("cs", "ds", "es", "fs", "gs")}
        return {
            **self.general,
            **selectors,
            "ss": self.segments["ss"].selector,
            "fs_base": self.segments["fs"].base,
            "gs_base": self.segments["gs"].base,
            "orig_rax": _NO_SYSTEM_CALL,
        }

    @property
    def tables(self) -> int:
        """CR3."""
        return self.controls[3]

    def qemu_state(self) -> bytes:
        """QEMUCPUState, version 1: the content of QEMU's own note."""
        segments = (self.segments[name] for name in _SEGMENTS)
        return _STATE.pack(
            _STATE_VERSION,
            STATE_SIZE,
            *(self.general[name] for name in _GENERAL),
            *(word for s in segments for word in (s.selector, s.limit, s.flags, 0, s.base)),
            *self.controls,
            self.kernel_gs_base,
        )


def parse_registers(text: str) -> list[VcpuState]:
    """Each vCPU in the output of `info registers -a`, sorted by number. MachineError: the output is
    of another processor, or lacks a register."""
    return split_vcpus(text, _parse)


def _parse(number: int, text: str) -> VcpuState:
    general = _general(text)
    segments = {
        match[1].lower(): SegmentState(*(int(match[i], 16) for i in (2, 4, 5, 3)))
        for match in _SEGMENT.finditer(text)
    }
    for match in _TABLE.finditer(text):
        segments[match[1].lower()] = SegmentState(limit=int(match[3], 16), base=int(match[2], 16))
    controls = {match[1]: int(match[2], 16) for match in _CONTROL.finditer(text)}
    missing = {*_GENERAL} - general.keys() | {*_SEGMENTS} - segments.keys()
    missing |= {f"cr{name}" for name in "0234" if name not in controls}
    if missing:
        raise missing_registers(missing, number, "qemu-system-x86_64")
    values = tuple(controls.get(str(index), 0) for index in range(_CONTROLS))
    return VcpuState(general, segments, values, number=number)


def _general(text: str) -> dict[str, int]:
    # For code of 16 or 32 bits QEMU shows only the lower halves of eight registers.
    found = {f"r{number}": 0 for number in range(8, 16)} if "EAX=" in text else {}
    for name, value in _VALUE.findall(text):
        name = name.lower()
        found[name if name[1:].isdigit() else f"r{name[1:]}"] = int(value, 16)
    # The flags are called RFL or EFL.
    found = {"eflags" if name == "rfl" else name: value for name, value in found.items()}
    return {name: found[name] for name in _GENERAL if name in found}
