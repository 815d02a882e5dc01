# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that is short of memory, of threads or of descriptors: INIT and START say so and leave
nothing behind; a dump that has begun does with what there is."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import DEADLINE_S, host_unharmed, unharmed
from failing_calls import build_failing_calls
from memory_group import MemoryGroup, memory_group

from livedumpfs import Arena, LiveDump
from livedumpfs.client import Client, InitOptions
from livedumpfs.errors import LivedumpError, MachineError

FOLDER = Path(__file__).resolve().parent
MIB = 1 << 20

PRELUDE = """
import ctypes, errno, os, resource, sys
from pathlib import Path
from aftermath import unharmed
from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import LivedumpError
MIB = 1 << 20
place = Path(sys.argv[1])
calls = ctypes.CDLL(None)
def refused(step):
    try:
        step()
    except LivedumpError as error:
        print(error, file=sys.stderr)
        return error.errno
    return 0
"""


@pytest.fixture(scope="module")
def failing_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_failing_calls(tmp_path_factory.mktemp("calls"))


def expect_done(script: str, place: Path, failing_calls: Path) -> None:
    top = str(FOLDER.parents[1])
    environment = {"PYTHONPATH": f"{top}:{FOLDER}", "LD_PRELOAD": str(failing_calls)}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, str(place)],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


# --------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(("policy", "limit"), [("block", "RLIMIT_DATA"), ("spill", "RLIMIT_AS")])
def test_init_without_memory_for_the_pool(
    tmp_path: Path, failing_calls: Path, policy: str, limit: str
) -> None:
    """Under `spill` the whole limit is reserved at once: that it will not do is known at INIT."""
    expect_done(
        f"""
settings = DumpSettings(pool=256 * MIB if {policy!r} == "block" else 16 * MIB, policy={policy!r},
                        spill_limit=512 * MIB)
kind = resource.{limit}
field = {{resource.RLIMIT_AS: "VmSize", resource.RLIMIT_DATA: "VmData"}}[kind]
def used():
    line = next(l for l in open("/proc/self/status") if l.startswith(field))
    return int(line.split()[1]) << 10
with Arena(1 << 30) as arena, LiveDump(arena) as live:
    arena.live[:MIB] = 1
    small = Arena(4 * MIB); small_live = LiveDump(small)
    with unharmed(small_live):
        resource.setrlimit(kind, (used() + 100 * MIB, -1))
        assert refused(lambda: live.init(place / "dump", settings)) == errno.ENOMEM
        assert refused(lambda: live.init(None, settings)) == errno.ENOMEM
        assert live.state.value == "uninit"
        resource.setrlimit(kind, (-1, -1))
    live.init(place / "dump", settings)
    live.start(); arena.live[:MIB] = 2; live.sweep()
    assert live.finish(300) == "consistent"
    live.release()
    with open_dump(place / "dump") as dump: assert dump.read_arena(0, MIB).count(1) == MIB
print("done")
""",
        tmp_path,
        failing_calls,
    )


@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_init_without_a_thread(tmp_path: Path, failing_calls: Path, format: str) -> None:
    """Each of the threads that INIT makes, in turn, is the one that cannot be made."""
    expect_done(
        f"""
settings = DumpSettings(format={format!r}, policy="spill", max_age=600, force=True)
with Arena(4 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for number in range(1, 20):
        calls.fail_threads(number)
        code = refused(lambda: live.init(place / "dump", settings))
        calls.fail_threads(0)
        if code == 0:
            break
        assert code == errno.EAGAIN, code
        assert live.state.value == "uninit"
    live.release()
    assert number > 4, number
    print(number - 1, "threads")
print("done")
""",
        tmp_path,
        failing_calls,
    )


def test_init_that_may_not_keep_memory_out_of_core_files_and_children(
    tmp_path: Path, failing_calls: Path
) -> None:
    """Each of the calls that INIT asks for it with is refused in turn."""
    expect_done(
        """
settings = DumpSettings(pool=MIB, force=True)
with Arena(4 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    for _ in range(2):  # views stay from one dump to the next
        calls.fail_keep(0)
        live.init(place / "dump", settings)
        asked = calls.keeps_asked()
        live.release()
    assert asked >= 4, asked
    for number in range(1, asked + 1):
        calls.fail_keep(number)
        assert refused(lambda: live.init(place / "dump", settings)) == errno.ENOMEM, number
        assert live.state.value == "uninit"
    calls.fail_keep(0)
print("done")
""",
        tmp_path,
        failing_calls,
    )


def test_spill_that_finds_no_more_memory_blocks_and_loses_nothing(
    tmp_path: Path, failing_calls: Path
) -> None:
    expect_done(
        """
with Arena(32 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    live.init(place / "dump", DumpSettings(policy="spill", pool=MIB, granule=16384,
                                           spill_limit=64 * MIB))
    live.start()
    calls.fail_populate(2)
    live.sweep()
    arena.live[::4096] = 2
    assert live.finish(300) == "consistent", live.failure
    counters = live.counters()
    assert counters.slots_peak <= counters.slots < 32 * MIB // 16384
    calls.fail_populate(0)
    live.release()
    with open_dump(place / "dump") as dump:
        assert dump.read_arena(0, 32 * MIB).count(1) == 32 * MIB
print("done")
""",
        tmp_path,
        failing_calls,
    )


