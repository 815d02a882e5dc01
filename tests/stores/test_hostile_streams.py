# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stream says of itself is compared with what came, and with what the store has; and chunks
that are no chunks end in one sentence."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import InvalidDump
from livedumpfs.formats import Plan, table
from livedumpfs.formats.superblock import parse
from livedumpfs.stores import Store
from livedumpfs.stores.chunk import compress, decompress
from tests.fixtures.small_stores import chunk_file
from tests.fixtures.store_streams import Records, flattened, nothing_published, records_of
from tests.stores.stored_dumps import CHANGED, CHUNK, MACHINE, MEMORY, OTHER, PAGE
from tests.stores.test_receive import received

WriteDump = Callable[..., Plan]
HEAD = 3
"""Records before those of the memory."""
COUNT = len(MEMORY) // CHUNK


def states_with(state: int, number: int) -> list[int]:
    """As usual, but for one granule."""
    usual = [any(MEMORY[n * CHUNK : (n + 1) * CHUNK]) for n in range(COUNT)]
    found = [table.SAVED if one else table.HOLE for one in usual]
    found[number] = state
    return found


@pytest.mark.parametrize(
    ("state", "sealed", "verdict"),
    [
        (table.SAVED, "consistent", "consistent"),
        (table.ARMED, "consistent", "incomplete"),
        (table.LOST, "consistent", "torn"),
        (table.LOST, "torn", "torn"),
        (table.ARMED, "torn", "incomplete"),
    ],
)
def test_the_record_says_what_readers_say(
    store: Store, tmp_path: Path, write_dump: WriteDump, state: int, sealed: str, verdict: str
) -> None:
    write_dump(
        tmp_path / "dump", MEMORY, granule=CHUNK, machine=MACHINE, verdict=sealed,
        states=states_with(state, 2),
    )  # fmt: skip
    done = received(flattened(records_of(tmp_path / "dump", CHUNK)), store)
    with open_dump(f"{store.url}#{done.name}") as dump:
        assert dump.verdict == done.record.verdict == verdict


def spoiled(records: Records, number: int) -> Records:
    """One byte of a record is another."""
    at, data = records[number]
    wrong = bytearray(data)
    wrong[len(wrong) // 2] ^= 1
    return [*records[:number], (at, bytes(wrong)), *records[number + 1 :]]


@pytest.mark.parametrize("granule", [CHUNK, 2 * CHUNK, 4 * CHUNK])
@pytest.mark.parametrize("pieces", [1, 4])
def test_bytes_that_changed_on_the_way(
    store: Store, tmp_path: Path, write_dump: WriteDump, granule: int, pieces: int
) -> None:
    """In records of one or several granules; also when what came first was wrong."""
    write_dump(tmp_path / "dump", MEMORY, granule=granule, machine=MACHINE)
    good = records_of(tmp_path / "dump", granule * pieces)
    for number in (HEAD, len(good) - 1):
        bad = spoiled(good, number)
        with pytest.raises(InvalidDump, match="came with other bytes than the dump says: 1"):
            received(flattened(bad), store)
        assert nothing_published(store)
        both = [*bad[: number + 1], good[number], *bad[number + 1 :]]
        assert received(flattened(both), store).record.verdict == "consistent"
        for name in store.names():
            store.remove(name)
        with pytest.raises(InvalidDump, match="came with other bytes"):
            received(flattened([*both, bad[number]]), store)


def test_a_granule_in_parts_is_taken(store: Store, tmp_path: Path, write_dump: WriteDump) -> None:
    """Its checksum is left to `verify`."""
    full = MEMORY[: 4 * CHUNK] * (COUNT // 4)  # no piece of it is zeros
    write_dump(tmp_path / "dump", full, granule=4 * CHUNK, machine=MACHINE)
    done = received(flattened(records_of(tmp_path / "dump", CHUNK)), store)
    assert done.record.verdict == "consistent"


@pytest.mark.parametrize(
    ("name", "change"), [("total_size", CHUNK), ("granule_count", 1), ("table_offset", 4096)]
)
def test_a_seal_with_another_layout(
    store: Store, tmp_path: Path, write_dump: WriteDump, name: str, change: int
) -> None:
    write_dump(tmp_path / "dump", MEMORY, granule=CHUNK, machine=MACHINE)
    records = records_of(tmp_path / "dump", CHUNK)
    at, data = records[1]
    block = parse(data)
    other = replace(block, **{name: getattr(block, name) + change})  # type: ignore[arg-type]
    with pytest.raises(InvalidDump):
        received(flattened([*records, (at, other.pack())]), store)
    assert nothing_published(store)


def test_a_base_that_has_lost_chunks(store: Store, tmp_path: Path, write_dump: WriteDump) -> None:
    """Missing, or empty after a power loss."""
    for name, memory in (("base", MEMORY), ("next", OTHER)):
        write_dump(tmp_path / name, memory, granule=CHUNK, machine=MACHINE)
    base = received(flattened(records_of(tmp_path / "base", CHUNK)), store).name
    records = records_of(tmp_path / "next", CHUNK)
    first = records[HEAD][0]
    changed = {first + page * PAGE // CHUNK * CHUNK for page in CHANGED}
    some = flattened([one for one in records if one[0] < first or one[0] in changed])
    index = store.index(base)
    chunk = chunk_file(store, index.id(len(index) - COUNT + 2))
    kept = chunk.read_bytes()
    for lost in (chunk.unlink, lambda: chunk.write_bytes(b"")):
        lost()
        with pytest.raises(InvalidDump, match=f"has lost 1 chunks .*{chunk.stem}"):
            received(some, store, since=base)
        assert store.names() == [base]
        chunk.write_bytes(kept)
    assert received(some, store, since=base).taken


@pytest.mark.parametrize("cut", [0, 5, 12, 30])
def test_damaged_chunks_of_every_compressor(cut: int) -> None:
    """zlib.error is of gzip alone."""
    for stored in (gzip.compress(MEMORY[:CHUNK]), compress(MEMORY[:CHUNK])):
        for wrong in (stored[:cut], stored[: max(cut, 10)] + b"\xff" * 40):
            with pytest.raises(InvalidDump):
                decompress(wrong)


def window_frame(log: int) -> bytes:
    """A frame of zeros that wants a window of 2^log bytes."""
    wanted = zstandard.ZstdCompressionParameters(window_log=log, write_content_size=False)
    made = zstandard.ZstdCompressor(compression_params=wanted).compressobj()
    return made.compress(bytes(64 << 10)) + made.flush()


def test_what_a_frame_may_want_as_its_window() -> None:
    """What casync and desync write (8 MiB) for any chunk; no more than the chunk itself has."""
    for log in (17, 21, 23):
        assert decompress(window_frame(log), 64 << 10) == bytes(64 << 10)
    with pytest.raises(InvalidDump, match="cannot be decompressed"):
        decompress(window_frame(27), 64 << 10)
    assert decompress(window_frame(27), 128 << 20) == bytes(64 << 10)
