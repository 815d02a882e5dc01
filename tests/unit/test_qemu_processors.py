# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs of other processors than x86-64: texts as QEMU 7.2 prints them with Debian's kernels, some
lines left out or broken, and states in migration streams."""

from __future__ import annotations

from typing import Any

import pytest

from livedumpfs.errors import MachineError
from livedumpfs.formats.processors import AARCH64, RISCV64
from livedumpfs.machines.attach.description import read_devices
from livedumpfs.machines.attach.vcpu_devices import read_vcpus
from livedumpfs.machines.attach.window import StreamError
from livedumpfs.machines.machine import PhysicalRange
from livedumpfs.machines.qemu.arm_registers import parse_arm_registers
from livedumpfs.machines.qemu.guest_kind import ask_kind, guest_kind
from livedumpfs.machines.qemu.memory_map import read_memory_map
from livedumpfs.machines.qemu.notes import vcpu_notes
from livedumpfs.machines.qemu.riscv_registers import parse_riscv_registers
from tests.fixtures import streams
from tests.fixtures.streams import Device

ARM = """\
CPU#0
 PC=ffffd465c243656c X00=ffff0c16c38af700 X01=00000000005e4000
X02=00200000000005e4 X03=00000000000005e4 X04=0000000000000001
X05=00e0000042231fc3 X06=00e0000042231fc3 X07=0088000000000480
X08=0000000000000000 X09=ffffd465c2777e30 X10=ffff8000805fbd70
X11=1fffe182d8733041 X12=0000000000000000 X13=ffffffffffffffff
X14=ffffd465c368aaf8 X15=0000000000000000 X16=ffffffffffffffff
X17=0000000000000001 X18=0000000000000001 X19=ffff8000805fbcc0
X20=ffff0c16c807aa50 X21=0000000000000000 X22=ffff0c16c807aa50
X23=ffff0c16c38af700 X24=0000002000100073 X25=ffff0c16c32ef000
X26=0000000000000000 X27=ffff8000805fbcc0 X28=ffff0c16c39bca00
X29=ffff8000805fbbd0 X30=ffffd465c2777e30  SP=ffff8000805fbbd0
PSTATE=60000005 -ZC- EL1h     FPCR=00000000 FPSR=00000000
"""
NARROW = """
CPU#0
R00=00000001 R01=00000002 R02=00000003 R03=00000004
R04=00000005 R05=00000006 R06=00000007 R07=00000008
R08=00000009 R09=0000000a R10=0000000b R11=0000000c
R12=0000000d R13=bee1d6e8 R14=b6e4a0c1 R15=b6e4b2d4
PSR=60000030 -ZC- T usr32
"""
"""A process of 32 bits on a kernel of 64."""
FIRMWARE = "\n" + ARM.replace("PC=ffffd465c243656c", "PC=0000000000001000").replace(
    "PSTATE=60000005", "PSTATE=400003c5"
)
RISCV = """\
CPU#0
 pc       ffffffff8004307e
 mstatus  0000000a000000a2
 hstatus  0000000200000000
 satp     a0358000000883ef
 x0/zero  0000000000000000 x1/ra    ffffffff80a78dbc
 x2/sp    ff20000000053e00 x3/gp    ffffffff81db6e50
 x4/tp    ff600000026ae3c0 x5/t0    0000000000000000
 x6/t1    0000000000000001 x7/t2    0000000000f4ca83
 x8/s0    ff20000000053e20 x9/s1    ff600000026ae3c0
 x10/a0   ff600000026ae3c0 x11/a1   ff600000026ae3c0
 x12/a2   00000003b4d45334 x13/a3   1082018000000000
 x14/a4   0000000000000020 x15/a5   0000000000000020
 x16/a6   0000000000000000 x17/a7   0000000000000004
 x18/s2   ff60000002648880 x19/s3   ffffffff81c08980
 x20/s4   ff6000001ffbe628 x21/s5   0000000000000001
 x22/s6   ffffffff80e86448 x23/s7   ffffffff81e5b448
 x24/s8   0000000000000402 x25/s9   0000000000000000
 x26/s10  ff6000001ffbe600 x27/s11  ff60000002648840
 x28/t3   0000000000000001 x29/t4   0000000000000233
 x30/t5   0000000000000000 x31/t6   0000000000000000
