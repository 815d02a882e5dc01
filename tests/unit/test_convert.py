# SPDX-License-Identifier: GPL-2.0-or-later
"""`convert` between all formats: the same memory, table and verdict on the other side."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from livedumpfs.cli.main import main
from livedumpfs.dumpfile import (
    missing_pages,
    open_dump,
    verify_dump,
)
from livedumpfs.formats import kdump
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED
from tests.fixtures.conversions import (
    DUMPS,
    GRANULE,
    MEMORY,
    PAGE,
    PAGES,
    Capture,
    out_options,
    same_dump,
    same_pages,
)


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
