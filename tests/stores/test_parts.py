# SPDX-License-Identifier: GPL-2.0-or-later
"""A file that comes in any order is put together of parts, in bounded memory."""

from __future__ import annotations

import random
import threading

import pytest

from livedumpfs.errors import TargetError
from livedumpfs.stores.parts import Parts
from tests.fixtures.object_servers import ALL

SIZE = 1 << 12


class Memory:
    """Where parts wait."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}
        self.puts = 0
        self.fails: BaseException | None = None
        self.guard = threading.Lock()

    def put(self, number: int, data: bytes | bytearray) -> None:
        with self.guard:
            if self.fails:
                raise self.fails
            self.kept[number] = bytes(data)
            self.puts += 1

    def get(self, number: int) -> bytes:
        return self.kept[number]


def put_together(parts: Parts, memory: Memory) -> bytes:
    whole = b""
    for form in parts.finish():
        if isinstance(form, int):
            whole += memory.kept[form]
        else:
            whole += bytes(SIZE) if form is None else bytes(form)
    return whole


@pytest.mark.parametrize("seed", range(400 if ALL else 15))
def test_any_order_overlaps_holes_and_what_comes_again(seed: int) -> None:
    source = random.Random(seed)
    length = source.randrange(1, 20 * SIZE)
    memory = Memory()
    parts = Parts(memory, SIZE, source.choice((1, SIZE, 100 * SIZE)))
    expected = bytearray(length)
    end = 0
    in_order = source.random() < 0.5
    at = 0
    for _ in range(source.randrange(1, 300)):
        start = at if in_order else source.randrange(length)
        piece = source.randbytes(min(source.randrange(1, SIZE * 2), length - start))
        expected[start : start + len(piece)] = piece
        parts.write(start, memoryview(piece))
        end = max(end, start + len(piece))
        at = (start + len(piece)) % length
    assert put_together(parts, memory) == bytes(expected[:end])


def test_what_comes_in_order_is_put_aside_once() -> None:
    memory = Memory()
    parts = Parts(memory, SIZE)
    data = random.Random(1).randbytes(10 * SIZE + 5)
    for at in range(0, len(data), 512):
        parts.write(at, memoryview(data[at : at + 512]))
    assert put_together(parts, memory) == data
    assert memory.puts == 10


def test_no_more_waits_in_memory_than_may() -> None:
    memory = Memory()
    parts = Parts(memory, SIZE, 3 * SIZE)
    for number in range(200):
        parts.write(number * SIZE, memoryview(bytes([number]) * (SIZE // 2)))
        assert parts._waiting <= 3 * SIZE
    assert len(put_together(parts, memory)) == 199 * SIZE + SIZE // 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TargetError("it fails"), "it fails"),
        (MemoryError(), "was not put aside: MemoryError"),
        (SystemExit(), "was not put aside: SystemExit"),
    ],
)
def test_what_putting_aside_meets_is_raised(error: BaseException, said: str) -> None:
    """Whatever it is: also where only the second form of a part was not put aside."""
    memory = Memory()
    parts = Parts(memory, SIZE)
    for number in range(3):
        parts.write(number * SIZE, memoryview(bytes(SIZE)))
    parts.write(3 * SIZE, memoryview(b"end"))
    for part in parts._parts.values():
        assert part.idle.wait(60)
    memory.fails = error
    with pytest.raises(TargetError, match=said):
        parts.write(0, memoryview(b"N" * SIZE))
        parts.finish()
