# SPDX-License-Identifier: GPL-2.0-or-later
"""An image comes in any order, in parts, and again: what the store has at the end is the file."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xxhash

from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import InvalidDump, TargetError, UsageError
from livedumpfs.formats import Plan, table
from livedumpfs.formats.superblock import parse
from livedumpfs.stores import Store, create_store
from livedumpfs.stores.base_image import load_base
from livedumpfs.stores.workers import Workers
from livedumpfs.stores.writer import ImageWriter, WrittenImage
from tests.fixtures.small_stores import keep_file
from tests.fixtures.store_streams import Records, chunk_count, records_of
from tests.stores.stored_dumps import CHANGED, CHUNK, EMPTY, MACHINE, MEMORY, OTHER, PAGE

WriteDump = Callable[..., Plan]
DEADLINE = 120.0
HEAD = 3
"""Records before those of the memory."""


def write(store: Store, records: Records, **options: Any) -> WrittenImage:
    with ImageWriter(store, **options) as writer:
        for at, data in records:
            writer.write(at, data)
        return writer.finish()


def bytes_of(store: Store, image: WrittenImage) -> bytes:
    return b"".join(store.chunks.get(image.index.id(i)) for i in range(len(image.index)))


def gone(writer: ImageWriter) -> bool:
    """No thread of it is left."""
    assert writer
    end = time.monotonic() + DEADLINE
    while any(one.name.startswith("livedump-store") for one in threading.enumerate()):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_with_packs_equal_chunks_are_counted_once(tmp_path: Path, dump: Path) -> None:
    """By the tables of the packs, without a set of ids beside them."""
    with create_store(str(tmp_path / "packs"), layout="packs") as store:
        image = write(store, records_of(dump, CHUNK), threads=3)
        assert image.new_chunks == len(image.index.unique()) == len(list(store.chunks.every()))
        with Workers(store, 1) as workers:
            assert workers._known is None
        again = write(store, records_of(dump, CHUNK))
        assert (again.new_chunks, again.new_bytes) == (0, 0)


@pytest.mark.parametrize("step", [CHUNK, 2 * CHUNK, len(MEMORY)])
@pytest.mark.parametrize("threads", [1, 3])
def test_memory_comes_in_any_order(store: Store, dump: Path, step: int, threads: int) -> None:
    records = records_of(dump, step)
    memory = records[HEAD:]
    random.Random(step).shuffle(memory)
    image = write(store, records[:HEAD] + memory, threads=threads)
    assert bytes_of(store, image) == dump.read_bytes()
    assert image.new_chunks == chunk_count(store) == len(image.index.unique())
    assert image.taken == 0 and image.block.verdict == "consistent"


def test_the_head_comes_in_parts_and_again(store: Store, dump: Path) -> None:
    """As INIT, START and the seal write it."""
    records = records_of(dump, CHUNK)
    (_, head), block, (at, rest) = records[:HEAD]
    parts = [(at + i, rest[i : i + 999]) for i in range(0, len(rest), 999)]
    again = [(0, bytes(len(head))), block, *records[HEAD:], *parts, (0, head)]
    assert bytes_of(store, write(store, again)) == dump.read_bytes()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_chunk_that_comes_again_is_replaced(store: Store, dump: Path, threads: int) -> None:
    """Also when the thread that has its first bytes is the slower one."""
    put, first = store.chunks.put, b"\1" * CHUNK

    def slow(identity: bytes, data: Any) -> int:
        if bytes(data[:8]) == first[:8]:
            time.sleep(0.05)
        return put(identity, data)

    store.chunks.put = slow  # type: ignore[method-assign]
    records = records_of(dump, CHUNK)
    stale = [(at, first[: CHUNK - 8] + at.to_bytes(8)) for at, _ in records[HEAD:]]
    both = [one for pair in zip(stale, records[HEAD:], strict=True) for one in pair]
    image = write(store, records[:HEAD] + both, threads=threads)
    assert bytes_of(store, image) == dump.read_bytes()


def test_equal_chunks_are_put_once(store: Store, tmp_path: Path, write_dump: WriteDump) -> None:
    memory = (b"\1" * CHUNK + b"\2" * CHUNK) * (len(MEMORY) // CHUNK // 2)
    write_dump(tmp_path / "dump", memory, granule=CHUNK, machine=MACHINE)
    image = write(store, records_of(tmp_path / "dump", CHUNK))
    head = image.block.data_offset // CHUNK
    assert image.new_chunks == chunk_count(store) <= head + 2
    again = write(store, records_of(tmp_path / "dump", CHUNK))
    assert (again.new_chunks, again.new_bytes) == (0, 0)


@pytest.mark.parametrize("pages", [17, 16 * 3 + 15])
def test_the_last_chunk_is_shorter(
    store: Store, tmp_path: Path, write_dump: WriteDump, pages: int
) -> None:
    """Of bytes, and of zeros."""
    for number, last in enumerate((bytes(PAGE), b"\7" * PAGE)):
        memory = bytes([1]) * CHUNK + bytes((pages - 17) * PAGE) + last
        path = tmp_path / f"dump-{number}"
        write_dump(path, memory, granule=CHUNK)
        assert bytes_of(store, write(store, records_of(path, CHUNK))) == path.read_bytes()


def test_what_is_lost_reads_as_zeros(store: Store, tmp_path: Path, write_dump: WriteDump) -> None:
    states = [table.SAVED] * (len(MEMORY) // CHUNK)
    states[2], states[5], states[6] = table.LOST, table.HOLE, table.HOLE
    path = tmp_path / "torn"
    write_dump(path, MEMORY, granule=CHUNK, machine=MACHINE, states=states, verdict="torn")
    image = write(store, records_of(path, CHUNK))
    assert image.block.verdict == "torn"
    assert bytes_of(store, image) == path.read_bytes()


# ----------------------------------------------------------- what is no whole image


def test_what_is_said_to_be_saved_must_have_come(store: Store, dump: Path) -> None:
    records = records_of(dump, CHUNK)
    with pytest.raises(InvalidDump, match=r"it has saved did not come: 2$"):
        write(store, records[:HEAD] + records[HEAD + 2 :])


def test_a_dump_that_was_not_sealed(store: Store, tmp_path: Path, write_dump: WriteDump) -> None:
    path = tmp_path / "dump"
    write_dump(path, MEMORY, granule=CHUNK, machine=MACHINE, until="table")
    with pytest.raises(InvalidDump, match="was not sealed"):
        write(store, records_of(path, CHUNK))
    with pytest.raises(InvalidDump, match="has no superblock"):
        write(store, [(0, b"x")])


def test_a_table_that_is_not_whole(store: Store, dump: Path) -> None:
    records = records_of(dump, CHUNK)
    with open_dump(dump) as found:
        at = found.superblock.table_offset
    with pytest.raises(InvalidDump, match="granule table is not whole"):
        write(store, [*records, (at + 100, b"\xff" * 8)])


def test_a_granule_smaller_than_a_chunk(
    store: Store, tmp_path: Path, write_dump: WriteDump
) -> None:
    write_dump(tmp_path / "dump", MEMORY, granule=PAGE, machine=MACHINE)
    with pytest.raises(UsageError, match="granules of 4 KiB do not go into a store with chunks of"):
        write(store, records_of(tmp_path / "dump", CHUNK))


def test_a_size_that_nothing_has(store: Store, dump: Path) -> None:
    """Nothing is allocated for what a superblock says."""
    records = records_of(dump, CHUNK)
    block = parse(records[1][1])
    granules = 1 << 23
    large = replace(
        block,
        granule_size=1 << 22,
        granule_count=granules,
        arena_size=granules << 22,
        table_size=table.table_size(granules),
        data_offset=1 << 28,
        total_size=(granules << 22) + (1 << 28),
    )
    with pytest.raises(UsageError, match="has too many chunks of 64 KiB"):
        write(store, [records[0], (records[1][0], large.pack())])


def test_places_that_no_image_has(store: Store, dump: Path) -> None:
    records = records_of(dump, CHUNK)
    size = dump.stat().st_size
    for at, data, why in (
        (size - CHUNK, bytes(CHUNK + PAGE), "behind its end|parts of chunks"),
        (size, bytes(CHUNK), "behind its end"),
        (size - CHUNK + PAGE, bytes(CHUNK), "parts of chunks"),
        (size - 2 * CHUNK, bytes(PAGE), "parts of chunks"),
        (size - len(MEMORY) - PAGE, bytes(2 * PAGE), "impossible order"),
    ):
        with pytest.raises(InvalidDump, match=why):
            write(store, [*records, (at, data)])
    with pytest.raises(InvalidDump, match="impossible order"):
        write(store, [(1 << 40, b"x")])


def test_a_store_that_fails_ends_it(store: Store, dump: Path) -> None:
    """With its own error, and no thread is left."""

    def full(identity: bytes, data: Any) -> int:
        raise TargetError("cannot write x: No space left on device", errno=errno.ENOSPC)

    store.chunks.put = full  # type: ignore[method-assign]
    with ImageWriter(store) as writer, pytest.raises(TargetError, match="No space left"):
        for at, data in records_of(dump, CHUNK):
            writer.write(at, data)
        writer.finish()
    assert gone(writer)


def test_a_store_that_hangs_holds_the_writer_up(store: Store, dump: Path) -> None:
    """So that the pipe fills, and memory stays bounded."""
    go, put = threading.Event(), store.chunks.put

    def hanging(identity: bytes, data: Any) -> int:
        assert go.wait(DEADLINE)
        return put(identity, data)

    store.chunks.put = hanging  # type: ignore[method-assign]
    written: list[int] = []
    with ImageWriter(store, threads=1) as writer:

        def work() -> None:
            for at, data in records_of(dump, CHUNK):
                writer.write(at, data)
                written.append(at)

        thread = threading.Thread(target=work)
        thread.start()
        end = time.monotonic() + DEADLINE
        while len(written) < HEAD + 3:
            assert time.monotonic() < end, written
            time.sleep(0.01)
        thread.join(0.2)
        assert thread.is_alive() and len(written) == HEAD + 3
        go.set()
        thread.join(DEADLINE)
        image = writer.finish()
    assert bytes_of(store, image) == dump.read_bytes()


# ------------------------------------------------------------------- increments


@pytest.fixture
def other(tmp_path: Path, write_dump: WriteDump) -> Path:
    """A dump of the same machine, later."""
    write_dump(tmp_path / "other", OTHER, granule=CHUNK, machine=MACHINE)
    return tmp_path / "other"


def without(records: Records, keep: set[int]) -> Records:
    """Only those granules of the memory, by number."""
    first = min(at for at, _ in records[HEAD:])
    return records[:HEAD] + [one for one in records[HEAD:] if (one[0] - first) // CHUNK in keep]


DIFFERENT = {page * PAGE // CHUNK for page in CHANGED}


def test_what_did_not_change_comes_from_the_base(store: Store, dump: Path, other: Path) -> None:
    keep_file(store, dump, "base")
    base = load_base(store, "base")
    image = write(store, without(records_of(other, CHUNK), DIFFERENT), since=base)
    assert bytes_of(store, image) == other.read_bytes()
    granules = len(MEMORY) // CHUNK - len(EMPTY) * PAGE // CHUNK
    assert image.taken == granules - len(DIFFERENT)


def test_the_base_must_have_the_same_checksum(store: Store, dump: Path, other: Path) -> None:
    """A granule that did change and was left out: the dump is not whole."""
    keep_file(store, dump, "base")
    base = load_base(store, "base")
    left = sorted(DIFFERENT)[0]
    records = without(records_of(other, CHUNK), DIFFERENT - {left})
    with pytest.raises(InvalidDump, match=r"did not come: 1$"):
        write(store, records, since=base)


def test_a_base_of_another_size_has_nothing(
    store: Store, dump: Path, tmp_path: Path, write_dump: WriteDump
) -> None:
    keep_file(store, dump, "base")
    write_dump(tmp_path / "small", MEMORY[: 4 * CHUNK], granule=CHUNK)
    with pytest.raises(InvalidDump, match=r"did not come: 4$"):
        write(store, records_of(tmp_path / "small", CHUNK)[:HEAD], since=load_base(store, "base"))


def test_a_checksum_in_the_base_is_that_of_its_bytes(store: Store, dump: Path) -> None:
    keep_file(store, dump, "base")
    base = load_base(store, "base")
    assert [int(one["checksum"]) for one in base.entries] == [
        xxhash.xxh3_64_intdigest(piece) if any(piece) else 0
        for at in range(0, len(MEMORY), CHUNK)
        for piece in [MEMORY[at : at + CHUNK]]
    ]
