# SPDX-License-Identifier: GPL-2.0-or-later
"""Two clients of one host, each with a dump id of its own, over a real mount: neither's steps touch
the other's dump."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs.abi import State, Verdict
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import LivedumpError
from tests.fixtures.hosts import HostMaker
from tests.fixtures.unicorn_guests import needs_ledger

DEADLINE_S = 300.0


def stale(step: Callable[[], object]) -> None:
    with pytest.raises(LivedumpError) as caught:
        step()
    assert caught.value.errno == errno.ESTALE, caught.value


@needs_ledger
def test_two_clients_of_one_host(run_host: HostMaker, tmp_path: Path) -> None:
    host = run_host()
    one, other = os.urandom(16), os.urandom(16)
    target = tmp_path / "dump"
    with Client(host.device) as first, Client(host.device) as second:
        assert first.init_as(one, str(target)) == one
        with pytest.raises(LivedumpError) as caught:
            second.init_as(other, None, InitOptions(release_on_close=True))
        assert caught.value.errno == errno.EBUSY
        stale(lambda: second.release_as(other))
        stale(lambda: second.status_as(other))
        first.start_as(one)
        stale(lambda: second.sweep_as(other))
        second.close()
        assert not first.sweep_as(one).already and first.sweep_as(one).already
        assert first.finish(DEADLINE_S).verdict is Verdict.CONSISTENT
        assert first.status_as(one).verdict is Verdict.CONSISTENT
        first.release_as(one)
        first.release_as(one)
        assert first.status_as(one).verdict is Verdict.CONSISTENT
        assert first.status().state is State.UNINIT
        with Client(host.device) as third:
            third.init_as(other, None, InitOptions(release_on_close=True))
            stale(lambda: first.status_as(one))
            first.release_as(one)
            assert third.status_as(other).state is State.INIT
        end = time.monotonic() + DEADLINE_S
        while first.status_as(other).state is not State.UNINIT:  # the kernel tells of a close later
            assert time.monotonic() < end
            time.sleep(0.01)
    with open_dump(target) as dump:
        assert dump.superblock.dump_id == one
