# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a snapshot is read before SWEEP: through the mount, and from Python.

Through the mount: mem.raw and vmcore of a machine that stands still, whose memory is all allocated,
served by another process; compared with a tmpfs file with the bytes of mem.raw. From Python: a
snapshot of an arena in this process, compared with a numpy copy of that memory. Each way reads the
same offsets, in turn. O_DIRECT is used, or the page cache is emptied of earlier reads.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from measurement import Bar, Effort, Measurement
from memory_content import RANDOM, fill
from snapshot import MEMORY, host, root

from livedumpfs import Arena, LiveDump
from livedumpfs.dump.instant import Snapshot
from livedumpfs.units import PAGE_SIZE, format_size

SEQUENTIAL, RANDOM_PAGES = "sequential 1 MiB", "random 4 KiB"
AGAIN = "random 4 KiB, second time"
AGAIN_MOST = 256 << 20
"""Bytes that are read twice."""
AGAIN_BAR = 2.0
"""GB a second."""
PIECE = 1 << 20
_SEED = 6

Read = Callable[[int, int], int]
"""read(offset, length): number of bytes read."""


def offsets(pattern: str, size: int, pages: int) -> tuple[Sequence[int], int]:
    """The offsets to read, and the length of each read."""
    if pattern == SEQUENTIAL:
        return range(0, size, PIECE), PIECE
    chosen = random.Random(_SEED)
    return [chosen.randrange(size // PAGE_SIZE) * PAGE_SIZE for _ in range(pages)], PAGE_SIZE


@contextlib.contextmanager
def file_reader(path: Path, direct: bool) -> Iterator[Read]:
    """preadv of an open file into one aligned buffer."""
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    buffer = mmap.mmap(-1, PIECE)
    view = memoryview(buffer)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def read(offset: int, length: int) -> int:
        return os.preadv(fd, [view[:length]], offset)

    try:
        yield read
    finally:
        os.close(fd)
        view.release()
        buffer.close()


@contextlib.contextmanager
def snapshot_reader(snapshot: Snapshot) -> Iterator[Read]:
    """Snapshot.read_into, into one buffer."""
    view = memoryview(bytearray(PIECE))

    def read(offset: int, length: int) -> int:
        snapshot.read_into(offset, view[:length])
        return length

    yield read


@contextlib.contextmanager
def copy_reader(arena: Arena) -> Iterator[Read]:
    """A numpy copy of live memory."""
    to = np.empty(PIECE, dtype=np.uint8)

    def read(offset: int, length: int) -> int:
        to[:length] = arena.live[offset : offset + length]
        return length

    yield read


Open = Callable[[], contextlib.AbstractContextManager[Read]]


def seconds(opened: Open, where: Sequence[int], length: int) -> float:
    """Seconds of all these reads."""
    with opened() as read:
        before = time.monotonic()
        for offset in where:
            if read(offset, length) != length:
                sys.exit(f"a short read at {offset}")
        return time.monotonic() - before


def seconds_again(path: Path, size: int) -> float:
    """Seconds of the second round over all pages of the file's first `size` bytes, in one order."""
    where = [page * PAGE_SIZE for page in range(size // PAGE_SIZE)]
    random.Random(_SEED).shuffle(where)
    # The loop itself must cost little: no slice for each read.
    buffers = [memoryview(bytearray(PAGE_SIZE))]
    with open(path, "rb") as file:
        fd = file.fileno()
        for _ in range(2):
            before = time.monotonic()
            read = sum(os.preadv(fd, buffers, offset) for offset in where)
            taken = time.monotonic() - before
            if read != size:
                sys.exit(f"{path}: a short read")
    return taken


class Comparison:
    """Ways to read the same amount, in turn."""

    def __init__(self, result: Measurement, effort: Effort, size: int) -> None:
        self.result = result
        self.size = size
        self.pages = effort.repeats(20_000, 2_000)
        self.repeats = effort.repeats(5, 1)

    def add(self, pattern: str, ways: dict[str, Open]) -> None:
        """Add a row for each way; the ratio is to the first one, pair by pair."""
        where, length = offsets(pattern, self.size, self.pages)
        self.add_timed(
            pattern,
            len(where) * length,
            {n: lambda o=o: seconds(o, where, length) for n, o in ways.items()},
        )

    def add_timed(
        self, pattern: str, size: int, ways: dict[str, Callable[[], float]]
    ) -> dict[str, float]:
        """As add, for ways that measure their own time. Returns the median rate of each."""
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(self.repeats):
            for name, way in ways.items():
                times[name].append(way())
        first = next(iter(times.values()))
        medians = {}
        for name, one in times.items():
            rates = sorted(size / taken for taken in one)
            ratio = statistics.median(a / b for a, b in zip(first, one, strict=True))
            medians[name] = statistics.median(rates)
            middle = f"{format_size(medians[name])}/s"
            spread = f"{format_size(rates[0])}/s to {format_size(rates[-1])}/s"
            self.result.rows.append([pattern, name, middle, spread, f"{ratio:.2f}"])
            self.result.samples += [
                {"pattern": pattern, "way": name, "bytes": size, "seconds": taken} for taken in one
            ]
        return medians


def compare_mount(comparison: Comparison, folder: Path) -> None:
    """Files of snapshot/, and a tmpfs file."""
    with host(comparison.size, "--idle") as client, tempfile.NamedTemporaryFile(dir=MEMORY) as same:
        client.init(str(folder / "target"))
        client.start()
        raw, core = root(client) / "mem.raw", root(client) / "vmcore"
        with open(raw, "rb") as source:
            while piece := source.read(PIECE):
                same.write(piece)
        same.flush()
        ways: dict[str, Open] = {"file on tmpfs": lambda: file_reader(Path(same.name), False)}
        for path in (raw, core):
            for direct in (False, True):
                name = f"{path.name}, {'O_DIRECT' if direct else 'plain'}"
                ways[name] = lambda p=path, d=direct: file_reader(p, d)
        for pattern in (SEQUENTIAL, RANDOM_PAGES):
            comparison.add(pattern, ways)
        add_again(comparison, [Path(same.name), raw])
        client.release()


def add_again(comparison: Comparison, paths: Sequence[Path]) -> None:
    """Pages that the page cache has; the bar is that of the last file."""
    size = min(comparison.size, AGAIN_MOST)
    ways = {p.name: lambda p=p: seconds_again(p, size) for p in paths}
    rates = comparison.add_timed(AGAIN, size, ways)
    found = rates[paths[-1].name] / 1e9
    comparison.result.bars.append(Bar(f"{paths[-1].name}, {AGAIN}: GB/s", found, AGAIN_BAR))


def compare_python(comparison: Comparison, folder: Path) -> None:
    """Reads of a snapshot, and of a named array, in the process that has the memory."""
    size = comparison.size
    with Arena(size) as arena, LiveDump(arena) as dump:
        array = arena.array("u1", size, name="all")
        fill(arena.live, RANDOM)
        dump.init(folder / "target")
        dump.start()
        snapshot = dump.snapshot
        ways: dict[str, Open] = {
            "numpy copy": lambda: copy_reader(arena),
            "Snapshot.read_into": lambda: snapshot_reader(snapshot),
        }
        for pattern in (SEQUENTIAL, RANDOM_PAGES):
            comparison.add(pattern, ways)
        whole: dict[str, Callable[[], float]] = {
            "numpy copy": lambda: timed(array.copy),
            "Snapshot.array": lambda: timed(lambda: snapshot.array("all")),
        }
        comparison.add_timed("whole array", size, whole)


def timed(act: Callable[[], object]) -> float:
    """Seconds of one call."""
    before = time.monotonic()
    act()
    return time.monotonic() - before


def measure(effort: Effort) -> Measurement:
    """The whole measurement."""
    size = min(64 << 20 if effort.quick else 512 << 20, effort.largest)
    result = Measurement(
        "reads",
        f"Reading a snapshot of {format_size(size)}",
        ["pattern", "way", "rate", "spread", "ratio"],
    )
    result.notes.append("Ratio: to the first way of its group, median over the turns.")
    comparison = Comparison(result, effort, size)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        compare_mount(comparison, Path(folder))
        compare_python(comparison, Path(folder))
    return result
