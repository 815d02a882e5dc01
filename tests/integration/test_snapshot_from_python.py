# SPDX-License-Identifier: GPL-2.0-or-later
"""LiveDump.snapshot and the tree of its files without a mount."""

from __future__ import annotations

import errno
import gc
import io
import mmap
import os
import random
import struct
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from aftermath import wait_for

from livedumpfs.control.snapshot_tree import SnapshotTree
from livedumpfs.core.arena import Arena
from livedumpfs.dump import DumpSettings, LiveDump, Snapshot
from livedumpfs.errors import LivedumpError
from livedumpfs.machines import UnicornMachine
from livedumpfs.settings import REAL_BACKENDS
from tests.fixtures.refusals import refused

DEADLINE = 300.0
MIB = 1 << 20
SIZE = 16 * MIB
PAGE = 4096
LOW = 9 * MIB + PAGE
HIGH_START, HIGH = 4 << 30, SIZE - LOW
"""Of a machine with a gap."""
RATE = MIB // 2
"""Bytes a second of a sweep that takes seconds."""


def expected_file(name: str, head: bytes, memory: mmap.mmap, at: int, length: int) -> bytes:
    """What a file must have: made of the reference only, and of the ELF headers `head`."""
    parts: list[tuple[int, bytes | tuple[int, int]]] = {
        "vmcore": [(0, head), (len(head), (0, SIZE))],
        "mem.raw": [(0, (0, LOW)), (HIGH_START, (LOW, SIZE))],
        "mem.lime": [
            (0, struct.pack("<IIQQ8x", 0x4C694D45, 1, 0, LOW - 1)),
            (32, (0, LOW)),
            (32 + LOW, struct.pack("<IIQQ8x", 0x4C694D45, 1, HIGH_START, HIGH_START + HIGH - 1)),
            (64 + LOW, (LOW, SIZE)),
        ],
    }[name]  # type: ignore[assignment]
    found = bytearray(length)
    end = 0
    for start, what in parts:
        size = len(what) if isinstance(what, bytes) else what[1] - what[0]
        end = start + size
        low, high = max(at, start), min(at + length, end)
        if low < high:
            base = what if isinstance(what, bytes) else memory
            shift = start - (0 if isinstance(what, bytes) else what[0])
            found[low - at : high - at] = base[low - shift : high - shift]
    return bytes(found[: max(0, end - at)])


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_every_read_of_four_threads_is_right_against_the_copy_of_the_pause(
    tmp_path: Path, backend: str
) -> None:
    """1,000 reads of the three files of a machine with a gap, while two vCPUs and the sweep go on.
    The sweep is held back: it is under way still when the last read has ended."""
    reference = os.memfd_create("reference")
    os.ftruncate(reference, SIZE)
    try:
        # So few stores, and so slow a sweep, that the reads of a starved computer end before both.
        machine = UnicornMachine(SIZE, 2, dirty_share=0.5, rate=2, low_ram=LOW)
        with machine, LiveDump(machine) as live:
            machine.wait_ready()
            pages = machine.arena.live.reshape(-1, PAGE)
            pages[~pages.any(axis=1)] = np.arange(PAGE, dtype=np.uint8)  # what the guest left out
            settings = DumpSettings(sweep_rate=RATE // 512, granule=PAGE, backend=backend)
            live.init(tmp_path / "out", settings, reference=reference)
            live.start()
            with mmap.mmap(reference, SIZE, prot=mmap.PROT_READ) as kept:
                snapshot = live.snapshot
                shown = SnapshotTree(live).shown()
                assert shown
                files = shown.files
                head = files.pread("vmcore", 0, files.size("vmcore") - SIZE)
                check_headers(head)

                def wrong(seed: int) -> list[tuple[str, int, int]]:
                    chosen, bad = random.Random(seed), []
                    for _ in range(250):
                        name = chosen.choice(("vmcore", "mem.raw", "mem.lime"))
                        base = chosen.choice((0, HIGH_START)) if name == "mem.raw" else 0
                        at = base + max(0, chosen.randrange(-PAGE, SIZE + PAGE))
                        length = chosen.choice((1, 100, PAGE, 70_000, 256 << 10))
                        right = expected_file(name, head, kept, at, length)
                        if files.pread(name, at, length) != right:
                            bad.append((name, at, length))
                    return bad

                with ThreadPoolExecutor(4) as pool:
                    jobs = [pool.submit(wrong, seed) for seed in range(4)]
                    live.sweep()
                    assert [job.result(DEADLINE) for job in jobs] == [[]] * 4
                wait_for(lambda: live.counters().by_fault, live.counters)
                assert snapshot.read(0, SIZE) == kept[:]
                assert live.state.value == "sweep" and live.counters().remaining > 0
    finally:
        os.close(reference)


def check_headers(head: bytes) -> None:
    """Where a vmcore says that the memory lies."""
    loads = []
    for i in range(struct.unpack_from("<H", head, 56)[0]):
        kind, _, offset, _, start, size, _, _ = struct.unpack_from("<IIQQQQQQ", head, 64 + 56 * i)
        loads += [(offset - len(head), start, size)] if kind == 1 else []
    assert loads == [(0, 0, LOW), (LOW, HIGH_START, HIGH)]


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena("3MiB") as made:
        yield made


def test_a_snapshot_is_a_file_and_has_the_named_arrays(arena: Arena) -> None:
    values = arena.array("i8", (1000, 10), name="values")
    values[:] = np.arange(10_000).reshape(1000, 10)
    with LiveDump(arena) as live:
        live.init(None)
        refused(errno.ENODATA, lambda: live.snapshot)
        live.start()
        before, values[:] = arena.size, -1
        snapshot = live.snapshot
        assert isinstance(snapshot, Snapshot)
        assert (snapshot.size, snapshot.generation) == (before, 1)
        assert (snapshot.array("values").ravel() == np.arange(10_000)).all()
        assert not snapshot.array("values").flags.writeable
        file = snapshot.file()
        assert file.seekable() and file.readable() and not file.writable()
        everything = file.read()
        assert everything == snapshot.read(0, arena.size)
        assert file.read(1) == b""
        for place in ((-1, 1), (0, arena.size + 1), (arena.size, 1), (0, -1)):
            with pytest.raises(LivedumpError, match="cannot read") as caught:
                snapshot.read(*place)
            assert caught.value.errno == errno.EINVAL
        assert file.seek(-5, os.SEEK_END) == arena.size - 5 and len(file.read(100)) == 5
        assert file.seek(arena.size + 9) == file.tell() and file.read(1) == b""
        refused(errno.EINVAL, lambda: file.seek(-1))
        buffered = io.BufferedReader(snapshot.file())
        buffered.seek(8 * 7)
        assert int.from_bytes(buffered.read(8), "little") == 7
        live.release()
        for action in (
            lambda: snapshot.read(0, 1),
            lambda: snapshot.array("values"),
            snapshot.describe,
            lambda: file.seek(0) or file.read(1),
            lambda: live.snapshot,
        ):
            refused(errno.ENODATA, action)
        live.init(None)
        live.start()
        assert live.snapshot.generation == 2
        assert (live.snapshot.array("values") == -1).all()
        refused(errno.ENODATA, lambda: snapshot.read(0, 1))
        refused(errno.ENODATA, lambda: file.read(1))


def test_release_lets_go_of_the_snapshot_at_once(arena: Arena) -> None:
    """Without a garbage collection: it keeps the arena's memory mapped."""
    gc.collect()
    gc.disable()
    try:
        with LiveDump(arena) as live:
            live.init(None)
            live.start()
            kept = weakref.ref(live.snapshot)
            assert kept() is live.snapshot
            live.release()
            assert kept() is None
    finally:
        gc.enable()
