# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of snapshot/ over an arena that is made up."""

from __future__ import annotations

import errno
import json
from functools import partial

import pytest

from livedumpfs.formats import MachineInfo, MemoryRange
from livedumpfs.formats.snapshot_files import ImageFile, SnapshotFiles, standard_images

PAGE = 4096
SIZE = 96 * PAGE
MACHINE = MachineInfo(
    "test", memory_map=(MemoryRange(PAGE, PAGE, 0), MemoryRange(1 << 24, SIZE - PAGE, PAGE))
)


class Bench:
    """Page n is full of n; `gone` is after RELEASE, `lost` an arena offset."""

    def __init__(self) -> None:
        self.gone = False
        self.lost = -1
        self.reads: list[tuple[int, int]] = []
        self.answer = 0
        self.files = SnapshotFiles(
            standard_images(MACHINE, SIZE), partial(ImageFile, read=self.read), self.info
        )

    def read(self, offset: int, view: memoryview) -> None:
        length = len(view)
        if self.gone:
            raise OSError(errno.ENODATA, "released")
        if offset <= self.lost < offset + length:
            raise OSError(errno.EIO, "lost")
        self.reads.append((offset, length))
        pages = range(offset // PAGE, -(-(offset + length) // PAGE))
        whole = b"".join(bytes([n % 251]) * PAGE for n in pages)
        view[:] = whole[offset % PAGE :][:length]

    def info(self) -> dict[str, object]:
        if self.gone:
            raise OSError(errno.ENODATA, "released")
        self.answer += 1
        return {"answer": "x" * 10**self.answer}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_names_and_sizes(bench: Bench) -> None:
    assert bench.files.names == ("vmcore", "mem.raw", "mem.lime", "info.json")
    assert bench.files.size("mem.raw") == (1 << 24) + SIZE - PAGE
    assert bench.files.size("mem.lime") == SIZE + 64
    assert bench.files.size("vmcore") == SIZE + PAGE
    with pytest.raises(FileNotFoundError):
        bench.files.size("nothing")
    with pytest.raises(FileNotFoundError):
        bench.files.pread("nothing", 0, 1)


def test_info_has_its_size(bench: Bench) -> None:
    size = bench.files.size("info.json")
    bench.answer = 0
    assert len(bench.files.pread("info.json", 0, 1 << 20)) == size


def test_a_reader_of_info_in_pieces_gets_one_answer(bench: Bench) -> None:
    file, text, offset = bench.files.open("info.json"), b"", 0
    while piece := file.pread(offset, 5):
        text += piece
        offset += len(piece)
    assert json.loads(text) == {"answer": "x" * 10}


def test_memory_is_read_once_and_a_gap_is_zeros_whatever_was_in_the_buffer(bench: Bench) -> None:
    buffer = bytearray(b"\xff" * (SIZE + 9))
    file = bench.files.open("mem.raw")
    count = file.read_into((1 << 24) - 9, memoryview(buffer))
    assert count == 9 + SIZE - PAGE
    assert buffer[:9] == bytes(9) and buffer[9] == 1
    assert bench.reads == [(PAGE, SIZE - PAGE)]
    assert buffer[count:] == b"\xff" * PAGE


def test_a_lost_page_is_an_error_only_where_it_lies(bench: Bench) -> None:
    bench.lost = PAGE
    for name, offset in (("mem.raw", 1 << 24), ("mem.lime", 64 + PAGE), ("vmcore", 2 * PAGE)):
        with pytest.raises(OSError, match="lost") as caught:
            bench.files.pread(name, offset - 1, 2)
        assert caught.value.errno == errno.EIO
        assert len(bench.files.pread(name, offset - 1, 1)) == 1


def test_after_the_release_nothing_is_read(bench: Bench) -> None:
    """Not the headers, not the gaps, not the end of the file, and no kept info either."""
    opened = {name: bench.files.open(name) for name in bench.files.names}
    assert all(file.pread(0, 10) for file in opened.values())
    bench.gone = True
    for file in opened.values():
        for offset in (0, 5, 1 << 40):
            with pytest.raises(OSError, match="released") as caught:
                file.pread(offset, 1)
            assert caught.value.errno == errno.ENODATA
