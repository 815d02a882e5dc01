# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's migration stream and the description of its devices, from streams that are built here."""

from __future__ import annotations

import random
from typing import Any

import pytest

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach.description import read_devices
from livedumpfs.machines.attach.received_memory import RamBlock, ReceivedMemory
from livedumpfs.machines.attach.stream import MigrationStream
from livedumpfs.machines.attach.vcpu_devices import read_vcpus, told_information
from livedumpfs.machines.attach.window import StreamError
from tests.fixtures import streams
from tests.fixtures.streams import PAGE_SIZE, Device, Sink

ROM = b"\x90" * PAGE_SIZE


def memory(pages: int, seed: int = 1) -> bytes:
    """Some pages in a row have something, some have zeros."""
    made = random.Random(seed)
    return b"".join(
        bytes(PAGE_SIZE) if index // 3 % 2 else made.randbytes(PAGE_SIZE) for index in range(pages)
    )


def read(stream: bytes, most: int = 1 << 20) -> tuple[Sink, bytes]:
    sink = Sink()
    rest = MigrationStream(streams.source(stream, most), sink).read()
    return sink, rest


@pytest.mark.parametrize("most", [1, 7, 4104, 1 << 20])
def test_all_memory_comes_whatever_pieces_the_stream_comes_in(most: int) -> None:
    ram = memory(24)
    sink, rest = read(streams.whole({"pc.ram": ram, "pc.bios": ROM}), most)
    assert {name: bytes(content) for name, content in sink.blocks.items()} == {
        "pc.ram": ram,
        "pc.bios": ROM,
    }
    assert [one.name for one in read_devices(rest)] == ["cpu"]


def test_pages_that_have_one_form_are_taken_together() -> None:
    """Else a guest of some GiB would take minutes."""
    ram = memory(3) + random.Random(2).randbytes(509 * PAGE_SIZE) + bytes(512 * PAGE_SIZE)
    sink, _ = read(streams.whole({"pc.ram": ram}))
    assert bytes(sink.blocks["pc.ram"]) == ram
    assert sink.calls < 100


def test_a_page_that_comes_again_replaces_the_first() -> None:
    """As in a plain migration of a guest that runs."""
    old, new = b"a" * PAGE_SIZE, b"b" * PAGE_SIZE
    parts = [
        streams.ram_part(*streams.pages_of("pc.ram", old * 3)),
        streams.ram_part(streams.page(0, new, "pc.ram"), streams.filled(PAGE_SIZE)),
        streams.ram_end(streams.filled(2 * PAGE_SIZE, 7, "pc.ram")),
    ]
    stream = streams.whole({"pc.ram": old * 3}, parts=parts)
    wanted = new + bytes(PAGE_SIZE) + b"\x07" * PAGE_SIZE
    assert bytes(read(stream)[0].blocks["pc.ram"]) == wanted
    with ReceivedMemory([RamBlock("pc.ram", 3 * PAGE_SIZE, 0)]) as arena:
        MigrationStream(streams.source(stream), arena).read()
        arena.expect_whole()
        arena.show()
        assert arena.read(0, arena.size) == wanted
        assert list(arena.data()) == [(0, 3 * PAGE_SIZE)]


def test_what_may_stand_in_a_configuration() -> None:
    capabilities = streams.be(1, 4) + streams.name("events")
    configuration = streams.configuration(
        "pc",
        streams.subsection("configuration/target-page-bits", streams.be(12, 4)),
        streams.subsection("configuration/capabilities", capabilities),
        streams.subsection("configuration/uuid", bytes(16)),
    )
    stream = streams.whole({"pc.ram": ROM})
    stream = stream.replace(streams.configuration(), configuration, 1)
    assert bytes(read(stream)[0].blocks["pc.ram"]) == ROM
    command = streams.be(8, 1) + streams.be(3, 2) + streams.be(2, 2) + b"no"
    assert read(stream.replace(configuration, configuration + command, 1))
    other = streams.configuration("pc", streams.subsection("configuration/new", bytes(4)))
    with pytest.raises(StreamError, match="configuration/new, which is not known"):
        read(stream.replace(configuration, other, 1))


@pytest.mark.parametrize("behind", [0, 1], ids=["before", "behind"])
def test_a_device_before_the_memory_is_passed_over(behind: int) -> None:
    """As virtio-mem's from QEMU 8.1 on: before or behind the list of the memory."""
    # Something in it looks like its footer.
    bitmap = streams.footer(1) + b"x" + bytes(range(256)) * 16 + streams.footer(1) + b"\0"
    early = Device("virtio-mem-early", 0, [streams.plain("bitmap", bitmap)])
    late = [streams.vcpu(), early]
    stream = streams.whole({"pc.ram": ROM}, *late).replace(early.section(11), b"", 1)
    begin = streams.ram_start({"pc.ram": len(ROM)})
    both = [early.section(1) * 2, begin]
    for most in (5, 1 << 20):
        changed = stream.replace(begin, b"".join(both[::-1] if behind else both), 1)
        sink, rest = read(changed, most)
        assert bytes(sink.blocks["pc.ram"]) == ROM
        assert [one.name for one in read_devices(rest)] == ["cpu"]


