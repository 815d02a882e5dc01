# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients and hosts that end in the middle, and hosts that come after them."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aftermath import expect_host_dump, expect_host_free, expect_incomplete, host_unharmed

from livedumpfs.abi import State
from livedumpfs.client import Client, InitOptions
from livedumpfs.errors import HostError
from livedumpfs.hosts import registry
from tests.fixtures import forks
from tests.fixtures.program_files import program_command

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DEADLINE = 300.0
SLOW = 1 << 10
"""Bytes a second: a sweep that lasts as long as any test."""


def started(client: Client, target: Path, **options: Any) -> None:
    client.init(str(target), InitOptions(sweep_rate=SLOW, **options))
    client.start()
    client.sweep()


def test_a_client_that_is_killed_takes_its_dump_with_it_if_it_asked(
    host: Host, tmp_path: Path
) -> None:
    with host_unharmed(host):
        for on_close, after in ((True, State.UNINIT), (False, State.START)):
            extra = ["released with it"] if on_close else []
            words = (host.device, tmp_path / "out", *extra)
            client = forks.start(
                program_command(__file__, "started_client.py", *words),
                env=host.environment, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                assert client.stdout is not None and client.stdout.readline() == "started\n"
            finally:
                client.send_signal(signal.SIGKILL)
                client.wait(DEADLINE)
                client.stdout.close()  # type: ignore[union-attr]
            with Client(host.device) as other:
                deadline = time.monotonic() + DEADLINE
                while other.status().state is not after:
                    assert time.monotonic() < deadline, other.status()
                    time.sleep(0.01)
                host.runs_on()
                other.release()
    expect_incomplete(tmp_path / "out")


def test_closing_releases_when_asked(host: Host, tmp_path: Path) -> None:
    with Client(host.device) as watcher:
        with Client(host.device) as client:
            started(client, tmp_path / "out", release_on_close=True)
            with Client(host.device):
                pass
            assert watcher.status().state is State.SWEEP
        deadline = time.monotonic() + DEADLINE
        while watcher.status().state is not State.UNINIT:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_host_killed_in_the_middle_of_a_dump(host: Host, tmp_path: Path) -> None:
    """Its target says incomplete, its mount is cleaned by the next host, which then works."""
    client = Client(host.device)
    started(client, tmp_path / "out")
    host.kill()
    with pytest.raises(HostError, match="its host is dead"):
        client.status()
    client.close()
    assert host.is_mounted()
    with pytest.raises(HostError, match="fusermount -u"):
        Client(host.device)
    expect_incomplete(tmp_path / "out")
    assert registry.running() == []
    host.start()
    assert [one.pid for one in registry.running()] == [host.process.pid]
    assert [entry.pid for _, entry in registry.entries()] == [host.process.pid]
    expect_host_dump(host, tmp_path)
    expect_host_free(host)


def test_a_dead_hosts_mount_can_be_unmounted_by_hand(host: Host) -> None:
    host.kill()
    subprocess.run(["fusermount", "-u", str(host.mountpoint)], timeout=DEADLINE, check=True)
    assert not host.is_mounted()


def test_a_host_cleans_up_after_another_one(run_host: HostMaker) -> None:
    first = run_host()
    first.kill()
    second = run_host()
    assert not first.is_mounted()
    assert [one.device for one in registry.running()] == [second.device]


def test_a_second_host_on_the_same_mountpoint(host: Host) -> None:
    done = forks.run(
        program_command(__file__, "second_host.py", host.mountpoint),
        env=host.environment, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert f"is the mount of another host (pid {host.process.pid})" in done.stderr
    assert host.is_mounted()
    host.runs_on()
