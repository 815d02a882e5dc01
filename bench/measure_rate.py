# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a dump is written, and its cost, compared with pwrite and dd of the same memory.

The memory is not written meanwhile, so the sweep does all the work. Each way writes to the same
target, in turn, and is timed from its first write to the end of fdatasync. A file is emptied and
set to its size before that. Processor time is that of the process, with all its threads and system
calls. The time of a loop device's kernel thread is in no figure.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from measurement import Bar, Effort, Measurement
from memory_content import COMPRESSIBLE, CONTENTS, RANDOM, ZERO, fill

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.core.capi import lib
from livedumpfs.units import format_size

PIECE = 1 << 20
MARGIN = 16 << 20
"""Bytes of a loop device beyond the memory: for headers and table."""
DEADLINE = 600.0
MEMORY = Path("/dev/shm")
"""A tmpfs."""
BUILD = Path(__file__).resolve().parents[1] / "build"
RATE_BAR = 0.9
ZERO_BAR = 4.0
MAKEDUMPFILE = {"none": [], "zlib": ["-c"], "lzo": ["-l"], "snappy": ["-p"], "zstd": ["-z"]}
TMPFS = "tmpfs"
PWRITE, DD, OURS = "pwrite", "dd", "livedump"


@dataclass(frozen=True)
class Place:
    """A target. `block`: it is a device, else a file that each way makes anew."""

    kind: str
    path: Path
    block: bool = False


@dataclass(frozen=True)
class Cost:
    """The cost of one run."""

    seconds: float
    cpu: float
    """Seconds of processor time."""


# ------------------------------------------------------------------------- ways


@contextlib.contextmanager
def counted(who: int = resource.RUSAGE_SELF) -> Iterator[Callable[[], float]]:
    """Gives a function that returns the seconds of processor time since the start of the block."""

    def now() -> float:
        used = resource.getrusage(who)
        return used.ru_utime + used.ru_stime

    before = now()
    yield lambda: now() - before


def empty(place: Place, size: int) -> None:
    """Put a target into the state in which a dump's INIT leaves it."""
    if not place.block:
        with open(place.path, "wb") as file:
            file.truncate(size)


def plain(arena: Arena, place: Place, direct: bool) -> Cost:
    """pwrite of the live view in pieces of a MiB, and fdatasync."""
    empty(place, arena.size)
    fd = os.open(place.path, os.O_RDWR | (os.O_DIRECT if direct else 0))
    memory = memoryview(arena.live)
    try:
        with counted() as cpu:
            before = time.monotonic()
            for offset in range(0, arena.size, PIECE):
                if os.pwrite(fd, memory[offset : offset + PIECE], offset) != PIECE:
                    sys.exit(f"{place.path}: a short write")
            os.fdatasync(fd)
            return Cost(time.monotonic() - before, cpu())
    finally:
        os.close(fd)


def dd(arena: Arena, place: Place, direct: bool) -> Cost:
    """dd of the memory, as a file, with fdatasync."""
    empty(place, arena.size)
    memory = f"/proc/{os.getpid()}/fd/{lib.ldfs_arena_memfd(arena.handle)}"
    command = ["dd", f"if={memory}", f"of={place.path}", "bs=1M", "conv=notrunc,fdatasync"]
    with counted(resource.RUSAGE_CHILDREN) as cpu:
        before = time.monotonic()
        run(*command, *(["oflag=direct"] if direct else []))
        return Cost(time.monotonic() - before, cpu())


def ours(dump: LiveDump, place: Place, settings: DumpSettings) -> Cost:
    """SWEEP to the end of the drain, the sync included."""
    dump.init(place.path, settings)
    try:
        dump.start()
        with counted() as cpu:
            dump.sweep()
            dump.finish(DEADLINE)
            used = cpu()
        counters = dump.counters()
        return Cost((counters.drained_ns - counters.sweep_start_ns) / 1e9, used)
    finally:
        dump.release()


