# SPDX-License-Identifier: GPL-2.0-or-later
"""Increments of a running host: each dump has all bytes of its instant, whatever it left out; and
where all has to be read it is said why."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.client import Client
from livedumpfs.dumpfile import verify_store
from livedumpfs.stores import collect, open_store
from tests.fixtures import forks
from tests.stores.instants import is_of_the_instant

LIVEDUMP = str(Path(__file__).resolve().parents[2] / "scripts" / "livedump")
DEADLINE = 300.0
ROUNDS = 5
RAM = "16MiB"
Host = Any
"""RunningHost of fixtures/hosts.py."""


@pytest.fixture
def host(run_host: Callable[..., Host]) -> Host:
    """It tracks; most of its memory is left alone between two dumps."""
    made = run_host(ram=RAM, rate=20)
    set_control(made, "track", "1")
    return made


def set_control(host: Host, name: str, value: str) -> None:
    (host.mountpoint / "control" / name).write_text(value)


def taken(host: Host, target: str | Path, *more: str) -> str:
    """What `livedump dump` said, on both streams."""
    done = forks.run(
        [LIVEDUMP, "dump", str(target), *more, "--device", host.device],
        env={**host.environment, "LIVEDUMP_PYTHON": sys.executable},
        capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in said, said
    return said


def bases(host: Host) -> list[str]:
    with Client(host.device) as client:
        return [one.hex() for one in client.bases()]


def left_out(said: str) -> int:
    """Chunks."""
    found = re.search(r"^unchanged +(\d+) chunks, as in (\S+)$", said, re.M)
    assert found, said
    return int(found[1])


def test_many_in_a_row_while_the_guest_writes(host: Host, tmp_path: Path) -> None:
    place = tmp_path / "store"
    said = taken(host, f"store:{place}")
    assert "there is no earlier dump since which the machine has kept track" in said
    is_of_the_instant(host, f"{place}#latest")
    for number in range(1, ROUNDS):
        base = bases(host)[0]
        said = taken(host, f"store:{place}")
        assert left_out(said) and "all of the memory" not in said
        is_of_the_instant(host, f"{place}#latest")
        with open_store(str(place)) as store:
            record = store.record(store.resolve("latest"))
            assert len(store.names()) == number + 1 and record and record.since == base
    with open_store(str(place)) as store:
        assert verify_store(store).problems == []


def test_what_comes_between_does_no_harm(host: Host, tmp_path: Path) -> None:
    """Dumps to a file, of a snapshot that was released, and one that was given up: they are no
    bases, and what is stored to before or after them counts."""
    place = tmp_path / "store"
    taken(host, f"store:{place}")
    taken(host, tmp_path / "file")
    with Client(host.device) as client:
        client.init(None)
        client.start()
        client.release()
        client.init(None)
        client.release()
    assert left_out(taken(host, place))
    is_of_the_instant(host, f"{place}#latest")
    assert len(bases(host)) == 2


def test_two_stores_in_turns(host: Host, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for place in (one, other):
        taken(host, f"store:{place}")
    for place in (one, other, other, one):
        assert left_out(taken(host, place))
        is_of_the_instant(host, f"{place}#latest")


def test_a_base_that_is_gone(host: Host, tmp_path: Path) -> None:
    """Forgotten, then a part of it collected, then another store altogether."""
    place = tmp_path / "store"
    for _ in range(2):
        taken(host, f"store:{place}")
    with open_store(str(place)) as store:
        for name in store.names():
            store.remove(name)
    said = taken(host, place)
    assert f"all of the memory was read: {place} has none of the dumps since which" in said
    is_of_the_instant(host, f"{place}#latest")
    with open_store(str(place)) as store:
        collect(store)
    chunk = max(place.glob("default.castr/*/*"), key=lambda one: one.stat().st_size)
    chunk.unlink()
    assert "or lacks chunks" in taken(host, place)
    is_of_the_instant(host, f"{place}#latest")
    assert left_out(taken(host, place))
    shutil.rmtree(place)
    assert "all of the memory was read" in taken(host, f"store:{place}")


def test_what_leaves_no_trace(host: Host, tmp_path: Path) -> None:
    """That dump reads all and says why, and so does the next one, which has no base. Another
    granule is for one dump; and without tracking nothing is said, or kept."""
    place = tmp_path / "store"
    taken(host, f"store:{place}")
    alone = "changes are tracked with"
    for name, value, why in (
        ("backend", "sigbus", "backend sigsegv alone, and this is sigbus; set backend to sigsegv"),
        ("arming", "mprotect", "arming swap alone, not with mprotect; set arming to swap"),
    ):
        usual = host.read(f"control/{name}").split()[0]
        set_control(host, name, value)
        said = taken(host, place)
        assert f"livedump: all of the memory was read: {alone} {why}\n" in said
        is_of_the_instant(host, f"{place}#latest")
        assert bases(host) == []
        set_control(host, name, usual)
        assert "there is no earlier dump since which" in taken(host, place)
    said = taken(host, place, "--granule", "256K")
    assert "livedump: all of the memory was read: the base has another granule\n" in said
    is_of_the_instant(host, f"{place}#latest")
    assert left_out(taken(host, place, "--granule", "256K"))
    is_of_the_instant(host, f"{place}#latest")
    set_control(host, "track", "0")
    said = taken(host, place)
    assert "all of the memory" not in said and "unchanged" not in said
    assert bases(host) == []
