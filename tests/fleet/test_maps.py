# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions to all dumps of a fleet dump: what comes back, and what of one that cannot answer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import open_dump
from livedumpfs.client import Client, InitOptions
from livedumpfs.errors import UsageError
from livedumpfs.fleet import Manifest, MemberRecord, fleet_map
from livedumpfs.fleet.fleet_map import map_diff, map_script, map_shared, map_tasks
from livedumpfs.fleet.mapping import rows_of
from livedumpfs.formats.table import LOST, SAVED
from tests.fleet.clusters import AS_ROOT, long

ROOT = bool(AS_ROOT)
PAGE = 4096
MEMORY = b"".join(bytes([i]) * PAGE for i in range(16))
Write = Callable[..., Any]


def fleet(*paths: Path | None, names: str = "abcdef") -> Manifest:
    members = tuple(
        MemberRecord(
            name=name, host="", computer=socket.gethostname(), worker="", verdict="consistent",
            dump=str(path) if path else None,
        )
        for name, path in zip(names, paths, strict=False)
    )  # fmt: skip
    return Manifest(id="f", how="clock", one_instant=False, verdict="consistent", members=members)


@pytest.fixture
def two(tmp_path: Path, write_dump: Write) -> Manifest:
    """The second has the pages of the first but two, and one is zeros in both."""
    write_dump(tmp_path / "one", MEMORY, granule=PAGE)
    write_dump(tmp_path / "two", MEMORY[:-PAGE] + b"x" * PAGE, granule=PAGE)
    return fleet(tmp_path / "one", tmp_path / "two")


def first_byte(dump: Any) -> dict[str, int]:
    return {"byte": dump.read_arena(15 * PAGE, 1)[0]}


def test_a_function(two: Manifest, cluster: Any) -> None:
    found = fleet_map(cluster(2), first_byte, two, allow_root=ROOT)
    assert found.rows == [{"member": "a", "byte": 15}, {"member": "b", "byte": ord("x")}]
    assert not found.problems


def test_shared_pages(two: Manifest, cluster: Any) -> None:
    found = map_shared(cluster(2), two, allow_root=ROOT)
    common = {"pages": 16, "zeros": 1, "missing": 0, "distinct": 15, "shared": 14}
    assert found.rows == [
        {"member": "a", **common},
        {"member": "b", **common},
        {"member": "all", "pages": 32, "zeros": 2, "missing": 0, "distinct": 16, "shared": 14},
    ]


def test_lost_pages_are_counted(tmp_path: Path, write_dump: Write, cluster: Any) -> None:
    write_dump(
        tmp_path / "torn", MEMORY, granule=PAGE, states=[SAVED] * 15 + [LOST], verdict="torn"
    )
    with open_dump(tmp_path / "torn") as dump:
        lost = dump.verdict != "consistent"
    found = map_shared(cluster(1), fleet(tmp_path / "torn"), allow_root=ROOT)
    assert lost and found.rows[0]["missing"] == 1


def test_differences(two: Manifest, cluster: Any) -> None:
    client = cluster(1)
    turned = fleet(*(Path(str(one.dump)) for one in reversed(two.members)))
    found = map_diff(client, two, turned, allow_root=ROOT)
    assert [row["different"] for row in found.rows] == [1, 1]
    assert [row["equal"] for row in found.rows] == [15, 15]
    alone = fleet(Path(str(two.members[0].dump)))
    found = map_diff(client, two, alone, allow_root=ROOT)
    assert [row["different"] for row in found.rows] == [0]
    assert found.problems == {"b": "it is in one of the two only"}
    with pytest.raises(UsageError, match="have no member in common"):
        map_diff(client, two, fleet(Path("x"), names="z"), allow_root=ROOT)


def test_members_that_cannot_answer(two: Manifest, cluster: Any, tmp_path: Path) -> None:
    paths = [Path(str(two.members[0].dump)), tmp_path / "gone", None]
    text = "def run(dump):\n    return 1 / (dump.read_arena(15 * 4096, 1)[0] - 15)\n"
    found = map_script(cluster(1), text, "it.py", fleet(*paths), allow_root=ROOT)
    assert found.rows == []
    assert found.problems["a"] == "ZeroDivisionError: division by zero"
    assert "gone" in found.problems["b"] and found.problems["c"] == "it has no dump"


@long
def test_a_script_that_ends_its_worker(two: Manifest, by_hand: Callable[..., Any]) -> None:
    """The sentence names it; a task that no worker is left for is not waited for."""
    cluster = by_hand(None)
    with cluster.client() as client:
        text = "import os\ndef run(dump):\n    os._exit(1)\n"
        found = map_script(client, text, "it.py", two, allow_root=ROOT)
    assert found.rows == []
    assert set(found.problems) == {"a", "b"}
    assert all("its worker has died" in one for one in found.problems.values()), found


def test_the_ledger_s_tasks(run_host: Callable[..., Any], cluster: Any, tmp_path: Path) -> None:
    host, path = run_host(ram="8MiB"), tmp_path / "dump"
    with Client(host.device) as client:
        client.init(str(path), InitOptions(release_on_close=True))
        client.start()
        client.sweep()
        client.finish(300)
        client.release()
    found = map_tasks(cluster(1), fleet(path), allow_root=ROOT)
    assert [row["command"] for row in found.rows] == ["vcpu0", "vcpu1"]
    assert all(row["ledger"] and row["member"] == "a" for row in found.rows)


@pytest.mark.parametrize(
    ("found", "rows"),
    [
        (None, []), (3, [{"value": 3}]), ("text", [{"value": "text"}]), ({"a": 1}, [{"a": 1}]),
        ([], []), ([{"a": 1}, {"b": 2}], [{"a": 1}, {"b": 2}]),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_function_may_return(found: Any, rows: list[dict[str, Any]]) -> None:
    assert rows_of("m", found) == [{"member": "m", **row} for row in rows]


def test_a_row_that_is_none() -> None:
    with pytest.raises(TypeError, match="a row is a mapping of names to values, not int"):
        rows_of("m", [1])
