# SPDX-License-Identifier: GPL-2.0-or-later
"""Control without a mount and without a core: the files that tell, and the live memory."""

from __future__ import annotations

import errno
import json
import os

import pytest

from livedumpfs.control import Caller
from livedumpfs.errors import TargetError
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.control_bench import Bench
from tests.fixtures.refusals import refused

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
