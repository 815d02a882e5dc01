# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that is short of memory, of threads or of descriptors: INIT and START say so and leave
nothing behind; a dump that has begun does with what there is."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
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
from tests.fixtures.patience import patient_path
from tests.fixtures.program_files import program_command

FOLDER = Path(__file__).resolve().parent
MIB = 1 << 20


@pytest.fixture(scope="module")
def failing_calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_failing_calls(tmp_path_factory.mktemp("calls"))


def expect_done(program: str, place: Path, failing_calls: Path, *arguments: str) -> None:
    environment = {"PYTHONPATH": patient_path(FOLDER), "LD_PRELOAD": str(failing_calls)}
    done = subprocess.run(
        program_command(__file__, program, place, *arguments),
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


# --------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(("policy", "limit"), [("block", "RLIMIT_DATA"), ("spill", "RLIMIT_AS")])
def test_init_without_memory_for_the_pool(
    tmp_path: Path, failing_calls: Path, policy: str, limit: str
) -> None:
    """What is made at INIT must be there. Under `spill` the limit that cannot be reserved is a
    lower one."""
    expect_done(
        "short_of/init_without_memory_for_the_pool.py", tmp_path, failing_calls, policy, limit
    )


@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_init_without_a_thread(tmp_path: Path, failing_calls: Path, format: str) -> None:
    """Each of the threads that INIT makes, in turn, is the one that cannot be made."""
    expect_done("short_of/init_without_a_thread.py", tmp_path, failing_calls, format)


def test_init_that_may_not_keep_memory_out_of_core_files_and_children(
    tmp_path: Path, failing_calls: Path
) -> None:
    """Each of the calls that INIT asks for it with is refused in turn."""
    expect_done(
        "short_of/init_that_may_not_keep_memory_out_of_core_files_and_children.py",
        tmp_path,
        failing_calls,
    )


def test_spill_that_finds_no_more_memory_blocks_and_loses_nothing(
    tmp_path: Path, failing_calls: Path
) -> None:
    expect_done(
        "short_of/spill_that_finds_no_more_memory_blocks_and_loses_nothing.py",
        tmp_path,
        failing_calls,
    )


def test_memory_alone_that_finds_no_more_loses_pages_and_says_which(
    tmp_path: Path, failing_calls: Path
) -> None:
    """Nothing will ever free a slot: to wait would be for ever."""
    expect_done(
        "short_of/memory_alone_that_finds_no_more_loses_pages_and_says_which.py",
        tmp_path,
        failing_calls,
    )


def test_a_pool_while_descriptors_are_short(tmp_path: Path, failing_calls: Path) -> None:
    expect_done("short_of/a_pool_while_descriptors_are_short.py", tmp_path, failing_calls)


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
        "short_of/a_memory_cgroup_that_is_nearly_full.py", tmp_path, failing_calls, str(group.path)
    )


def test_auto_beside_a_program_that_eats_memory(
    tmp_path: Path, failing_calls: Path, group: MemoryGroup
) -> None:
    """The pool takes half of what is there, less as there is less, and no process is killed."""
    expect_done(
        "short_of/auto_beside_a_program_that_eats_memory.py",
        tmp_path, failing_calls, str(group.path),
    )  # fmt: skip


def test_a_pool_without_memory_to_grow(
    tmp_path: Path, failing_calls: Path, group: MemoryGroup
) -> None:
    """What is free at INIT is not the limit; and where there is none, stores come first."""
    expect_done(
        "short_of/a_pool_without_memory_to_grow.py", tmp_path, failing_calls, str(group.path)
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
