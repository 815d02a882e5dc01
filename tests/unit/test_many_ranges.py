# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines with many ranges of memory, vCPUs or named arrays: in every format, and in every view.

What a dump says of itself has as much room as it needs; what fits into the usual room lies where it
always did.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.dumpfile import DumpFile, NewFile, convert_dump, files_of, open_dump, verify_dump
from livedumpfs.dumpfile.compare import compare_dumps
from livedumpfs.errors import InvalidDump, TargetError, UsageError
from livedumpfs.formats import FORMATS, MachineInfo, MemoryRange, elf, meta, plan_dump
from livedumpfs.formats.machine_info import MAX_RANGES, MAX_VCPUS
from livedumpfs.formats.note import Note
from livedumpfs.formats.plan import room_for
from livedumpfs.formats.processors import X86_64
from livedumpfs.machines import ThreadMachine
from livedumpfs.machines.machine import PhysicalRange
from livedumpfs.targets import open_in_place
from livedumpfs.targets.content import read_content
from tests.fixtures.program_files import program_command, program_file

PAGE = 4096
STEP = 3 * PAGE
"""Between the starts of two ranges."""
FEW, MANY = 71, 0xFFFF - 1
"""Ranges that fit into the first page of an ELF file, and the least that e_phnum cannot count."""

# fmt: off
AS_BEFORE = {
    ("elf", 1): 0xcc16476333c46da3, ("elf", 71): 0xf36b4d362681996e,
    ("raw", 1): 0x5a45722ded6a1441, ("raw", 71): 0x1cb8260d95afd830,
    ("kdump", 1): 0x8b4750487eb1b51b, ("kdump", 71): 0x9225dc7e287d3455,
}
# fmt: on
"""XXH3-64 of all steps of a dump, from before there could be more ranges; those of elf since
PT_NOTE has its size in memory, too."""


def pieces(count: int, step: int = STEP) -> tuple[MemoryRange, ...]:
    return tuple(MemoryRange(i * step, PAGE, i * PAGE) for i in range(count))


