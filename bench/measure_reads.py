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
from measurement import Effort, Measurement
from memory_content import RANDOM, fill
from snapshot import MEMORY, host, root

from livedumpfs import Arena, LiveDump
from livedumpfs.dump.instant import Snapshot
from livedumpfs.units import PAGE_SIZE, format_size

SEQUENTIAL, RANDOM_PAGES = "sequential 1 MiB", "random 4 KiB"
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

    def add_timed(self, pattern: str, size: int, ways: dict[str, Callable[[], float]]) -> None:
        """As add, for ways that measure their own time."""
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(self.repeats):
            for name, way in ways.items():
                times[name].append(way())
        first = next(iter(times.values()))
        for name, one in times.items():
            rates = sorted(size / taken for taken in one)
            ratio = statistics.median(a / b for a, b in zip(first, one, strict=True))
            middle = f"{format_size(statistics.median(rates))}/s"
            spread = f"{format_size(rates[0])}/s to {format_size(rates[-1])}/s"
            self.result.rows.append([pattern, name, middle, spread, f"{ratio:.2f}"])
            self.result.samples += [
                {"pattern": pattern, "way": name, "bytes": size, "seconds": taken} for taken in one
            ]


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
        client.release()


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
