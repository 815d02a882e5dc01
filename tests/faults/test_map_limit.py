# SPDX-License-Identifier: GPL-2.0-or-later
"""vm.max_map_count: the handler meets ENOMEM, widens, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aftermath import expect_free

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.units import PAGE_SIZE

GIB = 1 << 30
SIZE = 4 * GIB
RANDOM_PAGES = 150_000


@pytest.fixture
def roomy() -> Iterator[Path]:
    """A directory for a dump of 4 GiB; on memory where there is enough of it."""
    shm = Path("/dev/shm")
    status = os.statvfs(shm) if shm.is_dir() else None
    place = shm if status and status.f_bavail * status.f_frsize > 2 * SIZE else None
    with tempfile.TemporaryDirectory(dir=place) as directory:
        yield Path(directory)


@pytest.mark.timeout(900)
def test_4_gib_written_at_random_in_granules_of_4_kib(roomy: Path) -> None:
    """Lone writable pages reach the limit after some 32,700; the sweep is held back till then."""
    with Arena(SIZE) as arena, LiveDump(arena) as live:
        words = arena.array("u8", SIZE // 8, name="words").reshape(-1, PAGE_SIZE // 8)
        pages = len(words)
        words[:, 0] = np.arange(pages) * 3 + 1
        live.init(roomy / "dump", DumpSettings(granule=PAGE_SIZE))
        live.start()
        touched = np.random.default_rng(1).permutation(pages)[:RANDOM_PAGES]
        words[touched, 0] = 0
        counters = live.counters()
        assert counters.widened > 0, "the limit was not met: nothing was tested"
        assert counters.lost == 0
        live.sweep()
        assert live.finish(800) == "consistent"
        with open_dump(roomy / "dump") as dump:
            for first in range(0, pages, 1 << 16):
                data = dump.read_arena(first * PAGE_SIZE, PAGE_SIZE << 16)
                found = np.frombuffer(data, dtype="u8").reshape(-1, PAGE_SIZE // 8)[:, 0]
                assert (found == np.arange(first, first + (1 << 16)) * 3 + 1).all()
        assert (words[touched, 0] == 0).all()
        live.release()
        expect_free(arena)
        # The next dump, in memory: 4 GiB need not be written once more.
        now = words[touched[:1000], 0].copy()
        live.init(None, DumpSettings())
        live.start()
        words[touched[:1000], 0] += 1
        for page, value in zip(touched[:1000].tolist(), now.tolist(), strict=True):
            assert live.read(page * PAGE_SIZE, 8) == value.to_bytes(8, "little")
        assert live.counters().lost == 0
        live.release()
        expect_free(arena)


FULL = """
import ctypes, errno, sys
from pathlib import Path
from aftermath import unharmed
from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import LivedumpError
MIB, PAGES = 1 << 20, 200_000
place = Path(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
def full(left):
    # Every other page readable: a mapping each, and the same again between them.
    start = libc.mmap(None, PAGES * 4096, 0, 0x4022, -1, 0)
    page = 1
    while libc.mprotect(start + page * 4096, 4096, 1) == 0:
        page += 2
        assert page < PAGES, "vm.max_map_count is too high for this test"
    assert ctypes.get_errno() == errno.ENOMEM
    for freed in range(left // 2):
        page -= 2
        assert libc.mprotect(start + page * 4096, 4096, 0) == 0
    return start
def attempt(step):
    try:
        step()
        return 0
    except LivedumpError as error:
        return error.errno
    except MemoryError:
        return errno.ENOMEM
reached = set()
with Arena(16 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for left in (0, 4, 16, 64, 256, 512):
        for target in (None, place / "dump"):
            settings = DumpSettings(granule=4096, pool=16 * MIB, force=True)
            arena.live[:] = 1
            filler = full(left)
            code, step = attempt(lambda: live.init(target, settings)), "init"
            if code == 0:
                code, step = attempt(live.start), "start"
            if code == 0:
                step = "done"
                arena.live[:: 2 * 4096] = 2
                good = all(live.read(at, 4096) == b"\\x01" * 4096 for at in range(0, MIB, 4096))
                lost = live.counters().lost
            live.release()
            arena.live[1::4096] = 3  # whatever happened, nothing is protected
            libc.munmap(filler, PAGES * 4096)
            assert code in (0, errno.ENOMEM, errno.EAGAIN), (left, target, step, code)
            assert step != "done" or (good and lost == 0), (left, target, lost)
            print(left, target, step, code, file=sys.stderr)
            reached.add(step)
assert reached >= {"init", "done"}, reached
print("done")
"""


def test_steps_of_a_process_whose_mappings_are_at_the_limit(tmp_path: Path) -> None:
    """From not one more to some hundred: a step is refused and leaves nothing, or the dump is
    right; RELEASE always frees all."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": f"{here.parents[1]}:{here}"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


def test_the_default_granule_stays_below_the_limit() -> None:
    from livedumpfs.core.capi import lib

    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    for size in (PAGE_SIZE, GIB, SIZE, 64 * GIB):
        granule = lib.ldfs_granule_default(size)
        assert granule & (granule - 1) == 0
        assert size // granule < limit