class Pieces(ThreadMachine):
    """An arena of which each page is a range of its own."""

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.memory_map = [PhysicalRange(r.start, r.size, r.arena_offset) for r in self.ranges]

    @property
    def ranges(self) -> tuple[MemoryRange, ...]:
        return pieces(self.arena.size // PAGE)


def dumped(path: Path, format: str, count: int) -> Path:
    """A live dump of that many ranges, each of which has its number in its last word."""
    with Arena(count * PAGE) as arena:
        words = arena.array("u8", (count * PAGE // 8,), name="words")
        words[511::512] = np.arange(1, count + 1)
        with LiveDump(Pieces(arena)) as dump:
            assert dump.save(path, DumpSettings(format=format)) == "consistent"
        del words
    return path


def check(dump: DumpFile, count: int) -> None:
    assert dump.verdict == "consistent"
    assert dump.memory_map == pieces(count)
    for i in {0, count // 2, count - 1}:
        found = dump.read_physical(i * STEP + PAGE - 8, 8)
        assert int.from_bytes(found, "little") == i + 1
    with pytest.raises(OSError, match="no memory at physical address 0x1000"):
        dump.read_physical(PAGE - 8, 16)
    assert (dump.array("words")[511::512] == np.arange(1, count + 1)).all()


@pytest.mark.parametrize("key", AS_BEFORE)
def test_few_ranges_lie_where_they_always_did(key: tuple[str, int]) -> None:
    format, count = key
    machine = MachineInfo("golden", vcpus=2, memory_map=pieces(count, 2 * PAGE))
    p = plan_dump(
        format, machine, arena_size=count * PAGE, granule_size=PAGE, dump_id=bytes(range(16))
    )
    digest = xxhash.xxh3_64()
    for step in [*p.opening({"a": 1}), *p.seal("consistent", {"a": 1}, [{"rip": 1}, {"rip": 2}])]:
        digest.update(repr(step).encode())
    assert digest.intdigest() == AS_BEFORE[key]


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 400])
@pytest.mark.parametrize("format", FORMATS)
def test_every_number_of_ranges_in_every_format_and_view(
    format: str, count: int, tmp_path: Path
) -> None:
    with open_dump(dumped(tmp_path / "dump", format, count)) as dump:
        check(dump, count)
        assert verify_dump(dump).ok
        files = files_of(dump)
        for name, offset in places(files.pread, count).items():
            found = files.pread(name, offset + PAGE - 8, 8)
            assert int.from_bytes(found, "little") == count, name
        for to in ("elf", "kdump"):
            with NewFile(str(tmp_path / to)) as out:
                convert_dump(dump, to, out)
            with open_dump(tmp_path / to) as other:
                check(other, count)
                assert verify_dump(other).ok
                assert compare_dumps(dump, other).equal


def places(pread: Callable[[str, int, int], bytes], count: int) -> dict[str, int]:
    """Where the last range begins in each file of snapshot/."""
    headers = pread("vmcore", 0, elf.headers_end(pread("vmcore", 0, elf.HEAD_SIZE)))
    loads = elf.load_segments(elf.parse_segments(headers))
    assert [(s.physical, s.size) for s in loads] == [(r.start, r.size) for r in pieces(count)]
    return {
        "vmcore": loads[-1].offset,
        "mem.raw": (count - 1) * STEP,
        "mem.lime": (count - 1) * PAGE + count * 32,
    }


@pytest.mark.parametrize("count", [MANY - 1, MANY])
def test_more_program_headers_than_their_counter_counts(count: int) -> None:
    """As QEMU has it: e_phnum is PN_XNUM, and section 0 stands before the program headers."""
    machine = MachineInfo("many", memory_map=pieces(count))
    p = plan_dump("elf", machine, arena_size=count * PAGE, granule_size=65536)
    header = p.header()
    small = int.from_bytes(header[56:58], "little")
    assert small == min(count + 1, 0xFFFF)
    if count >= MANY:
        assert int.from_bytes(header[40:48], "little") == 64
        assert int.from_bytes(header[64 + 44 : 64 + 48], "little") == count + 1
    assert p.superblock_offset % PAGE == p.data_offset % 65536 == 0
    segments = elf.parse_segments(header)
    assert elf.note_segment(segments).offset >= elf.headers_end(header[: elf.HEAD_SIZE])
    assert [s.physical for s in elf.load_segments(segments)] == [r.start for r in pieces(count)]
    assert p.opening({}), "what it says of itself has room"


@pytest.mark.parametrize(("format", "count"), [("elf", 70_000), ("raw", 5000), ("kdump", 5000)])
def test_thousands_of_ranges_come_back(format: str, count: int, tmp_path: Path) -> None:
    """QEMU's dumps have as many; the arena is nearly all holes."""
    path = tmp_path / "dump"
    with Arena(count * PAGE) as arena, LiveDump(Pieces(arena)) as dump:
        arena.live[-1] = 7
        assert dump.save(path, DumpSettings(format=format)) == "consistent"
    with open_dump(path) as found:
        assert found.memory_map == pieces(count)
        assert found.read_physical((count - 1) * STEP + PAGE - 1, 1) == b"\7"
    with pytest.raises(TargetError, match="holds a consistent dump"):  # it is known as one of ours
        open_in_place(path)


def tool(name: str) -> str:
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def told(*command: str | Path) -> str:
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "arning" not in run.stdout + run.stderr.replace("Couldn't find general-purpose", "")
    return run.stdout


def test_other_tools_read_many_ranges(tmp_path: Path) -> None:
    count = MANY + 10
    path = tmp_path / "dump"
    with Arena(count * PAGE) as arena, LiveDump(Pieces(arena)) as dump:
        arena.live[-8] = 9
        dump.save(path)
    assert told(tool("readelf"), "-lW", path).count("  LOAD ") == count
    if find_spec("drgn") is None:  # the arm64 guest has none
        pytest.skip("drgn is not installed")
    last = (count - 1) * STEP + PAGE - 8
    told(*program_command(__file__, "count_ranges.py", path, str(last), str(count)))


@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_libkdumpfile_reads_a_thousand_ranges(format: str, tmp_path: Path) -> None:
    python, probe = "/usr/bin/python3", "import kdumpfile"
    if subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip("python3-libkdumpfile is not installed")
    out = told(
        python,
        program_file(__file__, "kdumpfile_edges.py"),
        dumped(tmp_path / "dump", format, 1000),
    )
    assert out.split("\n")[:-1] == [f"{i % 256} {i // 256}" for i in range(1, 1001)]


def test_makedumpfile_rewrites_a_thousand_ranges(tmp_path: Path) -> None:
    path = dumped(tmp_path / "dump", "elf", 1000)
    out = tmp_path / "out"
    subprocess.run(
        [tool("makedumpfile"), "-E", "-d", "0", path, out],
        capture_output=True, timeout=300, check=True,
    )  # fmt: skip
    assert int.from_bytes(out.read_bytes()[56:58], "little") >= 1000


@pytest.mark.parametrize("format", FORMATS)
def test_what_no_dump_of_ours_can_be_is_refused_before_the_target_is_touched(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livedumpfs.formats.machine_info.MAX_RANGES", 99)
    path = tmp_path / "dump"
    path.write_bytes(b"")
    before = path.stat()
    with Arena(100 * PAGE) as arena, LiveDump(Pieces(arena)) as dump:
        with pytest.raises(UsageError, match=r"100 ranges cannot .*livedumpfs takes 99 .* every"):
            dump.save(path, DumpSettings(format=format))
        with pytest.raises(UsageError, match="100 ranges"):
            dump.save(tmp_path / "new", DumpSettings(format=format))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (0, before.st_mtime_ns)
    assert [one.name for one in tmp_path.iterdir()] == ["dump"]


@pytest.mark.parametrize("format", FORMATS)
def test_more_vcpus_than_we_know_of_are_refused_in_every_format(format: str) -> None:
    machine = MachineInfo("many", vcpus=MAX_VCPUS + 1, memory_map=pieces(1))
    with pytest.raises(UsageError, match=r"16385 vCPUs cannot .* every format"):
        plan_dump(format, machine, arena_size=PAGE, granule_size=PAGE)


def registers(number: int) -> dict[str, Any]:
    """As long as those of QEMU."""
    names = [*X86_64.registers, *(f"control{i}" for i in range(30))]
    return dict.fromkeys(names, (1 << 64) - 1 - number)


@pytest.mark.parametrize("vcpus", [1, 160, 1000, 4096])
@pytest.mark.parametrize("format", FORMATS)
def test_many_vcpus_have_room_for_registers_and_notes(format: str, vcpus: int) -> None:
    notes = tuple(Note(b"QEMU\0", 0, bytes([i % 256]) * 432) for i in range(vcpus))
    room = sum(len(note.pack()) for note in notes) + 8192
    machine = MachineInfo("many", vcpus=vcpus, memory_map=pieces(1), note_room=room)
    p = plan_dump(format, machine, arena_size=PAGE, granule_size=PAGE).with_notes(notes)
    given = [registers(i) for i in range(vcpus)]
    written = p.finished("consistent", {"registers": given}, given)
    slot = next(w for w in written if w.offset == p.meta_slots[0]).data
    _, found = meta.parse_slot(slot, p.dump_id)
    assert found["registers"] == given and "lost_cut" not in found
    assert len(found["notes"]) == vcpus


@pytest.mark.parametrize("format", FORMATS)
def test_many_named_arrays_have_room(format: str, tmp_path: Path) -> None:
    names = [f"array with a name that is not short, number {i}" for i in range(4000)]
    with Arena(4000 * 64) as arena, LiveDump(arena) as dump:
        for i, name in enumerate(names):
            arena.array("u8", (8,), name=name)[:] = i
        assert dump.save(tmp_path / "dump", DumpSettings(format=format)) == "consistent"
    with open_dump(tmp_path / "dump") as found:
        assert [a.name for a in found.arrays] == names
        assert (found.array(names[-1]) == 3999).all()
        with NewFile(str(tmp_path / "other")) as out:
            convert_dump(found, "elf", out)
    with open_dump(tmp_path / "other") as other:
        assert [a.name for a in other.arrays] == names


def test_the_room_grows_with_what_is_said() -> None:
    usual = room_for(MachineInfo("x", memory_map=pieces(1000)))
    assert usual == meta.ROOM
    many = MachineInfo("x", memory_map=pieces(MAX_RANGES // 64))
    text = meta.text_size({"memory_map": many.describe_map()})
    assert room_for(many) >= text + meta.ROOM // 2 - PAGE and room_for(many) % PAGE == 0


def test_a_small_text_does_not_become_a_gigabyte() -> None:
    text = b'{"x":[' + b",".join([b"[]"] * (2 << 20)) + b"]}"
    slot = meta._HEADER.pack(meta.MAGIC, bytes(16), 0, len(text), xxhash.xxh3_64_intdigest(text))
    with pytest.raises(InvalidDump, match="impossible contents"):
        meta.parse_slot(slot + text, bytes(16))


@pytest.mark.parametrize(
    ("at", "value", "size"),
    [(108, (1 << 32) - 1, 4), (108, 0, 4), (40, 1 << 62, 8), (32, 64, 8), (54, 57, 2)],
)
def test_headers_that_cannot_be_are_refused(at: int, value: int, size: int) -> None:
    machine = MachineInfo("many", memory_map=pieces(MANY))
    header = plan_dump("elf", machine, arena_size=MANY * PAGE, granule_size=PAGE).header()
    bad = bytearray(header)
    bad[at : at + size] = value.to_bytes(size, "little")
    for data in (bytes(bad), header[:100], header[:4096]):
        with pytest.raises(InvalidDump, match="program headers"):
            elf.parse_segments(data)


def test_whose_file_it_is_is_known_by_its_first_program_header(
    tmp_path: Path, write_dump: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host asks that of any file that it is to dump to: one may have a million of them."""
    path = tmp_path / "dump"
    write_dump(path, bytes(PAGE))
    looked: list[int] = []
    monkeypatch.setattr(elf, "parse_segments", lambda headers: looked.append(len(headers)))
    with path.open("rb") as file:
        found = read_content(file.fileno(), None, path.name)
    assert found is not None and (found.format, found.verdict) == ("elf", "consistent")
    assert not looked
    head = bytearray(path.read_bytes()[: elf.HEAD_SIZE])
    assert elf.first_note(bytes(head)).offset > 64
    head[64] = 1  # a PT_LOAD
    with pytest.raises(InvalidDump, match="no livedumpfs note"):
        elf.first_note(bytes(head))
    with pytest.raises(InvalidDump, match="ends within its program headers"):
        elf.first_note(bytes(head[:100]))
