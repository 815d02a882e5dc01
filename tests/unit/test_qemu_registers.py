# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers of vCPUs: texts as QEMU 7.2 prints them, and the notes made of them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from livedumpfs.errors import MachineError
from livedumpfs.formats.note import Note, pack_notes
from livedumpfs.formats.processors import X86_64
from livedumpfs.machines.kernels.information_note import INFORMATION_ROOM
from livedumpfs.machines.kernels.vmcoreinfo import MAX_SIZE
from livedumpfs.machines.qemu.notes import NOTE_OF_VCPU, vcpu_notes
from livedumpfs.machines.qemu.registers import STATE_SIZE, VcpuState, parse_registers
from livedumpfs.machines.qemu.state_dump import parse_states

REST = """\
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000 
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000d01
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000
XMM00=00000000000000ff 0000ff0000000000 XMM01=0000000000000001 000000ffffffffff
"""  # noqa: W291
LINUX = (
    """
CPU#0
RAX=000000000001ad40 RBX=0000000000000001 RCX=0000000000000002 RDX=4000000000000000
RSI=0000000000000003 RDI=000000000003402c RBP=ffffffffac01aa40 RSP=ffffffffac003e98
R8 =ffffffffffc7bd83 R9 =00000000314dbb9a R10=00000000fffffffb R11=0000000000000b0b
R12=0000000000000c0c R13=0000000000000d0d R14=ffffffffac01a118 R15=0000000000014790
RIP=ffffffffab0592eb RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 0000000000000000 00000000 00000000
CS =0010 0000000000000000 ffffffff 00a09b00 DPL=0 CS64 [-RA]
SS =0018 0000000000000000 ffffffff 00c09300 DPL=0 DS   [-WA]
DS =0000 0000000000000000 00000000 00000000
FS =0000 00007f0012345678 00000000 00000000
GS =0000 ffff8a5e7ec00000 00000000 00000000
LDT=0000 0000000000000000 00000000 00008200 DPL=0 LDT
TR =0040 fffffe0000003000 00004087 00008900 DPL=0 TSS64-avl
GDT=     fffffe0000001000 0000007f
IDT=     fffffe0000000000 00000fff
CR0=80050033 CR2=00000000267cd730 CR3=000000001a564000 CR4=000006f0
"""
    + REST
)
RESET = (
    """
CPU#1
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
"""
    + REST
)


def test_a_64_bit_vcpu() -> None:
    (vcpu,) = parse_registers(LINUX)
    registers = vcpu.registers
    assert set(registers) == set(X86_64.registers)
    shown = {"rax": 0x1AD40, "r8": 0xFFFFFFFFFFC7BD83, "r9": 0x314DBB9A, "r15": 0x14790}
    shown |= {"rip": 0xFFFFFFFFAB0592EB, "rsp": 0xFFFFFFFFAC003E98, "eflags": 0x246}
    shown |= {"cs": 0x10, "ss": 0x18, "ds": 0, "fs_base": 0x7F0012345678}
    shown |= {"gs_base": 0xFFFF8A5E7EC00000, "orig_rax": 2**64 - 1}
    assert {name: registers[name] for name in shown} == shown
    assert vcpu.controls == (0x80050033, 0, 0x267CD730, 0x1A564000, 0x6F0)


def test_a_vcpu_that_is_not_in_64_bit_mode() -> None:
    first, second = parse_registers(LINUX + RESET)
    assert first.general["rip"] == 0xFFFFFFFFAB0592EB
    assert set(second.registers) == set(X86_64.registers)
    shown = {"rdx": 0x60FB1, "rip": 0xFFF0, "eflags": 2, "r8": 0, "cs": 0xF000}
    assert {name: second.registers[name] for name in shown} == shown
    assert second.segments["cs"].base == 0xFFFF0000


def test_qemus_own_state_has_its_fields_where_qemu_puts_them() -> None:
    (vcpu,) = parse_registers(LINUX)
    state = vcpu.qemu_state()
    assert len(state) == STATE_SIZE == 440

    def word(offset: int) -> int:
        return int(struct.unpack_from("<Q", state, offset)[0])

    assert struct.unpack_from("<II", state) == (1, 440)
    assert [word(8 + 8 * index) for index in range(8)] == [
        *(0x1AD40, 1, 2, 0x4000000000000000, 3, 0x3402C),
        *(0xFFFFFFFFAC003E98, 0xFFFFFFFFAC01AA40),
    ]
    assert [word(72), word(128)] == [0xFFFFFFFFFFC7BD83, 0x14790]
    assert [word(136), word(144)] == [0xFFFFFFFFAB0592EB, 0x246]
    order = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt")
    segments = {n: struct.unpack_from("<IIIIQ", state, 152 + 24 * i) for i, n in enumerate(order)}
    assert segments["cs"] == (0x10, 0xFFFFFFFF, 0xA09B00, 0, 0)
    assert segments["gs"] == (0, 0, 0, 0, 0xFFFF8A5E7EC00000)
    assert segments["tr"] == (0x40, 0x4087, 0x8900, 0, 0xFFFFFE0000003000)
    assert segments["idt"] == (0, 0xFFF, 0, 0, 0xFFFFFE0000000000)
    controls = [word(392 + 8 * index) for index in range(6)]
    assert controls == [0x80050033, 0, 0x267CD730, 0x1A564000, 0x6F0, 0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no vCPU"),
        ("CPU#0\n", "no cr0, cr2, cr3, cr4, cs"),
        (LINUX.replace("R9 =", "R0 ="), "no r9 of vCPU 0"),
        (LINUX + RESET.replace("IDT=", "IDX="), "no idt of vCPU 1"),
        (LINUX.replace("CR3=", "CR5="), "no cr3 of vCPU 0"),
        ("CPU#0\nPC=0000000040000000 X00=0000000000000000\n", "qemu-system-x86_64"),
    ],
)
def test_texts_that_lack_a_register(text: str, sentence: str) -> None:
    with pytest.raises(MachineError, match=sentence):
        parse_registers(text)


