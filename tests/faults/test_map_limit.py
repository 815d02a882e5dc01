# SPDX-License-Identifier: GPL-2.0-or-later
"""vm.max_map_count: the handler meets ENOMEM, widens, and loses nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.slow
@pytest.mark.timeout(300)
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
        assert live.finish(240) == "consistent"
        with open_dump(roomy / "dump") as dump:
            for first in range(0, pages, 1 << 16):
                data = dump.read_arena(first * PAGE_SIZE, PAGE_SIZE << 16)
                found = np.frombuffer(data, dtype="u8").reshape(-1, PAGE_SIZE // 8)[:, 0]
                assert (found == np.arange(first, first + (1 << 16)) * 3 + 1).all()
        assert (words[touched, 0] == 0).all()


def test_the_default_granule_stays_below_the_limit() -> None:
    from livedumpfs._capi import lib

    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    for size in (PAGE_SIZE, GIB, SIZE, 64 * GIB):
        granule = lib.ldfs_granule_default(size)
        assert granule & (granule - 1) == 0
        assert size // granule < limit
