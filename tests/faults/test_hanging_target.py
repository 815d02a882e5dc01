# SPDX-License-Identifier: GPL-2.0-or-later
"""A target whose I/O hangs, made with a frozen file system, and one that fills up."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import host_unharmed

from livedumpfs.abi import State, Verdict
from livedumpfs.client import Client
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import LivedumpError

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DEADLINE = 300.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root")


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=DEADLINE, capture_output=True)


class Freezer:
    """A small ext4 whose writers can be made to wait."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._frozen = False

    def freeze(self) -> None:
        run("fsfreeze", "--freeze", self.folder)
        self._frozen = True

    def thaw(self) -> None:
        if self._frozen:
            run("fsfreeze", "--unfreeze", self.folder)
        self._frozen = False


@pytest.fixture
def freezer(tmp_path: Path, loop_device: Callable[..., str]) -> Iterator[Freezer]:
    missing = [tool for tool in ("mkfs.ext4", "fsfreeze") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    device = loop_device(64 << 20)
    run("mkfs.ext4", "-q", device)
    folder = tmp_path / "frozen"
    folder.mkdir()
    run("mount", device, folder)
    freezer = Freezer(folder)
    try:
        yield freezer
    finally:
        freezer.thaw()
        run("umount", folder)


def hang(host: Host, freezer: Freezer) -> Client:
    """A dump whose sweep writes to the frozen file system."""
    client = Client(host.device)
    client.init(str(freezer.folder / "out"))
    freezer.freeze()
    client.start()
    client.sweep()
    deadline = time.monotonic() + DEADLINE
    while not hangs(host.process.pid):
        assert time.monotonic() < deadline, client.status()
        time.sleep(0.01)
    return client


def hangs(pid: int) -> bool:
    """Whether a thread of the process waits in the frozen file system (state D, twice in a row)."""

    def waiting() -> set[str]:
        found = set()
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                if (task / "stat").read_text().rpartition(")")[2].split()[0] == "D":
                    found.add(task.name)
        return found

    first = waiting()
    time.sleep(0.05)
    return bool(first & waiting())


def test_release_frees_the_machine_while_the_target_hangs(
    freezer: Freezer, run_host: HostMaker, tmp_path: Path
) -> None:
    """The next INIT is refused until the I/O has come back, and works then."""
    host = run_host()
    try:
        with host_unharmed(host), hang(host, freezer) as client:
            assert client.status().state is State.SWEEP
            client.release()
            host.runs_on()
            with pytest.raises(OSError, match="still hangs") as caught:
                client.init(str(tmp_path / "next"))
            assert caught.value.errno == errno.EBUSY
            freezer.thaw()
            deadline = time.monotonic() + DEADLINE
            while True:
                try:
                    client.init(str(tmp_path / "next"))
                    break
                except LivedumpError:
                    assert time.monotonic() < deadline, client.error()
                    time.sleep(0.05)
            client.start()
            client.sweep()
            assert client.finish(DEADLINE).verdict is Verdict.CONSISTENT
            client.release()
    finally:
        freezer.thaw()


def test_a_host_ends_its_mount_while_the_target_hangs(
    freezer: Freezer, run_host: HostMaker
) -> None:
    """The process itself can only go when the kernel lets go of its I/O."""
    host = run_host()
    try:
        with hang(host, freezer):
            host.process.terminate()
            deadline = time.monotonic() + DEADLINE
            while host.is_mounted():
                assert time.monotonic() < deadline, host.log.read_text()
                time.sleep(0.05)
        assert os.listdir(host.mountpoint) == []
    finally:
        freezer.thaw()
    host.process.wait(DEADLINE)
    with open_dump(str(freezer.folder / "out.incomplete")) as dump:
        assert dump.verdict == "incomplete"
    host.start()  # the next host, at the same place and with the same target
    with host_unharmed(host), Client(host.device) as client:
        client.init(str(freezer.folder / "out"))
        client.start()
        client.sweep()
        assert client.finish(DEADLINE).verdict is Verdict.CONSISTENT
        client.release()


@pytest.fixture
def small_folder(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "none", folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def test_a_target_that_fills_up(
    small_folder: Path, loop_device: Callable[..., str], run_host: HostMaker
) -> None:
    """A block device that is large enough by its own words, on a file system that is not."""
    host = run_host()
    device = loop_device(64 << 20, directory=small_folder)
    with host_unharmed(host), Client(host.device) as client:
        client.init(device)
        client.start()
        client.sweep()
        status = client.finish(DEADLINE, check=False)
        assert status.verdict in (Verdict.TORN, Verdict.INCOMPLETE)
        assert status.failure is not None
        assert status.failure.errno in (errno.EIO, errno.ENOSPC)
        host.runs_on()
        assert device in client.stats()["failure"]
        client.release()
        host.runs_on()
    host.end()
    with open_dump(device) as dump:
        assert dump.verdict != "consistent"
