# SPDX-License-Identifier: GPL-2.0-or-later
"""The mount of a real host: files and ioctls as other programs use them, and the client module."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import abi
from livedumpfs.abi import State, Verdict
from livedumpfs.cli.proof import prove_dump
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import HostError, StateError
from livedumpfs.hosts import registry
from livedumpfs.hosts.device import find_device
from tests.fixtures import forks
from tests.fixtures.program_files import program_command, program_file

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DEADLINE = 300.0
SLOW = 1 << 10
"""Bytes a second: a sweep that lasts as long as any test."""


@pytest.fixture
def host(run_host: HostMaker) -> Host:
    return run_host(rate=10)  # a slow sweep finds something to do


def good(target: Path) -> None:
    """The dump is sealed, consistent, and its checksums and ledger are right."""
    with open_dump(str(target)) as dump:
        assert dump.verdict == "consistent"
        report = prove_dump(dump)
    assert report.ok, report


# --------------------------------------------------------------------------- files


def test_the_tree(host: Host) -> None:
    root = host.mountpoint
    names = ["control", "dumps", "livedump", "machine", "mem", "metrics", "stats.json"]
    assert sorted(os.listdir(root)) == names
    for name in ("livedump", "control/state"):
        assert stat.S_IMODE(os.stat(root / name).st_mode) == 0o600
        assert stat.S_ISREG(os.stat(root / name).st_mode)
    assert stat.S_IMODE(os.stat(root / "mem").st_mode) == 0o400
    assert host.read("livedump").startswith("state=UNDEFINED ")
    assert host.read("machine/console")
    assert host.read("machine/map").startswith("0000000000000000-0000000000ffffff arena 0x0\n")
    assert host.read("machine/state").startswith("ledger x86_64\nvCPU 0: ")
    registers = json.loads(host.read("machine/registers.json"))
    assert len(registers["live"]) == 2 and registers["live"][0]["rip"] > 0
    assert "rip " in host.read("machine/registers")
    stats = json.loads(host.read("stats.json"))
    assert stats["state"] == "UNDEFINED" and len(stats["counters"]["handler_ns"]) == 40


def test_what_is_not_there_or_not_allowed(host: Host) -> None:
    with pytest.raises(FileNotFoundError):
        host.read("nothing")
    with pytest.raises(OSError, match="Read-only file system"):
        os.mkdir(host.mountpoint / "new")
    fd = os.open(host.device, os.O_RDWR)
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    os.close(fd)


def test_mem_is_the_machines_memory(host: Host) -> None:
    """Its size, its code, and the same through any offset."""
    path = host.mountpoint / "mem"
    assert path.stat().st_size == 16 << 20
    with open(path, "rb", buffering=0) as file:
        memory = bytearray()
        while piece := file.read(1 << 20):
            memory += piece
    assert len(memory) == 16 << 20
    code = memory[0x100000:0x101000]
    assert any(code)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(fd, 4096, 0x100000) == code
        assert os.pread(fd, 100, 0x100003) == code[3:103]
        assert os.pread(fd, 4096, (16 << 20) - 10) == bytes(memory[-10:])
        assert os.pread(fd, 1, 16 << 20) == b""
    finally:
        os.close(fd)


def test_a_reader_in_small_pieces_gets_one_answer(host: Host) -> None:
    with open(host.mountpoint / "machine/registers", "rb", buffering=0) as file:
        pieces = b"".join(iter(lambda: file.read(7), b""))
        blocks = pieces.decode().split("\n\n")
        assert [block.split("\n")[0] for block in blocks] == ["vcpu 0", "vcpu 1"]
        assert len({len(block.strip().split("\n")) for block in blocks}) == 1


def test_the_script_of_suse(host: Host, tmp_path: Path) -> None:
    target = tmp_path / "out"
    done = subprocess.run(
        ["bash", program_file(__file__, "suse_livedump.sh"), host.mountpoint / "control", target],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    steps = ("device", "init", "start", "sweep", "finish", "uninit")
    assert done.stdout == "".join(f"{step}: OK\n" for step in steps), done.stderr
    assert host.read("control/state").startswith("5\n")
    good(target)
    host.runs_on()


# -------------------------------------------------------------------------- ioctls


def test_the_ioctls_of_the_kernel_patches(host: Host, tmp_path: Path) -> None:
    """Python's plain open(), read-only; the path by pointer."""
    target = tmp_path / "out"
    with open(host.device) as device:
        fcntl.ioctl(device, 0xFF64, os.fsencode(target) + b"\0")
        fcntl.ioctl(device, 0xFF01)
        fcntl.ioctl(device, 0xFF02)
        assert host.read("control/state").startswith("4\n")
        fcntl.ioctl(device, 0xFF65)
    good(target)


