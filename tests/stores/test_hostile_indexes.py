# SPDX-License-Identifier: GPL-2.0-or-later
"""Index files that are damaged or hostile: one clear error, or bytes whose hash is right; never a
traceback, and never more memory than the file has."""

from __future__ import annotations

import os
import random
import struct
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import InvalidDump, LivedumpError
from livedumpfs.stores import Index, create_store, image_place, open_image
from livedumpfs.stores.caibx import parse_index
from livedumpfs.stores.chunk import chunk_id, compress, decompress
from tests.fixtures.small_stores import keep_file

EXAMPLES = int(os.environ.get("LIVEDUMP_FUZZ_EXAMPLES", "150"))
CHUNK = 64 << 10
DATA = random.Random(1).randbytes(2 * CHUNK) + bytes(2 * CHUNK) + b"end" * 100


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """default.castr with the chunks of DATA, and their index."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "data").write_bytes(DATA)
        with create_store(f"{name}/store") as store:
            keep_file(store, Path(name) / "data", "good")
        (Path(name) / "store/livedumpfs.json").unlink()  # any folder of casync's
        yield Path(name) / "store"


def expected(index: Index, offset: int, length: int) -> bytes:
    """Of chunks that are there, by their ids."""
    pieces = [DATA[at : at + CHUNK] for at in range(0, len(DATA), CHUNK)]
    known = {chunk_id(piece): piece for piece in pieces}
    first, last = index.find(offset), index.find(offset + length - 1)
    data = b"".join(known[index.id(n)] for n in range(first, last + 1))
    return data[offset - index.start(first) :][:length]


words = st.sampled_from([0, 1, 48, CHUNK, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 400), st.integers(0, 255)),  # a byte
            st.tuples(st.integers(0, 50).map(lambda n: -8 * n - 8), words),  # a word
        ),
        max_size=3,
    ),
    st.integers(-300, 60),
)
@settings(max_examples=EXAMPLES)
def test_an_index_with_changes(folder: Path, changes: list[tuple[int, int]], longer: int) -> None:
    data = bytearray((folder / "good.caibx").read_bytes())
    for place, value in changes:
        if place < 0:
            place = (-place - 8) % len(data) // 8 * 8
            data[place : place + 8] = struct.pack("<Q", value)[: len(data) - place]
        elif place < len(data):
            data[place] = value
    data = data[:longer] if longer < 0 else data + bytes(longer)
    path = folder / "bad.caibx"
    path.write_bytes(data)
    try:
        place = image_place(str(path))
        if place is None:
            return  # no index at all: a file like others
        _, image, _ = open_image(place)
    except InvalidDump as error:
        assert str(path) in error.message and "\n" not in str(error)
        return
    with image:
        tracemalloc.start()
        for offset in (0, CHUNK - 1, 3 * CHUNK, image.size - 10, image.size // 2):
            try:
                found = image.read(max(offset, 0), 5000)
            except InvalidDump as error:
                assert "\n" not in str(error)
            else:
                assert found == expected(image.index, max(offset, 0), len(found))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()
    with pytest.raises(LivedumpError, match="is not a valid dump"):
        open_dump(path)


@given(st.binary(max_size=300))
@settings(max_examples=EXAMPLES)
def test_anything_as_an_index(data: bytes) -> None:
    try:
        found = parse_index(data)
    except InvalidDump:
        return
    assert found.pack() == data


@given(
    st.lists(st.integers(1, 5000), max_size=20),
    st.sampled_from(["sha512_256", "sha256"]),
    st.data(),
)
@settings(max_examples=EXAMPLES)
def test_what_is_packed_is_parsed(lengths: list[int], digest: str, data: st.DataObject) -> None:
    ends = np.cumsum(lengths, dtype=np.uint64)
    ids = np.frombuffer(
        data.draw(st.binary(min_size=32 * len(ends), max_size=32 * len(ends))), "u1"
    )
    index = Index((1, 100, 5000), ends, ids.reshape(-1, 32), digest)  # type: ignore[arg-type]
    again = parse_index(index.pack())
    assert again.pack() == index.pack() and again.digest == digest
    assert again.size == sum(lengths)
    for offset in range(0, again.size, 97):
        number = again.find(offset)
        assert again.start(number) <= offset < int(again.ends[number])


def test_an_index_that_is_too_large_is_not_read(folder: Path) -> None:
    path = folder / "large.caibx"
    with open(path, "wb") as file:
        file.write((folder / "good.caibx").read_bytes()[:48])
        file.truncate(1 << 40)
    with pytest.raises(InvalidDump, match=r"large.caibx is not valid: it has 1099511627776 bytes"):
        open_dump(path)
    path.unlink()


def test_a_chunk_that_grows_without_end() -> None:
    """Zeros that compress well, under a size that nothing said, in each of the three forms."""
    import gzip
    import lzma

    zeros = bytes(16 << 20)
    for stored in (compress(zeros), gzip.compress(zeros, 1), lzma.compress(zeros, preset=0)):
        tracemalloc.start()
        with pytest.raises(InvalidDump, match="more than the 65536 bytes"):
            decompress(stored, CHUNK)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()
        assert decompress(stored, 16 << 20) == zeros


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"\x1f\x8b"]),
)
@settings(max_examples=EXAMPLES)
def test_anything_as_a_chunk(data: bytes, magic: bytes) -> None:
    try:
        assert len(decompress(magic + data, 1000)) <= 1000
    except InvalidDump as error:
        assert "\n" not in error.message
