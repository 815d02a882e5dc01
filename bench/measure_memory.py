# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that a dump takes beside the machine's: private pages, page tables, and the kernel's
memory for mappings, at their peak. (A granule that is made writable alone splits one mapping into
three.)

The machine's memory is all allocated and its vCPU writes hard to all of it. The target is a file in
memory, which no figure includes. Each way has its own process. It counts from the moment when the
memory is filled and small dumps of another arena were taken: what Python loads once is not in the
figures, and the fixed cost of a dump is known. The arena's memory is shared, whichever view shows
it, and counts once. The figure of fork is that of parent and child together, when the child has
written all. Its memory is private, as fork needs it, and the parent stores at random meanwhile.
"""

from __future__ import annotations

import mmap
import os
import re
import select
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
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
MAPS_S = 0.05
"""Seconds between two counts of mappings, each of which may take 20 ms."""
MAPPING = 256
"""Bytes of one mapping, where /proc/slabinfo cannot be read."""
PIECE = 1 << 20
BURST = 4096
"""Stores of the forking parent between two checks whether its child has ended."""
LIMIT = 1.0
"""Most percent of the memory, beyond the pool."""
WAYS = {
    "swap, block": DumpSettings(),
    "swap, spill": DumpSettings(policy="spill"),
    "mprotect in place": DumpSettings(arming="mprotect"),
    "userfaultfd": DumpSettings(backend="uffd"),
    "kdump, zstd": DumpSettings(format="kdump"),
}
FORK = "fork"
FEW_WAYS = ("swap, block", FORK)
"""The ways for a quick run, and for the larger size, which takes long to fill."""


@dataclass(frozen=True)
class Peak:
    """Bytes beyond those in use before. Of these, `pool`: the slots, as configured; `fixed`: what a
    dump takes whatever the size of the memory."""

    private: int
    tables: int
    mappings: int
    pool: int = 0
    fixed: int = 0

    @property
    def beyond(self) -> int:
        """Bytes without pool and fixed cost."""
        return self.private + self.tables + self.mappings - self.pool - self.fixed


def usage(pid: int | str = "self") -> dict[str, int]:
    """Private memory and page tables of a process, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = dict(re.findall(r"^(RssAnon|VmPTE):\s+(\d+) kB$", text, re.MULTILINE))
    return {name: int(value) << 10 for name, value in found.items()}


def mappings() -> int:
    """Number of mappings of this process. Read in pieces: the whole text would be in the
    figures."""
    lines = 0
    with open("/proc/self/maps", "rb", buffering=0) as text:
        while piece := text.read(1 << 16):
            lines += piece.count(b"\n")
    return lines


def mapping_size() -> int:
    """Bytes that the kernel takes for one mapping, without its place in the tree (a tenth more)."""
    try:
        slabs = Path("/proc/slabinfo").read_text()
    except PermissionError:
        return MAPPING
    found = re.search(r"^vm_area_struct\s+\d+\s+\d+\s+(\d+)", slabs, re.MULTILINE)
    return int(found[1]) if found else MAPPING


class Watch:
    """Samples the peak in a thread while the block runs."""

    def __init__(self) -> None:
        self.before = self._now()
        self.peak = dict(self.before)
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._sample, args=one)
            for one in ((SAMPLE_S, usage), (MAPS_S, self._count))
        ]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _now(self) -> dict[str, int]:
        return {**usage(), **self._count()}

    @staticmethod
    def _count() -> dict[str, int]:
        return {"mappings": mappings()}

    def _sample(self, pause: float, look: Callable[[], dict[str, int]]) -> None:
        while not self._end.wait(pause):
            for name, value in look().items():
                self.peak[name] = max(value, self.peak[name])

    def above(self, pool: int, fixed: int = 0) -> Peak:
        """The peak beyond the start."""
        more = {name: self.peak[name] - value for name, value in self.before.items()}
        return Peak(more["RssAnon"], more["VmPTE"], more["mappings"] * mapping_size(), pool, fixed)


