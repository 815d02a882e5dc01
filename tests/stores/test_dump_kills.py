# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump dump STORE` is killed at random moments: the store keeps all that it had, verify says
so, the next dump works, and gc removes the rest.

LIVEDUMP_KILLS says at how many moments (`make kill-points`: 100; default: 4), LIVEDUMP_SEED repeats
a run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.abi import State
from livedumpfs.cli.proof import prove_dump
from livedumpfs.client import Client
from livedumpfs.dumpfile import open_dump, verify_store
from livedumpfs.stores import collect, create_store, open_store
from tests.fixtures import forks
from tests.fixtures.store_streams import image_of

LIVEDUMP = str(Path(__file__).resolve().parents[2] / "scripts" / "livedump")
KILLS = int(os.environ.get("LIVEDUMP_KILLS", "4"))
DEADLINE = 300.0
Host = Any


def begin(host: Host, place: Path) -> subprocess.Popen[str]:
    return forks.start(
        [LIVEDUMP, "dump", str(place), "--device", host.device, "--sweep-rate", "24M"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**host.environment, "LIVEDUMP_PYTHON": sys.executable},
    )  # fmt: skip


def whole(host: Host, place: Path) -> float:
    """One dump to its end; the seconds that it took."""
    before = time.monotonic()
    out, err = begin(host, place).communicate(timeout=DEADLINE)
    assert "verdict   consistent" in out, out + err
    return time.monotonic() - before


def kill(host: Host, place: Path, after: float) -> bool:
    """Whether it was killed before its end."""
    process = begin(host, place)
    time.sleep(after)
    process.kill()
    process.communicate(timeout=DEADLINE)
    end = time.monotonic() + DEADLINE
    with Client(host.device) as client:
        while (state := client.status().state) not in (State.UNDEFINED, State.UNINIT):
            assert time.monotonic() < end, f"the host has not released: {state}"
            time.sleep(0.01)
    return process.returncode != 0


def expect_whole(place: Path, images: dict[str, bytes]) -> None:
    """What was there is as it was; what is new is proved: its own checksums and its ledger."""
    with open_store(str(place)) as store:
        assert verify_store(store).problems == []
        names = store.names()
        assert set(images) <= set(names)
        for name in names:
            image = image_of(store, name)
            assert images.setdefault(name, image) == image
    for name in names:
        with open_dump(f"{place}#{name}") as dump:
            report = prove_dump(dump)
            assert dump.verdict == "consistent" and report.ok, report.problems


@pytest.mark.timeout(200 + 20 * KILLS)
def test_kills(run_host: Callable[..., Host], tmp_path: Path) -> None:
    seed = int(os.environ.get("LIVEDUMP_SEED", "0")) or random.randrange(1 << 32)
    print(f"LIVEDUMP_SEED={seed}")
    chosen = random.Random(seed)
    host, place = run_host("12MiB", rate=200), tmp_path / "store"
    create_store(str(place)).close()
    takes = whole(host, place)
    images: dict[str, bytes] = {}
    expect_whole(place, images)
    killed = 0
    for number in range(KILLS):
        # Most of it is the start of the command: there is nothing of the dump then.
        killed += kill(host, place, takes * chosen.uniform(0.3, 1.05))
        expect_whole(place, images)
        if number % 4 == 3:
            host.runs_on()
            whole(host, place)
            expect_whole(place, images)
            with open_store(str(place)) as store:
                collect(store)
                needed = {one for name in store.names() for one in store.index(name).unique()}
                assert {identity for identity, _ in store.chunks.every()} == needed
                assert not list(place.rglob("*.unfinished"))
                while len(store.names()) > 2:  # so that it does not get slower and slower
                    with store.lock(alone=True):
                        store.remove(store.names()[0])
                images = {name: images[name] for name in store.names()}
            expect_whole(place, images)
    print(f"{killed} of {KILLS} were killed before their end")
    assert killed
