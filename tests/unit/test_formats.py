# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans: what lies where, what is refused, and in which order it is written."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest

from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import (
    Extent,
    MachineInfo,
    MemoryRange,
    Plan,
    Sync,
    Write,
    Zero,
    elf,
    meta,
    plan_dump,
    superblock,
)
from livedumpfs.formats.processors import X86_64
from livedumpfs.formats.table import MAX_GRANULES
from livedumpfs.settings import OPTION

MIB = 1 << 20
TWO = (MemoryRange(0x1000, MIB, 0), MemoryRange(1 << 32, 3 * MIB, MIB))


def plan(format: str = "elf", granule: int = 65536, vcpus: int = 2) -> Plan:
    machine = MachineInfo("test", vcpus=vcpus, memory_map=TWO)
    return plan_dump(format, machine, arena_size=4 * MIB, granule_size=granule)


def regions(p: Plan) -> list[tuple[int, int]]:
    return [
        (p.superblock_offset, superblock.SIZE),
        (p.meta_slots[0], p.meta_room),
        (p.meta_slots[1], p.meta_room),
        (p.table_offset, p.table_size),
    ]


@pytest.mark.parametrize("vcpus", [0, 1, 11, 12, 4096])
@pytest.mark.parametrize("granule", [4096, 65536, 4 * MIB])
def test_elf_regions_follow_each_other(vcpus: int, granule: int) -> None:
    p = plan(granule=granule, vcpus=vcpus)
    position = len(p.header())
    assert position == p.superblock_offset
    for offset, size in [*regions(p), (p.data_offset, p.arena_size)]:
        assert offset >= position
        assert offset % 4096 == 0
        position = offset + size
    assert position == p.total_size
    assert p.data_offset % granule == 0
    assert p.extents == (Extent(0, 4 * MIB, p.data_offset),)


def test_raw_lies_at_physical_addresses_and_is_described_elsewhere() -> None:
    p = plan("raw")
    assert p.extents == (Extent(0, MIB, 0x1000), Extent(MIB, 3 * MIB, 1 << 32))
    assert p.total_size == (1 << 32) + 3 * MIB
    assert p.book == "sidecar"
    assert p.book_size == p.table_offset + p.table_size
    assert [offset for offset, _ in regions(p)] == sorted(offset for offset, _ in regions(p))


def test_raw_extents_are_in_arena_order() -> None:
    swapped = (MemoryRange(0, MIB, MIB), MemoryRange(8 * MIB, MIB, 0))
    p = plan_dump(
        "raw", MachineInfo("t", memory_map=swapped), arena_size=2 * MIB, granule_size=4096
    )
    assert p.extents == (Extent(0, MIB, 8 * MIB), Extent(MIB, MIB, 0))


def test_note_content_is_the_superblock() -> None:
    p = plan()
    header = p.header()
    note = elf.note_segment(elf.parse_segments(header[:4096]))
    notes = header[note.offset :] + bytes(superblock.SIZE)
    assert note.size == len(notes)
    assert note.offset + elf.own_note_position(notes) == p.superblock_offset


def test_no_segment_asks_for_an_alignment() -> None:
    """crash takes a core for one of netdump otherwise, and misses where the kernel lies."""
    head = plan().header()
    assert struct.unpack_from("<H", head, 56) == (3,)
    kinds = [struct.unpack_from("<I", head, 64 + 56 * i)[0] for i in range(3)]
    alignments = [struct.unpack_from("<Q", head, 64 + 56 * i + 48)[0] for i in range(3)]
    assert (kinds, alignments) == ([4, 1, 1], [4, 0, 0])


def test_registers_come_back_from_the_notes() -> None:
    registers = [{name: i * 1000 + k for k, name in enumerate(X86_64.registers)} for i in (1, 2)]
    header = plan().header(registers) + bytes(superblock.SIZE)
    assert elf.parse_registers(header) == registers
    with pytest.raises(UsageError):
        plan(vcpus=1).header(registers)


