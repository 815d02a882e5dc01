# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump says of itself in JSON, by its types: newer members are ignored, others refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.dumpfile import describe_dump, format_description, layout, open_dump
from livedumpfs.dumpfile.stored import machine_of
from livedumpfs.errors import InvalidDump
from livedumpfs.formats import MemoryRange
from livedumpfs.formats.meta import build_slot, parse_slot
from livedumpfs.formats.note import MAX_SIZE, Note, parse_notes

MEMORY = bytes(range(256)) * 64
NOTE = Note(b"QEMU\0", 7, b"content")
WriteDump = Callable[..., Any]


def test_members_of_a_newer_version_are_ignored() -> None:
    meta = {
        "memory_map": [{"start": 0, "size": len(MEMORY), "arena_offset": 0, "node": [1, {}]}],
        "arrays": [{"name": "\udcff", "dtype": "<i8", "shape": [2, 3], "offset": 8, "unit": "K"}],
        "newer": {"deep": [[]]},
    }
    assert layout.parse_map(meta, len(MEMORY)) == (MemoryRange(0, len(MEMORY), 0),)
    (array,) = layout.parse_arrays(meta, len(MEMORY))
    assert (array.name, array.shape, array.size, array.offset) == ("\udcff", (2, 3), 48, 8)
    assert layout.parse_arrays({}, len(MEMORY)) == ()
    assert parse_notes([{**NOTE.describe(), "vcpu": 0}]) == (NOTE,)


def test_names_that_are_no_text_come_back() -> None:
    """As Python has paths that are not UTF-8; msgspec's own parser refuses them."""
    meta = {"name": "qemu \udcff"}
    assert parse_slot(build_slot(meta, b"i" * 16, 3), b"i" * 16) == (3, meta)


@pytest.mark.parametrize(
    ("meta", "what"),
    [({"notes": [{"name": "x"}]}, "notes"), ({"notes": 7}, "notes"),
     ({"elf_machine": 1 << 16}, "ELF machine"), ({"elf_machine": True}, "ELF machine")],
)  # fmt: skip
def test_a_machine_that_cannot_be_names_the_dump(
    tmp_path: Path, write_dump: WriteDump, meta: dict[str, object], what: str
) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY)
    with open_dump(path) as dump:
        assert machine_of(dump).elf_machine == 62
        dump.meta.update(meta)
        with pytest.raises(InvalidDump) as caught:
            machine_of(dump)
    assert str(caught.value) == (
        f"{path} is not a valid dump: its meta data has no sensible {what}"
    )


@pytest.mark.parametrize(
    "change",
    [{"name": 7}, {"name": "é"}, {"name": "x\n" * 128}, {"name": "\udcff"}, {"type": -1},
     {"type": 1 << 32}, {"type": 1.0}, {"content": "A"}, {"content": "AA A"}, {"content": None},
     {"content": "AAAA" * (MAX_SIZE // 3 + 1)}],
    ids=range(11),
)  # fmt: skip
def test_a_note_that_is_none_is_refused(change: dict[str, object]) -> None:
    assert parse_notes([NOTE.describe()]) == (NOTE,)
    with pytest.raises(InvalidDump, match="its meta data has no sensible notes"):
        parse_notes([NOTE.describe(), NOTE.describe() | change])


@pytest.mark.parametrize(
    ("left_out", "line"),
    [
        ({"vga.vram": 16 << 20, "pc.bios": 256 << 10}, "vga.vram 16 MiB, pc.bios 256 KiB"),
        ({f"rom{number}": 1 << 16 for number in range(10)}, "rom7 64 KiB and 2 more"),
        ({"a\nb": "c"}, "a\\nb 0 B"),
        ({}, ""),
        ([1], ""),
        (7, ""),
    ],
)
def test_memory_that_is_not_in_the_dump(
    tmp_path: Path, write_dump: WriteDump, left_out: object, line: str
) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY)
    with open_dump(path) as dump:
        dump.meta["machine"] = {"left_out": left_out}
        lines = format_description(describe_dump(dump)).splitlines()
    found = [text for text in lines if text.startswith("left out")]
    assert len(found) == bool(line)
    assert not line or found[0].endswith(line)
