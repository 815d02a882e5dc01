# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/formats.md is enough to read a dump: a reader that is made of its tables."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

from livedumpfs.dumpfile import open_dump
from livedumpfs.formats import MachineInfo, MemoryRange
from livedumpfs.formats.table import HOLE, LOST, SAVED
from tests.fixtures.makedumpfiles import small_filtered, small_kdump

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
PAGE = 4096
GRANULE = 8192
MEMORY = b"".join(bytes([i]) * PAGE for i in range(1, 33)) + bytes(2 * GRANULE)
MACHINE = MachineInfo(
    "flat",
    vcpus=1,
    memory_map=(MemoryRange(0, 16 * PAGE, 0), MemoryRange(1 << 20, 20 * PAGE, 16 * PAGE)),
)
STATES = [SAVED] * 15 + [LOST] + [HOLE] * 2
VERDICTS = ("incomplete", "consistent", "torn")
NOTES = 4096 + 48
"""Of a kdump's sub header."""
FORMATS = [("elf", "sidecar"), ("raw", "sidecar"), ("raw", "tail"), ("kdump", "sidecar")]


def section(heading: str) -> str:
    return DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def fields(heading: str) -> list[tuple[int, list[int], str]]:
    """(offset, sizes, what it is) of each row of the table below that heading."""
    rows = re.findall(
        r"^\| (\d+) \| ([\d, x]+) \| (.+) \|$", section(heading).replace("`", ""), re.M
    )
    found = []
    for at, size, what in rows:
        one, _, times = size.partition(" x ")
        sizes = [int(one)] * int(times) if times else [int(n) for n in size.split(",")]
        found.append((int(at), sizes, what))
    return found


class Meaning:
    """Bytes as the table below that heading explains them."""

    def __init__(self, data: bytes, heading: str) -> None:
        self._data, self._fields = data, fields(heading)

    def __getitem__(self, words: str) -> list[int]:
        """The numbers of the row that begins so."""
        ((at, sizes, _),) = [one for one in self._fields if one[2].startswith(words)]
        ends = [at + sum(sizes[: i + 1]) for i in range(len(sizes))]
        return [
            int.from_bytes(self._data[end - size : end], "little")
            for size, end in zip(sizes, ends, strict=True)
        ]


def test_the_tables_have_no_gap() -> None:
    for heading, end in (("Superblock, 512 bytes", 192), ("Granule table", 24)):
        at = 0
        for offset, sizes, what in fields(heading):
            assert offset == at, what
            at += sum(sizes)
        assert at == end, heading


def place_of_the_superblock(path: Path, format: str, table: str) -> tuple[bytes, int]:
    """(the file that has it, its offset), found as the text says."""
    if format == "raw" and table == "sidecar":
        return Path(f"{path}.ldfs").read_bytes(), 0  # "comes first"
    data = path.read_bytes()
    if format == "raw":
        return data, (len(data) - 1) // PAGE * PAGE  # "the last 4096-byte page"
    # The content of our note, on a page boundary.
    head = struct.pack("<III", len("LIVEDUMPFS") + 1, 512, 0x4C444653) + b"LIVEDUMPFS\0\0"
    at = data.index(head) + len(head)
    assert at % PAGE == 0
    return data, at