def test_an_unknown_processor_has_no_register_notes() -> None:
    machine = MachineInfo("mips", "mips64", 8, 2, (MemoryRange(0, MIB, 0),))
    p = plan_dump("elf", machine, arena_size=MIB, granule_size=4096)
    assert struct.unpack_from("<H", p.header(), 18) == (8,)
    assert elf.parse_registers(p.header() + bytes(4096)) == []


def test_opening_first_makes_an_older_dump_invalid() -> None:
    steps = plan().opening({})
    assert steps[:2] == [Zero("target", 0, 4096), Sync("target")]
    assert isinstance(steps[-1], Sync)
    assert steps.index(next(s for s in steps if isinstance(s, Write) and s.offset == 0)) == 5


def test_raw_opening_zeroes_the_gaps_of_the_map() -> None:
    steps = plan("raw").opening({})
    zeros = [(s.offset, s.length) for s in steps if isinstance(s, Zero)]
    behind = 0x1000 + MIB
    assert zeros == [(0, 4096), (0, 4096), (behind, (1 << 32) - behind)]


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_seal_syncs_everything_before_and_after_the_superblock(format: str) -> None:
    p = plan(format)
    steps = p.seal("consistent", {"pause_ns": 5})
    last = max(i for i, s in enumerate(steps) if isinstance(s, Write))
    sealed = steps[last]
    assert isinstance(sealed, Write)
    assert (sealed.file, sealed.offset) == (p.book, p.superblock_offset)
    before = {s.file for s in steps[:last] if isinstance(s, Sync)}
    assert before == {"target", p.book}
    assert steps[last + 1 :] == [Sync(p.book)]
    block = superblock.parse(sealed.data)
    assert (block.sealed, block.verdict) == (True, "consistent")


def test_steps_before_the_seal_are_not_sealed_and_use_the_other_slot() -> None:
    p = plan()
    blocks = [
        superblock.parse(s.data)
        for steps in (p.opening({}), p.started([], {}), p.seal("torn", {}))
        for s in steps
        if isinstance(s, Write) and s.offset == p.superblock_offset
    ]
    assert [b.sealed for b in blocks] == [False, False, True]
    assert [b.meta_current for b in blocks] == [0, 1, 0]
    assert [b.verdict for b in blocks] == ["incomplete", "incomplete", "torn"]


def bad_map(*ranges: MemoryRange) -> MachineInfo:
    return MachineInfo("bad", memory_map=ranges)


