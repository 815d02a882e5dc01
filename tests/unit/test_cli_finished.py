# SPDX-License-Identifier: GPL-2.0-or-later
"""`compare`, `convert` and the refusals of `mount`, on dumps in files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.cli.main import main
from livedumpfs.dumpfile import Difference, compare_dumps, open_dump
from livedumpfs.dumpfile.compare import DifferentRange
from livedumpfs.dumpfile.stored import files_of
from livedumpfs.formats import MachineInfo, MemoryRange, Plan, raw_image
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED

PAGE = 4096
GRANULE = 4 * PAGE
PAGES = 600
"""More than one piece of 1 MiB."""
LOW = 400 * PAGE
HIGH = 1 << 32
MACHINE = MachineInfo(
    "flat", vcpus=1, memory_map=(MemoryRange(0, LOW, 0), MemoryRange(HIGH, 200 * PAGE, LOW))
)
FILLED = b"".join(i.to_bytes(8, "little") * 512 for i in range(1, PAGES + 1))
MEMORY = FILLED[: 16 * PAGE] + bytes(300 * PAGE) + FILLED[316 * PAGE :]
REGISTERS = [{"rip": 0x1234, "rsp": 0x8000}]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def dump(tmp_path: Path, write_dump: Callable[..., Plan]) -> Callable[..., str]:
    """dump(name, memory=MEMORY, ...) -> the path of a dump."""

    def make(name: str, memory: bytes = MEMORY, **how: Any) -> str:
        settings = {"machine": MACHINE, "granule": GRANULE, "registers": REGISTERS, **how}
        write_dump(tmp_path / name, memory, **settings)
        return str(tmp_path / name)

    return make


def changed(*pages: int) -> bytes:
    memory = bytearray(MEMORY)
    for page in pages:
        memory[page * PAGE + 4095] ^= 1
    return bytes(memory)


def states(**chosen: int) -> list[int]:
    """Of each granule; chosen: g12=LOST."""
    found = [
        SAVED if any(MEMORY[at : at + GRANULE]) else HOLE for at in range(0, len(MEMORY), GRANULE)
    ]
    for name, state in chosen.items():
        found[int(name[1:])] = state
    return found


def one_sentence(capsys: Capture) -> str:
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("livedump: error: ")]
    assert out == "" and "Traceback" not in err
    assert len(lines) == 1
    return lines[0]


# ------------------------------------------------------------------------------ compare


@pytest.mark.parametrize(
    "layouts", [("elf", "elf"), ("elf", "raw"), ("raw", "raw"), ("kdump", "elf"), ("raw", "kdump")]
)
def test_equal_dumps(layouts: tuple[str, str], dump: Callable[..., str], capsys: Capture) -> None:
    a = dump("a", format=layouts[0])
    b = dump("b", format=layouts[1], granule=PAGE)
    assert main(["compare", a, b]) == 0
    assert capsys.readouterr().out.split("\n")[0].split() == ["equal", "600", "pages"]


def test_different_pages_by_physical_range(dump: Callable[..., str], capsys: Capture) -> None:
    # In saved pages, in a hole, on both sides of a piece, of a range of the map, at the end.
    a, b = dump("a"), dump("b", changed(3, 4, 100, 255, 256, 399, 400, 599))
    assert main(["compare", a, b]) == 1
    out = capsys.readouterr().out
    assert "0x000000003000-0x000000004fff  different, 2 pages\n" in out
    assert "0x0000000ff000-0x000000100fff  different, 2 pages\n" in out
    with open_dump(a) as one, open_dump(b) as other:
        found = compare_dumps(one, other)
    pages = [(3, 5), (100, 101), (255, 257), (399, 400)]
    expected = [(a * PAGE, b * PAGE) for a, b in pages]
    expected += [(HIGH, HIGH + PAGE), (HIGH + 199 * PAGE, HIGH + 200 * PAGE)]
    assert found.ranges == [DifferentRange(*r, Difference.DIFFERENT) for r in expected]
    assert found.pages[Difference.EQUAL] == 592
    assert found.pages[Difference.DIFFERENT] == 8


def test_missing_pages_are_counted_apart(dump: Callable[..., str]) -> None:
    a = dump("a", states=states(g0=LOST, g2=LOST), verdict="torn")
    b = dump("b", changed(2, 8), states=states(g1=ARMED, g2=LOST), verdict="torn")
    with open_dump(a) as one, open_dump(b) as other:
        found = compare_dumps(one, other)
    kinds = [Difference.MISSING_IN_A, Difference.MISSING_IN_B, Difference.MISSING_IN_BOTH]
    assert [(r.start // PAGE, r.kind) for r in found.ranges] == list(
        zip((0, 4, 8), kinds, strict=True)
    )
    assert [found.pages[kind] for kind in kinds] == [4, 4, 4]
    assert found.pages[Difference.DIFFERENT] == 0


def test_what_is_missing_in_both_is_not_equal(dump: Callable[..., str]) -> None:
    a, b = (dump(n, states=states(g0=LOST), verdict="torn") for n in "ab")
    assert main(["compare", a, b]) == 1


def test_machines_with_other_memory(dump: Callable[..., str]) -> None:
    a, b = dump("a"), dump("b", MEMORY[: LOW - 8 * PAGE], machine=None, registers=())
    with open_dump(a) as one, open_dump(b) as other:
        there = compare_dumps(one, other)
        back = compare_dumps(other, one)
    assert there.pages[Difference.EQUAL] == 392
    assert there.pages[Difference.MISSING_IN_B] == back.pages[Difference.MISSING_IN_A] == 208
    assert [r.start for r in there.ranges] == [392 * PAGE, HIGH]


def test_few_ranges_are_kept_and_all_are_counted(dump: Callable[..., str], capsys: Capture) -> None:
    a, b = dump("a"), dump("b", changed(*range(0, 100, 2)))
    assert main(["compare", "--ranges", "3", a, b]) == 1
    out = capsys.readouterr().out
    assert "and 47 more ranges\n" in out and out.count("0x") == 6
    assert any(line.split() == ["different", "50", "pages"] for line in out.splitlines())


def test_compare_tells_trouble_from_difference(
    dump: Callable[..., str], tmp_path: Path, capsys: Capture
) -> None:
    a = dump("a")
    assert main(["compare", a, str(tmp_path / "none")]) == 2
    assert "No such file" in one_sentence(capsys)
    (tmp_path / "text").write_text("no dump\n" * 1000)
    assert main(["compare", a, str(tmp_path / "text")]) == 3
    assert "not a valid dump" in one_sentence(capsys)


# ------------------------------------------------------------------------------ convert


@pytest.mark.parametrize("layout", ["elf", "raw", "kdump"])
@pytest.mark.parametrize("image", ["raw", "lime"])
def test_convert_writes_what_mount_shows(
    layout: str, image: str, dump: Callable[..., str], tmp_path: Path, capfdbinary: Any
) -> None:
    # The gap to HIGH is too long to be read here.
    machine = MachineInfo("flat", vcpus=1, memory_map=(
        MemoryRange(8 * PAGE, LOW, 0), MemoryRange(LOW + 64 * PAGE, 200 * PAGE, LOW),
    ))  # fmt: skip
    source, out = dump("a", format=layout, machine=machine), tmp_path / "out"
    assert main(["convert", source, str(out), "--format", image]) == 0
    name = {"raw": "mem.raw", "lime": "mem.lime"}[image]
    with open_dump(source) as opened:
        files = files_of(opened)
        expected = files.pread(name, 0, files.size(name))
    assert expected.count(FILLED[316 * PAGE : LOW]) == 1
    assert out.read_bytes() == expected
    assert os.stat(out).st_blocks * 512 < len(expected) - 250 * PAGE
    capfdbinary.readouterr()
    assert main(["convert", source, "-", "--format", image]) == 0
    assert capfdbinary.readouterr().out == expected


def test_raw_with_a_gap_of_gigabytes_is_a_hole(dump: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["convert", dump("a"), str(out), "--format", "raw"]) == 0
    assert os.stat(out).st_size == raw_image(MACHINE, len(MEMORY)).size
    with open(out, "rb") as file:
        file.seek(HIGH)
        assert file.read() == MEMORY[LOW:]


def test_images_of_what_is_not_consistent_are_refused(
    dump: Callable[..., str], tmp_path: Path, capsys: Capture
) -> None:
    source = dump("a", states=states(g1=LOST), verdict="torn")
    out = tmp_path / "out"
    assert main(["convert", "--format", "raw", source, str(out)]) == 3
    assert "torn: 4 pages are missing" in one_sentence(capsys)
    assert not out.exists()
    assert main(["convert", "--force", "--format", "lime", source, str(out)]) == 0
    assert "4 missing pages written as zeros" in capsys.readouterr().err
    memory = MEMORY[: 4 * PAGE] + bytes(4 * PAGE) + MEMORY[8 * PAGE : LOW]
    assert out.read_bytes()[32 : 32 + LOW] == memory


def test_convert_overwrites_nothing(dump: Callable[..., str], capsys: Capture) -> None:
    source = dump("a")
    before = Path(source).read_bytes()
    assert main(["convert", "--force", source, source]) == 1
    assert "File exists" in one_sentence(capsys)
    assert Path(source).read_bytes() == before


def test_convert_leaves_no_part_behind(
    dump: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    source, out = dump("a"), tmp_path / "out"

    def full(fd: int, data: object) -> int:
        raise OSError(28, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert main(["convert", source, str(out)]) == 1
    assert f"cannot write {out}: No space left on device" in one_sentence(capsys)
    assert not out.exists()


# ------------------------------------------------------------------------ what is no dump


@pytest.mark.parametrize("command", ["convert", "mount"])
@pytest.mark.parametrize("damage", ["text", "cut", "header", "empty"])
def test_bad_dumps_are_refused_in_one_sentence(
    command: str, damage: str, dump: Callable[..., str], tmp_path: Path, capsys: Capture
) -> None:
    source = dump("a")
    content = bytearray(Path(source).read_bytes())
    content[200] ^= 0xFF
    files = {"text": b"x" * 9000, "cut": content[:-1], "header": content, "empty": b""}
    Path(source).write_bytes(files[damage])
    (tmp_path / "dir").mkdir()
    place = tmp_path / ("dir" if command == "mount" else "out")
    assert main([command, source, str(place)]) == 3
    assert "not a valid dump" in one_sentence(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("elf_machine", "x"), ("elf_machine", 1 << 20), ("registers", [{"rip": "x"}])],
)
def test_hostile_meta_data_is_refused(
    field: str, value: object, tmp_path: Path, write_dump: Callable[..., Plan],
    monkeypatch: pytest.MonkeyPatch, capsys: Capture,
) -> None:  # fmt: skip
    """Checksums do not help against a user who can write them."""
    from livedumpfs.formats.plan import Plan as Planned

    real = Planned.describe
    with monkeypatch.context() as patch:
        patch.setattr(Planned, "describe", lambda self: {**real(self), field: value})
        write_dump(tmp_path / "a", MEMORY, format="raw", machine=MACHINE)
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "out")]) == 3
    assert "not a valid dump" in one_sentence(capsys)


def test_mount_needs_an_empty_directory(
    dump: Callable[..., str], tmp_path: Path, capsys: Capture
) -> None:
    source = dump("a")
    assert main(["mount", source, str(tmp_path)]) == 1
    assert "Directory not empty" in one_sentence(capsys)
    assert main(["mount", source, str(tmp_path / "none")]) == 1
    assert "No such file" in one_sentence(capsys)