CPU#1
 pc       00000000800072ae
 mstatus  0000000a00000822
 hstatus  0000000200000000
 satp     a035900000083338
 x0/zero  0000000000000000 x1/ra    00000000800072ae
 x2/sp    0000000080046c18 x3/gp    ffffffff81db6e50
 x4/tp    ff600000032463c0 x5/t0    0000000a00000822
 x6/t1    000000000000000c x7/t2    ffffffffffffffff
 x8/s0    0000000080046c48 x9/s1    00000000800470b8
 x10/a0   00000000800470c0 x11/a1   00000000000081b2
 x12/a2   00000000000081b2 x13/a3   ffffffff81b281b2
 x14/a4   000000000000ffff x15/a5   00000000000081b3
 x16/a6   0000000000000002 x17/a7   0000000052464e43
 x18/s2   00000000800470c0 x19/s3   0000000080046c50
 x20/s4   0000000080047000 x21/s5   000000008003d670
 x22/s6   00000000800490a8 x23/s7   0000000000000000
 x24/s8   0000000000000000 x25/s9   0000000000000003
 x26/s10  0000000000000002 x27/s11  0000000000000001
 x28/t3   0000000000000001 x29/t4   0000000080400031
 x30/t5   0000000000000001 x31/t6   0000000000000000
"""
ARM_MAP = """
FlatView #0
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-0000000003ffffff (prio 0, romd): virt.flash0
  0000000004000000-0000000007ffffff (prio 0, romd): virt.flash1
  000000003eff0000-000000003effffff (prio 0, i/o): gpex_ioport_window
  0000000040000000-000000005fffffff (prio 0, ram): mach-virt.ram
  0000008000000000-000000ffffffffff (prio 0, i/o): gpex_mmio_window @0000008000000000
"""
RISCV_MAP = """
FlatView #0
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000001000-000000000000ffff (prio 0, rom): riscv_virt_board.mrom
  0000000020000000-0000000021ffffff (prio 0, romd): virt.flash0
  0000000080000000-000000009fffffff (prio 0, ram): riscv_virt_board.ram
  0000000400000000-00000007ffffffff (prio 0, i/o): gpex_mmio_window @0000000400000000
