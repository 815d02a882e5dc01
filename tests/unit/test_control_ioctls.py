# SPDX-License-Identifier: GPL-2.0-or-later
"""Control without a mount and without a core: what the ioctls mean."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import abi
from livedumpfs.abi import InitFlag, State
from livedumpfs.targets import Kind
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.control_bench import Bench, Failure
from tests.fixtures.refusals import refused


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
        {"backend": 5},
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
    assert (taken.policy, taken.spill_limit, taken.pool) == ("spill", 1 << 20, "auto")
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
