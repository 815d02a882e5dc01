# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps into a store beside other ways to keep the same image, and what hashing costs.

The machine's memory is not written meanwhile. All write to the disk that holds build/, and each is
timed until its data is durable: casync, borg and restic with the `sync` of the file system behind
them. They read the image from a tmpfs, so they need not wait for a disk; livedumpfs reads the
machine's memory. Each way has an empty file system each time. The program that dumps is the
machine's, so ours starts a process for the store, as theirs are started.
"""

from __future__ import annotations

import contextlib
import hashlib
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
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash
import zstandard
from measure_rate import counted, obstacle
from measurement import Bar, Effort, Measurement
from mixed_memory import SHARES, fill_mixed

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.stores import create_store
from livedumpfs.stores.chunk import DIGEST, Digest
from livedumpfs.units import format_size

BUILD = Path(__file__).resolve().parents[1] / "build"
MEMORY = Path("/dev/shm")
DEADLINE = 1800.0
CHUNK = 64 << 10
FULL_SIZE, QUICK_SIZE = 2 << 30, 256 << 20
LARGER = (256 << 10, 1 << 20)
CHANGED = 0.01
OURS, FILE, KDUMP = "dump to a store", "dump to a file (elf)", "dump to a file (kdump, zstd)"
BAR: Final = 2.0
ENVIRONMENT: Final = {
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    "RESTIC_PASSWORD": "measured",
}

Way = Callable[[Path], None]
"""Keeps the image in that folder, which is empty at first."""


def run(folder: Path, *words: str | Path, stdin: Path | None = None) -> None:
    """Run a program that must succeed. Its caches are in `folder`."""
    caches = {name: str(folder / "cache") for name in ("BORG_BASE_DIR", "RESTIC_CACHE_DIR")}
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(open(stdin, "rb")) if stdin else subprocess.DEVNULL
        done = subprocess.run(
            words, stdin=given, capture_output=True, text=True, timeout=DEADLINE, check=False,
            env={**os.environ, **ENVIRONMENT, **caches},
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr or done.stdout}")


def casync(image: Path, *more: str) -> Way:
    """`casync make` of the image."""

    def way(folder: Path) -> None:
        store, index = folder / "store.castr", folder / "image.caibx"
        run(folder, "casync", "make", *more, f"--store={store}", index, image)

    return way


def borg(image: Path, *more: str, chunk_size: int = CHUNK) -> Way:
    """`borg create` from standard input, with chunks of one size, not encrypted."""

    def way(folder: Path) -> None:
        place = folder / "repository"
        if not place.exists():
            run(folder, "borg", "init", "--encryption=none", place)
        name = f"{place}::{time.monotonic_ns()}"
        run(folder, "borg", "create", *more, "--chunker-params", f"fixed,{chunk_size}", name, "-",
            stdin=image)  # fmt: skip

    return way


def restic(image: Path) -> Way:
    """`restic backup --stdin`; it always encrypts."""

    def way(folder: Path) -> None:
        place = folder / "repository"
        if not place.exists():
            run(folder, "restic", "-r", place, "init")
        run(folder, "restic", "-r", place, "backup", "--stdin", stdin=image)

    return way


def save(dump: LiveDump, name: str, settings: DumpSettings, scheme: str = "") -> Way:
    """One of ours."""

    def way(folder: Path) -> None:
        dump.save(f"{scheme}{folder / name}", settings)

    return way


def save_chunks(dump: LiveDump, chunk_size: int = CHUNK, digest: Digest = DIGEST) -> Way:
    """Into a store with such chunks, and granules."""

    def way(folder: Path) -> None:
        place = f"store:{folder / 'store'}"
        if not (folder / "store").exists():
            create_store(place, chunk_size=chunk_size, digest=digest).close()
        dump.save(place)

    return way


def into_stores(dump: LiveDump) -> dict[str, Way]:
    """With chunks of the usual size, larger ones, and the slower hash."""
    larger = {f"{OURS}, chunks of {format_size(size)}": save_chunks(dump, size) for size in LARGER}
    usual = save(dump, "store", DumpSettings(), "store:")
    return {OURS: usual, **larger, f"{OURS}, SHA-512/256": save_chunks(dump, digest="sha512_256")}


def peers(image: Path) -> dict[str, Way]:
    """Those that are installed."""
    found: dict[str, Way] = {}
    if shutil.which("casync"):
        size = f"--chunk-size={CHUNK}:{CHUNK}:{CHUNK}"
        found |= {
            "casync make": casync(image),
            "casync make, chunks of 64 KiB": casync(image, size),
        }
    if shutil.which("borg"):
        found |= {
            "borg create, lz4": borg(image),
            "borg create, lz4, chunks of 256 KiB": borg(image, chunk_size=LARGER[0]),
            "borg create, zstd,1": borg(image, "-C", "zstd,1"),
        }
    if shutil.which("restic"):
        found["restic backup"] = restic(image)
    return found


# ---------------------------------------------------------------------- in turns


@contextlib.contextmanager
def empty_folder(size: int) -> Iterator[Path]:
    """On a new ext4 for each way, on the disk that holds build/: on one where much was deleted a
    new file takes ten times as long, for minutes (ext4 leaves their inodes alone). Without the
    right to mount: a folder there."""
    BUILD.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=BUILD)))
        if not obstacle():
            disk, folder = folder / "disk", folder / "mounted"
            folder.mkdir()
            with open(disk, "wb") as file:
                file.truncate(3 * size + (1 << 30))
            subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
            subprocess.run(["mount", "-o", "loop", disk, folder], check=True)
            stack.callback(subprocess.run, ["umount", folder], check=True)
        os.sync()
        yield folder


@dataclass(frozen=True)
class Cost:
    """Of one dump, until all is on the disk."""

    seconds: float
    cpu: float
    """Seconds of processor time, of all processes but the kernel's own."""


