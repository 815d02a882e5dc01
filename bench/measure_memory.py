# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump takes beside the machine's memory: private pages and page tables, at their peak.

The machine's memory is all there and its vCPU writes hard to all of it; the target is a file in
memory, which is in nobody's figure. Each way has a process of its own, which counts from the moment
when the memory was filled and a small dump of another arena had been taken: so the fixed cost of
Python and of what it loads is apart. The memory of the arena itself is shared, whichever view shows
it, and counts once. fork's figure is that of parent and child together, when the child has written
all; its memory is private, as it must be, and the parent stores at random meanwhile.
"""

from __future__ import annotations

import mmap
import os
import re
import select
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from apart import apart
from measurement import Bar, Effort, Measurement

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.machines import UnicornMachine
from livedumpfs.units import PAGE_SIZE, format_size

SHARED = Path("/dev/shm")
READY = DEADLINE = 300.0
SAMPLE_S = 0.002
PIECE = 1 << 20
BURST = 4096
"""Stores of the forking parent between two looks at whether its child has ended."""
LIMIT = 1.0
"""Percent of the memory, beyond the pool."""
WAYS = {
    "swap, block": DumpSettings(),
    "swap, spill": DumpSettings(policy="spill"),
    "mprotect in place": DumpSettings(arming="mprotect"),
    "userfaultfd": DumpSettings(backend="uffd"),
    "kdump, zstd": DumpSettings(format="kdump"),
}


@dataclass(frozen=True)
class Peak:
    """Bytes beyond what was there before. `pool`: of it, the slots as they were allowed."""

    private: int
    tables: int
    pool: int = 0

    @property
    def beyond(self) -> int:
        """Without the pool."""
        return self.private + self.tables - self.pool


def usage(pid: int | str = "self") -> dict[str, int]:
    """Of a process, in bytes: private memory and page tables."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = dict(re.findall(r"^(RssAnon|VmPTE):\s+(\d+) kB$", text, re.MULTILINE))
    return {name: int(value) << 10 for name, value in found.items()}


class Watch:
    """The peak while the block runs, sampled by a thread."""

    def __init__(self) -> None:
        self.before = usage()
        self.peak = dict(self.before)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self.look()

    def _sample(self) -> None:
        while not self._end.wait(SAMPLE_S):
            self.look()

    def look(self) -> None:
        """One sample."""
        now = usage()
        self.peak = {name: max(now[name], value) for name, value in self.peak.items()}

    def above(self, pool: int) -> Peak:
        """What came on top."""
        private, tables = (self.peak[name] - self.before[name] for name in ("RssAnon", "VmPTE"))
        return Peak(private, tables, pool)


def take(dump: LiveDump, path: Path, settings: DumpSettings) -> int:
    """One whole dump; bytes of its pool at the end."""
    dump.init(str(path), settings)
    try:
        dump.start()
        dump.sweep()
        verdict = dump.finish(DEADLINE)
        counters = dump.counters()
        if verdict != "consistent":
            raise RuntimeError(f"the dump to {path} is {verdict}: {dump.failure}")
        return counters.slots * counters.granule_size
    finally:
        dump.release()


def warm_up(path: Path, settings: DumpSettings) -> None:
    """A small dump of another arena: what a process loads once is loaded then."""
    with Arena(PIECE) as arena, LiveDump(arena) as dump:
        arena.live[:] = 1
        take(dump, path, settings)


def ours(size: int, way: str) -> Peak:
    """Of one dump, the first of its process: the second one finds what the first has left."""
    with tempfile.TemporaryDirectory(dir=SHARED) as folder, UnicornMachine(size) as machine:
        machine.wait_ready(READY)
        warm_up(Path(folder, "small"), WAYS[way])
        with LiveDump(machine) as dump, Watch() as watch:
            pool = take(dump, Path(folder, "dump"), WAYS[way])
    return watch.above(pool)


