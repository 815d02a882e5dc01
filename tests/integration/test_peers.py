# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways that the benchmarks compare: each saves every page as it was at the instant."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.fixtures.compilers import compiling

BENCH = Path(__file__).resolve().parents[2] / "bench"
SIZE = 16 << 20


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_peers", BENCH / "peers" / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with compiling("peers"):
        module.peers()
    return module


WAYS = ["ours", "fork", "stop", "mprotect", "uffd", "uffd-sigbus"]


@pytest.mark.parametrize("pattern", [0, 1, 2], ids=["hot", "uniform", "sequential"])
@pytest.mark.parametrize("way", WAYS)
def test_every_page_is_of_the_instant(
    build: ModuleType, way: str, pattern: int, tmp_path: Path
) -> None:
    for _ in range(20):  # on a busy computer the writers may get no turn during a dump
        found = build.run(
            way, size=SIZE, writers=2, pattern=pattern, dumps=2, target=tmp_path / "target",
            verify=True, before=20, after=20,
        )  # fmt: skip
        for dump in found["dumps"]:
            assert dump["compared"] == SIZE // 4096
            assert dump["different"] == 0
        if found["during"]["count"] and found["ticks"][-1][1] > found["ticks"][0][1]:
            return
    pytest.fail("nothing was written during a dump")


def test_a_byte_that_is_wrong_is_found(build: ModuleType, tmp_path: Path) -> None:
    found = build.run(
        "ours", size=SIZE, writers=1, dumps=2, target=tmp_path / "target",
        verify=True, broken=True, before=20, after=20,
    )  # fmt: skip
    assert [dump["different"] for dump in found["dumps"]] == [1, 1]


def test_the_first_store_has_a_price(build: ModuleType) -> None:
    found = build.touch("ours", size=SIZE, pattern=2, dumps=2)
    assert found["pages"] >= SIZE // 4096 // 5
    assert all(turn["armed_ns"] > 0 for turn in found["turns"])


def test_a_way_that_does_not_work_says_so(build: ModuleType) -> None:
    with pytest.raises(build.PeerError, match="see main"):
        build.run("magic")
    with pytest.raises(build.PeerError, match="No such file or directory"):
        build.run("stop", size=SIZE, target="/nonexistent/target")
