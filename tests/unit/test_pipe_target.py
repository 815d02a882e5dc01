# SPDX-License-Identifier: GPL-2.0-or-later
"""A pipe as the target: what comes out is makedumpfile's flattened form."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from livedumpfs.errors import TargetError, UsageError
from livedumpfs.targets import Kind, adopt_sidecar, adopt_target, open_target
from tests.fixtures.open_files import no_file_stays_open

END = (-1, -1)
DEADLINE = 300.0


def records(stream: bytes) -> list[tuple[int, bytes] | tuple[int, int]]:
    """(offset, bytes) of each record, and END."""
    assert stream[:16] == b"makedumpfile\0\0\0\0"
    assert struct.unpack(">qq", stream[16:32]) == (1, 1)
    found: list[tuple[int, bytes] | tuple[int, int]] = []
    position = 4096
    while position < len(stream):
        offset, length = struct.unpack(">qq", stream[position : position + 16])
        position += 16
        if (offset, length) == END:
            found.append(END)
            continue
        assert position + length <= len(stream), "a record is cut off"
        found.append((offset, stream[position : position + length]))
        position += length
    return found


class Reader:
    """Takes all that comes, on a thread."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.data = bytearray()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while data := os.read(self.fd, 1 << 16):
            self.data += data

    def rest(self) -> bytes:
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive(), "the pipe does not end"
        return bytes(self.data)


@contextmanager
def refused(code: int, cause: str) -> Iterator[None]:
    with no_file_stays_open(), pytest.raises(TargetError, match=cause) as caught:
        yield
    assert caught.value.errno == code


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[str, int]]:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(fd, True)
    yield path, fd
    os.close(fd)


def test_what_is_written_comes_out_as_records(fifo: tuple[str, int]) -> None:
    path, fd = fifo
    with open_target(path) as target:
        reader = Reader(fd)
        assert (target.kind, target.capacity, target.reads_zero) == (Kind.STREAM, None, True)
        assert target.stream is not None
        target.prepare(1 << 50)
        target.pwrite(b"head", 0)
        target.pwrite(b"", 77)
        target.zero(4, 1 << 20)
        target.pwrite(bytearray(b"x" * 300_000), 1 << 40)
        target.pwrite(memoryview(b"HEAD"), 0)
        target.sync()
        target.truncate(5)
        target.complete()
    assert target.stream is None
    assert records(reader.rest()) == [
        (0, b"head"),
        (1 << 40, b"x" * 300_000),
        (0, b"HEAD"),
        END,
    ]


def test_a_stream_that_is_not_complete_has_no_end(fifo: tuple[str, int]) -> None:
    path, fd = fifo
    with open_target(path) as target:
        reader = Reader(fd)
        target.pwrite(b"head", 0)
    assert records(reader.rest()) == [(0, b"head")]


def test_a_pipe_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    with refused(errno.ENXIO, "no process reads it: start the reader first"):
        open_target(path)


def test_a_reader_that_has_gone_is_an_error(fifo: tuple[str, int], tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    with adopt_target(theirs, "the pipe") as target:
        os.close(ours)
        with refused(errno.EPIPE, r"cannot write to the pipe: Broken pipe \(no process reads it"):
            target.pwrite(b"head", 0)
        with refused(errno.EPIPE, "Broken pipe"):
            target.complete()


def test_a_reader_that_stands_still_is_given_up(fifo: tuple[str, int]) -> None:
    path, _ = fifo
    with (
        open_target(path) as target,
        pytest.raises(TargetError, match="no process reads it") as caught,
        target.patience(0.1),
    ):
        target.pwrite(bytes(1 << 20), 0)
    assert caught.value.errno == errno.ECANCELED


def test_patience_ends_with_its_block(fifo: tuple[str, int]) -> None:
    """Later writes may take as long as they like."""
    path, fd = fifo
    with open_target(path) as target:
        reader = Reader(fd)
        with target.patience(3600):
            target.pwrite(b"a", 0)
        assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
        target.pwrite(b"b", 1)
    assert records(reader.rest()) == [(0, b"a"), (1, b"b")]


def test_nothing_can_be_read_back(fifo: tuple[str, int]) -> None:
    with open_target(fifo[0]) as target:
        assert target.size == 0
        with refused(errno.ESPIPE, "Illegal seek"):
            target.pread(1, 0)


def test_formats_that_go_there(fifo: tuple[str, int], tmp_path: Path) -> None:
    with open_target(fifo[0]) as target:
        target.check_format("kdump")
        target.check_format("elf")
        with pytest.raises(UsageError, match="a pipe, and format raw needs a device or a file"):
            target.check_format("raw")
    with open_target(tmp_path / "file") as target:
        target.check_format("raw")


def test_a_closed_pipe_says_so(fifo: tuple[str, int]) -> None:
    target = open_target(fifo[0])
    target.abandon()
    target.close()
    with refused(errno.EBADF, "Bad file descriptor"):
        target.pwrite(b"x", 0)


def test_the_reading_end_and_sidecars_are_refused(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    with pytest.raises(TargetError, match="it is a pipe"):
        adopt_sidecar(theirs, "the pipe")
    with pytest.raises(TargetError) as caught:
        adopt_target(ours, "the pipe")
    assert caught.value.errno == errno.EACCES
    for fd in (ours, theirs):  # both were taken over
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