def test_a_name_of_anything_is_said_in_part() -> None:
    stream = streams.ram_start({"\0" * 255: PAGE_SIZE + 1})
    with pytest.raises(StreamError) as found:
        read(streams.head() + stream)
    assert len(str(found.value)) < 1000 and "makes no sense" not in str(found.value)


def test_a_device_before_the_memory_without_an_end() -> None:
    early = Device("early", 0, [streams.plain("x", bytes(2 << 20))]).section(1)
    stream = streams.head() + early + streams.ram_start({"pc.ram": PAGE_SIZE})
    with pytest.raises(StreamError, match="its end is not to be seen"):
        read(stream)
    with pytest.raises(StreamError, match="its end is not to be seen"):
        read(stream[:100])


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        (b"", "ends within its magic number, after 0 bytes"),
        (b"ELF." * 4, "does not begin as one"),
        (streams.be(streams.MAGIC, 4) + streams.be(2, 4), "its version is 2, only 3 is known"),
        (streams.head() + b"\x09", "a section of type 0x9 is not known"),
        (streams.head() + b"\x00", "it has no RAM"),
        (streams.head() + streams.ram_part(), "section 2 was never begun"),
        (
            streams.head() + streams.ram_start({"a": PAGE_SIZE}, 1 << 40),
            "a memory block '' of .* makes no sense",
        ),
        (streams.head() + streams.ram_start({"a": 1}), "begins with flags 0x5"),
        (
            streams.head() + streams.ram_start({"a": PAGE_SIZE}) + streams.ram_start({}),
            "a live section of 'ram' is not known here",
        ),
        (
            streams.head()
            + streams.ram_start({"a": PAGE_SIZE})
            + streams.ram_part(streams.filled(PAGE_SIZE, 0, "a")),
            "a page at 0x1000 of 'a', which has 4 KiB",
        ),
        (
            streams.head()
            + streams.ram_start({"a": PAGE_SIZE})
            + streams.ram_part(streams.filled(0, 0, "b")),
            "memory block 'b' that there is not",
        ),
        (
            streams.head()
            + streams.ram_start({"a": PAGE_SIZE})
            + streams.ram_part(streams.be(1, 8)),
            "a page with flags 0x1 is not known",
        ),
        (
            streams.head()
            + streams.ram_start({"a": PAGE_SIZE}).removesuffix(streams.footer(2))
            + streams.footer(3),
            "section 2 does not end where it should",
        ),
        (
            streams.head() + streams.configuration("x" * 5000),
            "the name of the machine has 5000 bytes",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(stream: bytes, sentence: str) -> None:
    with pytest.raises(StreamError, match=f"^QEMU's migration stream: (.*{sentence})") as caught:
        read(stream)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------ the devices


def devices_of(*given: Device, **change: Any) -> Any:
    return read_devices(streams.devices(*given, **change))


def test_each_register_of_each_vcpu() -> None:
    second, first = read_vcpus(devices_of(streams.vcpu(1, 5), streams.vcpu(0, 9)), "x86_64")[::-1]
    assert (first.number, second.number) == (0, 1)
    regs = second.general
    assert [regs[one] for one in ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")] == [
        (5 << 40) + index for index in range(8)
    ]
    assert regs["r15"] == (5 << 40) + 15
    assert (regs["rip"], regs["eflags"]) == ((5 << 48) + 1, 0x246)
    kept = {name: segment.selector for name, segment in second.segments.items()}
    assert kept == {
        "es": 5, "cs": 6, "ss": 7, "ds": 8, "fs": 9, "gs": 10,
        "ldt": 15, "tr": 16, "gdt": 17, "idt": 18,
    }  # fmt: skip
    gs = second.segments["gs"]
    assert (gs.base, gs.limit, gs.flags) == ((5 << 32) + 5, 0xFFFF_0005, 0x00CF_9305)
    assert second.controls == (5 << 16, 0, (5 << 16) + 2, (5 << 16) + 3, (5 << 16) + 4)
    assert second.kernel_gs_base == 0xFFFF_8880_0000_0005
    assert first.general["rax"] == 9 << 40


def test_a_field_that_comes_element_by_element_is_one_array() -> None:
    one = {"name": "env.regs", "index": 0, "type": "uint64", "size": 8}
    cpu = streams.vcpu()
    described, content = cpu.fields[0]
    del described
    cpu.fields[:1] = [
        ({**one, "index": index}, content[8 * index : 8 * index + 8]) for index in range(16)
    ]
    assert read_vcpus(devices_of(cpu), "x86_64")[0].general["r15"] == (1 << 40) + 15


def test_two_devices_of_one_name() -> None:
    """As QEMU's two isa-ide; each is described, in the order of the sections."""
    first, second = (Device("isa-ide", 0, [streams.plain("x", bytes(size))]) for size in (3, 9))
    found = devices_of(first, streams.vcpu(), second)
    assert [len(one.fields["x"]) for one in found if one.name == "isa-ide"] == [3, 9]


def test_where_the_guest_has_reported_its_information() -> None:
    def told(form: int) -> Device:
        return Device(
            "vmcoreinfo",
            0,
            [
                streams.number("vmcoreinfo.guest_format", form, 2),
                streams.number("vmcoreinfo.size", 3000, 4),
                streams.number("vmcoreinfo.paddr", 0x1234000),
            ],
        )

    assert told_information(devices_of(streams.vcpu(), told(1))) == (0x1234000, 3000)
    assert told_information(devices_of(streams.vcpu(), told(0))) is None
    assert told_information(devices_of(streams.vcpu())) is None


def lie(**changes: object) -> Any:
    """A change of the first field of the first device."""

    def change(text: Any) -> None:
        text["devices"][0]["fields"][0].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lie(size=1 << 30), "ends behind the devices"),
        (lie(array_len=1 << 31), "ends behind the devices"),
        (lie(size=9), "is not as it is described|not where it is described"),
        (lie(size=-1), "makes no sense"),
        (lie(size="8"), "makes no sense"),
        (lie(name=3), "makes no sense"),
        (lambda text: text.update(devices=[]), "device 'cpu' is not described"),
        (lambda text: text.update(devices=4), "makes no sense"),
        (lambda text: text["devices"][0].update(subsections=[]), "is not as it is described"),
        (lambda text: text["devices"][0].update(name="other"), "device 'cpu' is not described"),
    ],
)
def test_a_description_that_lies(change: Any, sentence: str) -> None:
    with pytest.raises(StreamError, match=sentence):
        devices_of(streams.vcpu(), change=change)


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        (b"\0", "without a description"),
        (streams.vcpu().section(3), "without a description"),
        (streams.description(b"{" * 100_000), "makes no sense"),
        (streams.description(b'{"devices": ' + b"[" * 100_000), "makes no sense"),
        (streams.description(b"{}"), "makes no sense"),
        (streams.devices(streams.vcpu())[:-1], "without a description"),
    ],
)
def test_no_description_or_one_that_is_none(rest: bytes, sentence: str) -> None:
    with pytest.raises(StreamError, match=sentence):
        read_devices(rest)


