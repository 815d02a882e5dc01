# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpSettings: what is refused, and what is left out for a format or without a target."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from livedumpfs.compression import MAX_LEVELS, MAX_THREADS
from livedumpfs.core.capi import ffi, lib
from livedumpfs.dump import DumpSettings, spill
from livedumpfs.errors import UsageError
from livedumpfs.units import parse_duration


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"compression": "bzip2"}, "unknown compression 'bzip2'"),
        ({"level": 23}, "zstd has no level 23"),
        ({"level": -1}, "zstd has no level -1"),
        ({"compression": "zlib", "level": 10}, "from 1 to 9"),
        ({"compression": "lzo", "level": 1}, "it has no levels"),
        ({"threads": -1}, "-1 threads"),
        ({"threads": 65}, "from 1 to 64"),
        ({"max_age": -1.0}, "maximum age of -1 s"),
        ({"max_age": math.nan}, "maximum age of nan s"),
        ({"max_age": 1e10}, "maximum age"),
        ({"table": "middle"}, "unknown place of the table"),
    ],
)
def test_values_that_make_no_sense(values: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        DumpSettings(format="kdump", **values).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"compression": "zlib"}, "compression zlib does not go with format elf"),
        ({"level": 3}, "compression level 3 does not go with format elf"),
        ({"threads": 2}, "a number of threads of 2 does not go with format elf"),
        ({"table": "tail"}, "a table at the tail does not go with format elf"),
        ({"format": "kdump", "table": "tail"}, "format raw has it"),
        ({"format": "raw", "compression": "lzo"}, "format kdump has it"),
        ({"format": "raw", "table": "tail", "sidecar": "x"}, "has no sidecar file"),
    ],
)
def test_values_of_another_format(values: dict[str, object], why: str) -> None:
    settings = DumpSettings(**values)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=why):
        settings.check()
    settings.check_values()
    settings.fitted().check()


def test_what_fits_stays() -> None:
    kdump = DumpSettings(format="kdump", compression="zlib", level=9, threads=64, max_age=0.5)
    kdump.check()
    assert kdump.fitted() == kdump
    tail = DumpSettings(format="raw", table="tail")
    tail.check()
    assert tail.fitted() == tail


def test_limits_are_those_of_the_core() -> None:
    assert lib.LDFS_MAX_PACKERS == MAX_THREADS
    codecs = {
        "zstd": lib.LDFS_CODEC_ZSTD,
        "zlib": lib.LDFS_CODEC_ZLIB,
        "lzo": lib.LDFS_CODEC_LZO,
        "snappy": lib.LDFS_CODEC_SNAPPY,
        "none": lib.LDFS_CODEC_NONE,
    }
    page, out = ffi.new("char[]", b"x" * 4096), ffi.new("char[]", 4096)
    described = ffi.new("ldfs_page_desc[1]")
    assert set(codecs) == set(MAX_LEVELS)
    for name, codec in codecs.items():
        highest = MAX_LEVELS[name]
        assert lib.ldfs_pages_pack(codec, highest, page, 1, out, described) > 0
        assert lib.ldfs_pages_pack(codec, highest + 1, page, 1, out, described) < 0


def test_without_a_target_nothing_waits() -> None:
    block = DumpSettings(pool=64 << 20, spill_limit=1 << 20).without_target()
    assert (block.policy, block.pool, block.spill_limit) == ("spill", 1 << 20, 1 << 20)
    large = DumpSettings(policy="spill", pool=4096, spill_limit=1 << 20).without_target()
    assert (large.policy, large.pool) == ("spill", 4096)
    auto = DumpSettings(spill_limit=1 << 20).without_target()
    assert (auto.policy, auto.pool, auto.spill_limit) == ("spill", "auto", 1 << 20)
    fail = DumpSettings(policy="fail", pool=4096).without_target()
    assert (fail.policy, fail.pool) == ("fail", 4096)


