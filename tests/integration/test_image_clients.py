# SPDX-License-Identifier: GPL-2.0-or-later
"""mem.raw and mem.lime as other programs see them: volatility3's layers, loop devices, cmp.

volatility3's plugins want a Linux guest, which the machines here have not; its layers are what
reads memory for them.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.abi import Format, State, Verdict
from livedumpfs.client import Client, InitOptions
from livedumpfs.formats import MachineInfo, MemoryRange, Plan
from tests.fixtures import forks
from tests.fixtures.program_files import program_command

MIB = 1 << 20
PAGE = 4096
LOW = MIB
HIGH_START, HIGH_SIZE = 1 << 32, MIB // 2
DEADLINE = 300.0
WriteDump = Callable[..., Plan]
HostMaker = Callable[..., Any]


def layer(
    path: Path, kind: str, reads: list[tuple[int, int]], scratch: Path
) -> tuple[list[str], list[bytes | None]]:
    """The layer's name, first and last address; and what it reads, None where it has nothing."""
    done = subprocess.run(
        program_command(__file__, "volatility_reads.py", str(path), kind, json.dumps(reads)),
        capture_output=True, text=True, timeout=DEADLINE, check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(scratch / "cache"), "HOME": str(scratch)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    return head.split(), [None if one == "invalid" else bytes.fromhex(one) for one in lines]


def test_volatility_reads_images_with_a_gap(write_dump: WriteDump, tmp_path: Path) -> None:
    """At both ends of both ranges, across the gap's edges, within it, and outside of all."""
    memory = random.Random(11).randbytes(LOW + HIGH_SIZE)
    ranges = (MemoryRange(0, LOW, 0), MemoryRange(HIGH_START, HIGH_SIZE, LOW))
    write_dump(tmp_path / "dump", memory, machine=MachineInfo("flat", memory_map=ranges))
    for kind in ("raw", "lime"):
        command = [sys.executable, "-m", "livedumpfs.cli", "convert", str(tmp_path / "dump"),
                   str(tmp_path / kind), "--format", kind]  # fmt: skip
        forks.run(command, timeout=DEADLINE, check=True, capture_output=True)
    low, high, end = memory[:LOW], memory[LOW:], HIGH_START + HIGH_SIZE
    reads = [(0, 16), (PAGE - 3, 77), (LOW - 8, 8), (HIGH_START, 2 * PAGE), (end - 1, 1)]
    right = [low[:16], low[PAGE - 3 : PAGE + 74], low[-8:], high[: 2 * PAGE], high[-1:]]
    reads += [(LOW - 8, 16), (LOW, 8), (HIGH_START - 8, 16), (end - 4, 8), (end, 1)]
    head, found = layer(tmp_path / "lime", "lime", reads, tmp_path)
    assert head == ["LimeLayer", "0", str(end - 1)]
    assert found == [*right, None, None, None, None, None]
    head, found = layer(tmp_path / "raw", "raw", reads, tmp_path)
    assert head == ["FileLayer", "0", str(end - 1)]
    zeros = bytes(8)
    assert found == [*right, low[-8:] + zeros, zeros, zeros + high[:8], None, None]


def test_volatility_reads_the_live_mount(run_host: HostMaker, tmp_path: Path) -> None:
    host = run_host()
    root = host.mountpoint / "snapshot"
    with Client(host.device) as client:
        client.init(str(tmp_path / "out"))
        client.start()
        raw = (root / "mem.raw").read_bytes()
        size = len(raw)
        reads = [(at, 5000) for at in random.Random(3).sample(range(size - 5000), 20)]
        expected = [raw[at : at + length] for at, length in reads]
        for kind in ("raw", "lime"):
            head, found = layer(root / f"mem.{kind}", kind, [*reads, (size, 1)], tmp_path)
            assert head[1:] == ["0", str(size - 1)]
            assert found == [*expected, None]
        assert client.status().state is State.START
        client.release()


@contextmanager
def loop_over(path: Path) -> Iterator[str]:
    """A read-only loop device over a file of a mount; detached, and let go by the kernel, after."""
    command = ["losetup", "--read-only", "--find", "--show", str(path)]
    done = subprocess.run(command, timeout=DEADLINE, check=True, capture_output=True, text=True)
    device = done.stdout.strip()
    backing = Path("/sys/block", os.path.basename(device), "loop/backing_file")
    try:
        yield device
    finally:
        deadline = time.monotonic() + DEADLINE
        while backing.exists():
            assert time.monotonic() < deadline, f"{device} is still in use"
            subprocess.run(["losetup", "--detach", device], timeout=DEADLINE, check=False)
            time.sleep(0.02)


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/loop-control"), reason="loop devices need root"
)
def test_a_loop_device_over_mem_raw_is_the_target(run_host: HostMaker, tmp_path: Path) -> None:
    """Read before the sweep, and compared by cmp when the target is finished."""
    host, target = run_host(), tmp_path / "out"
    with Client(host.device) as client:
        client.init(str(target), InitOptions(format=Format.RAW))
        client.start()
        with loop_over(host.mountpoint / "snapshot" / "mem.raw") as device:
            with open(device, "rb") as file:
                before = hashlib.file_digest(file, "sha256").hexdigest()
            client.sweep()
            assert client.finish(DEADLINE).verdict is Verdict.CONSISTENT
            assert hashlib.sha256(target.read_bytes()).hexdigest() == before
            # What the kernel kept of the first reading is no proof of the second.
            subprocess.run(["blockdev", "--flushbufs", device], timeout=DEADLINE, check=True)
            subprocess.run(["cmp", device, str(target)], timeout=DEADLINE, check=True)
        client.release()
