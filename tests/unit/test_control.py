# SPDX-License-Identifier: GPL-2.0-or-later
"""Control without a mount and without a core: what the files and ioctls mean."""

from __future__ import annotations

import ctypes
import enum
import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import abi
from livedumpfs.abi import InitFlag, State
from livedumpfs.control import Access, Caller, Control
from livedumpfs.dump import counters
from livedumpfs.errors import StateError, TargetError
from livedumpfs.machines import PhysicalRange
from livedumpfs.targets import Errands, Kind
from livedumpfs.units import PAGE_SIZE

DEADLINE = 300.0


class Step(enum.Enum):
    """The states of a dump, in order."""

    UNINIT = 0
    INIT = 1
    START = 2
    SWEEP = 3
    FINISH = 4


@dataclass
class Failure:
    operation: int = 0
    error: int = 0
    pfn: int = abi.NO_PFN


@dataclass
class Counters:
    granule_size: int = 4 * PAGE_SIZE
    lost: int = 0
    failure: Failure = field(default_factory=Failure)

    def __getattr__(self, name: str) -> Any:
        """The other counters are all 0."""
        return getattr(counters.Counters(), name)


@dataclass
class Progress:
    total: int = 16 * PAGE_SIZE
    done: int = 0
    lost: int = 0
    phase: str = "ready"


