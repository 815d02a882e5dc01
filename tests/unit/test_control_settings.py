# SPDX-License-Identifier: GPL-2.0-or-later
"""Control without a mount and without a core: the files that are settings."""

from __future__ import annotations

import errno

import pytest

from livedumpfs import abi
from tests.fixtures.control_bench import Bench
from tests.fixtures.refusals import refused


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
        ("backend", "default", "default"),
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
