# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that write an arena under a dump: they may, and the dump has what was there."""

from __future__ import annotations

import errno
import io
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.settings import REAL_BACKENDS

MIB = 1 << 20
COUNT = 3000
LONG_S = 300.0


@pytest.fixture(params=REAL_BACKENDS)
def armed(request: pytest.FixtureRequest) -> Iterator[tuple[Arena, LiveDump]]:
    """All of its memory is protected, and holds 5."""
    with Arena(MIB) as arena, LiveDump(arena) as dump:
        arena.live[:] = 5
        try:
            dump.init(None, DumpSettings(backend=request.param))
        except MachineError as error:
            pytest.skip(f"no {request.param} here: {error}")
        dump.start()
        yield arena, dump
        assert dump.snapshot.read(0, MIB) == b"\5" * MIB and not dump.counters().lost


def test_a_file_and_a_socket_may_write_what_is_opened(armed: tuple[Arena, LiveDump]) -> None:
    arena, _ = armed
    x = arena.empty(COUNT, "u1", name="x")
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"\7" * COUNT)
        with arena.receiving(x[:10]) as view:
            assert near.recv_into(view) == 10
        with arena.receiving(x) as view:
            assert near.recv_into(view[10:]) == COUNT - 10
    assert (x == 7).all()


def test_memory_that_is_not_opened_is_named(armed: tuple[Arena, LiveDump]) -> None:
    arena, dump = armed
    x, y = arena.empty(MIB // 4, "u1"), arena.empty(COUNT, "u1")
    reading, writing = os.pipe()
    try:
        os.write(writing, b"a" * 100)
        if dump.settings.backend == "uffd":  # whose fault the kernel itself waits for
            with arena.receiving(x):
                assert os.readv(reading, [y]) == 100
            return
        with pytest.raises(MachineError, match="that is not opened") as caught, arena.receiving(x):
            os.readv(reading, [y])
        assert caught.value.errno == errno.EFAULT
        assert isinstance(caught.value.__cause__, OSError)
        with arena.receiving(y):
            assert os.readv(reading, [y]) == 100
    finally:
        os.close(reading)
        os.close(writing)


def test_fill_takes_all_from_anything(armed: tuple[Arena, LiveDump], tmp_path: Path) -> None:
    arena, _ = armed
    data = np.random.default_rng(1).standard_normal(COUNT)
    raw = data.tobytes()
    path = tmp_path / "data"
    path.write_bytes(b"head" + raw)
    near, far = socket.socketpair()
    reading, writing = os.pipe()
    with near, far, open(path, "rb") as file, open(reading, "rb") as pipe:
        file.seek(4)
        sent = threading.Thread(target=lambda: (far.sendall(raw), os.write(writing, raw)))
        sent.start()
        for source in (file, near, pipe, io.BytesIO(raw)):
            x = arena.empty(COUNT)
            arena.fill(x, source)
            assert np.array_equal(x, data), source
        sent.join()
        os.close(writing)
        x = arena.empty(COUNT)
        with pytest.raises(UsageError, match=r"ended 24000 bytes before the array's 24000"):
            arena.fill(x, pipe)
    with pytest.raises(UsageError, match=r"ended 3996 bytes before the array's 28000 were"):
        arena.fill(arena.empty(COUNT + 500), path)
    arena.fill(arena.empty(0), path)


def test_start_waits_for_the_block() -> None:
    with Arena(MIB) as arena, LiveDump(arena) as dump:
        arena.receivers.timeout = 0.01
        x = arena.empty(COUNT, "u1")
        dump.init(None, DumpSettings(quiesce_deadline=LONG_S))
        with arena.receiving(x), pytest.raises(MachineError, match=r"0\.01 s: MainThread"):
            dump.start()
        dump.start()
        dump.release()


def test_a_block_that_comes_while_start_waits_is_of_the_next_moment() -> None:
    """The program's own quiesce is asked first, and let go when the block does not end."""
    calls: list[str] = []
    with Arena(MIB) as arena:
        x = arena.empty(COUNT, "u1")
        arena.receivers.timeout = 0.01
        dump = LiveDump(
            arena, quiesce=lambda: calls.append("hold"), resume=lambda: calls.append("go")
        )
        with dump:
            dump.init(None, DumpSettings(quiesce_deadline=LONG_S))
            with arena.receiving(x), pytest.raises(MachineError):
                dump.start()
            assert calls == ["hold", "go"]
            dump.start()
            assert calls == ["hold", "go"] * 2


def test_what_cannot_be_opened() -> None:
    with Arena(MIB) as arena:
        x = arena.zeros((10, 10))
        shut = x.view()
        shut.flags.writeable = False
        for wrong, said in (
            (np.zeros(3), "does not lie in the arena"),
            (x[:, 1], "no single piece"),
            (shut, "read-only"),
        ):
            with pytest.raises(UsageError, match=said), arena.receiving(wrong):
                pass
            with pytest.raises(UsageError, match=said):
                arena.fill(wrong, io.BytesIO(bytes(1000)))
        assert not arena.receivers.busy
