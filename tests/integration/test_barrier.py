# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts whose programs send each other amounts, all the time: at an instant of a barrier
nothing was received that had not been sent, and nothing is missing."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from livedumpfs.client import Client
from livedumpfs.errors import HostError
from tests.fixtures import forks
from tests.fixtures.program_files import program_command

DEADLINE_S = 300.0
ROUNDS = 10
IN_ALL = 2_000_000
Account = tuple[int, int, int]
"""What it has, has sent, and has received."""


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Client]]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with ExitStack() as ends:
        found = []
        for name, end in zip("ab", socket.socketpair(), strict=True):
            mount = tmp_path / name
            mount.mkdir()
            command = program_command(__file__, "exchanging_host.py", str(mount), str(end.fileno()))
            host = forks.start(command, pass_fds=[end.fileno()], stdout=subprocess.PIPE, text=True)
            ends.callback(host.wait, DEADLINE_S)
            ends.callback(host.terminate)
            end.close()
            assert host.stdout and host.stdout.readline() == "ready\n"
            found.append(ends.enter_context(Client(str(mount / "livedump"))))
        yield found[0], found[1]


def account(client: Client) -> Account:
    """At the instant of its dump."""
    with open(os.path.join(client.mountpoint, "snapshot", "mem.raw"), "rb") as image:
        one, two, three = struct.unpack("<3q", image.read(24))
    return one, two, three


def barrier(clients: tuple[Client, Client], seconds: float) -> None:
    """HostError ETIMEDOUT: this computer was too slow for that deadline."""
    ids = [client.init_as(os.urandom(16), None) for client in clients]
    for client, dump_id in zip(clients, ids, strict=True):
        client.hold(dump_id, seconds)
    for client, dump_id in zip(clients, ids, strict=True):
        client.arm(dump_id)
    for client, dump_id in zip(clients, ids, strict=True):
        client.go(dump_id)


def release(clients: tuple[Client, Client]) -> None:
    for client in clients:
        client.release()


def under_way(first: Account, second: Account) -> tuple[int, int]:
    """Sent and not yet received: from the first to the second, and back. Below 0: received before
    it was sent."""
    return first[1] - second[2], second[1] - first[2]


def test_a_barrier_balances(clients: tuple[Client, Client]) -> None:
    moved = 0
    for _ in range(ROUNDS):
        for seconds in (2.0, 10.0, 50.0):
            with suppress(HostError):
                barrier(clients, seconds)
                break
            release(clients)
        else:
            pytest.fail("no barrier within 50 s")
        first, second = account(clients[0]), account(clients[1])
        flows = under_way(first, second)
        assert min(flows) >= 0, f"received before it was sent: {first}, {second}"
        assert first[0] + second[0] + sum(flows) == IN_ALL, f"{first}, {second}"
        moved = max(moved, first[1])
        release(clients)
    assert moved > 0, "nothing was exchanged"


def test_two_instants_one_after_the_other_do_not(clients: tuple[Client, Client]) -> None:
    """So the check above can fail."""
    end = time.monotonic() + DEADLINE_S
    while True:
        for client in clients:
            client.start_as(client.init_as(None, None))
            time.sleep(0.02)
        flows = under_way(account(clients[0]), account(clients[1]))
        release(clients)
        if min(flows) < 0:
            return
        assert time.monotonic() < end, "each pair of instants was whole"