def test_notes_of_all_vcpus_and_then_vmcoreinfo() -> None:
    vcpus = parse_registers(LINUX + RESET)
    notes = vcpu_notes(vcpus, b"OSRELEASE=6.1\n")
    assert [(note.name, note.type) for note in notes] == [
        *((b"QEMU\0", 0), (b"QEMU\0", 0)),
        (b"VMCOREINFO\0", 0),
    ]
    assert [note.content for note in notes] == [
        *(vcpu.qemu_state() for vcpu in vcpus),
        b"OSRELEASE=6.1\n",
    ]
    assert len(notes[0].pack()) == NOTE_OF_VCPU
    assert not vcpu_notes(vcpus)


@pytest.mark.parametrize("size", [None, 1, 3277, MAX_SIZE - 1, MAX_SIZE])
def test_the_room_is_enough_for_every_vmcoreinfo(size: int | None) -> None:
    vcpus = parse_registers(LINUX + RESET)
    room = NOTE_OF_VCPU * len(vcpus) + INFORMATION_ROOM
    text = None if size is None else b"x" * size
    assert len(pack_notes(vcpu_notes(vcpus, text), room)) == room


def test_a_state_comes_back_from_its_note() -> None:
    first, second = parse_registers(LINUX + RESET)
    first = replace(first, kernel_gs_base=0xFFFF_8A5E_7EC0_0000)
    assert VcpuState.parse(first.qemu_state()) == first
    assert VcpuState.parse(second.qemu_state(), 1) == second


def core_of(notes: bytes) -> bytes:
    """As QEMU lays it out: a section header first."""
    head = b"\x7fELF\x02\x01" + bytes(26) + struct.pack("<Q14xHH6x", 192, 56, 2) + bytes(128)
    load = struct.pack("<I4xQ16xQ16x", 1, 304 + len(notes), 4096)
    return head + struct.pack("<I4xQ16xQ16x", 4, 304, len(notes)) + load + notes + bytes(4096)


def states_of(vcpus: Sequence[VcpuState], *numbers: int) -> bytes:
    """Notes as QEMU orders them: NT_PRSTATUS of all, whose process ids begin with 1, then its
    own."""
    first = (Note(b"CORE\0", 1, X86_64.prstatus({}, number + 1)) for number in numbers)
    second = (Note(b"QEMU\0", 0, vcpu.qemu_state()) for vcpu in vcpus)
    return b"".join(note.pack() for note in (*first, *second))


def test_the_states_of_a_dump_are_in_its_notes() -> None:
    vcpus = parse_registers(LINUX + RESET)
    states = states_of(vcpus, 0, 1)
    told = Note(b"VMCOREINFO\0", 0, b"OSRELEASE=6.1\n").pack()
    assert parse_states(core_of(states)) == (vcpus, None)
    assert parse_states(core_of(states + told)) == (vcpus, b"OSRELEASE=6.1\n")


def test_vcpus_that_were_unplugged_and_plugged_in_again_keep_their_numbers() -> None:
    """QEMU shows one that comes back behind all others."""
    again = parse_registers(LINUX + RESET.replace("CPU#1", "CPU#2") + RESET)
    assert [one.number for one in again] == [0, 1, 2]
    assert again[0].registers == parse_registers(LINUX)[0].registers
    first, second = parse_registers(LINUX + RESET)
    found, _ = parse_states(core_of(states_of([second, first], 3, 1)))
    assert found == [replace(first, number=1), replace(second, number=3)]


def test_a_vcpu_that_runs_code_of_32_bits() -> None:
    """Its NT_PRSTATUS is another one."""
    vcpus = parse_registers(LINUX + RESET)
    short = bytes(24) + struct.pack("<I", 3) + bytes(116)
    notes = Note(b"CORE\0", 1, short).pack() + states_of(vcpus, 0)
    found, _ = parse_states(core_of(notes))
    assert [(one.number, one.general) for one in found] == [
        (0, vcpus[1].general),
        (2, vcpus[0].general),
    ]


@pytest.mark.parametrize(
    "core",
    [
        b"",
        b"KDUMP   " + bytes(4096),
        core_of(b""),
        core_of(states_of(parse_registers(LINUX), 0))[:900],
        core_of(states_of(parse_registers(LINUX))),
        core_of(states_of(parse_registers(LINUX + RESET), 1, 1)),
        core_of(Note(b"CORE\0", 1, bytes(8)).pack() + states_of(parse_registers(LINUX))),
        core_of(struct.pack("<III", 5, 440, 0) + b"QEMU\0\0\0\0" + bytes(440)),
        core_of(struct.pack("<III", 5, 8, 0) + b"QEMU\0\0\0\0" + bytes(8)),
    ],
    ids=[
        "empty",
        "other",
        "no-notes",
        "cut",
        "no number",
        "one number",
        "no status",
        "version",
        "size",
    ],
)
def test_what_is_no_dump_of_a_known_vcpu_is_refused(core: bytes) -> None:
    with pytest.raises(MachineError) as caught:
        parse_states(core)
    assert caught.value.errno == errno.EPROTO