@pytest.mark.parametrize(("format", "table"), FORMATS, ids=["-".join(one) for one in FORMATS])
def test_a_dump_is_read_by_the_document_alone(
    format: str, table: str, tmp_path: Path, write_dump: Callable[..., Any]
) -> None:
    path = tmp_path / "dump"
    write_dump(
        path, MEMORY, format=format, granule=GRANULE, table=table, machine=MACHINE, states=STATES,
        verdict="torn", meta={"instant": {"wall_ns": 5}},
    )  # fmt: skip
    book, start = place_of_the_superblock(path, format, table)
    block = book[start : start + 512]
    said = Meaning(block, "Superblock, 512 bytes")
    assert said["magic LDFSDUMP"] == [int.from_bytes(b"LDFSDUMP", "little")]
    assert said["version"] == [1, 512]
    blank = block[:16] + bytes(8) + block[24:]
    assert said["XXH3-64 of the 512"] == [xxhash.xxh3_64_intdigest(blank)]
    assert block[40:56] == format.encode().ljust(16, b"\0")
    sealed, verdict = said["sealed"]
    memory, size = said["offset of the memory"]
    with open_dump(path) as dump:
        assert said["dump id"] == [int.from_bytes(dump.dump_id, "little")]
        assert (sealed, VERDICTS[verdict]) == (1, dump.verdict) == (1, "torn")
        assert dump.meta["instant"] == {"wall_ns": 5}
    assert said["granule size"] == [GRANULE, len(STATES), len(MEMORY)]
    assert size == path.stat().st_size
    own, tables, length = said["offset of the superblock"]
    assert own == start
    # Meta: the current slot, checked and read.
    *slots, room = said["offset of meta slot"]
    current, used = said["current meta slot"]
    slot = book[slots[current] : slots[current] + used]
    assert said["XXH3-64 of these"][0] == xxhash.xxh3_64_intdigest(slot) and used <= room
    magic, owner, _, text, checksum = struct.unpack_from("<8s16sIIQ", slot)
    body = slot[40:]
    assert (magic, owner, text) == (b"LDFSMETA", block[24:40], len(body))
    assert checksum == xxhash.xxh3_64_intdigest(body)
    assert json.loads(body)["instant"] == {"wall_ns": 5}
    check_table(book[tables : tables + length], block[24:40], format, path, memory)


def check_table(table: bytes, owner: bytes, format: str, path: Path, memory: int) -> None:
    magic, dump_id, index, count, checksum = struct.unpack_from("<8s16sIIQ", table)
    assert (magic, dump_id, index, count) == (b"LDFSTAB1", owner, 0, len(STATES))
    blank = table[:32] + bytes(8) + table[40:PAGE]
    assert checksum == xxhash.xxh3_64_intdigest(blank)
    data = path.read_bytes()
    for number, state in enumerate(STATES):
        entry = Meaning(table[40 + 24 * number : 64 + 24 * number], "Granule table")
        granule = MEMORY[GRANULE * number : GRANULE * (number + 1)]
        assert entry["state"] == [state]
        assert entry["XXH3-64 of the"] == [
            xxhash.xxh3_64_intdigest(granule) if state == SAVED else 0
        ]
        assert (entry["bytes stored"] != [0]) == (state == SAVED)
        if format == "elf" and state == SAVED:  # "in arena order"
            at = memory + GRANULE * number
            assert memory % GRANULE == 0 and data[at : at + GRANULE] == granule
        if format == "raw" and state == SAVED:  # "page of physical address A at offset A"
            at = GRANULE * number + (0 if number < 8 else (1 << 20) - 16 * PAGE)
            assert data[at : at + GRANULE] == granule


def test_the_record_behind_a_filtered_kdump(tmp_path: Path) -> None:
    """By its section, and that of the superblock."""
    path, written = tmp_path / "dump", small_kdump()
    small_filtered(path, policy="block")
    data, start = place_of_the_superblock(path, "kdump", "")
    block = data[start : start + 512]
    said = Meaning(block, "Superblock, 512 bytes")
    assert block[40:56] == b"kdump-filtered".ljust(16, b"\0")
    assert said["offset of the memory"] == [0, len(data)]
    assert said["offset of the superblock"] == [start, 0, 0]
    *slots, _ = said["offset of meta slot"]
    assert len(set(slots)) == 1
    used = said["current meta slot"][1]
    assert json.loads(data[slots[0] + 40 : slots[0] + used]) == {"policy": "block"}
    assert said["XXH3-64 of these"][1] == xxhash.xxh3_64_intdigest(data[:start])
    # Unchanged, but for where the notes are: offset and size, as diskdump.h has them.
    notes, size = struct.unpack_from("<QQ", data, NOTES)
    assert (written[:NOTES], written[NOTES + 16 :]) == (
        data[:NOTES], data[NOTES + 16 : len(written)],
    )  # fmt: skip
    before, length = struct.unpack_from("<QQ", written, NOTES)
    assert data[notes : notes + length] == written[before : before + length]
    assert notes + size == start + 512
