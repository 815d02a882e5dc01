# SPDX-License-Identifier: GPL-2.0-or-later
"""The measurement of many writers: the static program, what it counts, and the tables made of it.

Figures themselves are not tested.
"""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import measure_many
import pytest
from peers import build

from tests.fixtures.compilers import compiling

SIZE = 4 << 20
OURS = {f"ours, {name}, pool = RAM" for name in build.backends()}
pytestmark = pytest.mark.together


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each cell once, of one writer, with each dump compared."""
    with compiling("peers"):
        build.static_peers()
    target = tmp_path_factory.mktemp("many") / "target"
    return build.many(
        budget=300, size=SIZE, target=target, threads=1, verify=True, rounds=1, before=20, after=20
    )


def test_the_program_needs_no_library(found: dict[str, Any]) -> None:
    headers = subprocess.run(
        ["readelf", "-lW", build.static_peers()], capture_output=True, text=True, check=True
    ).stdout
    assert "LOAD" in headers and "INTERP" not in headers


def test_each_cell_is_there_and_worked(found: dict[str, Any]) -> None:
    assert not found["without_time"] and found["cells"] == len(found["runs"])
    assert not [run for run in found["runs"] if "failed" in run]
    ways: dict[str, set[str]] = {}
    for run in found["runs"]:
        ways.setdefault(f"{run['kind']} {run['pattern']}", set()).add(run["way"])
    for pattern in ("hot", "uniform", "in order"):
        assert ways[f"run {pattern}"] >= {"fork", "uffd", "uffd-sigbus", *OURS}
    assert ways["first 64 KiB"] >= {"open-mprotect", "open-uffd", *OURS}
    assert ways["first 4 KiB"] == {"open-mprotect", "open-uffd", "fork"}
    assert len(ways["init 1 % changed"]) == len(build.backends())


def test_it_is_counted_from_real_work(found: dict[str, Any]) -> None:
    for run in found["runs"]:
        result = run["found"]
        if run["kind"] == "run":
            (dump,) = result["dumps"]
            assert dump["compared"] == SIZE // 4096 and dump["different"] == 0, run["way"]
            assert sum(result[era]["count"] for era in ("before", "during", "after")) > 0
        elif run["kind"] == "init":
            assert len(result["inits_ns"]) == 4 and min(result["inits_ns"]) > 0
            assert result["changed"] == 3 * -(-result["granules"] // 100)
        else:
            for turn in result["turns"]:
                assert turn["stores"] == result["granules"]
                # fork's are page faults of the whole process.
                exactly = run["way"] != "fork"
                assert turn["served"] >= result["granules"], run["way"]
                assert not exactly or turn["served"] == result["granules"], run["way"]


def test_the_tables_have_each_cell(found: dict[str, Any]) -> None:
    writers, first, init = measure_many.tables(found)
    runs = [run for run in found["runs"] if run["kind"] == "run"]
    assert len(writers.rows) == len(runs) and len(init.rows) == len(build.backends())
    assert [row[0] for row in first.rows] == ["1"] and all(first.rows[0])
    for table in (writers, first, init):
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert len(measure_many.markdown(table)) == len(table.rows) + 2


def test_the_tables_say_how_many_processors_there_were(found: dict[str, Any]) -> None:
    told = copy.deepcopy(found)
    told.update(processors=2, without_time=[{}])
    told["runs"][0]["threads"] = 8
    told["runs"][1] = {**told["runs"][1], "failed": "signal 14"}
    text = " ".join(measure_many.notes(told))
    assert "2 processors, Linux" in text and "8 threads share 2 processors" in text
    assert "14 writers were left out" in text and "Without time: 1 of" in text
    assert "signal 14" in text


def test_without_time_nothing_is_made_up(tmp_path: Path) -> None:
    with pytest.raises(build.PeerError, match="larger budget"):
        measure_many.tables({"runs": [], "without_time": [{}]})
    with compiling("peers"), pytest.raises(build.PeerError, match="many needs a target"):
        build.many(budget=1, size=SIZE)