"""


def test_the_registers_of_aarch64() -> None:
    (vcpu,) = parse_arm_registers(ARM)
    found = vcpu.registers
    assert [*found] == [*AARCH64.registers]
    assert (found["pc"], found["sp"]) == (0xFFFFD465C243656C, 0xFFFF8000805FBBD0)
    assert (found["x0"], found["x9"]) == (0xFFFF0C16C38AF700, 0xFFFFD465C2777E30)
    assert (found["x29"], found["x30"]) == (0xFFFF8000805FBBD0, 0xFFFFD465C2777E30)
    assert found["pstate"] == 0x60000005
    assert (vcpu.number, vcpu.tables) == (0, 1), "it runs a kernel"


def test_a_process_of_32_bits_on_aarch64() -> None:
    (vcpu,) = parse_arm_registers(NARROW)
    found = vcpu.registers
    assert [found[f"x{number}"] for number in range(13)] == [*range(1, 14)]
    assert (found["x13"], found["x14"], found["x15"]) == (0xBEE1D6E8, 0xB6E4A0C1, 0)
    assert (found["pc"], found["pstate"]) == (0xB6E4B2D4, 0x60000030)
    assert vcpu.tables == 1, "a kernel runs it"


def test_firmware_is_no_kernel() -> None:
    (vcpu,) = parse_arm_registers(FIRMWARE)
    assert (vcpu.registers["pc"], vcpu.tables) == (0x1000, 0)


def test_the_registers_of_riscv() -> None:
    first, second = parse_riscv_registers(RISCV)
    found = first.registers
    assert [*found] == [*RISCV64.registers]
    assert (found["pc"], found["ra"]) == (0xFFFFFFFF8004307E, 0xFFFFFFFF80A78DBC)
    assert (found["sp"], found["s0"]) == (0xFF20000000053E00, 0xFF20000000053E20)
    assert (found["a7"], found["s11"], found["t6"]) == (4, 0xFF60000002648840, 0)
    assert first.tables == 0xA0358000000883EF
    assert (second.number, second.registers["pc"]) == (1, 0x800072AE), "in its firmware"


@pytest.mark.parametrize(
    ("parse", "text", "missing", "program"),
    [
        (parse_arm_registers, ARM, "X07=0088000000000480", "x7 .*qemu-system-aarch64"),
        (parse_arm_registers, ARM, "PSTATE=60000005", "pstate .*qemu-system-aarch64"),
        (parse_arm_registers, NARROW, "R15=b6e4b2d4", "pc, .*qemu-system-aarch64"),
        (parse_arm_registers, RISCV, "CPU#1", "x0, .*qemu-system-aarch64"),
        (parse_riscv_registers, RISCV, "x7/t2    0000000000f4ca83", "t2 .*qemu-system-riscv64"),
        (parse_riscv_registers, RISCV, " satp     a0358000000883ef", "satp .*qemu-system-riscv64"),
        (parse_riscv_registers, ARM, "none", "a0, .*qemu-system-riscv64"),
    ],
)
def test_a_register_that_is_missing(parse: Any, text: str, missing: str, program: str) -> None:
    with pytest.raises(MachineError, match=f"QEMU shows no .*{program}"):
        parse(text.replace(missing, ""))


def test_no_vcpu() -> None:
    for parse in (parse_arm_registers, parse_riscv_registers):
        with pytest.raises(MachineError, match="QEMU shows no vCPU"):
            parse("none")


def test_qemu_has_no_notes_of_its_own_for_them() -> None:
    vcpus = parse_riscv_registers(RISCV)
    assert vcpu_notes(vcpus, None, "on") == []
    assert [one.name for one in vcpu_notes(vcpus, b"text", "on")] == [b"VMCOREINFO\0"]


@pytest.mark.parametrize(
    ("text", "backend", "start"),
    [(ARM_MAP, "mach-virt.ram", 1 << 30), (RISCV_MAP, "riscv_virt_board.ram", 2 << 30)],
)
def test_where_the_ram_is(text: str, backend: str, start: int) -> None:
    size = 512 << 20
    assert read_memory_map(text, backend, size) == [PhysicalRange(start, size, 0)]


class Target:
    """A monitor that says what QEMU is built for."""

    def __init__(self, said: object) -> None:
        self.said = said

    def execute(self, command: str) -> object:
        assert command == "query-target"
        return self.said


def test_the_kind_of_a_guest() -> None:
    for name in ("aarch64", "riscv64", "x86_64"):
        monitor: Any = Target({"arch": name})
        assert ask_kind(monitor) is guest_kind(name)
        assert guest_kind(name).processor.architecture == name


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"arch": "ppc64"}, "one of ppc64, only aarch64, riscv64 and x86_64 are known here$"),
        (
            {"arch": "i386"},
            r"one of i386, .* here \(qemu-system-x86_64 runs guests of 32 bits, too",
        ),
        ({"arch": "arm"}, "one of arm, .* here$"),
        ({}, "does not say what processor"),
        ({"arch": 5}, "does not say what processor"),
    ],
)
def test_a_kind_that_is_not_known(said: object, why: str) -> None:
    monitor: Any = Target(said)
    with pytest.raises(MachineError, match=why):
        ask_kind(monitor)


# ------------------------------------------------------------------------------- streams


def arm_device(state: int = 0x3C5) -> Device:
    return Device(
        "cpu",
        1,
        [
            streams.array("env.regs", [0x100 + index for index in range(16)], 4),
            streams.array("env.xregs", [0xFFFF_0000_0000_0000 + index for index in range(32)]),
            streams.number("env.pc", 0xFFFF_8000_0000_1000),
            ({"name": "cpsr", "type": "custom", "size": 4}, state.to_bytes(4, "big")),
        ],
    )


def riscv_device() -> Device:
    values = [0, *((1 << 63) + index for index in range(1, 32))]
    fields = [streams.array("env.gpr", values), streams.number("env.pc", 0x8020_0000)]
    return Device("cpu", 0, [*fields, streams.number("env.satp", 0xA << 60)])


def read(architecture: str, device: Device) -> Any:
    (found,) = read_vcpus(read_devices(streams.devices(device)), architecture)
    return found


def test_aarch64_in_a_stream() -> None:
    vcpu = read("aarch64", arm_device())
    found = vcpu.registers
    assert (vcpu.number, vcpu.tables, [*found]) == (1, 1, [*AARCH64.registers])
    assert [found[name] for name in ("x0", "x30", "sp")] == [
        0xFFFF_0000_0000_0000 + index for index in (0, 30, 31)
    ]
    assert (found["pc"], found["pstate"]) == (0xFFFF_8000_0000_1000, 0x3C5)


def test_code_of_32_bits_on_aarch64_in_a_stream() -> None:
    vcpu = read("aarch64", arm_device(0x30))
    found = vcpu.registers
    assert (found["x0"], found["x13"], found["x15"]) == (0x100, 0x10D, 0)
    assert (found["pc"], found["pstate"], vcpu.tables) == (0x10F, 0x30, 1)


def test_riscv_in_a_stream() -> None:
    vcpu = read("riscv64", riscv_device())
    found = vcpu.registers
    assert (vcpu.number, vcpu.tables, [*found]) == (0, 0xA << 60, [*RISCV64.registers])
    assert found["pc"] == 0x8020_0000
    order = ("ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0")
    assert [found[name] for name in order] == [(1 << 63) + index for index in range(1, 11)]
    assert found["t6"] == (1 << 63) + 31


@pytest.mark.parametrize(
    ("architecture", "make"), [("aarch64", arm_device), ("riscv64", riscv_device)]
)
def test_a_vcpu_in_a_stream_without_a_register(architecture: str, make: Any) -> None:
    used = [index for index, one in enumerate(make().fields) if one[0]["name"] != "env.regs"]
    for missing in used:
        device = make()
        del device.fields[missing]
        with pytest.raises(StreamError, match="has no "):
            read(architecture, device)
    with pytest.raises(StreamError, match=f"no vCPU of {architecture}"):
        read_vcpus(read_devices(streams.devices(Device("timer"))), architecture)
