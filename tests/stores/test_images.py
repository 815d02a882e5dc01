# SPDX-License-Identifier: GPL-2.0-or-later
"""Random access to images: of chunks of one size and of any, by several threads, and damaged."""

from __future__ import annotations

import errno
import random
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedumpfs.errors import InvalidDump
from livedumpfs.stores import Index, StoreImage, create_store
from livedumpfs.stores.chunk import chunk_id, compress, decompress
from tests.fixtures.small_stores import chunk_file, keep_file

CHUNK = 64 << 10
DEADLINE = 60


class Kept:
    """Chunks in memory, which count how often each is asked for."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.asked: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()

    def put(self, identity: bytes, data: bytes) -> int:
        self.data[identity] = data
        return len(data)

    def has(self, identity: bytes) -> bool:
        return identity in self.data

    def get(self, identity: bytes, most: int = 0, digest: str = "sha512_256") -> bytes:
        self.asked.append(identity)
        assert self.gate.wait(DEADLINE)
        return self.data[identity]

    def every(self) -> Iterator[tuple[bytes, int]]:
        yield from ((identity, len(data)) for identity, data in self.data.items())

    def delete(self, identities: object) -> int:
        raise NotImplementedError

    def flush(self) -> None:
        pass


def cut(data: bytes, lengths: list[int], sizes: tuple[int, int, int]) -> tuple[Index, Kept]:
    """An image in chunks of these lengths."""
    kept, ids, ends = Kept(), [], np.cumsum(lengths, dtype=np.uint64)
    for end, length in zip(ends.tolist(), lengths, strict=True):
        chunk = data[end - length : end]
        ids.append(chunk_id(chunk))
        kept.put(ids[-1], chunk)
    index = Index(sizes, ends, np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32))
    return index, kept


def fixed(data: bytes, chunk: int = 4096) -> tuple[Index, Kept]:
    lengths = [min(chunk, len(data) - at) for at in range(0, len(data), chunk)]
    return cut(data, lengths, (chunk, chunk, chunk))


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 12000), st.integers(0, 5000)), max_size=20),
    st.booleans(),
    st.integers(0, 3000),
)
def test_any_read_of_any_chunks(
    lengths: list[int], reads: list[tuple[int, int]], same: bool, cache: int
) -> None:
    """What comes is what was put, whatever is asked for in which order, however little is kept."""
    if same:
        lengths = [300] * (len(lengths) - 1) + [lengths[-1]]
    size = sum(lengths)
    chosen = random.Random(size)
    data = b"".join(bytes(n) if chosen.random() < 0.3 else chosen.randbytes(n) for n in lengths)
    index, kept = cut(data, lengths, (300, 300, 300) if same else (1, 100, 300))
    with StoreImage(index, kept, cache=cache, ahead=600) as image:
        assert image.size == size
        for offset, length in reads:
            assert image.read(offset, length) == data[offset : offset + length]
            view = memoryview(bytearray(b"?" * length))
            count = image.read_into(offset, view)
            assert view[:count] == data[offset : offset + length]
            assert bytes(view[count:]) == b"?" * (length - count)
            if count:
                assert not image.is_zero(offset, count) or not any(data[offset : offset + count])
        assert image.read(0, size) == data


def test_zeros_are_not_read() -> None:
    data = bytes(3 * 4096) + b"x" * 4096 + bytes(100)
    index, kept = fixed(data)
    with StoreImage(index, kept) as image:
        assert image.is_zero(0, 3 * 4096) and image.is_zero(4 * 4096, 100)
        assert not image.is_zero(0, 3 * 4096 + 1)
        assert image.read(0, 3 * 4096) == bytes(3 * 4096)
        assert image.read(4 * 4096, 200) == bytes(100)
        assert kept.asked == []


def test_a_chunk_is_loaded_once_for_all_that_wait() -> None:
    data = random.Random(1).randbytes(8 * 4096)
    index, kept = fixed(data)
    kept.gate.clear()
    with StoreImage(index, kept, ahead=0) as image, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(image.read, 10 * i, 100) for i in range(8)]
        kept.gate.set()
        assert [one.result(DEADLINE) for one in waiting] == [
            data[10 * i : 10 * i + 100] for i in range(8)
        ]
    assert len(kept.asked) == 1


def test_several_threads_read_at_random() -> None:
    data = random.Random(2).randbytes(300_000)
    index, kept = fixed(data)
    with StoreImage(index, kept, cache=40_000, ahead=16_000) as image:

        def read(seed: int) -> None:
            chosen = random.Random(seed)
            for _ in range(300):
                offset, length = chosen.randrange(len(data)), chosen.randrange(1, 20_000)
                assert image.read(offset, length) == data[offset : offset + length]

        with ThreadPoolExecutor(6) as pool:
            for one in [pool.submit(read, seed) for seed in range(6)]:
                one.result(DEADLINE)


def test_what_is_kept_is_bounded_and_the_last_used() -> None:
    data = random.Random(3).randbytes(16 * 4096)
    index, kept = fixed(data)
    with StoreImage(index, kept, cache=4 * 4096, ahead=0) as image:
        for chunk in (0, 5, 9, 0, 12, 0, 2, 0):
            image.read(chunk * 4096, 10)
        assert len(kept.asked) == 5  # each once: 0 was always among the last
        image.read(5 * 4096, 10)
        assert len(kept.asked) == 6  # and 5 no more


def test_who_reads_on_finds_the_next_chunks_there() -> None:
    data = random.Random(4).randbytes(64 * 4096)
    index, kept = fixed(data)
    with StoreImage(index, kept, ahead=8 * 4096) as image:
        image.read(20 * 4096, 10)
        assert kept.asked == [index.id(20)]
        image.read(20 * 4096 + 10, 10)
    assert set(kept.asked) == {index.id(n) for n in range(20, 29)}  # close() waits for them


def test_large_chunks_take_no_more_memory_than_is_said() -> None:
    """Whatever the index calls usual: what is loaded ahead goes by bytes."""
    size = 8 << 20
    chunks = [bytes([n]) * size for n in range(1, 13)]
    index, kept = cut(b"".join(chunks), [size] * 12, (1, 1, 128 << 20))
    packed = {identity: compress(data) for identity, data in kept.data.items()}
    kept.data.clear()
    kept.get = lambda identity, most, digest: decompress(packed[identity], most)  # type: ignore[method-assign]
    tracemalloc.start()
    with StoreImage(index, kept, cache=2 * size) as image:
        for at in range(0, image.size, 1 << 20):
            assert image.read(at, 1 << 20) == chunks[at // size][: 1 << 20]
        assert tracemalloc.get_traced_memory()[1] < 6 * size
    tracemalloc.stop()


def test_a_chunk_that_is_longer_than_its_index_says() -> None:
    """Of no more bytes than that is anything made."""
    index, kept = cut(b"x" * 100 + b"y" * 100, [100, 100], (1, 50, 128 << 20))
    lies = Index(index.sizes, index.ends - np.array([50, 50], np.uint64), index.ids)
    asked: list[int] = []
    kept.get = lambda identity, most, digest: asked.append(most) or kept.data[identity]  # type: ignore[method-assign, func-returns-value]
    with (
        StoreImage(lies, kept) as image,
        pytest.raises(InvalidDump, match="has 100 bytes, not the 50 of its index"),
    ):
        image.read(0, 10)
    assert asked == [50]


def test_what_two_indexes_know_to_be_equal() -> None:
    """In the units of the first image, also where the two lie at other offsets."""
    data = bytearray(random.Random(5).randbytes(10 * 4096))
    a, kept = fixed(bytes(data))
    data[3 * 4096] ^= 1
    b, more = fixed(b"y" * 4096 + data)
    with StoreImage(a, kept) as one, StoreImage(b, more) as other:
        assert one.known_equal(0, other, 4096, 5 * 4096) == [
            (n * 4096, (n + 1) * 4096) for n in (0, 1, 2, 4)
        ]
        assert one.known_equal(100, other, 4196, 4096) == [(0, 3996), (3996, 4096)]
        assert one.known_equal(0, other, 4097, 4096) == []  # cut elsewhere
        assert kept.asked == more.asked == []


@pytest.fixture
def kept_file(tmp_path: Path) -> Iterator[tuple[StoreImage, bytes, list[Path]]]:
    """An image of random bytes in a store, and the files of its chunks."""
    data = random.Random(6).randbytes(4 * CHUNK + 1000)
    (tmp_path / "file").write_bytes(data)
    with create_store(str(tmp_path / "store")) as store:
        index = keep_file(store, tmp_path / "file", "one")
        files = [chunk_file(store, index.id(n)) for n in range(len(index))]
        with StoreImage(index, store.chunks, ahead=0) as image:
            yield image, data, files


def test_a_missing_chunk_is_an_io_error_of_its_bytes_alone(
    kept_file: tuple[StoreImage, bytes, list[Path]],
) -> None:
    image, data, files = kept_file
    files[2].unlink()
    assert image.read(0, 2 * CHUNK) == data[: 2 * CHUNK]
    assert image.read(3 * CHUNK, 5 * CHUNK) == data[3 * CHUNK :]
    with pytest.raises(OSError, match=r"chunk \w+ is missing: cannot read \S+: No such") as caught:
        image.read(2 * CHUNK - 1, 2)
    assert caught.value.errno == errno.EIO and isinstance(caught.value, InvalidDump)


@pytest.mark.parametrize("how", ["flipped", "another", "empty", "longer"])
def test_a_damaged_chunk_is_never_taken_for_good(
    kept_file: tuple[StoreImage, bytes, list[Path]], how: str
) -> None:
    image, data, files = kept_file
    stored = files[1].read_bytes()
    middle = len(stored) // 2
    files[1].write_bytes(
        {
            "flipped": stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :],
            "another": files[3].read_bytes(),
            "empty": b"",
            "longer": stored[:8] + stored,
        }[how]
    )
    assert image.read(0, CHUNK) == data[:CHUNK]
    with pytest.raises(OSError, match=rf"chunk \S*{files[1].name} is damaged: ") as caught:
        image.read(CHUNK, 1)
    assert caught.value.errno == errno.EIO
    [problem] = image.check_rest()[:1]
    assert files[1].name in problem