class FakeArena:
    """Page n is full of the byte n."""

    def read(self, offset: int, length: int) -> bytes:
        return bytes((at // PAGE_SIZE) % 256 for at in range(offset, offset + length))


class FakeMachine:
    name, architecture, elf_machine = "fake", "x86_64", 62
    backends = ("sigsegv", "uffd")
    arena = FakeArena()
    memory_map = (
        PhysicalRange(PAGE_SIZE, 2 * PAGE_SIZE, 0),
        PhysicalRange(5 * PAGE_SIZE, PAGE_SIZE, 2 * PAGE_SIZE),
    )

    def console(self) -> bytes:
        return b"hello\n"

    def registers(self) -> list[dict[str, int]]:
        return [{"rip": 0x1000, "rsp": 2**64 - 8}]

    def snapshot_registers(self) -> list[dict[str, int]]:
        raise StateError("no snapshot yet", errno=errno.ENODATA)

    def metadata(self) -> dict[str, object]:
        return {"name": "fake"}


class FakeDump:
    """The order of the steps and nothing else; `finish` ends a sweep, as a drained core would."""

    def __init__(self) -> None:
        self.machine = FakeMachine()
        self.errands = Errands()
        self.expect_init = lambda settings: self.errands.expect_none()
        self.state = Step.UNINIT
        self.verdict: str | None = None
        self.so_far: str | None = None
        self.reason: str | None = None
        self.released: str | None = None
        self.failure: str | None = None
        self.expired: str | None = None
        self.lost: list[list[int]] = []
        self.target: Any = None
        self.settings: Any = None
        self.now = Counters()
        self.done = threading.Event()
        self.in_init: Callable[[], object] = lambda: None
        self.in_wait: Callable[[], object] = lambda: None
        """What others do while somebody waits."""
        self.releases = 0

    @property
    def target_path(self) -> str | None:
        return self.target and self.target.path

    @property
    def snapshot(self) -> Any:
        """The real one's reads are tested in tests/integration."""
        raise StateError("there is no snapshot", errno=errno.ENODATA)

    def _go(self, before: Step, after: Step) -> None:
        if self.state is not before:
            raise StateError(f"{after.name}: not after {self.state.name}", errno=errno.EINVAL)
        self.state = after

    def init(self, target: Any, settings: Any) -> None:
        self.in_init()
        self._go(Step.UNINIT, Step.INIT)
        # As the real one: it alone knows what "not set" comes to.
        taken = settings.without_target() if target is None else settings.on_target()
        self.target, self.settings = target, taken
        self.done.clear()

    def start(self) -> None:
        self._go(Step.INIT, Step.START)

    def sweep(self) -> None:
        self._go(Step.START, Step.SWEEP)

    def finish(self) -> None:
        self._go(Step.SWEEP, Step.FINISH)
        self.done.set()

    def wait(self, timeout: float) -> bool:
        self.in_wait()
        return self.done.wait(timeout)

    def release(self, by: str = "") -> None:
        self.releases += 1
        self.released = f"released {by} in state {self.state.name}"
        self.state = Step.UNINIT
        if self.target is not None:
            self.target.close()
            self.target = None
        self.done.set()

    def counters(self) -> Counters:
        return self.now

    def lost_pages(self) -> list[list[int]]:
        return self.lost

    def progress(self) -> Progress:
        return Progress()


class Bench:
    """A control on fakes, and this thread as its caller."""

    def __init__(self) -> None:
        self.dump = FakeDump()
        self.control = Control(self.dump.machine, self.dump)  # type: ignore[arg-type]
        self.caller = Caller(os.geteuid(), os.getegid(), threading.get_native_id())

    def read(self, name: str) -> str:
        return self.control.read(name, self.caller).decode()

    def write(self, name: str, value: str) -> None:
        self.control.write(name, value.encode(), self.caller)

    def ioctl(
        self, command: int, argument: int = 0, payload: bytes = b"", handle: int = 1
    ) -> bytes:
        return self.control.ioctl(command, argument, payload, self.caller, handle)

    def init(self, flags: InitFlag = InitFlag.NO_TARGET, handle: int = 1, **members: Any) -> None:
        request = abi.Init(version=abi.VERSION, flags=flags, **members)
        self.ioctl(abi.INIT_TYPED, payload=bytes(request), handle=handle)

    @property
    def state(self) -> State:
        return State(int(self.read("control/state").split()[0]))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def refused(code: int, action: Callable[[], object]) -> str:
    """Check the errno of a refusal; its sentence."""
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno == code, caught.value
    return str(caught.value)


# ------------------------------------------------------------------------- steps


def test_the_script_of_suse(bench: Bench, tmp_path: Path) -> None:
    """It looks at the first line of state, writes output, then 1 to 5, each with a newline."""
    assert bench.read("control/state").splitlines()[0] == "0"
    bench.write("control/output", f"{tmp_path / 'out'}\n")
    bench.write("control/state", "1\n")
    bench.write("control/state", "2\n")
    bench.write("control/state", "3\n")
    assert bench.state is State.SWEEP
    bench.dump.in_wait = bench.dump.finish
    bench.write("control/state", "4\n")
    assert bench.state is State.FINISH
    bench.write("control/state", "5\n")
    assert bench.state is State.UNINIT
    assert bench.dump.settings.format == "elf"


def test_state_shows_a_number_an_empty_line_and_a_legend(bench: Bench) -> None:
    lines = bench.read("control/state").splitlines()
    assert lines[:3] == ["0", "", "LIVEDUMP_STATE_UNDEFINED = 0"]
    assert lines[-1] == "LIVEDUMP_STATE_UNINIT = 5"


@pytest.mark.parametrize("step", ["0", "6", "", "x", "1 2", "-1"])
def test_what_is_no_step_is_refused(bench: Bench, step: str) -> None:
    refused(errno.EINVAL, lambda: bench.write("control/state", step))


@pytest.mark.parametrize("command", [abi.START, abi.SWEEP])
def test_steps_before_init_are_refused(bench: Bench, command: int) -> None:
    refused(errno.EINVAL, lambda: bench.ioctl(command))
    assert bench.state is State.UNDEFINED


def test_finish_before_sweep_is_refused(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    refused(errno.EINVAL, lambda: bench.write("control/state", "4"))


def test_a_second_init_is_busy_and_opens_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.init()
    path = tmp_path / "second"
    refused(errno.EBUSY, lambda: bench.init(InitFlag(0), path=os.fsencode(path)))
    assert not path.exists()


def test_release_is_allowed_in_every_state(bench: Bench) -> None:
    bench.ioctl(abi.RELEASE)
    bench.ioctl(abi.RELEASE)
    steps = [bench.init, lambda: bench.ioctl(abi.START), bench.dump.sweep, bench.dump.finish]
    for upto in range(1, len(steps) + 1):
        for step in steps[:upto]:
            step()
        bench.ioctl(abi.RELEASE)
        assert bench.state is State.UNINIT


def test_plain_sweep_returns_at_the_end(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    bench.dump.in_wait = bench.dump.finish
    bench.ioctl(abi.SWEEP)
    assert bench.state is State.FINISH


def test_release_wakes_who_waits_for_the_sweep(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    bench.dump.in_wait = lambda: bench.control.ioctl(abi.RELEASE, 0, b"", bench.caller, 2)
    refused(errno.ECANCELED, lambda: bench.ioctl(abi.SWEEP))


def test_a_failed_dump_gives_its_errno_and_stays_to_be_looked_at(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    bench.dump.failure = "cannot write page 0x1f3a to /dev/x: No space left on device"
    bench.dump.now.failure = Failure(1, errno.ENOSPC, 0x1F3A)
    bench.dump.in_wait = bench.dump.finish
    refused(errno.ENOSPC, lambda: bench.ioctl(abi.SWEEP))
    assert bench.read("control/error").strip() == bench.dump.failure
    assert bench.state is State.FINISH


def test_typed_sweep_can_return_at_once(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    request = abi.Sweep(version=abi.VERSION, flags=abi.SweepFlag.ASYNC)
    bench.ioctl(abi.SWEEP_TYPED, payload=bytes(request))
    assert bench.state is State.SWEEP


def test_who_comes_during_a_step_does_not_wait(bench: Bench) -> None:
    entered, go = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        assert go.wait(DEADLINE)

    bench.dump.in_init = slow
    thread = threading.Thread(target=bench.init)
    thread.start()
    try:
        assert entered.wait(DEADLINE)
        refused(errno.EBUSY, lambda: bench.ioctl(abi.START))
        refused(errno.EBUSY, lambda: bench.write("control/policy", "fail"))
        assert bench.state is State.UNDEFINED
        bench.ioctl(abi.RELEASE)
    finally:
        go.set()
        thread.join(DEADLINE)
    assert bench.state is State.INIT


def test_release_on_close_goes_with_its_own_open_file_only(bench: Bench) -> None:
    bench.init(InitFlag.NO_TARGET | InitFlag.RELEASE_ON_CLOSE, handle=7)
    bench.control.closed(6)
    assert bench.state is State.INIT
    bench.control.closed(7)
    assert bench.state is State.UNINIT
    bench.init(handle=8)
    bench.control.closed(7)
    bench.control.closed(8)
    assert bench.state is State.INIT


def test_a_host_that_ends_releases_and_takes_no_more_steps(bench: Bench) -> None:
    bench.init()
    bench.control.close()
    assert bench.state is State.UNINIT
    refused(errno.ESHUTDOWN, bench.init)


# ------------------------------------------------------------------------ ioctls


def test_an_unknown_command_is_enotty_and_leaves_no_error(bench: Bench) -> None:
    for command in (0x5401, 0xFF03, abi.STATUS + 1):
        refused(errno.ENOTTY, lambda command=command: bench.ioctl(command))  # type: ignore[misc]
    assert bench.read("control/error") == ""


def test_init_reads_the_path_from_the_caller(bench: Bench, tmp_path: Path) -> None:
    path = ctypes.create_string_buffer(os.fsencode(tmp_path / "out"))
    bench.ioctl(abi.INIT, argument=ctypes.addressof(path))
    assert bench.dump.target.goal.path == str(tmp_path / "out")
    bench.ioctl(abi.RELEASE)


def test_init_with_a_pointer_that_is_not_readable(bench: Bench) -> None:
    refused(errno.EFAULT, lambda: bench.ioctl(abi.INIT, argument=8))
    assert "cannot read the target's path at 0x8" in bench.read("control/error")


def test_init_with_a_path_that_has_no_end(bench: Bench) -> None:
    path = ctypes.create_string_buffer(b"/" * (abi.PATH_MAX + 1))
    refused(errno.ENAMETOOLONG, lambda: bench.ioctl(abi.INIT, argument=ctypes.addressof(path)))
    payload = bytearray(bytes(abi.Init(version=abi.VERSION)))
    at = abi.Init.path.offset
    payload[at : at + abi.PATH_MAX] = b"/" * abi.PATH_MAX
    refused(errno.ENAMETOOLONG, lambda: bench.ioctl(abi.INIT_TYPED, payload=bytes(payload)))


def test_init_without_a_target_is_refused(bench: Bench) -> None:
    refused(errno.EINVAL, lambda: bench.ioctl(abi.INIT))
    assert "no target is set" in bench.read("control/error")


def test_type_none_is_a_dump_in_memory(bench: Bench) -> None:
    bench.write("control/type", "none")
    bench.write("control/state", "1")
    assert bench.dump.target is None
    assert bench.state is State.INIT


def test_type_demands_a_kind_of_target(bench: Bench, tmp_path: Path) -> None:
    bench.write("control/type", "memdump")
    bench.write("control/output", str(tmp_path / "out"))
    refused(errno.EINVAL, lambda: bench.write("control/state", "1"))
    assert "control/type is memdump" in bench.read("control/error")
    assert not (tmp_path / "out").exists()


def test_buffered_by_flag_or_by_control(bench: Bench) -> None:
    bench.init()
    assert bench.dump.settings.buffered is False
    bench.ioctl(abi.RELEASE)
    bench.init(InitFlag.NO_TARGET | InitFlag.BUFFERED)
    assert bench.dump.settings.buffered is True
    bench.ioctl(abi.RELEASE)
    bench.write("control/buffered", "1")
    bench.init()
    assert bench.dump.settings.buffered is True


def test_typed_init_overrides_what_control_says(bench: Bench) -> None:
    bench.write("control/policy", "fail")
    bench.write("control/sweep_rate", "1MiB")
    bench.init(policy=abi.Policy.SPILL, granule_size=16384, stall_deadline_ns=1_500_000_000)
    taken = bench.dump.settings
    assert (taken.policy, taken.granule, taken.stall_deadline) == ("spill", 16384, 1.5)
    assert taken.sweep_rate == 1 << 20
    assert bench.read("control/policy") == "fail\n"


@pytest.mark.parametrize(
    "members",
    [
        {"policy": 9},
        {"format": 4},
        {"arming": 77},
        {"stall_deadline_ns": 2**64 - 1},
        {"granule_size": 5000},
        {"backend": 3},
        {"reserved": 1},
    ],
)
def test_typed_init_refuses_values_out_of_range(bench: Bench, members: dict[str, int]) -> None:
    refused(errno.EINVAL, lambda: bench.init(**members))
    assert bench.state is State.UNDEFINED


def test_typed_init_says_how_a_kdump_is_packed(bench: Bench) -> None:
    bench.write("control/level", "5")
    bench.write("control/compression", "zstd")
    bench.init(format=abi.Format.KDUMP, threads=3, max_age_ns=1_500_000_000)
    taken = bench.dump.settings
    assert (taken.format, taken.compression, taken.level) == ("kdump", "zstd", 5)
    assert (taken.threads, taken.max_age) == (3, 1.5)
    status = abi.Status.from_buffer_copy(bench.ioctl(abi.STATUS))
    assert status.backend == abi.Backend.SIGSEGV
    assert (status.format, status.compression) == (abi.Format.KDUMP, abi.Compression.ZSTD)
    assert (status.level, status.threads, status.max_age_ns) == (5, 3, 1_500_000_000)
    bench.ioctl(abi.RELEASE)
    # Another compression than that of control/: its level is another matter too.
    bench.init(format=abi.Format.KDUMP, compression=abi.Compression.LZO)
    assert (bench.dump.settings.compression, bench.dump.settings.level) == ("lzo", 0)


@pytest.mark.parametrize(
    ("format", "members"),
    [
        (abi.Format.KDUMP, {"compression": 6}),
        (abi.Format.KDUMP, {"level": 23}),
        (abi.Format.KDUMP, {"compression": abi.Compression.SNAPPY, "level": 1}),
        (abi.Format.KDUMP, {"threads": 65}),
        (abi.Format.KDUMP, {"table": abi.Table.TAIL}),
        (abi.Format.RAW, {"table": 3}),
        (abi.Format.RAW, {"threads": 1}),
        (abi.Format.RAW, {"table": abi.Table.TAIL, "sidecar": b"/x"}),
        (abi.Format.ELF, {"compression": abi.Compression.ZSTD}),
        (abi.Format.ELF, {"level": 1}),
        (abi.Format.ELF, {"sidecar": b"/x"}),
        (0, {"table": abi.Table.SIDECAR}),
        (0, {"max_age_ns": 1 << 63}),
        (0, {"reserved": 1}),
    ],
)
def test_typed_init_refuses_what_does_not_fit(
    bench: Bench, format: int, members: dict[str, Any]
) -> None:
    refused(errno.EINVAL, lambda: bench.init(format=format, **members))
    assert bench.state is State.UNDEFINED


def test_what_control_says_for_another_format_waits(bench: Bench) -> None:
    bench.write("control/compression", "zlib")
    bench.write("control/level", "9")
    bench.write("control/table", "tail")
    bench.init()
    taken = bench.dump.settings
    assert (taken.format, taken.compression, taken.level, taken.table) == (
        "elf",
        "zstd",
        0,
        "sidecar",
    )
    bench.ioctl(abi.RELEASE)
    assert bench.read("control/level") == "9\n"
    bench.write("control/format", "kdump")
    bench.init()
    assert (bench.dump.settings.compression, bench.dump.settings.level) == ("zlib", 9)


def test_a_client_from_before_these_members_is_understood(bench: Bench) -> None:
    """Its struct has zeros there."""
    payload = bytearray(bytes(abi.Init(version=1, flags=InitFlag.NO_TARGET, format=abi.Format.RAW)))
    begin, end = abi.offset_of(abi.Init, "compression"), abi.offset_of(abi.Init, "path")
    assert payload[begin:end] == bytes(32)
    bench.ioctl(abi.INIT_TYPED, payload=bytes(payload))
    assert (bench.dump.settings.format, bench.dump.settings.max_age) == ("raw", 0)


@pytest.mark.parametrize("way", ["typed", "type", "state"])
def test_without_a_target_nothing_waits_for_a_slot(bench: Bench, way: str) -> None:
    bench.write("control/spill_limit", "1MiB")
    if way == "typed":
        bench.init()
    else:
        bench.write("control/type", "none")
        if way == "type":
            bench.ioctl(abi.INIT)
        else:
            bench.write("control/state", "1")
    taken = bench.dump.settings
    assert (taken.policy, taken.spill_limit, taken.pool) == ("spill", 1 << 20, 1 << 20)
    status = abi.Status.from_buffer_copy(bench.ioctl(abi.STATUS))
    assert (status.policy, status.spill_limit) == (abi.Policy.SPILL, 1 << 20)
    assert json.loads(bench.read("stats.json"))["settings"]["policy"] == "spill"
    bench.ioctl(abi.RELEASE)
    assert bench.read("control/policy") == "block\n"


def test_without_a_target_fail_stays_fail(bench: Bench) -> None:
    bench.init(policy=abi.Policy.FAIL)
    assert bench.dump.settings.policy == "fail"
    bench.ioctl(abi.RELEASE)
    bench.write("control/policy", "fail")
    bench.init()
    assert bench.dump.settings.policy == "fail"
    bench.ioctl(abi.RELEASE)
    bench.init(policy=abi.Policy.BLOCK)
    assert bench.dump.settings.policy == "spill"


def test_status_says_how_the_last_dump_ended(bench: Bench) -> None:
    def ended() -> int:
        return abi.Status.from_buffer_copy(bench.ioctl(abi.STATUS)).ended

    assert ended() == abi.Ended.NOT
    bench.init()
    assert ended() == abi.Ended.NOT
    bench.ioctl(abi.RELEASE)
    assert ended() == abi.Ended.RELEASE
    released = json.loads(bench.read("stats.json"))["released"]
    assert released == (
        f"released by process {bench.caller.tid} of user {bench.caller.uid} in state INIT"
    )
    bench.dump.expired = "released: older than its maximum age of 3 s"
    assert ended() == abi.Ended.AGE
    assert json.loads(bench.read("stats.json"))["expired"] == bench.dump.expired
    sentence = refused(errno.EINVAL, lambda: bench.write("control/state", "4"))
    assert "older than its maximum age" in sentence


def test_stats_name_lost_pages_and_have_an_end(bench: Bench) -> None:
    bench.dump.lost = [[n, n + 1] for n in range(0, 3000, 2)]
    assert json.loads(bench.read("stats.json"))["lost_pages"] == bench.dump.lost[:1000]


def test_a_pipe_is_for_kdump_alone(bench: Bench, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    bench.write("control/output", str(fifo))
    bench.write("control/format", "raw")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        sentence = refused(errno.ESPIPE, lambda: bench.write("control/state", "1"))
        assert "it is a pipe, and format raw needs a device or a file" in sentence
        assert os.listdir(tmp_path) == ["fifo"], "a sidecar file is left"
        bench.write("control/format", "kdump")
        bench.write("control/type", "filedump")
        assert "it is a pipe" in refused(errno.EINVAL, lambda: bench.write("control/state", "1"))
        bench.write("control/type", "auto")
        bench.write("control/state", "1")
        assert bench.dump.target.kind is Kind.STREAM
        bench.ioctl(abi.RELEASE)
    finally:
        os.close(reader)
    assert "no process reads it" in refused(errno.ENXIO, lambda: bench.write("control/state", "1"))


def test_another_version_of_the_interface_is_refused(bench: Bench) -> None:
    refused(errno.EPROTO, lambda: bench.ioctl(abi.INIT_TYPED, payload=bytes(abi.Init(version=2))))
    refused(errno.EPROTO, lambda: bench.ioctl(abi.SWEEP_TYPED, payload=bytes(abi.Sweep())))


def test_an_unknown_flag_is_refused(bench: Bench) -> None:
    refused(errno.EINVAL, lambda: bench.init(InitFlag(0x80)))
    wrong = abi.Sweep(version=abi.VERSION, flags=2)
    refused(errno.EINVAL, lambda: bench.ioctl(abi.SWEEP_TYPED, payload=bytes(wrong)))


def test_status_tells_state_and_failure(bench: Bench) -> None:
    bench.init(policy=abi.Policy.FAIL)
    bench.dump.now.failure = Failure(1, errno.EIO, 5)
    status = abi.Status.from_buffer_copy(bench.ioctl(abi.STATUS))
    assert status.version == abi.VERSION
    assert status.state == State.INIT
    assert status.policy == abi.Policy.FAIL
    assert status.bytes_total == 16 * PAGE_SIZE
    assert (status.failure.error, status.failure.pfn) == (errno.EIO, 5)


def test_a_verdict_is_one_only_when_it_is_final(bench: Bench) -> None:
    bench.init()
    bench.ioctl(abi.START)
    bench.dump.so_far, bench.dump.reason = "torn", "more was overwritten"
    status = abi.Status.from_buffer_copy(bench.ioctl(abi.STATUS))
    assert (status.verdict, status.so_far) == (abi.Verdict.NONE, abi.Verdict.TORN)
    stats = json.loads(bench.read("stats.json"))
    known = [stats[name] for name in ("verdict", "so_far", "reason", "failure")]
    assert known == [None, "torn", "more was overwritten", None]
    assert " verdict=- so_far=torn " in bench.read("livedump")


# ------------------------------------------------------------------------ rights


def test_only_root_and_the_owner_may_control(bench: Bench) -> None:
    bench.control.access = Access(owner=4242)
    stranger = Caller(4243, 4243, threading.get_native_id())
    refused(errno.EACCES, lambda: bench.control.ioctl(abi.RELEASE, 0, b"", stranger, 1))
    refused(errno.EACCES, lambda: bench.control.write("control/policy", b"fail", stranger))
    for uid in (0, 4242):
        bench.control.ioctl(abi.RELEASE, 0, b"", Caller(uid, 0, 0), 1)


def test_a_group_may_control_when_the_host_says_so(bench: Bench) -> None:
    tid = threading.get_native_id()
    mine = Access(owner=4242, group=os.getegid())
    mine.check(Caller(os.geteuid(), os.getegid(), tid))
    foreign = Access(owner=4242, group=54321)
    # This task is in no such group; and who claims another user's name is not believed.
    if os.geteuid() != 0:
        refused(errno.EACCES, lambda: foreign.check(Caller(os.geteuid(), 0, tid)))
    refused(errno.EACCES, lambda: mine.check(Caller(77, os.getegid(), tid)))


def test_a_caller_that_lies_about_itself_is_refused(bench: Bench, tmp_path: Path) -> None:
    """The helper compares the ids that FUSE gave with what the task is."""
    bench.caller = Caller(0, 54321, threading.get_native_id())
    path = os.fsencode(tmp_path / "out")
    refused(errno.EPERM, lambda: bench.init(InitFlag(0), path=path))


def test_a_caller_in_another_pid_namespace_can_have_no_target(bench: Bench) -> None:
    bench.caller = Caller(0, 0, 0)
    refused(errno.EPERM, lambda: bench.init(InitFlag(0), path=b"/tmp/x"))
    refused(errno.EPERM, lambda: bench.ioctl(abi.INIT, argument=4096))
    bench.init()


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("name", "written", "shown"),
    [
        ("output", "/dev/loop7", "/dev/loop7"),
        ("buffer_size", "16384", "16384"),
        ("buffer_size", "1000", "1024"),
        ("buffer_size", "1MiB", "256"),
        ("consistent", "0", "0"),
        ("type", "filedump", "filedump"),
        ("use_interrupt", "1", "1"),
        ("format", "raw", "raw"),
        ("policy", "spill", "spill"),
        ("arming", "mprotect", "mprotect"),
        ("backend", "uffd", "uffd"),
        ("backend", "auto", "auto"),
        ("granule", "16K", "16384"),
        ("granule", "0", "0"),
        ("sweep_rate", "100MiB", "104857600"),
        ("spill_limit", "1GiB", "1073741824"),
        ("stall_deadline", "0.5", "0.5"),
        ("init_deadline", "2.5", "2.5"),
        ("quiesce_deadline", "0.25", "0.25"),
        ("buffered", "1", "1"),
        ("force", "1", "1"),
        ("format", "kdump", "kdump"),
        ("compression", "snappy", "snappy"),
        ("level", "22", "22"),
        ("threads", "64", "64"),
        ("table", "tail", "tail"),
        ("max_age", "0.5", "0.5"),
        ("max_age", "5min", "300"),
        ("max_age", "0", "0"),
        ("sidecar", "/tmp/x.ldfs", "/tmp/x.ldfs"),
    ],
)
def test_a_setting_reads_as_written(bench: Bench, name: str, written: str, shown: str) -> None:
    bench.write(f"control/{name}", written + "\n")
    assert bench.read(f"control/{name}").splitlines()[0] == shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("buffer_size", "0"),
        ("buffer_size", "-1"),
        ("consistent", "2"),
        ("type", "disk"),
        ("use_interrupt", "yes"),
        ("format", "tar"),
        ("policy", ""),
        ("arming", "SWAP"),
        ("backend", "userfaultfd"),
        ("granule", "5000"),
        ("granule", "2048"),
        ("sweep_rate", "fast"),
        ("stall_deadline", "0"),
        ("init_deadline", "0"),
        ("quiesce_deadline", "0"),
        ("stall_deadline", "nan"),
        ("stall_deadline", "inf"),
        ("buffered", "yes"),
        ("force", "true"),
        ("compression", "bzip2"),
        ("level", "23"),
        ("level", "-1"),
        ("threads", "65"),
        ("table", "front"),
        ("max_age", "-1"),
        ("max_age", "nan"),
        ("max_age", "9999999999"),
        ("output", "a\0b"),
        ("output", "/" * 4096),
        ("buffer_size", "8388608T"),
        ("spill_limit", "18446744073709551616"),
        ("sweep_rate", "9" * 4000),
        ("policy", "x" * 100_000),
    ],
)
def test_a_value_that_makes_no_sense_changes_nothing(bench: Bench, name: str, value: str) -> None:
    before = bench.read(f"control/{name}")
    refused(errno.EINVAL, lambda: bench.write(f"control/{name}", value))
    assert bench.read(f"control/{name}") == before
    assert bench.read("control/error").startswith(f"control/{name}: ")
    assert len(bench.read("control/error")) < 3 * abi.PATH_MAX


def test_settings_are_fixed_while_there_is_a_dump(bench: Bench) -> None:
    bench.init()
    refused(errno.EBUSY, lambda: bench.write("control/policy", "fail"))
    for name, value in (("compression", "lzo"), ("threads", "1"), ("max_age", "1")):
        refused(errno.EBUSY, lambda name=name, value=value: bench.write(f"control/{name}", value))  # type: ignore[misc]
    bench.ioctl(abi.RELEASE)
    bench.write("control/policy", "fail")


def test_consistent_is_the_policy_in_suses_words(bench: Bench) -> None:
    bench.write("control/consistent", "0")
    assert bench.read("control/policy") == "fail\n"
    bench.write("control/consistent", "1")
    assert bench.read("control/policy") == "block\n"
    bench.write("control/policy", "spill")
    bench.write("control/consistent", "1")
    assert bench.read("control/policy") == "spill\n"


def test_force_is_for_one_dump(bench: Bench) -> None:
    bench.write("control/force", "1")
    bench.init()
    assert bench.dump.settings.force is True
    assert bench.read("control/force") == "0\n"


def test_what_cannot_be_written(bench: Bench) -> None:
    for name in ("control/failed", "control/error", "mem", "livedump", "stats.json", "nothing"):
        refused(errno.EACCES, lambda name=name: bench.write(name, "1"))  # type: ignore[misc]


def test_failed_counts_pages(bench: Bench) -> None:
    bench.dump.now.lost = 3
    assert bench.read("control/failed") == "12\n"


# ----------------------------------------------------------------------- reports


def test_every_name_can_be_read(bench: Bench) -> None:
    for name in bench.control.names():
        if name != "mem":
            assert isinstance(bench.control.read(name, bench.caller), bytes), name


def test_a_name_that_is_not_there(bench: Bench) -> None:
    refused(errno.ENOENT, lambda: bench.read("control/nothing"))


def test_the_status_line_is_one_line(bench: Bench) -> None:
    line = bench.read("livedump")
    assert line.startswith("state=UNDEFINED verdict=- so_far=- done=0 total=65536 lost=0")
    assert line.count("\n") == 1


def test_registers_as_text_and_json(bench: Bench) -> None:
    assert "rip      0x0000000000001000\n" in bench.read("machine/registers")
    found = json.loads(bench.read("machine/registers.json"))
    live = [{"rip": 0x1000, "rsp": 2**64 - 8}]
    assert found == {"numbers": [0], "live": live, "snapshot": None}


def test_map_names_first_and_last_byte(bench: Bench) -> None:
    lines = bench.read("machine/map").splitlines()
    assert lines[0] == "0000000000001000-0000000000002fff arena 0x0"
    assert lines[1] == "0000000000005000-0000000000005fff arena 0x2000"


def test_each_task_reads_its_own_error(bench: Bench) -> None:
    refused(errno.EINVAL, lambda: bench.write("control/policy", "nonsense"))
    other = Caller(os.geteuid(), os.getegid(), bench.caller.tid + 1)
    with pytest.raises(OSError):
        bench.control.write("control/format", b"wrong", other)
    assert "nonsense" in bench.read("control/error")
    assert "wrong" in bench.control.read("control/error", other).decode()
    anybody = Caller(os.geteuid(), os.getegid(), bench.caller.tid + 2)
    assert "wrong" in bench.control.read("control/error", anybody).decode()


def test_an_error_in_the_core_without_errno_is_eio(bench: Bench) -> None:
    def fail() -> None:
        raise TargetError("no errno here")

    bench.dump.in_init = fail
    refused(errno.EIO, bench.init)
    assert bench.read("control/error") == "no errno here\n"


# ------------------------------------------------------------------------ memory


def test_live_memory_by_physical_address(bench: Bench) -> None:
    memory = bench.control.read_memory(0, 100 * PAGE_SIZE)
    pages = [memory[at] for at in range(0, len(memory), PAGE_SIZE)]
    # Pages 0, 3 and 4 are in no range: zeros. Arena page 0 is full of zeros too.
    assert pages == [0, 0, 1, 0, 0, 2]
    assert bench.control.memory.size == len(memory) == 6 * PAGE_SIZE


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 8191, 12287, 12288, 20479, 20480, 24575])
@pytest.mark.parametrize("length", [0, 1, 2, 4096, 9000, 30000])
def test_any_part_of_live_memory_is_that_part(bench: Bench, offset: int, length: int) -> None:
    whole = bench.control.read_memory(0, 6 * PAGE_SIZE)
    assert bench.control.read_memory(offset, length) == whole[offset : offset + length]


def test_behind_the_end_there_is_nothing(bench: Bench) -> None:
    assert bench.control.read_memory(6 * PAGE_SIZE, 10) == b""
    assert bench.control.read_memory(2**62, 10) == b""
