# SPDX-License-Identifier: GPL-2.0-or-later
"""vm.max_map_count: the handler meets ENOMEM, widens, and loses nothing.

LIVEDUMP_DUMPS=200 (make exact) makes the arena of 4 GiB, all of it written to before."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aftermath import expect_free

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.patience import patient_path
from tests.fixtures.program_files import program_command

GIB = 1 << 30
POOL = 64 << 20
LONG = int(os.environ.get("LIVEDUMP_DUMPS", "0")) >= 100
SIZE = (4 if LONG else 1) * GIB
RANDOM_PAGES = 150_000 if LONG else 60_000
"""More than make the 32,700 lone pages, and at the most a fourth of all."""


@pytest.fixture
def roomy() -> Iterator[Path]:
    """A directory for a dump of 4 GiB; on memory where there is enough of it."""
    shm = Path("/dev/shm")
    status = os.statvfs(shm) if shm.is_dir() else None
    place = shm if status and status.f_bavail * status.f_frsize > 2 * SIZE else None
    with tempfile.TemporaryDirectory(dir=place) as directory:
        yield Path(directory)


@pytest.mark.timeout(900)
def test_gibibytes_written_at_random_in_granules_of_4_kib(roomy: Path) -> None:
    """Lone writable pages reach the limit after some 32,700; the sweep is held back till then. With
    a pool that grows, granules between them would be saved too, and join them."""
    with Arena(SIZE) as arena, LiveDump(arena) as live:
        words = arena.array("u8", SIZE // 8, name="words").reshape(-1, PAGE_SIZE // 8)
        pages = len(words)
        touched, others = np.split(np.random.default_rng(1).permutation(pages), [RANDOM_PAGES])
        held = np.concatenate([touched, others if LONG else others[:RANDOM_PAGES]])
        expected = np.zeros(pages, "u8")
        expected[held] = held * 3 + 1
        words[held, 0] = expected[held]
        live.init(roomy / "dump", DumpSettings(granule=PAGE_SIZE, pool=POOL))
        live.start()
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
                assert (found == expected[first : first + (1 << 16)]).all()
        assert (words[touched, 0] == 0).all()
        live.release()
        expect_free(arena)
        # The next dump, in memory: gibibytes need not be written once more.
        now = words[touched[:1000], 0].copy()
        live.init(None, DumpSettings())
        live.start()
        words[touched[:1000], 0] += 1
        for page, value in zip(touched[:1000].tolist(), now.tolist(), strict=True):
            assert live.read(page * PAGE_SIZE, 8) == value.to_bytes(8, "little")
        assert live.counters().lost == 0
        live.release()
        expect_free(arena)


def test_steps_of_a_process_whose_mappings_are_at_the_limit(tmp_path: Path) -> None:
    """From not one more to some hundred: a step is refused and leaves nothing, or the dump is
    right; RELEASE always frees all."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        program_command(__file__, "full_of_mappings.py", str(tmp_path)),
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": patient_path(here)},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


def test_the_default_granule_stays_below_the_limit() -> None:
    from livedumpfs.core.capi import lib

    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    for size in (PAGE_SIZE, GIB, SIZE, 64 * GIB):
        granule = lib.ldfs_granule_default(size)
        assert granule & (granule - 1) == 0
        assert size // granule < limit