def test_memory_alone_that_finds_no_more_loses_pages_and_says_which(
    tmp_path: Path, failing_calls: Path
) -> None:
    """Nothing will ever free a slot: to wait would be for ever."""
    expect_done(
        """
with Arena(32 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    live.init(None, DumpSettings(policy="spill", pool=MIB, granule=16384, spill_limit=64 * MIB))
    live.start()
    calls.fail_populate(2)
    arena.live[::4096] = 2
    counters = live.counters()
    assert live.so_far == "torn" and counters.lost > 0, counters
    lost = live.lost_pages()
    assert sum(end - first for first, end in lost) == counters.lost * 4
    try:
        live.read(lost[0][0] * 4096, 1)
        raise AssertionError("a lost page was read")
    except OSError as error:
        assert error.errno == errno.EIO
    calls.fail_populate(0)
print("done")
""",
        tmp_path,
        failing_calls,
    )


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(memory_group("short"))
        except OSError as error:
            pytest.skip(f"no memory cgroup of our own: {error}")
        yield made


def test_a_memory_cgroup_that_is_nearly_full(
    tmp_path: Path, failing_calls: Path, group: MemoryGroup
) -> None:
    """What it does not have would be given, and the process killed for it: INIT refuses a pool that
    does not fit, and `spill` stops to grow before that."""
    expect_done(
        f"""
from memory_group import MemoryGroup
group = MemoryGroup(Path({str(group.path)!r}))
group.join()
SIZE = 96 * MIB
spill = dict(policy="spill", pool=MIB, granule=16384, spill_limit=SIZE)
with Arena(SIZE) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    group.limit(group.usage() + 48 * MIB)
    large = DumpSettings(pool=SIZE, granule=16384)
    limited = DumpSettings(pool=SIZE, granule=16384, spill_limit=SIZE)
    for target, asked in ((None, limited), (place / "dump", large)):
        assert refused(lambda: live.init(target, asked)) == errno.ENOMEM
    # Where nobody has set a limit, the pool is no larger than half of what there is.
    live.init(None, large)
    assert 0 < live.counters().slots <= 24 * MIB // 16384, live.counters()
    live.release()
    # Nothing frees a slot: what finds none is lost, and named.
    live.init(None, DumpSettings(**spill)); live.start()
    arena.live[::4096] = 2
    counters = live.counters()
    assert 0 < counters.spilled and counters.slots < SIZE // 16384 - 512, counters
    assert counters.lost > 0 and live.so_far == "torn", counters
    live.release()
    # A target frees them: nothing is lost.
    arena.live[:] = 3
    live.init(place / "dump", DumpSettings(force=True, **spill)); live.start(); live.sweep()
    arena.live[::4096] = 4
    assert live.finish(300) == "consistent", live.failure
    counters = live.counters()
    assert counters.slots < SIZE // 16384 - 512, counters
    live.release()
    with open_dump(place / "dump") as dump:
        assert all(dump.read_arena(at, MIB).count(3) == MIB for at in range(0, SIZE, MIB))
    group.limit(None)
    live.init(None, DumpSettings(**spill)); live.start()
    arena.live[::4096] = 5
    assert live.so_far == "consistent", live.counters()
print("done")
""",
        tmp_path,
        failing_calls,
    )


# ---------------------------------------------------------------------------- descriptors


@contextlib.contextmanager
def no_descriptors(pid: int = 0) -> Iterator[None]:
    """Not one more can be opened."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    fds = {int(name) for name in os.listdir(f"/proc/{pid or os.getpid()}/fd")}
    free = next(n for n in range(len(fds) + 1) if n not in fds)
    filler = []
    try:
        if pid:
            # Numbers below the highest one may be free: only a limit below them all is sure.
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, before[1]))
        else:
            resource.prlimit(0, resource.RLIMIT_NOFILE, (max(fds) + 1, before[1]))
            with contextlib.suppress(OSError):
                while True:
                    filler.append(os.dup(0))
        yield
    finally:
        for fd in filler:
            os.close(fd)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_init_and_start_without_descriptors(tmp_path: Path) -> None:
    with Arena(4 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
        with no_descriptors():
            with pytest.raises(LivedumpError) as caught:
                live.init(tmp_path / "dump")
            assert caught.value.errno == errno.EMFILE
        assert not (tmp_path / "dump").exists()
        live.init(tmp_path / "dump")
        with no_descriptors():
            with pytest.raises(MachineError) as refused:
                live.start()
            assert refused.value.errno == errno.EMFILE
            arena.live[:] = 1  # not armed
            assert live.counters().faults == 0
        live.start()
        with no_descriptors():  # what is needed from here on is open
            arena.live[:] = 2
            live.sweep()
            assert live.finish(DEADLINE_S) == "consistent", live.failure
        assert live.read(0, 4 * MIB).count(1) == 4 * MIB


def test_a_host_without_descriptors(run_host: Callable[..., Any], tmp_path: Path) -> None:
    """INIT and START fail in time with its reason; files of the snapshot that need none open."""
    host = run_host()
    pid = host.process.pid
    with host_unharmed(host), Client(host.device) as client:
        with no_descriptors(pid):
            with pytest.raises(LivedumpError) as caught:
                client.init(str(tmp_path / "dump"))
            assert caught.value.errno in (errno.EMFILE, errno.EIO), caught.value
            host.runs_on()
        client.init(str(tmp_path / "dump"), InitOptions(force=True))
        with no_descriptors(pid):
            with pytest.raises(LivedumpError) as caught:
                client.start()
            assert caught.value.errno == errno.EMFILE, caught.value
            host.runs_on()
        client.start()
        with no_descriptors(pid):
            for name in ("vmcore", "mem.raw", "mem.lime", "info.json"):
                assert (host.mountpoint / "snapshot" / name).read_bytes()
            client.sweep()
            assert client.finish(DEADLINE_S).failure is None
        client.release()