def test_a_limit_that_is_not_set_is_chosen_at_init() -> None:
    assert DumpSettings().on_target(1 << 30).spill_limit == 1 << 30
    assert DumpSettings(pool=4096).on_target(1 << 30).spill_limit == 256 << 20
    assert DumpSettings(spill_limit=5).on_target().spill_limit == 5
    assert DumpSettings().without_target(1 << 30).spill_limit == 1 << 30
    assert DumpSettings(spill_limit=4096).without_target(1 << 30).spill_limit == 4096
    small = DumpSettings().without_target(1 << 20)
    assert (small.pool, small.spill_limit) == ("auto", 1 << 20)


def test_a_policy_that_never_waits_holds_nothing() -> None:
    DumpSettings(at_limit="hold").check()
    with pytest.raises(UsageError, match="policy fail holds nothing"):
        DumpSettings(policy="fail", at_limit="hold").check()


@pytest.mark.parametrize(("costs", "limit"), [(False, 1 << 30), (True, 256 << 20)])
def test_on_a_target_what_is_free_now_is_no_limit(
    costs: bool, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        @staticmethod
        def ldfs_headroom_ram(size: int) -> bool:
            return size <= 64 << 20

    machine = SimpleNamespace(arena=SimpleNamespace(size=1 << 30))
    monkeypatch.setattr(spill, "lib", Memory)
    monkeypatch.setattr(spill, "_reserving_costs", lambda: costs)
    fitted = partial(spill.fitted_to_memory, machine)  # type: ignore[arg-type]
    assert fitted(DumpSettings(), True).spill_limit == limit
    assert (fitted(DumpSettings(), False).spill_limit <= 32 << 20) == (not costs)


@pytest.mark.parametrize("size", [16 << 20, 256 << 30])
@pytest.mark.parametrize("free", [64 << 20, 1 << 30, 2 << 40])
def test_the_limit_is_the_machine_or_half_of_what_is_free(
    size: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        @staticmethod
        def ldfs_headroom_ram(size: int) -> bool:
            return size <= free

    monkeypatch.setattr(spill, "lib", Memory)
    found = spill.memory_room(size, DumpSettings())
    assert found <= size and 2 * found <= free
    assert found == size or 2 * found > free - (4 << 20)


def test_the_core_knows_how_much_is_free() -> None:
    assert lib.ldfs_headroom(1 << 20)
    assert not lib.ldfs_headroom(1 << 60)


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA", "vm.overcommit_memory"])
def test_where_a_reservation_counts_little_is_reserved(
    limit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limited, overcommit = getattr(spill.resource, limit, None), tmp_path / "overcommit_memory"
    overcommit.write_text("0\n" if limited else "2\n")
    monkeypatch.setattr(spill, "_OVERCOMMIT", overcommit)
    most = spill.resource.RLIM_INFINITY
    monkeypatch.setattr(
        spill.resource, "getrlimit", lambda one: (8 << 30 if one == limited else most, most)
    )
    assert spill.memory_room(4 << 30, DumpSettings()) == 256 << 20
    assert spill.memory_room(4 << 20, DumpSettings()) == 4 << 20


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"format": "zip"}, "unknown format 'zip' \\(one of elf, raw, kdump\\)"),
        ({"format": None}, "format must be text, not None"),
        ({"pool": "64M"}, "unknown pool '64M'"),
        ({"granule": 4096.0}, "granule must be a whole number"),
        ({"threads": True}, "threads must be a whole number, not True"),
        ({"stall_deadline": "1s"}, "stall_deadline must be a number of seconds"),
        ({"force": "no"}, "force must be True or False"),
        ({"policy": 1}, "policy must be text"),
    ],
)
def test_values_of_a_wrong_type(values: dict[str, object], why: str) -> None:
    settings = DumpSettings(**values)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=why) as caught:
        settings.check()
    assert isinstance(caught.value, TypeError) == ("unknown" not in why)


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("0.5", 0.5), ("30s", 30), ("5min", 300), ("2h", 7200), ("1 d", 86400)],
)
def test_durations(text: str, value: float) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "s", "-1", "1 week", "1e3", "nan", "1.2.3s"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        parse_duration(text)