def fork(size: int) -> Peak:
    """Of parent and child, beyond the parent alone before."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    pages = np.frombuffer(memory, dtype=np.uint64).reshape(-1, PAGE_SIZE // 8)
    pages[:] = 1
    before = usage()
    with tempfile.TemporaryDirectory(dir=SHARED) as folder:
        child, written, hold = _forked(memory, os.path.join(folder, "dump"))
        try:
            _store_until(written, pages)
            if not os.read(written, 1):
                raise RuntimeError("fork's child could not write all of the memory")
            private = _private(os.getpid()) + _private(child)
            tables = usage()["VmPTE"] + usage(child)["VmPTE"]
        finally:
            os.close(hold)
            os.waitpid(child, 0)
    return Peak(private - before["RssAnon"], tables - before["VmPTE"])


def _forked(memory: mmap.mmap, path: str) -> tuple[int, int, int]:
    """A child that writes all of the memory, says so, and stays: its pid, the pipe on which it
    speaks, and the pipe that keeps it until closed."""
    written, done = os.pipe()
    wait, hold = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(hold)
            _write_all(memory, path)
            os.write(done, b".")
            os.read(wait, 1)
        finally:
            os._exit(0)
    os.close(done)
    os.close(wait)
    return child, written, hold


def _write_all(memory: mmap.mmap, path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    view = memoryview(memory)
    for offset in range(0, len(view), PIECE):
        os.write(fd, view[offset : offset + PIECE])
    os.fdatasync(fd)


def _store_until(written: int, pages: npt.NDArray[np.uint64]) -> None:
    """Stores at random until the child has spoken or ended."""
    random = np.random.default_rng(1)
    deadline = time.monotonic() + DEADLINE
    while not select.select([written], [], [], 0)[0]:
        pages[random.integers(0, len(pages), BURST), 0] += 1
        if time.monotonic() > deadline:
            raise RuntimeError(f"fork's child has not written all within {DEADLINE:g} s")


def _private(pid: int) -> int:
    """Bytes of private memory, a page that two processes share by halves."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss_Anon:\s+(\d+) kB$", rollup, re.MULTILINE)
    if not found:
        raise RuntimeError("this kernel does not tell Pss_Anon")
    return int(found[1]) << 10


def sizes(effort: Effort) -> list[int]:
    """Bytes of the machines' memory: with fork's copies and the target there is three times as
    much."""
    wanted = [512 << 20] if effort.quick else [1 << 30, 4 << 30]
    most = effort.largest // (2 if effort.quick else 4)
    return sorted({min(size, most) for size in wanted})


def add(result: Measurement, size: int, way: str, peak: Peak, seconds: float) -> None:
    """Its row, and its sample."""
    percent = 100 * peak.beyond / size
    cells = [format_size(n) for n in (peak.private, peak.tables, peak.pool, peak.beyond)]
    result.rows.append([format_size(size), way, *cells, f"{percent:.2f} %"])
    result.samples.append({"bytes": size, "way": way, "seconds": seconds, **asdict(peak)})
    if way != "fork":
        text = f"{format_size(size)}, {way}: % of the memory beyond the pool"
        result.bars.append(Bar(text, percent, LIMIT, at_least=False))


def measure(effort: Effort) -> Measurement:
    """All ways at each size."""
    result = Measurement(
        "memory",
        "Memory that a dump takes beside the machine's",
        ["RAM", "way", "private", "page tables", "pool", "beyond pool", "of RAM"],
    )
    result.notes.append(
        "Peaks of one dump each, beyond what was there before; page tables of the view that every "
        "machine has are not in it."
    )
    for size in sizes(effort):
        for way in ("swap, block", "kdump, zstd") if effort.quick else WAYS:
            before = time.monotonic()
            peak = apart(ours, size, way)
            add(result, size, way, peak, time.monotonic() - before)
        before = time.monotonic()
        add(result, size, "fork", apart(fork, size), time.monotonic() - before)
    return result