def test_a_vcpu_without_a_register() -> None:
    for missing in range(len(streams.vcpu().fields)):
        cpu = streams.vcpu()
        del cpu.fields[missing]
        with pytest.raises(StreamError, match="has no env"):
            read_vcpus(devices_of(cpu), "x86_64")
    with pytest.raises(StreamError, match="no vCPU"):
        read_vcpus(devices_of(Device("timer")), "x86_64")
    narrow = streams.vcpu()
    narrow.fields[0] = streams.array("env.regs", range(8), 4)
    with pytest.raises(StreamError, match=r"has 4 registers in env\.regs, not 16"):
        read_vcpus(devices_of(narrow), "x86_64")


# --------------------------------------------------------------------- into an arena


@pytest.mark.parametrize("path", ["dimm", "/objects/dimm", "0000:00:03.0/dimm"])
def test_the_ram_alone_comes_into_the_arena(path: str) -> None:
    ram, dimm = memory(8), memory(4, 2)
    blocks = [RamBlock("pc.ram", len(ram), 0), RamBlock("dimm", len(dimm), len(ram))]
    stream = streams.whole({"pc.bios": ROM, "pc.ram": ram, path: dimm})
    with ReceivedMemory(blocks) as arena:
        with pytest.raises(MachineError, match="in QEMU alone before START"):
            arena.read(0, 1)
        MigrationStream(streams.source(stream), arena).read()
        arena.expect_whole()
        arena.show()
        assert arena.read(0, arena.size) == ram + dimm
        assert arena.left_out == {"pc.bios": PAGE_SIZE}
        assert arena.resident() == sum(length for _, length in arena.data()) < arena.size
        arena.forget_received()
        assert arena.resident() == 0 and list(arena.data()) == []
        with pytest.raises(MachineError, match="in QEMU alone before START"):
            arena.read(0, 1)


def test_memory_that_does_not_come_or_is_another() -> None:
    ram = memory(4)
    short = streams.whole(
        {"pc.ram": ram}, parts=[streams.ram_end(*streams.pages_of("pc.ram", ram)[:3])]
    )
    with ReceivedMemory([RamBlock("pc.ram", len(ram), 0)]) as arena:
        MigrationStream(streams.source(short), arena).read()
        with pytest.raises(StreamError, match=r"1 pages of 'pc.ram' are missing"):
            arena.expect_whole()
        for blocks in ({"pc.ram": ram * 2}, {"other": ram}):
            with pytest.raises(StreamError, match=r"no memory block 'pc.ram' of 16384 bytes"):
                MigrationStream(streams.source(streams.whole(blocks)), arena).read()
    # Memory that the guest has not plugged in is not sent.
    with ReceivedMemory([RamBlock("pc.ram", len(ram), 0, sparse=True)]) as arena:
        MigrationStream(streams.source(short), arena).read()
        arena.expect_whole()
        arena.show()
        assert arena.read(0, arena.size) == ram[: 3 * PAGE_SIZE] + bytes(PAGE_SIZE)
