# SPDX-License-Identifier: GPL-2.0-or-later
"""`LiveDump.save("store:FOLDER")`: a program puts dumps of its own arrays into a store, while its
Python threads write them."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from oracle import Reference

from livedumpfs import Arena, DumpSettings, InconsistentDump, LiveDump
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import TargetError, UsageError
from livedumpfs.stores import create_store, open_store
from livedumpfs.stores.receiver import Receiver
from livedumpfs.targets import adopt_target
from tests.fixtures.open_files import no_file_stays_open
from tests.fixtures.store_streams import nothing_published

SIZE = 8 << 20
PAGE = 4096
DEADLINE = 120.0


class Writers:
    """Python threads that write everywhere, each store with the interpreter's lock."""

    def __init__(self, arena: Arena) -> None:
        self.values = arena.array(np.uint64, SIZE // 8, name="values")
        self.values[:: PAGE // 8] = 1
        self.gate = threading.Lock()
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(2)]
        for thread in self._threads:
            thread.start()

    def _run(self, first: int) -> None:
        at = first * 8
        while not self._ends.is_set():
            with self.gate:
                self.values[at % (SIZE // 8)] += 1
            at += 17 * PAGE // 8

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena(SIZE) as made:
        yield made


@pytest.fixture
def writers(arena: Arena) -> Iterator[Writers]:
    made = Writers(arena)
    yield made
    made.end()


def held(arena: Arena, writers: Writers) -> LiveDump:
    return LiveDump(arena, quiesce=writers.gate.acquire, resume=writers.gate.release)


def test_dumps_under_writes(arena: Arena, writers: Writers, tmp_path: Path) -> None:
    """With slots for almost nothing: stores wait for them while they have the interpreter's lock,
    and nothing that frees them needs it."""
    url = f"store:{tmp_path / 'store'}"
    with no_file_stays_open(), held(arena, writers) as live:
        for _ in range(2):
            settings = DumpSettings(pool=128 << 10, stall_deadline=DEADLINE)
            assert live.save(url, settings) == "consistent"
            assert (live.target_path, live.counters().lost) == (url, 0)
    with open_store(url) as store:
        assert len(store.names()) == 2
    with open_dump(f"{url}#latest") as dump:
        assert [one.name for one in dump.arrays] == ["values"]


def test_it_is_the_instant(arena: Arena, writers: Writers, tmp_path: Path) -> None:
    """All bytes are those of a copy that was made inside the pause."""
    place, reference = str(tmp_path / "store"), Reference(SIZE)
    with held(arena, writers) as live, Receiver(place) as receiver:
        end, receiver.write_end = receiver.write_end, -1
        live.init(adopt_target(end, "pipe"), DumpSettings(), reference=reference.fd)
        live.start()
        live.sweep()
        assert live.finish() == "consistent"
        live.release()
        name = receiver.finish().name
    with open_dump(f"{place}#{name}") as dump:
        assert list(reference.different_pages(dump)) == []
    reference.close()


def test_a_store_with_larger_chunks(arena: Arena, tmp_path: Path) -> None:
    arena.live[:] = 7
    with (
        create_store(str(tmp_path / "store"), chunk_size=1 << 20) as store,
        LiveDump(arena) as live,
    ):
        live.save(store.url)
        with open_dump(f"{store.url}#latest") as dump:
            assert dump.granule_size == 1 << 20
            assert dump.read_arena(0, SIZE) == bytes([7]) * SIZE
        with pytest.raises(UsageError, match="granules of 64 KiB do not go into a store"):
            live.save(store.url, DumpSettings(granule=64 << 10))
        with pytest.raises(UsageError, match="takes dumps of format elf, not kdump"):
            live.save(store.url, DumpSettings(format="kdump"))


def test_what_fails_is_said_and_the_machine_runs(arena: Arena, tmp_path: Path) -> None:
    arena.live[:] = 7
    with no_file_stays_open(), LiveDump(arena) as live:
        with pytest.raises(TargetError, match="cannot make the store") as caught:
            live.save(f"store:{tmp_path}/no/where")
        assert caught.value.errno == errno.ENOENT
        with create_store(str(tmp_path / "store")) as store:
            wrong = tmp_path / "store" / "default.castr"
            wrong.touch()  # refuses root, too
            with pytest.raises(TargetError, match=r"default.castr.*: Not a directory"):
                live.save(store.url)
            wrong.unlink()
            assert nothing_published(store)
            assert live.state.name == "UNINIT"
            arena.live[:] = 8  # nothing is protected
            assert live.save(store.url) == "consistent"


def test_a_torn_dump_is_there_and_raises(arena: Arena, writers: Writers, tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    with create_store(url):
        pass
    settings = DumpSettings(policy="fail", pool=64 << 10, sweep_rate=4 << 20)
    with held(arena, writers) as live:
        with pytest.raises(InconsistentDump) as caught:
            live.save(url, settings)
        assert caught.value.verdict == "torn"
        assert live.save(url, settings, check=False) == "torn"
    with open_store(url) as store:
        records = [store.record(name) for name in store.names()]
        assert [one.verdict for one in records if one] == ["torn", "torn"]


def release_in_the_sweep(live: LiveDump) -> None:
    end = time.monotonic() + DEADLINE
    while live.state.name != "SWEEP" and time.monotonic() < end:
        time.sleep(0.01)
    live.release()


def test_released_by_another_thread(arena: Arena, tmp_path: Path) -> None:
    arena.live[:] = np.random.default_rng(1).integers(0, 255, SIZE, dtype=np.uint8)
    with create_store(str(tmp_path / "store")) as store, LiveDump(arena) as live:
        thread = threading.Thread(target=release_in_the_sweep, args=(live,))
        thread.start()
        with pytest.raises(OSError, match="released"):
            live.save(store.url, DumpSettings(sweep_rate=1 << 10))
        thread.join(DEADLINE)
        assert nothing_published(store)
