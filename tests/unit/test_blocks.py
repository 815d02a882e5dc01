# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of a snapshot that is far away: the same bytes, and the same errors, in
fewer reads."""

from __future__ import annotations

import errno
import os
import random
import threading

import pytest

from livedumpfs.dump import blocks
from livedumpfs.dump.blocks import BLOCK, SMALL, Blocks

SIZE = 5 * BLOCK + 1000
DATA = os.urandom(SIZE)


class Far:
    """What is far away. `lost`: offsets that cannot be read."""

    def __init__(self, lost: range = range(0), error: int = errno.EIO) -> None:
        self.lost, self.error = lost, error
        self.reads: list[tuple[int, int]] = []

    def fetch(self, offset: int, view: memoryview) -> None:
        end = offset + len(view)
        self.reads.append((offset, len(view)))
        if not 0 <= offset <= end <= SIZE:
            raise OSError(errno.EINVAL, "outside")
        if max(offset, self.lost.start) < min(end, self.lost.stop):
            raise OSError(self.error, "lost")
        view[:] = DATA[offset:end]


def read(kept: Blocks, offset: int, length: int) -> bytes:
    found = bytearray(length)
    kept.read_into(offset, memoryview(found))
    return bytes(found)


def test_many_small_reads_are_one() -> None:
    far = Far()
    kept = Blocks(far.fetch, SIZE)
    for at in range(2 * BLOCK, 3 * BLOCK, 8):
        assert read(kept, at, 8) == DATA[at : at + 8]
    assert far.reads == [(2 * BLOCK, BLOCK)]


def test_any_read_gives_the_same_bytes() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    order = random.Random(seed)
    kept = Blocks(Far().fetch, SIZE)
    for _ in range(2000):
        at = order.randrange(SIZE)
        length = order.randrange(min(2 * SMALL, SIZE - at) + 1)
        assert read(kept, at, length) == DATA[at : at + length]
    assert read(kept, SIZE - 1, 1) == DATA[-1:]
    assert read(kept, SIZE, 0) == b""


def test_long_reads_leave_nothing_behind() -> None:
    far = Far()
    kept = Blocks(far.fetch, SIZE)
    for _ in range(2):
        assert read(kept, 100, SMALL + 1) == DATA[100 : 101 + SMALL]
    assert far.reads == [(100, SMALL + 1)] * 2


def test_no_more_is_kept_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for last."""
    monkeypatch.setattr(blocks, "MOST", 2)
    far = Far()
    kept = Blocks(far.fetch, SIZE)
    for number in (0, 1, 0, 2, 0, 2):
        read(kept, number * BLOCK, 1)
    assert [at // BLOCK for at, _ in far.reads] == [0, 1, 2]
    read(kept, BLOCK, 1)
    assert [at // BLOCK for at, _ in far.reads] == [0, 1, 2, 1]
    assert len(kept._kept) == 2


def test_a_lost_page_hides_no_other() -> None:
    far = Far(range(BLOCK + 4096, BLOCK + 8192))
    kept = Blocks(far.fetch, SIZE)
    assert read(kept, BLOCK, 4096) == DATA[BLOCK : BLOCK + 4096]
    assert read(kept, BLOCK + 8192, 16) == DATA[BLOCK + 8192 : BLOCK + 8208]
    assert read(kept, BLOCK - 8, 16) == DATA[BLOCK - 8 : BLOCK + 8]
    for at in (BLOCK + 4090, BLOCK + 8191):
        with pytest.raises(OSError) as caught:
            read(kept, at, 16)
        assert caught.value.errno == errno.EIO
    assert far.reads[-1] == (BLOCK + 8191, 16), "asked for as it was"


def test_what_is_outside_is_refused_as_ever() -> None:
    far = Far()
    kept = Blocks(far.fetch, SIZE)
    for at, length in ((SIZE - 4, 8), (SIZE, 1), (-8, 8)):
        with pytest.raises(OSError) as caught:
            read(kept, at, length)
        assert caught.value.errno == errno.EINVAL
    assert far.reads == [(SIZE - 4, 8), (SIZE, 1), (-8, 8)]


def test_after_the_end_nothing_is_known_any_more() -> None:
    far = Far()
    kept = Blocks(far.fetch, SIZE)
    read(kept, 0, 8)
    kept.close()
    far.lost, far.error = range(SIZE), errno.ENODATA
    with pytest.raises(OSError) as caught:
        read(kept, 0, 8)
    assert caught.value.errno == errno.ENODATA
    far.lost = range(0)
    read(kept, 0, 8)
    assert not kept._kept


def test_a_read_that_is_under_way_at_the_end_leaves_nothing_behind() -> None:
    began, go = threading.Event(), threading.Event()
    found: list[bytes] = []

    def slow(offset: int, view: memoryview) -> None:
        began.set()
        assert go.wait(300)
        view[:] = DATA[offset : offset + len(view)]

    kept = Blocks(slow, SIZE)
    reader = threading.Thread(target=lambda: found.append(read(kept, 8, 8)))
    reader.start()
    assert began.wait(300)
    kept.close()
    go.set()
    reader.join(300)
    assert found == [DATA[8:16]] and not kept._kept


def test_readers_do_not_wait_for_each_other() -> None:
    """One is stuck in a target that hangs."""
    stuck, go = threading.Event(), threading.Event()

    def fetch(offset: int, view: memoryview) -> None:
        if offset == 0:
            stuck.set()
            assert go.wait(300)
        view[:] = DATA[offset : offset + len(view)]

    kept = Blocks(fetch, SIZE)
    reader = threading.Thread(target=read, args=(kept, 0, 8))
    reader.start()
    try:
        assert stuck.wait(300)
        assert read(kept, BLOCK, 8) == DATA[BLOCK : BLOCK + 8]
    finally:
        go.set()
        reader.join(300)