def timed(way: Way, folder: Path) -> Cost:
    """Run it."""
    with counted() as ours, counted(resource.RUSAGE_CHILDREN) as theirs:
        before = time.monotonic()
        way(folder)
        os.sync()
        return Cost(time.monotonic() - before, ours() + theirs())


def stored(folder: Path) -> int:
    """Bytes of the disk that all files below take."""
    return sum(
        os.lstat(os.path.join(place, name)).st_blocks * 512
        for place, _, names in os.walk(folder)
        for name in names
    )


def change(memory: npt.NDArray[np.uint8], turn: int) -> None:
    """Write random bytes into 1 % of the pages, in runs of 64 KiB that lie evenly."""
    rng = np.random.default_rng(turn)
    granules = len(memory) // CHUNK
    for one in rng.choice(granules, int(granules * CHANGED), replace=False):
        memory[one * CHUNK : (one + 1) * CHUNK] = np.frombuffer(rng.bytes(CHUNK), np.uint8)


def row(dump: str, name: str, costs: list[Cost], ours: float, size: int, kept: int) -> list[str]:
    """Of the table: medians."""
    seconds = statistics.median(one.seconds for one in costs)
    cpu = statistics.median(one.cpu for one in costs)
    rate = f"{format_size(int(size / seconds))}/s"
    times = f"{seconds / ours:.2f}"
    return [dump, name, f"{seconds:.2f} s", rate, times, f"{cpu:.2f} s", format_size(kept)]


def compare(result: Measurement, ways: dict[str, Way], size: int, repeats: int) -> dict[str, float]:
    """First dumps. A row for each way; the median of its seconds."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    kept: dict[str, int] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            with empty_folder(size) as folder:
                costs[name].append(timed(way, folder))
                kept[name] = stored(folder)
    middle = {name: statistics.median(c.seconds for c in one) for name, one in costs.items()}
    for name, one in costs.items():
        result.rows.append(row("first", name, one, middle[OURS], size, kept[name]))
        result.samples += [{"way": name, "bytes": size, **asdict(cost)} for cost in one]
    return middle


def second(result: Measurement, dump: LiveDump, memory: npt.NDArray[np.uint8], image: Path) -> None:
    """A dump after the first, of which 1 % has changed."""
    ways = {**into_stores(dump), **peers(image)}
    size = len(memory)
    with contextlib.ExitStack() as stack:
        folders = {name: stack.enter_context(empty_folder(size)) for name in ways}
        for name, way in ways.items():
            way(folders[name])
        had = {name: stored(folder) for name, folder in folders.items()}
        change(memory, 1)
        image.unlink()
        dump.save(str(image))
        took = {name: timed(way, folders[name]) for name, way in ways.items()}
        for name, cost in took.items():
            more = stored(folders[name]) - had[name]
            ours = took[OURS].seconds
            result.rows.append(row("1 % changed", name, [cost], ours, size, more))


# ------------------------------------------------------------------------ hashing


def hashing(result: Measurement, memory: npt.NDArray[np.uint8], repeats: int) -> None:
    """Seconds of one processor for a GiB in chunks."""
    some = memory[: 128 << 20]
    pieces = [memoryview(some[at : at + CHUNK]) for at in range(0, len(some), CHUNK)]
    compressor = zstandard.ZstdCompressor(level=1)
    kinds: dict[str, Callable[[memoryview], object]] = {
        "XXH3-64 (the granule table)": xxhash.xxh3_64_intdigest,
        "SHA-512/256": lambda piece: hashlib.new("sha512_256", piece).digest(),
        "SHA-256 (chunks)": lambda piece: hashlib.sha256(piece).digest(),
        "zstd, level 1": compressor.compress,
    }
    for name, work in kinds.items():
        times = []
        for _ in range(repeats):
            before = time.process_time()
            for piece in pieces:
                work(piece)
            times.append(time.process_time() - before)
        per_gib = statistics.median(times) * (1 << 30) / len(some)
        result.rows.append(["a GiB, one thread", name, "", "", "", f"{per_gib:.2f} s", ""])


def measure(effort: Effort) -> Measurement:
    """First and second dump, and hashing."""
    size = QUICK_SIZE if effort.quick else min(FULL_SIZE, effort.largest // 2)
    result = Measurement(
        "store",
        f"Dumps of {format_size(size)} into a store",
        ["dump", "way", "time", "rate", "time over ours", "processor", "on the disk"],
    )
    said = ", ".join(f"{share:.0%} {name}" for name, share in SHARES.items())
    result.notes.append(
        f"Content: {said}; the rest was never written. {os.cpu_count()} processors."
    )
    repeats = effort.repeats(3, 1)
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as place,
        Arena(size) as arena,
        LiveDump(arena) as dump,
    ):
        fill_mixed(arena.live)
        image = Path(place) / "image"
        dump.save(str(image))
        ours = {
            **into_stores(dump),
            FILE: save(dump, "dump", DumpSettings()),
            KDUMP: save(dump, "dump", DumpSettings(format="kdump")),
        }
        others = peers(image)
        middle = compare(result, ours | others, size, repeats)
        if others:
            best = min(middle[name] for name in others)
            text = "first dump to a store: its rate over that of the best peer"
            result.bars.append(Bar(text, best / middle[OURS], BAR))
        second(result, dump, arena.live, image)
        hashing(result, arena.live, repeats)
    return result