def run(*command: str | Path) -> None:
    """Run a program that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")


# ----------------------------------------------------------------------- places


def obstacle() -> str:
    """Why there is no loop device here; empty: there is one."""
    if os.geteuid():
        return "loop devices need root"
    if not os.path.exists("/dev/loop-control"):
        return "this kernel has no loop devices"
    return "" if shutil.which("losetup") else "losetup is not installed"


@contextlib.contextmanager
def loop_device(folder: Path, size: int) -> Iterator[Place]:
    """A loop device over a file in `folder`."""
    backing = folder / "loop.img"
    with open(backing, "wb") as file:
        file.truncate(size)
    command = ["losetup", "--find", "--show", str(backing)]
    device = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield Place("loop device", Path(device), block=True)
    finally:
        run("losetup", "-d", device)


@contextlib.contextmanager
def places(size: int, notes: list[str]) -> Iterator[list[Place]]:
    """A file in memory, a file on the disk that holds build/, and a loop device there."""
    BUILD.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=BUILD)))
        found = [Place(TMPFS, memory / "target"), Place("file", disk / "target")]
        if why := obstacle():
            notes.append(f"No loop device: {why}.")
        else:
            found.append(stack.enter_context(loop_device(disk, size + MARGIN)))
        yield found


# ---------------------------------------------------------------------- in turns


class Comparison:
    """Several ways to write to one place, in turn."""

    def __init__(self, result: Measurement, size: int, repeats: int) -> None:
        self.result = result
        self.size = size
        self.repeats = repeats

    def add(
        self, where: str, content: str, ways: dict[str, Callable[[], Cost]]
    ) -> dict[str, float]:
        """Add a row for each way. Returns for each way the median of its rate relative to the first
        way; each pair is of the same turn."""
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for _ in range(self.repeats):
            for name, way in ways.items():
                costs[name].append(way())
        first = next(iter(costs.values()))
        ratios = {
            name: statistics.median(a.seconds / b.seconds for a, b in zip(first, one, strict=True))
            for name, one in costs.items()
        }
        for name, one in costs.items():
            self._row(where, content, name, one, ratios[name])
        return ratios

    def _row(self, where: str, content: str, name: str, costs: list[Cost], ratio: float) -> None:
        rates = sorted(self.size / cost.seconds for cost in costs)
        cpu = statistics.median(cost.cpu for cost in costs) * (1 << 30) / self.size
        middle = f"{format_size(statistics.median(rates))}/s"
        spread = f"{format_size(rates[0])}/s to {format_size(rates[-1])}/s"
        self.result.rows.append(
            [where, content, name, middle, spread, f"{ratio:.2f}", f"{cpu:.2f}"]
        )
        self.result.samples += [
            {"target": where, "content": content, "way": name, "bytes": self.size, **asdict(cost)}
            for cost in costs
        ]


def takes_direct(place: Place) -> bool:
    """Whether O_DIRECT works there. A tmpfs accepts it, but copies all the same."""
    if place.kind == TMPFS:
        return False
    try:
        os.close(os.open(place.path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


def compare_way(
    comparison: Comparison, arena: Arena, dump: LiveDump, place: Place, content: str, direct: bool
) -> None:
    """One target and one content; all ways buffered, or all direct."""
    settings = DumpSettings(force=True, buffered=not direct)
    ways = {
        PWRITE: lambda: plain(arena, place, direct),
        OURS: lambda: ours(dump, place, settings),
    }
    if content == RANDOM:
        ways[DD] = lambda: dd(arena, place, direct)
    where = f"{place.kind}, {'direct' if direct else 'buffered'}"
    ratios = comparison.add(where, content, ways)
    limit = {RANDOM: RATE_BAR, ZERO: ZERO_BAR}.get(content)
    if limit:
        text = f"{where}, {content}: rate over that of pwrite"
        comparison.result.bars.append(Bar(text, ratios[OURS], limit))


# ------------------------------------------------------------------------- kdump


def makedumpfile_can(option: list[str], core: Path, folder: Path) -> bool:
    """Whether makedumpfile was built with that compression; Debian leaves some out."""
    command = ["makedumpfile", *option, "-d", "0", core, folder / "trial"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    (folder / "trial").unlink(missing_ok=True)
    return done.returncode == 0 and "disabled" not in done.stdout + done.stderr


def makedumpfile(option: list[str], core: Path, made: Path) -> Cost:
    """makedumpfile on an ELF dump in memory with the same bytes."""
    made.unlink(missing_ok=True)
    with counted(resource.RUSAGE_CHILDREN) as cpu:
        before = time.monotonic()
        run("makedumpfile", *option, "-d", "0", core, made)
        return Cost(time.monotonic() - before, cpu())


def compare_kdump(comparison: Comparison, dump: LiveDump, folder: Path) -> None:
    """Each compression, to a tmpfs, compared with makedumpfile."""
    core, made = folder / "core", folder / "theirs"
    ours(dump, Place("core", core), DumpSettings())
    known = shutil.which("makedumpfile") is not None
    for compression, option in MAKEDUMPFILE.items():
        settings = DumpSettings(format="kdump", compression=compression, force=True)
        place = Place("kdump", folder / "ours")
        ways = {OURS: lambda p=place, s=settings: ours(dump, p, s)}
        if known and makedumpfile_can(option, core, folder):
            theirs = {"makedumpfile": lambda o=option: makedumpfile(o, core, made)}
            ways = theirs | ways
        comparison.add(f"kdump {compression}", COMPRESSIBLE, ways)


def measure_kdump(result: Measurement, effort: Effort, size: int) -> None:
    """With less memory, because it is slower."""
    result.notes.append(f"kdump: {format_size(size)} to a tmpfs, as many threads as processors.")
    comparison = Comparison(result, size, effort.repeats(3, 1))
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        Arena(size) as arena,
        LiveDump(arena) as dump,
    ):
        fill(arena.live, COMPRESSIBLE)
        compare_kdump(comparison, dump, Path(folder))


# ------------------------------------------------------------------ the measurement


def measure(effort: Effort) -> Measurement:
    """The whole measurement."""
    size = min(64 << 20 if effort.quick else 512 << 20, effort.largest)
    result = Measurement(
        "rate",
        f"Dump rate, {format_size(size)}",
        ["target", "content", "way", "rate", "spread", "ratio", "CPU s/GiB"],
    )
    result.notes.append("Ratio: to the first way of its group, median over the turns.")
    comparison = Comparison(result, size, effort.repeats(5, 1))
    with places(size, result.notes) as targets, Arena(size) as arena, LiveDump(arena) as dump:
        for content in CONTENTS:
            fill(arena.live, content)
            for place in targets:
                for direct in (False, True)[: 1 + takes_direct(place)]:
                    compare_way(comparison, arena, dump, place, content, direct)
    measure_kdump(result, effort, size // 4)
    return result