def take(dump: LiveDump, path: Path, settings: DumpSettings) -> int:
    """Take one whole dump. Returns the bytes of its pool at the end."""
    dump.init(str(path), settings)
    try:
        dump.start()
        dump.sweep()
        dump.finish(DEADLINE)
        counters = dump.counters()
        return counters.slots * counters.granule_size
    finally:
        dump.release()


def fixed_cost(folder: Path, settings: DumpSettings) -> int:
    """Bytes that a dump of a very small memory takes beyond its pool: threads and compressors.
    Python has loaded its modules before."""
    with Arena(PIECE) as arena, LiveDump(arena) as dump:
        arena.live[:] = 1
        take(dump, folder / "small", settings)
        with Watch() as watch:
            pool = take(dump, folder / "small", settings)
    return max(0, watch.above(pool).beyond)


def ours(size: int, way: str) -> Peak:
    """The peak of one dump, the first of its process: a second one would reuse memory of the
    first."""
    with tempfile.TemporaryDirectory(dir=SHARED) as made, UnicornMachine(size) as machine:
        folder, settings = Path(made), replace(WAYS[way], force=True)
        machine.wait_ready(READY)
        fixed = fixed_cost(folder, settings)
        with LiveDump(machine) as dump, Watch() as watch:
            pool = take(dump, folder / "dump", settings)
    return watch.above(pool, fixed)


def fork(size: int) -> Peak:
    """The peak of parent and child, beyond the parent alone before."""
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
    # The child's mappings are not counted: they are a few dozen.
    return Peak(private - before["RssAnon"], tables - before["VmPTE"], 0)


def _forked(memory: mmap.mmap, path: str) -> tuple[int, int, int]:
    """A child that writes all of the memory, reports that, and stays. Returns its pid, the pipe for
    its report, and the pipe that keeps it alive until closed."""
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
    """Store at random until the child has reported or ended."""
    random = np.random.default_rng(1)
    deadline = time.monotonic() + DEADLINE
    while not select.select([written], [], [], 0)[0]:
        pages[random.integers(0, len(pages), BURST), 0] += 1
        if time.monotonic() > deadline:
            raise RuntimeError(f"fork's child has not written all within {DEADLINE:g} s")


def _private(pid: int) -> int:
    """Bytes of private memory; half of a page that two processes share."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss_Anon:\s+(\d+) kB$", rollup, re.MULTILINE)
    if not found:
        raise RuntimeError("this kernel does not tell Pss_Anon")
    return int(found[1]) << 10


def sizes(effort: Effort) -> list[int]:
    """Bytes of the machines' memory. fork's copies and the target need three times as much."""
    wanted = [256 << 20] if effort.quick else [1 << 30, 4 << 30]
    most = effort.largest // (2 if effort.quick else 4)
    return sorted({min(size, most) for size in wanted})


def add(result: Measurement, size: int, way: str, peak: Peak, seconds: float) -> None:
    """Add its row, and its sample."""
    percent = 100 * peak.beyond / size
    cells = [format_size(n) for n in (*astuple(peak), peak.beyond)]
    result.rows.append([format_size(size), way, *cells, f"{percent:.2f} %"])
    result.samples.append({"bytes": size, "way": way, "seconds": seconds, **asdict(peak)})
    if way != FORK:
        text = f"{format_size(size)}, {way}: % of the memory beyond pool and fixed cost"
        result.bars.append(Bar(text, percent, LIMIT, at_least=False))


def measure(effort: Effort) -> Measurement:
    """All ways at each size."""
    result = Measurement(
        "memory",
        "Memory that a dump takes beside the machine's",
        ["RAM", "way", "private", "page tables", "mappings", "pool", "fixed", "rest", "of RAM"],
    )
    result.notes.append(
        "Peaks of one dump each, beyond what was there before; page tables of the view that every "
        "machine has are not in it. Fixed: what a dump of 1 MiB takes, its pool apart."
    )
    for i, size in enumerate(sizes(effort)):
        for way in FEW_WAYS if effort.quick or i else [*WAYS, FORK]:
            before = time.monotonic()
            peak = apart(fork, size) if way == FORK else apart(ours, size, way)
            add(result, size, way, peak, time.monotonic() - before)
    return result