def test_a_c_program(host: Host, tmp_path: Path) -> None:
    """The header alone is enough for a program of ten lines."""
    native = Path(__file__).resolve().parents[2] / "native"
    made, target = tmp_path / "dump", tmp_path / "out"
    source = program_file(__file__, "dump_by_ioctl.c")
    subprocess.run(["cc", "-Wall", "-Werror", "-I", native, "-o", made, source], check=True)
    done = subprocess.run(
        [made, host.device, target],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.stdout == f"4 1 {target}\n", done.stderr
    good(target)


def test_output_is_used_when_init_gives_no_path(host: Host, tmp_path: Path) -> None:
    host.write("control/output", f"{tmp_path / 'out'}\n")
    with open(host.device) as device:
        fcntl.ioctl(device, abi.INIT, 0)
        assert (tmp_path / "out.incomplete").exists()
        fcntl.ioctl(device, abi.RELEASE)
    with Client(host.device) as client:
        client.init(None, as_set=True)
        client.start()
        client.sweep()
        client.finish(DEADLINE)
        client.release()
    good(tmp_path / "out")


def test_a_relative_path_is_the_callers(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "where the caller is"
    folder.mkdir()
    forks.run(
        program_command(__file__, "dump_here.py", host.device),
        cwd=folder, env=host.environment, timeout=DEADLINE, check=True,
    )  # fmt: skip
    good(folder / "out")


def test_a_raw_dump_gets_its_sidecar(host: Host, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with Client(host.device) as client:
        client.init(str(target), InitOptions(format=abi.Format.RAW))
        client.start()
        client.sweep()
        assert client.finish(DEADLINE).verdict is Verdict.CONSISTENT
        client.release()
    assert target.stat().st_size == 16 << 20
    assert (tmp_path / "out.ldfs").exists()
    good(target)


def test_many_dumps_one_after_the_other(host: Host, tmp_path: Path) -> None:
    with Client(host.device) as client:
        for _ in range(5):
            client.init(str(tmp_path / "out"))
            client.start()
            client.sweep()
            assert client.finish(DEADLINE).verdict is Verdict.CONSISTENT
            client.release()
            good(tmp_path / "out")


def test_a_dump_in_memory_only(host: Host) -> None:
    with Client(host.device) as client:
        client.init(None)
        client.start()
        assert client.status().target is None
        client.release()
    host.runs_on()


# --------------------------------------------------------------------- at one time


def sweep_inside(device: str, answers: list[int]) -> None:
    """The plain SWEEP, which returns at the end; its errno, 0 for none."""
    # The host may be gone when the file is closed.
    with contextlib.suppress(OSError), open(device) as file:
        try:
            fcntl.ioctl(file, abi.SWEEP)
            answers.append(0)
        except OSError as error:
            answers.append(error.errno or -1)


def test_other_files_answer_while_sweep_runs(host: Host, tmp_path: Path) -> None:
    """A slow sweep inside the plain ioctl, and everything else meanwhile."""
    with Client(host.device) as client:
        client.init(str(tmp_path / "out"), InitOptions(sweep_rate=SLOW))
        client.start()
        swept: list[int] = []
        thread = threading.Thread(target=sweep_inside, args=(host.device, swept))
        thread.start()
        try:
            deadline = time.monotonic() + DEADLINE
            while client.status().state is not State.SWEEP:
                assert time.monotonic() < deadline
            for name in ("livedump", "stats.json", "control/state", "machine/registers"):
                assert host.read(name)
            with open(host.mountpoint / "mem", "rb", buffering=0) as memory:
                assert len(memory.read(4096)) == 4096
            with pytest.raises(StateError) as caught:
                client.start()
            assert caught.value.errno == errno.EINVAL
            assert client.status().state is State.SWEEP
            assert not swept
            host.runs_on()
        finally:
            client.release()
            thread.join(DEADLINE)
        assert swept == [errno.ECANCELED]


def test_release_ends_a_sweep_under_way(host: Host, tmp_path: Path) -> None:
    with Client(host.device) as client:
        client.init(str(tmp_path / "out"), InitOptions(sweep_rate=SLOW))
        client.start()
        client.sweep()
        looks = client.progress(0.01)
        assert next(looks).state is State.SWEEP
        with Client(host.device) as other:
            other.release()
        with pytest.raises(StateError) as caught:
            list(looks)
        assert caught.value.errno == errno.ECANCELED
    with open_dump(str(tmp_path / "out.incomplete")) as dump:
        assert dump.verdict == "incomplete"
    host.runs_on()


# -------------------------------------------------------------------------- client


def test_the_only_host_is_found(host: Host) -> None:
    assert find_device() == host.device
    with Client() as client:
        assert client.status().state is State.UNDEFINED


def test_two_hosts_must_be_told_apart(run_host: HostMaker) -> None:
    first, second = run_host(), run_host()
    with pytest.raises(HostError, match="2 hosts are running"):
        find_device()
    assert {one.device for one in registry.running()} == {first.device, second.device}


def test_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(registry, "SYSTEM_DIRECTORY", str(tmp_path / "none"))
    with pytest.raises(HostError, match="no host is running"):
        find_device()
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(HostError, match="not a host's livedump file"):
        Client(str(plain))
    with pytest.raises(HostError, match="is a host mounted there"):
        Client(str(tmp_path / "gone" / "livedump"))


def test_finish_gives_up_after_its_time(host: Host, tmp_path: Path) -> None:
    with Client(host.device) as client:
        client.init(str(tmp_path / "out"), InitOptions(sweep_rate=SLOW))
        client.start()
        client.sweep()
        with pytest.raises(HostError) as caught:
            client.finish(timeout=0.05)
        assert caught.value.errno == errno.ETIMEDOUT
        assert client.status().state is State.SWEEP
        client.release()


# ------------------------------------------------------------------------- the end


def test_sigterm_leaves_nothing(host: Host, tmp_path: Path) -> None:
    """Amid a dump, with a file of the mount held open and a sweep waiting in an ioctl."""
    with Client(host.device) as client:
        client.init(str(tmp_path / "out"), InitOptions(sweep_rate=SLOW))
        client.start()
        answered: list[int] = []
        thread = threading.Thread(target=sweep_inside, args=(host.device, answered))
        thread.start()
        deadline = time.monotonic() + DEADLINE
        while client.status().state is not State.SWEEP:
            assert time.monotonic() < deadline
        assert host.end().endswith("ended\n")
        thread.join(DEADLINE)
        assert answered == [errno.ECANCELED]
    assert registry.running() == []
    assert os.listdir(host.mountpoint) == []
    with open_dump(str(tmp_path / "out.incomplete")) as dump:
        assert dump.verdict == "incomplete"


def test_a_mount_that_is_taken_away_ends_the_host(host: Host) -> None:
    subprocess.run(["fusermount", "-u", str(host.mountpoint)], timeout=DEADLINE, check=True)
    assert host.process.wait(DEADLINE) == 0
    assert host.log.read_text().endswith("ended\n")
    assert registry.running() == []
