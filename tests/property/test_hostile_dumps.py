# SPDX-License-Identifier: GPL-2.0-or-later
"""Damaged dumps: one clear error, or a verdict that tells, and never wrong bytes called good.

LIVEDUMP_FUZZ_EXAMPLES raises the number of examples for a long run.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedumpfs.cli.proof import prove_dump
from livedumpfs.dumpfile import (
    Difference,
    DumpFile,
    NewFile,
    compare_dumps,
    convert_dump,
    describe_dump,
    files_of,
    format_description,
    missing_pages,
    open_dump,
)
from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import KdumpPlan, MachineInfo, MemoryRange, Plan, meta, superblock, table
from livedumpfs.formats.kdump import DESCRIPTOR
from livedumpfs.formats.table import ARMED, HOLE, LOST, SAVED

PAGE = 4096
MEMORY = b"".join(bytes([i + 1]) * PAGE if i % 4 else bytes(PAGE) for i in range(14))
MACHINE = MachineInfo(
    "test",
    vcpus=1,
    memory_map=(MemoryRange(0, 6 * PAGE, 0), MemoryRange(1 << 20, 8 * PAGE, 6 * PAGE)),
)
EXAMPLES = int(os.environ.get("LIVEDUMP_FUZZ_EXAMPLES", "150"))
WriteDump = Callable[..., Plan]


class Sample:
    """A good dump of each sort, kept as bytes."""

    def __init__(self, write_dump: WriteDump, format: str, until: str) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "dump"
            self.plan = write_dump(path, MEMORY, format=format, until=until, machine=MACHINE)
            self.files = {p.name: p.read_bytes() for p in Path(directory).iterdir()}

    @contextmanager
    def written(self, changed: dict[str, bytes]) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as directory:
            for name, content in {**self.files, **changed}.items():
                (Path(directory) / name).write_bytes(content)
            yield Path(directory) / "dump"


@pytest.fixture(scope="module")
def samples(write_dump: WriteDump) -> list[Sample]:
    sorts = [(f, u) for f in ("elf", "raw", "kdump") for u in ("table", "seal")]
    return [Sample(write_dump, format, until) for format, until in sorts]


def check(path: Path) -> None:
    """What `info` and `verify` do, and then: what is called good is good."""
    try:
        dump = open_dump(path)
    except InvalidDump as error:
        assert "\n" not in str(error)
        return
    with dump:
        json.dumps(describe_dump(dump))
        format_description(describe_dump(dump))
        check_views(dump)
        report = prove_dump(dump)
        assert report.ok or report.problems
        if report.ok:
            assert dump.read_arena(0, dump.arena_size) == MEMORY
            return
        found = report.checksums
        known = [*found.bad, *found.stale, *found.unreadable]
        known += [*dump.pfn_ranges(ARMED), *dump.pfn_ranges(LOST)]
        wrong = {page for first, end in known for page in range(first, end)}
        for page in set(range(dump.arena_size // PAGE)) - wrong:
            assert dump.read_arena(page * PAGE, PAGE) == MEMORY[page * PAGE : (page + 1) * PAGE]


def check_views(dump: DumpFile) -> None:
    """What `mount`, `convert` and `compare` do: one clear error, or files of the right size. A
    kdump can have pages that no program can unpack; `verify` names them."""
    with clear_error():
        compared = compare_dumps(dump, dump)
        assert compared.pages[Difference.DIFFERENT] == 0
        assert compared.pages[Difference.MISSING_IN_BOTH] == missing_pages(dump)
    with clear_error():
        files = files_of(dump, zero_missing=True)
        for name in files.names:
            assert len(files.pread(name, 0, files.size(name))) == files.size(name)
    for format in ("elf", "kdump"):
        with tempfile.TemporaryDirectory() as directory, clear_error():
            check_converted(dump, format, Path(directory) / "out")


@contextmanager
def clear_error() -> Iterator[None]:
    try:
        yield
    except (InvalidDump, UsageError) as error:
        assert "\n" not in str(error)


def check_converted(dump: DumpFile, format: str, path: Path) -> None:
    """The other dump is worth as much, and has as many pages."""
    with NewFile(str(path)) as out:
        convert_dump(dump, format, out, threads=1)
    with open_dump(path) as other:
        assert (other.format, other.verdict) == (format, dump.verdict)
        assert other.state_counts() == dump.state_counts()
        before, after = prove_dump(dump).checksums, prove_dump(other).checksums
        # Holes have nothing that could be damaged on the way.
        assert (after.bad, after.stale, after.unreadable) == (before.bad, [], [])


def interesting(sample: Sample, name: str) -> st.SearchStrategy[int]:
    """Positions where something is written, more often than in the empty parts between."""
    content, p = sample.files[name], sample.plan
    starts = [0, p.superblock_offset, *p.meta_slots, p.table_offset, p.data_offset]
    if isinstance(p, KdumpPlan):
        bitmaps = [p.layout.bitmap_offset, p.layout.bitmap_offset + p.layout.bitmap_size]
        starts += [PAGE, p.descriptors_offset, p.data_offset + PAGE, *bitmaps]
    near = st.sampled_from(starts).flatmap(lambda s: st.integers(s, s + 500))
    return (near | st.integers(0, len(content) - 1)).map(lambda n: min(n, len(content) - 1))


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_flipped_bytes(samples: list[Sample], data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(samples))
    changed = {}
    for name, content in sample.files.items():
        damaged = bytearray(content)
        for position in data.draw(st.lists(interesting(sample, name), max_size=3)):
            damaged[position] ^= data.draw(st.integers(1, 255))
        changed[name] = bytes(damaged)
    with sample.written(changed) as path:
        check(path)


@settings(max_examples=EXAMPLES // 2)
@given(data=st.data())
def test_truncated_files(samples: list[Sample], data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(samples))
    name = data.draw(st.sampled_from(sorted(sample.files)))
    size = data.draw(interesting(sample, name))
    with sample.written({name: sample.files[name][:size]}) as path, pytest.raises(InvalidDump):
        open_dump(path).close()


numbers = st.one_of(
    st.integers(0, 1 << 20).map(lambda n: n * PAGE),
    st.sampled_from(
        [0, 1, 511, 4096, (1 << 32) - 1, 1 << 40, (1 << 62) - 1, 1 << 63, (1 << 64) - 1]
    ),
)


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_superblocks_of_any_numbers_with_a_good_checksum(
    samples: list[Sample], data: st.DataObject
) -> None:
    """Not an accident but intent: every number is a lie, and the checksum right."""
    sample = data.draw(st.sampled_from(samples))
    name = "dump" if sample.plan.book == "target" else "dump.ldfs"
    place = sample.plan.superblock_offset
    block = vars(superblock.parse(sample.files[name][place : place + superblock.SIZE])).copy()
    fields = [key for key, value in block.items() if isinstance(value, int) and key != "sealed"]
    for field in data.draw(st.lists(st.sampled_from(fields), min_size=1, max_size=3)):
        block[field] = data.draw(numbers)
    block["meta_current"] &= 1
    block["meta_length"] &= 0xFFFFFFFF
    content = bytearray(sample.files[name])
    content[place : place + superblock.SIZE] = superblock.Superblock(**block).pack()
    with sample.written({name: bytes(content)}) as path:
        try:
            with open_dump(path) as dump:
                prove_dump(dump)
        except InvalidDump:
            pass


offsets = numbers | st.integers(0, 1 << 20)
sizes = st.sampled_from([0, 1, 13, 100, 4095, 4096, 4097, (1 << 31) - 1, (1 << 32) - 1])
flags = st.sampled_from([0, 1, 2, 4, 8, 0x20, 0x21, (1 << 32) - 1])


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_descriptors_of_any_numbers(samples: list[Sample], data: st.DataObject) -> None:
    """They have no checksum: what they point to has."""
    sample = data.draw(st.sampled_from([s for s in samples if isinstance(s.plan, KdumpPlan)]))
    assert isinstance(sample.plan, KdumpPlan)
    content = bytearray(sample.files["dump"])
    pages = st.integers(0, len(MEMORY) // PAGE - 1)
    for page in data.draw(st.lists(pages, min_size=1, max_size=5)):
        place = sample.plan.descriptors_offset + page * DESCRIPTOR.itemsize
        old = struct.unpack_from("<QIIQ", content, place)
        drawn = [data.draw(st.just(old[i]) | new) for i, new in enumerate((offsets, sizes, flags))]
        struct.pack_into("<QIIQ", content, place, *drawn, data.draw(offsets))
    with sample.written({"dump": bytes(content)}) as path:
        check(path)


floats = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | words | floats,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_meta_of_any_values(samples: list[Sample], data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(samples))
    plan = sample.plan
    name = "dump" if plan.book == "target" else "dump.ldfs"
    keys = ["memory_map", "arrays", "registers", "instant", "pause_ns", "counters", "name",
            "host_version", "policy", "machine", "architecture"]  # fmt: skip
    changed = data.draw(st.dictionaries(st.sampled_from(keys), values, min_size=1, max_size=4))
    slot = meta.build_slot({**plan.describe(), **changed}, plan.dump_id, 9, room=plan.meta_room)
    block = superblock.parse(sample.files[name][plan.superblock_offset :][: superblock.SIZE])
    place = plan.meta_slots[block.meta_current]
    fields = {**vars(block), "meta_length": len(slot)}
    fields["meta_checksum"] = meta.xxhash.xxh3_64_intdigest(slot)
    content = bytearray(sample.files[name])
    content[place : place + len(slot)] = slot
    end = plan.superblock_offset + superblock.SIZE
    content[plan.superblock_offset : end] = superblock.Superblock(**fields).pack()
    with sample.written({name: bytes(content)}) as path:
        check(path)


@settings(max_examples=EXAMPLES)
@given(
    content=st.binary(max_size=9000),
    head=st.sampled_from([b"", b"\x7fELF\x02\x01\x01", b"KDUMP   \x06\0\0\0", b"makedumpfile"]),
)
def test_any_bytes(content: bytes, head: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "dump"
        path.write_bytes(head + content)
        with pytest.raises(InvalidDump):
            open_dump(path)
        (Path(directory) / "dump.ldfs").write_bytes(content)
        with pytest.raises(InvalidDump):
            open_dump(path)


@settings(max_examples=EXAMPLES)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, (1 << 64) - 1),
            st.integers(0, (1 << 64) - 1),
            st.integers(0, (1 << 32) - 1),
            st.sampled_from([ARMED, SAVED, HOLE, LOST]),
            st.integers(0, 3),
            st.integers(0, (1 << 16) - 1),
        ),
        min_size=1,
        max_size=400,
    )
)
def test_tables_come_back(rows: list[tuple[int, ...]]) -> None:
    entries = table.empty_entries(len(rows))
    entries[:] = rows
    data = table.build_table(entries, b"i" * 16)
    found = [
        row
        for i in range(len(data) // 4096)
        for row in parsed(data[i * 4096 : (i + 1) * 4096], i, len(rows))
    ]
    assert found == rows


def parsed(data: bytes, index: int, granules: int) -> list[tuple[int, ...]]:
    entries = table.parse_block(data, b"i" * 16, index, granules)
    assert entries is not None
    return [tuple(row) for row in entries.tolist()]
