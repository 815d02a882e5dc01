# SPDX-License-Identifier: GPL-2.0-or-later
"""`convert` that is refused, fails or is broken off; its progress."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.cli.main import main
from livedumpfs.dumpfile import NewFile, Stream, convert_dump, open_dump
from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import MachineInfo, MemoryRange, meta, superblock, table
from tests.fixtures.conversions import GRANULE, MEMORY, PAGE, Capture, WriteDump


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compress", "zlib"], "--compress goes with --format kdump, not with elf"),
        (["--format", "raw", "--level", "3"], "--level goes with --format kdump, not with raw"),
        (["--format", "lime", "--threads", "3"], "--threads goes with --format kdump"),
        (["--format", "kdump", "--table", "tail"], "--table goes with --format raw"),
        (["--format", "kdump", "--compress", "lzo", "--level", "1"], "lzo has no level 1"),
        (["--format", "kdump", "--level", "99"], "zstd has no level 99"),
        (["--format", "flat", "--threads", "65"], "65 threads are not possible"),
    ],
)
def test_options_that_make_no_sense(
    options: list[str], message: str, source: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(source("elf")), str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_memory_that_a_kdump_has_no_room_for(tmp_path: Path, write_dump: WriteDump) -> None:
    far = MachineInfo("far", memory_map=(MemoryRange(1 << 45, 16 * PAGE, 0),))
    write_dump(tmp_path / "a", MEMORY[: 16 * PAGE], machine=far)
    with (
        open_dump(tmp_path / "a") as dump,
        NewFile(str(tmp_path / "out")) as out,
        pytest.raises(UsageError, match=r"cannot be of format kdump: .* no room for memory"),
    ):
        convert_dump(dump, "kdump", out)
    assert not (tmp_path / "out").exists()


def test_meta_data_that_cannot_be_written_again_is_refused(
    tmp_path: Path, write_dump: WriteDump
) -> None:
    """JSON has no infinity, and yet 1e999 is read as one."""
    path = tmp_path / "a"
    plan = write_dump(path, MEMORY[: 16 * PAGE], meta={"pause_ns": 123456})
    content = bytearray(path.read_bytes())
    start, room = plan.meta_slots[0], plan.meta_room
    slot = bytes(content[start : start + room])
    text = slot[meta.HEADER_SIZE : meta.slot_length(slot[: meta.HEADER_SIZE], room)]
    text = text.replace(b"123456", b" 1e999")
    header = bytearray(slot[: meta.HEADER_SIZE])
    header[32:40] = meta.xxhash.xxh3_64_intdigest(text).to_bytes(8, "little")
    content[start : start + len(header) + len(text)] = bytes(header) + text
    block = superblock.parse(content[plan.superblock_offset :][: superblock.SIZE])
    digest = meta.xxhash.xxh3_64_intdigest(bytes(header) + text)
    changed = superblock.Superblock(**{**vars(block), "meta_checksum": digest}).pack()
    content[plan.superblock_offset : plan.superblock_offset + superblock.SIZE] = changed
    path.write_bytes(content)
    for format in ("elf", "kdump"):
        with (
            open_dump(path) as dump,
            NewFile(str(tmp_path / "out")) as out,
            pytest.raises(InvalidDump, match="cannot be kept"),
        ):
            convert_dump(dump, format, out)


def test_a_full_disk_leaves_no_part_of_a_kdump(
    source: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    first, out = source("elf"), tmp_path / "out"
    real, room = os.pwrite, [200_000]

    def full(fd: int, data: Any, offset: int) -> int:
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(28, "full")
        return real(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert main(["convert", str(first), str(out), "--format", "kdump"]) == 1
    assert f"cannot write {out}: No space left on device" in capsys.readouterr().err
    assert not out.exists()


def test_a_reader_that_goes_away_ends_it(source: Callable[..., Path]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with (
        open_dump(source("elf")) as dump,
        io.FileIO(write_end, "w") as file,
        pytest.raises(BrokenPipeError),
    ):
        convert_dump(dump, "kdump", Stream(file.fileno(), "the pipe"))


def test_progress_ends_at_the_end(source: Callable[..., Path], tmp_path: Path) -> None:
    for format in ("elf", "kdump", "raw"):
        seen: list[tuple[int, int]] = []
        with open_dump(source(format)) as dump, NewFile(str(tmp_path / f"o-{format}")) as out:
            convert_dump(dump, format, out, lambda done, total, to=seen: to.append((done, total)))
        assert seen == sorted(seen)
        assert seen[-1][0] <= seen[-1][1]
        assert len(seen) >= 3


def test_the_table_is_the_one_of_its_format(source: Callable[..., Path], tmp_path: Path) -> None:
    first, out = source("kdump"), tmp_path / "out"
    assert main(["convert", str(first), str(out)]) == 0
    with open_dump(out) as dump:
        saved = dump.entries["state"] == table.SAVED
        assert (dump.entries["where"] == 0).all()
        assert (dump.entries["stored"][saved] == GRANULE).all()
        assert (dump.entries["stored"][~saved] == 0).all()