@pytest.mark.parametrize(
    ("machine", "cause"),
    [
        (bad_map(), "covers 0 of"),
        (bad_map(MemoryRange(0, MIB // 2, 0)), "covers 524288 of"),
        (bad_map(MemoryRange(0, MIB, 4096)), "does not cover the arena at offset 0x0"),
        (bad_map(MemoryRange(1, MIB, 0)), "whole pages"),
        (bad_map(MemoryRange(0, MIB // 2, 0), MemoryRange(4096, MIB // 2, MIB // 2)), "overlap"),
        (bad_map(MemoryRange(1 << 62, MIB, 0)), "out of range"),
    ],
)
@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_maps_that_cannot_be_are_refused(format: str, machine: MachineInfo, cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        plan_dump(format, machine, arena_size=MIB, granule_size=4096)


@pytest.mark.parametrize(
    ("arena", "granule"),
    [(0, 4096), (5000, 4096), (MIB, 2048), (MIB, 12288), (MIB, 0), (MIB, 1 << 31), (1 << 47, 4096)],
)
def test_sizes_that_cannot_be_are_refused(arena: int, granule: int) -> None:
    with pytest.raises(UsageError):
        plan_dump("elf", MachineInfo.flat("t", arena), arena_size=arena, granule_size=granule)


def test_more_granules_than_a_reader_takes_are_refused() -> None:
    size = (MAX_GRANULES + 1) * 4096
    with pytest.raises(UsageError, match="larger granule"):
        plan_dump("elf", MachineInfo.flat("t", size), arena_size=size, granule_size=4096)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown format 'lime'"):
        plan_dump("lime", MachineInfo.flat("t", MIB), arena_size=MIB, granule_size=4096)


def block() -> superblock.Superblock:
    first = plan().opening({})[4]
    assert isinstance(first, Write)
    return superblock.parse(first.data)


def test_superblock_comes_back_and_fits_a_sector() -> None:
    packed = block().pack()
    assert superblock.parse(packed) == block().__class__(**vars(superblock.parse(packed)))
    assert len(packed) == 512


def test_every_flipped_byte_of_a_superblock_is_seen() -> None:
    packed = block().pack()
    for position in range(len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0x10
        with pytest.raises(InvalidDump):
            superblock.parse(bytes(damaged))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"granule_size": 4097}, "granule size"),
        ({"granule_size": 1 << 40}, "granule size"),
        ({"arena_size": 0}, "arena"),
        ({"arena_size": 1 << 60}, "arena"),
        ({"granule_count": 7}, "number of granules"),
        ({"table_size": 4096 * 99}, "granule table"),
        ({"table_offset": 100}, "granule table"),
        ({"meta_room": 1 << 40}, "meta data"),
        ({"meta_length": 1 << 31}, "meta data"),
        ({"data_offset": 1 << 63}, "an offset"),
        ({"meta_offsets": (0, 1 << 63)}, "an offset"),
    ],
)
def test_impossible_superblocks_with_a_good_checksum_are_refused(
    change: dict[str, int], cause: str
) -> None:
    with pytest.raises(InvalidDump, match=cause):
        superblock.parse(replace(block(), **change).pack())  # type: ignore[arg-type]


def test_another_version_is_named() -> None:
    packed = bytearray(block().pack())
    packed[8] = 9
    with pytest.raises(InvalidDump, match="it has version 9, this program reads version 1"):
        superblock.parse(bytes(packed))


ID = bytes(16)


def test_meta_comes_back() -> None:
    slot = meta.build_slot({"a": [1, "ü"]}, ID, 3)
    assert meta.parse_slot(slot, ID) == (3, {"a": [1, "ü"]})
    assert meta.slot_length(slot, meta.ROOM) == len(slot)


def test_a_long_list_of_lost_pages_is_cut_to_fit() -> None:
    lost = [[i * 10, i * 10 + 1] for i in range(10_000)]
    slot = meta.build_slot({"lost": lost, "z": 1}, ID, 0, room=4096)
    found = meta.parse_slot(slot, ID)[1]
    assert len(slot) <= 4096
    assert found["lost_cut"] is True
    assert found["z"] == 1
    assert found["lost"] == lost[: len(found["lost"])]
    assert len(found["lost"]) > 200


def test_meta_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="4096 are reserved"):
        meta.build_slot({"arrays": ["x" * 5000]}, ID, 0, room=4096)


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff", b'{"a":NaN}', b"[" * 100_000])
def test_meta_that_is_not_an_object_is_refused(text: bytes) -> None:
    assert json.loads(meta.build_slot({}, ID, 0)[meta.HEADER_SIZE :]) == {}
    head = struct.pack(
        "<8s16sIIQ", meta.MAGIC, ID, 0, len(text), meta.xxhash.xxh3_64_intdigest(text)
    )
    with pytest.raises(InvalidDump, match="JSON"):
        meta.parse_slot(head + text, ID)


def test_foreign_and_damaged_meta_is_refused() -> None:
    slot = meta.build_slot({"a": 1}, ID, 0)
    with pytest.raises(InvalidDump, match="missing"):
        meta.parse_slot(slot, b"x" * 16)
    with pytest.raises(InvalidDump, match="damaged"):
        meta.parse_slot(slot[:-1] + b"!", ID)
    with pytest.raises(InvalidDump, match="damaged"):
        meta.parse_slot(slot[:-1], ID)


def test_a_format_without_a_plan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a developer has added to the options alone must not become an ELF dump."""
    row = OPTION["format"]
    kind = replace(row.kind, words=(*row.kind.words, "new"))
    monkeypatch.setitem(OPTION, "format", row._replace(kind=kind))
    with pytest.raises(UsageError, match="no plan lays out format new"):
        plan_dump("new", MachineInfo.flat("t", MIB), arena_size=MIB, granule_size=4096)
