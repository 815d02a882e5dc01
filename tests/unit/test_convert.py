# SPDX-License-Identifier: GPL-2.0-or-later
"""`convert` between all formats: the same memory, table and verdict on the other side."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livedumpfs.cli.main import main
from livedumpfs.dumpfile import (
    DumpFile,
    NewFile,
    Stream,
    compare_dumps,
    convert_dump,
    missing_pages,
    open_dump,
    rearrange,
    verify_dump,
)
from livedumpfs.errors import InvalidDump, TargetError, UsageError
from livedumpfs.formats import MachineInfo, MemoryRange, Plan, kdump, meta, superblock, table
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED

PAGE = 4096
PAGES = 700
"""More than one piece of 1 MiB, and not a multiple of anything."""
GRANULE = 4 * PAGE
LOW = 390 * PAGE
MACHINE = MachineInfo(
    "engine",
    vcpus=2,
    memory_map=(
        MemoryRange(8 * PAGE, PAGES * PAGE - LOW, LOW),
        MemoryRange(900 * PAGE, LOW, 0),
    ),
)
REGISTERS = [{"rip": 0x1234, "rsp": 0x8000}, {"rip": 0x5678}]
META = {
    "instant": {"wall_ns": 1_700_000_000_123_456_789, "mono_ns": 77},
    "policy": "block",
    "arrays": [{"name": "t", "dtype": "<u4", "shape": [5, 7], "offset": 4096}],
    "registers": REGISTERS,
}
DUMPS = ("elf", "raw", "kdump")
WriteDump = Callable[..., Plan]
Capture = pytest.CaptureFixture[str]


def make_memory() -> bytes:
    """Pages that compress well, badly and not at all, and zeros, alone and in runs."""
    random = np.random.default_rng(11)
    pages = np.zeros((PAGES, PAGE), np.uint8)
    kinds = random.integers(0, 4, PAGES)
    for i, kind in enumerate(kinds):
        if kind == 1:
            pages[i] = i % 255 + 1
        elif kind == 2:
            pages[i] = random.integers(0, 4, PAGE)
        elif kind == 3:
            pages[i] = random.integers(0, 256, PAGE)
    pages[100:300] = 0
    return pages.tobytes()


MEMORY = make_memory()


@pytest.fixture
def source(tmp_path: Path, write_dump: WriteDump) -> Callable[..., Path]:
    """source(format, ...) -> the path of a dump."""

    def make(format: str, **how: Any) -> Path:
        path = tmp_path / f"source-{format}"
        settings = {
            "machine": MACHINE,
            "granule": GRANULE,
            "registers": REGISTERS,
            "meta": META,
            **how,
        }
        write_dump(path, MEMORY, format=format, **settings)
        return path

    return make


def out_options(format: str) -> list[str]:
    return ["--format", "raw", "--table", "tail"] if format == "raw" else ["--format", format]


def same_pages(dump: DumpFile) -> None:
    found = np.frombuffer(dump.read_arena(0, dump.arena_size), np.uint8).reshape(-1, PAGE)
    expected = np.frombuffer(MEMORY, np.uint8).reshape(-1, PAGE)
    assert np.flatnonzero((found != expected).any(axis=1)).tolist() == []


def same_dump(a: Path, b: Path) -> None:
    """All that a dump says but its layout."""
    with open_dump(a) as one, open_dump(b) as other:
        assert compare_dumps(one, other).equal == (missing_pages(one) == 0)
        for name in ("state", "how", "checksum"):
            assert np.array_equal(one.entries[name], other.entries[name])
        assert (one.verdict, one.memory_map) == (other.verdict, other.memory_map)
        assert one.machine_name == other.machine_name
        assert one.granule_size == other.granule_size
        assert [r["rip"] for r in other.registers] == [0x1234, 0x5678]
        for key in ("instant", "policy", "arrays"):
            assert other.meta[key] == META[key]
        assert other.meta["converted"] == {"format": one.format, "dump_id": one.dump_id.hex()}
        assert one.dump_id != other.dump_id


@pytest.mark.parametrize("to", DUMPS)
@pytest.mark.parametrize("layout", DUMPS)
def test_there_and_back(layout: str, to: str, source: Callable[..., Path], tmp_path: Path) -> None:
    first, there, back = source(layout), tmp_path / "there", tmp_path / "back"
    assert main(["convert", str(first), str(there), *out_options(to)]) == 0
    same_dump(first, there)
    with open_dump(there) as dump:
        assert dump.format == to
        same_pages(dump)
        assert verify_dump(dump).ok
        assert np.array_equal(
            dump.array("t"), np.frombuffer(MEMORY[4096:4236], "<u4").reshape(5, 7)
        )
    assert main(["convert", str(there), str(back), *out_options(layout)]) == 0
    with open_dump(back) as dump:
        same_pages(dump)
        assert verify_dump(dump).ok


@pytest.mark.parametrize("granule", [PAGE, 64 * PAGE, 1024 * PAGE])
@pytest.mark.parametrize("compression", list(kdump.CODECS))
def test_every_compression(
    compression: str, granule: int, source: Callable[..., Path], tmp_path: Path
) -> None:
    first, there = source("elf", granule=granule), tmp_path / "there"
    packing = ["--format", "kdump", "--compress", compression, "--threads", "3"]
    assert main(["convert", str(first), str(there), *packing]) == 0
    with open_dump(there) as dump:
        same_pages(dump)
        assert verify_dump(dump).ok
        assert dump.compression == compression
        plan_end = dump.superblock.total_size
        stored = dump.entries["stored"].astype(np.int64)
        where = dump.entries["where"].astype(np.int64)
        assert plan_end == there.stat().st_size
        # Granules lie behind each other in the order of the arena.
        some = stored > 0
        assert where[some][0] == dump.superblock.data_offset + PAGE
        assert np.array_equal(where[some][1:], (where + stored)[some][:-1])
        assert (where + stored)[some][-1] == plan_end
        assert (stored[dump.entries["state"] == HOLE] == 0).all()
    filled = sum(any(MEMORY[i : i + PAGE]) for i in range(0, len(MEMORY), PAGE))
    if compression == "none":
        assert stored.sum() == filled * PAGE
    else:
        assert stored.sum() < filled * PAGE


def test_levels_count(source: Callable[..., Path], tmp_path: Path) -> None:
    first, sizes = source("elf"), []
    for level in ("1", "19"):
        out = tmp_path / f"out-{level}"
        options = ["--format", "kdump", "--level", level]
        assert main(["convert", str(first), str(out), *options]) == 0
        sizes.append(out.stat().st_size)
    assert sizes[1] < sizes[0]


def test_threads_change_nothing(source: Callable[..., Path], tmp_path: Path) -> None:
    first, contents = source("raw"), []
    for threads in ("1", "7"):
        out = tmp_path / f"out-{threads}"
        options = ["--format", "kdump", "--threads", threads]
        assert main(["convert", str(first), str(out), *options]) == 0
        with open_dump(out) as dump:
            place = dump.superblock.data_offset
            contents.append(out.read_bytes()[place:])
    assert contents[0] == contents[1]


# ----------------------------------------------------------------- not consistent dumps


def states(**chosen: int) -> list[int]:
    """Of each granule; chosen: g12=LOST."""
    found = [
        SAVED if any(MEMORY[at : at + GRANULE]) else HOLE for at in range(0, len(MEMORY), GRANULE)
    ]
    for name, state in chosen.items():
        found[int(name[1:])] = state
    return found


@pytest.mark.parametrize("to", DUMPS)
@pytest.mark.parametrize("layout", DUMPS)
def test_what_is_missing_stays_missing(
    layout: str, to: str, source: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    kinds = states(g0=LOST, g5=ARMED, g97=LOST, g174=ARMED)
    first = source(layout, states=kinds, until="table")
    out = tmp_path / "out"
    assert main(["convert", str(first), str(out), *out_options(to)]) == 0
    assert "is incomplete; 16 missing pages stay missing" in capsys.readouterr().err
    same_dump(first, out)
    with open_dump(out) as dump:
        assert dump.verdict == "incomplete"
        assert dump.pfn_ranges(LOST) == [(0, 4), (388, 392)]
        assert dump.pfn_ranges(ARMED) == [(20, 24), (696, 700)]
        with pytest.raises(OSError, match=r"page 0x14 of .* was not saved"):
            dump.read_arena(4 * PAGE, 17 * PAGE)
        assert dump.read_arena(4 * PAGE, 16 * PAGE) == MEMORY[4 * PAGE : 20 * PAGE]
        assert not verify_dump(dump).ok
    assert main(["info", str(out)]) == 3


def test_a_torn_dump_stays_torn_and_its_kdump_says_incomplete(
    source: Callable[..., Path], tmp_path: Path
) -> None:
    first, out = source("elf", states=states(g1=LOST), verdict="torn"), tmp_path / "out"
    assert main(["convert", str(first), str(out), "--format", "kdump"]) == 0
    with open_dump(out) as dump:
        assert (dump.sealed, dump.verdict) == (True, "torn")
    with open(out, "rb") as file:
        assert kdump.parse_head(file.read(8192)).incomplete
    assert main(["convert", str(first), str(tmp_path / "image"), "--format", "raw"]) == 3


@pytest.mark.parametrize("until", ["opening", "started"])
@pytest.mark.parametrize("layout", DUMPS)
def test_dumps_without_any_page(
    layout: str, until: str, source: Callable[..., Path], tmp_path: Path
) -> None:
    first = source(layout, until=until)
    for to in DUMPS:
        out = tmp_path / f"out-{to}"
        assert main(["convert", str(first), str(out), *out_options(to)]) == 0
        with open_dump(out) as dump:
            assert missing_pages(dump) == PAGES


def test_damage_is_carried_along_and_seen(source: Callable[..., Path], tmp_path: Path) -> None:
    """The checksums are those of the memory, not of what the target makes of it."""
    first, out = source("elf"), tmp_path / "out"
    with open_dump(first) as dump:
        place = dump.superblock.data_offset + PAGE
        granule = int(np.flatnonzero(dump.entries["state"] == SAVED)[0])
    with open(first, "r+b") as file:
        file.seek(place - PAGE + granule * GRANULE)
        file.write(b"damaged!")
    assert main(["convert", str(first), str(out), "--format", "kdump"]) == 0
    with open_dump(out) as dump:
        assert verify_dump(dump).checksums.bad == [(granule * 4, granule * 4 + 4)]
    assert main(["verify", str(out)]) == 3


def test_a_damaged_kdump_is_refused_in_one_sentence(
    source: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    first = source("kdump")
    with open_dump(first) as dump:
        place = kdump.Layout(dump.superblock.superblock_offset, dump.memory_map).descriptors_offset
    content = bytearray(first.read_bytes())
    struct.pack_into("<QI", content, place, 4096, 100)
    first.write_bytes(content)
    for format in ("elf", "kdump", "raw", "lime", "flat"):
        out = tmp_path / "out"
        assert main(["convert", str(first), str(out), "--format", format]) == 3
        err = capsys.readouterr().err
        assert err.count("livedump: error: page 0x186 of ") == 1 and "Traceback" not in err
        assert "points outside the data" in err
        assert not out.exists()


# ---------------------------------------------------------------------- pipes, flattened


def run_piped(*arguments: str, stdin: bytes | None = None) -> bytes:
    """A command whose standard output is a pipe."""
    run = subprocess.run(
        [sys.executable, "-m", "livedumpfs.cli", *arguments],
        input=stdin,
        capture_output=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


@pytest.mark.parametrize("to", ["elf", "raw", "lime"])
def test_through_a_pipe_as_into_a_file(
    to: str, source: Callable[..., Path], tmp_path: Path
) -> None:
    first, out = source("kdump"), tmp_path / "out"
    piped = run_piped("convert", str(first), "-", "--format", to)
    assert main(["convert", str(first), str(out), "--format", to]) == 0
    if to != "elf":
        assert piped == out.read_bytes()
        return
    (tmp_path / "piped").write_bytes(piped)
    same_dump(first, tmp_path / "piped")
    assert len(piped) == out.stat().st_size


def test_a_kdump_goes_flattened_through_a_pipe_and_comes_back(
    source: Callable[..., Path], tmp_path: Path
) -> None:
    first, flat, out = source("elf"), tmp_path / "flat", tmp_path / "out"
    piped = run_piped("convert", str(first), "-", "--format", "kdump", "--compress", "lzo")
    assert piped[:16] == b"makedumpfile\0\0\0\0"
    assert struct.unpack_from(">qq", piped, 16) == (1, 1)
    assert piped[-16:] == b"\xff" * 16
    flat.write_bytes(piped)
    assert main(["convert", str(flat), str(out), "--format", "kdump"]) == 0
    same_dump(first, out)
    with open_dump(out) as dump:
        assert (dump.format, dump.compression) == ("kdump", "lzo")
        same_pages(dump)
    again = tmp_path / "again"
    run_piped("convert", "-", str(again), "--format", "kdump", stdin=piped)
    assert again.read_bytes() == out.read_bytes()


def test_flattened_files_become_nothing_else_at_once(
    source: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    first, flat, out = source("elf"), tmp_path / "flat", tmp_path / "out"
    assert main(["convert", str(first), str(flat), "--format", "flat"]) == 0
    capsys.readouterr()
    assert main(["info", str(flat)]) == 3
    assert "flattened form (make a dump of it: livedump convert" in capsys.readouterr().err
    for options in ([], ["--format", "elf"], ["--format", "kdump", "--compress", "zlib"]):
        assert main(["convert", str(flat), str(out), *options]) == 2
        assert "flattened form" in capsys.readouterr().err
        assert not out.exists()


def flattened(source: Path, tmp_path: Path) -> bytes:
    with open_dump(source) as dump, NewFile(str(tmp_path / "flat")) as out:
        convert_dump(dump, "flat", out)
    return (tmp_path / "flat").read_bytes()


RECORD = struct.Struct(">qq")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-16], "broken off"),
        (lambda b: b[:-1], "broken off"),
        (lambda b: b[: len(b) // 2], "broken off"),
        (lambda b: b[:100], "broken off"),
        (lambda b: b"", "broken off"),
        (lambda b: b"x" + b[1:], "not in makedumpfile's flattened form"),
        (lambda b: b[:23] + b"\2" + b[24:], "not in makedumpfile's flattened form"),
        (lambda b: b[:4096] + RECORD.pack(-1, 5) + b[4112:], "impossible place"),
        (lambda b: b[:4096] + RECORD.pack(5, -1) + b[4112:], "impossible place"),
        (lambda b: b[:4096] + RECORD.pack(1 << 62, 1) + b[4112:], "impossible place"),
        (lambda b: b[:4096] + RECORD.pack(0, 1 << 61) + b[4112:], "broken off"),
        (lambda b: b[:4096] + RECORD.pack(-1, -1), "no ELF header and no kdump header"),
    ],
)
def test_bad_records_leave_no_file(
    change: Callable[[bytes], bytes],
    message: str,
    source: Callable[..., Path],
    tmp_path: Path,
) -> None:
    bad, out = tmp_path / "bad", tmp_path / "out"
    bad.write_bytes(change(flattened(source("raw"), tmp_path)))
    with (
        open(bad, "rb") as file,
        pytest.raises(InvalidDump, match=f"{bad} is not a valid dump: .*{message}") as caught,
        NewFile(str(out)) as new,
    ):
        rearrange(file.fileno(), str(bad), new)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_place_that_no_file_can_have_is_an_error_of_the_file(
    source: Callable[..., Path], tmp_path: Path
) -> None:
    content = flattened(source("raw"), tmp_path)
    bad, out = tmp_path / "bad", tmp_path / "out"
    bad.write_bytes(content[:4096] + RECORD.pack((1 << 62) - 1, 1) + b"x" + content[4096:])
    with (
        open(bad, "rb") as file,
        pytest.raises((TargetError, InvalidDump)),
        NewFile(str(out)) as new,
    ):
        rearrange(file.fileno(), str(bad), new)
    assert not out.exists()


# ----------------------------------------------------------------------------- refusals


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
