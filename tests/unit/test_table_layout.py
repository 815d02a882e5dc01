# SPDX-License-Identifier: GPL-2.0-or-later
"""The granule table in Python is the one of native/ldfs.h, by a compiled C program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from livedumpfs.formats import table
from livedumpfs.formats.processors import X86_64
from tests.fixtures.program_files import program_file

NATIVE = Path(__file__).resolve().parents[2] / "native"
DUMP_ID = bytes(range(16))


def run_c(name: str, directory: Path) -> bytes:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    made = directory / "program"
    subprocess.run(
        [
            compiler,
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I",
            str(NATIVE),
            "-o",
            made,
            program_file(__file__, name),
        ],
        check=True,
        timeout=300,
    )
    return subprocess.run([made], check=True, capture_output=True, timeout=300).stdout


def test_structs_have_the_layout_of_the_header(tmp_path: Path) -> None:
    lines = run_c("table_layout.c", tmp_path).decode().splitlines()
    said = {line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) for line in lines}
    ours: dict[str, int] = {
        "ldfs_table_entry size": table.ENTRY.itemsize,
        "ldfs_table_block size": table.BLOCK.itemsize,
        "LDFS_TABLE_BLOCK_SIZE is": table.BLOCK_SIZE,
        "LDFS_TABLE_BLOCK_ENTRIES is": table.BLOCK_ENTRIES,
        "LDFS_G_ARMED is": table.ARMED,
        "LDFS_G_SAVED is": table.SAVED,
        "LDFS_G_HOLE is": table.HOLE,
        "LDFS_G_LOST is": table.LOST,
        "LDFS_BY_NONE is": table.BY_NONE,
        "LDFS_BY_SWEEP is": table.BY_SWEEP,
        "LDFS_BY_FAULT is": table.BY_FAULT,
        "LDFS_BY_STEAL is": table.BY_STEAL,
        "struct elf_prstatus size": X86_64.prstatus_size,
        "struct elf_prstatus pr_pid": 32,
        "struct elf_prstatus pr_reg": 112,
        "struct elf_prstatus pr_fpvalid": 112 + 8 * len(X86_64.registers),
    }
    for name, dtype in (("ldfs_table_entry", table.ENTRY), ("ldfs_table_block", table.BLOCK)):
        assert dtype.fields is not None
        ours.update({f"{name} {field}": place[1] for field, place in dtype.fields.items()})
    missing = {key for key in ours if key.startswith("struct")} - said.keys()
    assert said == {key: value for key, value in ours.items() if key not in missing}


def test_a_block_of_c_is_parsed(tmp_path: Path) -> None:
    block = bytearray(run_c("table_block.c", tmp_path))
    assert len(block) == table.BLOCK_SIZE
    granules = table.BLOCK_ENTRIES + 3
    assert table.parse_block(bytes(block), DUMP_ID, 1, granules) is None, "no checksum yet"
    block[32:40] = table.block_checksum(block).to_bytes(8, "little")
    entries = table.parse_block(bytes(block), DUMP_ID, 1, granules)
    assert entries is not None
    assert entries.tolist() == [
        (0x123456789ABC, 0xFEDCBA9876543210, 4096, table.SAVED, table.BY_STEAL, 0),
        (0, 0, 0, table.HOLE, table.BY_SWEEP, 0),
        (0, 0, 0, table.LOST, table.BY_NONE, 0),
    ]
    assert table.build_block(entries, DUMP_ID, 1) == bytes(block)


def good_block() -> bytes:
    entries = table.empty_entries(5)
    entries["state"] = table.SAVED
    return table.build_block(entries, DUMP_ID, 0)


def test_a_block_counts_only_where_and_as_it_was_written() -> None:
    block = good_block()
    assert table.parse_block(block, DUMP_ID, 0, 5) is not None
    assert table.parse_block(block, bytes(16), 0, 5) is None, "another dump's"
    assert table.parse_block(block, DUMP_ID, 1, 174) is None, "another place"
    assert table.parse_block(block, DUMP_ID, 0, 6) is None, "another count"
    assert table.parse_block(block[:-1], DUMP_ID, 0, 5) is None, "cut off"


def test_every_flipped_byte_of_a_block_is_seen() -> None:
    block = good_block()
    for position in range(len(block)):
        damaged = bytearray(block)
        damaged[position] ^= 0x40
        assert table.parse_block(bytes(damaged), DUMP_ID, 0, 5) is None, position


@pytest.mark.parametrize(("field", "value"), [("state", 1), ("state", 255), ("how", 4)])
def test_impossible_entries_do_not_count(field: str, value: int) -> None:
    entries = table.empty_entries(5)
    entries[field][3] = value
    assert table.parse_block(table.build_block(entries, DUMP_ID, 0), DUMP_ID, 0, 5) is None


def test_a_table_of_several_blocks_comes_back() -> None:
    entries = table.empty_entries(400)
    entries["checksum"] = np.arange(400)
    entries["state"] = table.SAVED
    data = table.build_table(entries, DUMP_ID)
    assert len(data) == table.table_size(400) == 3 * 4096
    pieces = [table.parse_block(data[i * 4096 : (i + 1) * 4096], DUMP_ID, i, 400) for i in range(3)]
    assert all(piece is not None for piece in pieces)
    assert np.concatenate([p for p in pieces if p is not None]).tolist() == entries.tolist()


@pytest.mark.parametrize("count", [0, 170])
def test_a_block_of_no_possible_size_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 169"):
        table.build_block(table.empty_entries(count), DUMP_ID, 0)
