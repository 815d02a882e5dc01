# SPDX-License-Identifier: GPL-2.0-or-later
"""Named arrays saved to Zarr, an Icechunk repository and an elf dump, and loaded again, beside
plain copies with zarr and numpy: first saves, and saves of which 1 % has changed.

Nothing is written to the arrays meanwhile. A half of the bytes is a smooth field of float32, which
compresses; the other half are normal floats, which hardly do. Each is timed until its data is
durable; loads read what is in the page cache.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from measure_rate import BUILD, counted
from measurement import Effort, Measurement

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.units import format_size

FULL_SIZE, QUICK_SIZE = 512 << 20, 64 << 20
ROW: Final = 4096
"""Elements: 16 KiB."""
CHUNK, SHARD = (256, ROW), (1024, ROW)
"""Rows of the plain group: as ours, 4 MiB and four of these."""
CHANGED: Final = 0.01
PLAIN: Final = {
    "compressors": zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=4)
}
"""As ours."""

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Way:
    """How arrays are kept at a path, and had again."""

    name: str
    file: str
    save: Callable[[Path], None]
    load: Callable[[Path], object]


@dataclass(frozen=True)
class Cost:
    """Of one save or load."""

    seconds: float
    cpu: float
    """Seconds of processor time."""


def fill(arrays: Arrays) -> None:
    """The field, and the noise."""
    rng = np.random.default_rng(20261129)
    rows = arrays["field"].shape[0]
    x = np.linspace(0, 8 * np.pi, ROW, dtype=np.float32)
    for row in range(rows):
        arrays["field"][row] = 20 + np.sin(x + row / rows) * np.float32(row / rows)
        arrays["noise"][row] = rng.standard_normal(ROW, dtype=np.float32)


def change(arrays: Arrays, turn: int, together: bool) -> None:
    """Write 1 % of the rows: in one piece, or evenly."""
    for array in arrays.values():
        count = max(1, int(len(array) * CHANGED))
        if together:
            array[turn * count : (turn + 1) * count] += 1
        else:
            array[turn :: len(array) // count][:count] += 1


def load_arena(path: Path) -> object:
    """All bytes of it are there then."""
    with Arena.load(str(path)) as arena:
        return [one.sum(dtype=np.float64) for one in arena.arrays.values()]


def load_npz(path: Path) -> object:
    """The same."""
    with np.load(path) as found:
        return [found[name].sum(dtype=np.float64) for name in found.files]


def load_plain(path: Path) -> object:
    """The same."""
    group = zarr.open_group(str(path), mode="r")
    return [np.asarray(one[:]).sum(dtype=np.float64) for _, one in group.arrays()]


def save_npz(path: Path, arrays: Arrays) -> None:
    """As a program does it that stops for it."""
    np.savez(path, **arrays)  # type: ignore[arg-type]


def save_plain(path: Path, arrays: Arrays, **codec: Any) -> None:
    """A group of the same chunks and shards."""
    shutil.rmtree(path, ignore_errors=True)
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    for name, array in arrays.items():
        made = group.create_array(
            name, shape=array.shape, dtype=array.dtype, chunks=CHUNK, shards=SHARD, **codec
        )
        made[:] = array


def ways(dump: LiveDump, arrays: Arrays) -> list[Way]:
    """Ours, and those beside."""

    def ours(name: str, file: str, **options: Any) -> Way:
        settings = DumpSettings(**options)
        return Way(name, file, lambda path: dump.save(str(path), settings) and None, load_arena)

    return [
        ours("save, Zarr, zstd", "zstd.zarr", compression="zstd"),
        ours("save, Zarr, none", "none.zarr", compression="none"),
        ours("save, Icechunk, zstd", "zstd.icechunk", compression="zstd"),
        ours("save, elf", "state.elf", force=True),
        Way("zarr, zstd", "plain.zarr", lambda p: save_plain(p, arrays, **PLAIN), load_plain),
        Way(
            "zarr, none",
            "bare.zarr",
            lambda p: save_plain(p, arrays, compressors=None),
            load_plain,
        ),
        Way("numpy.savez", "state.npz", lambda path: save_npz(path, arrays), load_npz),
    ]


def timed(work: Callable[[], object], durable: bool) -> Cost:
    """Run it, and a sync behind it where that is asked for."""
    with counted() as ours, counted(resource.RUSAGE_CHILDREN) as theirs:
        before = time.monotonic()
        work()
        if durable:
            os.sync()
        return Cost(time.monotonic() - before, ours() + theirs())


def written(folder: Path, since_ns: int) -> int:
    """Bytes of the disk that files have which were written since; a second name writes none."""
    every = (os.lstat(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)
    return sum(one.st_blocks * 512 for one in every if one.st_mtime_ns >= since_ns)


def measure(effort: Effort) -> Measurement:
    """First saves, loads, and saves of which 1 % has changed."""
    size = QUICK_SIZE if effort.quick else min(FULL_SIZE, effort.largest // 2)
    result = Measurement(
        "arrays",
        f"Named arrays of {format_size(size)}",
        ["what", "way", "time", "rate", "processor", "written"],
    )
    rows = size // 2 // (4 * ROW)
    BUILD.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=BUILD) as place,
        Arena(size + (1 << 20)) as arena,
        LiveDump(arena) as dump,
    ):
        arrays = {name: arena.array("f4", (rows, ROW), name=name) for name in ("field", "noise")}
        fill(arrays)
        every = ways(dump, arrays)
        for what, turns in (
            ("first save", effort.repeats(3, 1)),
            ("1 % changed, in one piece", 1),
            ("1 % changed, evenly", 1),
        ):
            costs: dict[str, list[tuple[Cost, int]]] = {one.name: [] for one in every}
            for turn in range(turns):
                if not what.startswith("first"):
                    change(arrays, turn, together=what.endswith("piece"))
                for one in every:
                    costs[one.name].append(_save(one, Path(place), what.startswith("first")))
            for name, found in costs.items():
                _add(result, what, name, [cost for cost, _ in found], size, found[-1][1])
        for one in every:
            path = Path(place) / one.name.replace(" ", "-") / one.file
            found = [timed(lambda at=path, way=one: way.load(at), False) for _ in range(2)]
            _add(result, "load", one.name, found, size, 0)
    return result


def _save(way: Way, place: Path, anew: bool) -> tuple[Cost, int]:
    """Its cost, and the bytes that it wrote."""
    folder = place / way.name.replace(" ", "-")
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    os.sync()
    before = time.time_ns()
    cost = timed(lambda: way.save(folder / way.file), True)
    return cost, written(folder, before)


def _add(
    result: Measurement, what: str, name: str, costs: list[Cost], size: int, kept: int
) -> None:
    seconds = statistics.median(one.seconds for one in costs)
    cpu = statistics.median(one.cpu for one in costs)
    rate = f"{format_size(int(size / seconds))}/s"
    new = format_size(kept) if kept else ""
    result.rows.append([what, name, f"{seconds:.2f} s", rate, f"{cpu:.2f} s", new])
    result.samples += [{"what": what, "way": name, "bytes": size, **asdict(one)} for one in costs]
