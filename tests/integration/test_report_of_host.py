# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump report` of a running host: before a dump, in the middle of one, and after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs.cli.main import main
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from tests.fixtures.hosts import RunningHost
from tests.fixtures.html_pages import Element, parse

DEADLINE_S = 300.0


@pytest.fixture
def page_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[RunningHost], Element]:
    """The page of that host now."""

    def write(host: RunningHost) -> Element:
        out = tmp_path / "page.html"
        out.unlink(missing_ok=True)
        code = main(["report", "--device", host.device, "-o", str(out)])
        assert code == 0, capsys.readouterr()
        return parse(out.read_text())

    return write


def registers_of(page: Element) -> list[dict[str, int]]:
    return [
        {one.one("dt").text: int(one.one("dd").text, 16) for one in block.all("div")}
        for block in page.one("section", id="registers").all("details")
    ]


def granules_of(page: Element) -> dict[str, int]:
    """By kind; what only the map has is left out."""
    rows = {row[0]: row[1].replace(",", "") for row in page.rows("Granules of 16 KiB")}
    return {name: int(number) for name, number in rows.items() if number.isdecimal()}


def test_a_host_from_its_start_to_its_release(
    run_host: Callable[..., RunningHost], page_of: Callable[[RunningHost], Element], tmp_path: Path
) -> None:
    host = run_host()
    page = page_of(host)
    assert page.one("p", **{"class": "verdict none"}).text == "no dump There is no dump yet."
    assert "and no dump now" in page.one("section", id="map").text
    assert "No fault is counted" in page.one("section", id="stalls").text
    assert "now, while it runs" in page.one("section", id="registers").text
    assert "there is one after START" in page.one("section", id="tasks").text
    assert len(registers_of(page)) == 2
    target = tmp_path / "dump"
    with Client(host.device) as client:
        client.init(str(target), InitOptions(granule=16 << 10))
        assert "A dump is prepared" in page_of(host).one("header").text
        client.start()
        host.runs_on()
        page = page_of(host)
        assert (
            "consistent A dump is in state START"
            in page.one("p", **{"class": "verdict consistent"}).text
        )
        assert granules_of(page)["not saved yet"] > 0
        assert sum(granules_of(page).values()) == (16 << 20) // (16 << 10)
        assert "No Linux: the dump has no VMCOREINFO" in page.one("section", id="tasks").text
        client.sweep()
        client.finish(DEADLINE_S)
        page = page_of(host)
        stats = json.loads(host.read("stats.json"))
        _like_the_host(page, stats)
        client.release()
    _like_the_dump(page, target)
    after = page_of(host)
    assert "The last dump is consistent, and was released" in after.one("header").text
    assert after.rows("Faults by their time") == page.rows("Faults by their time")
    assert "stolen granules among those by fault" in after.one("section", id="saving").text
    for name in ("by sweep", "zeros", "by fault"):
        both = [granules_of(one) for one in (after, page)]
        stolen = both[1].get("stolen", 0) if name == "by fault" else 0
        assert both[0].get(name, 0) == both[1].get(name, 0) + stolen


def _like_the_host(page: Element, stats: dict[str, dict[str, int]]) -> None:
    """The numbers of stats.json."""
    counters = stats["counters"]
    numbers = granules_of(page)
    assert sum(numbers.values()) == counters["granules"]
    assert numbers.get("by sweep", 0) == counters["by_sweep"]
    assert numbers.get("by fault", 0) + numbers.get("stolen", 0) == counters["by_fault"]
    bins = page.rows("Faults by their time")
    assert sum(int(row[2].replace(",", "")) for row in bins) == sum(counters["handler_ns"])
    assert page.pairs("facts")["state"] == "FINISH"


def _like_the_dump(page: Element, target: Path) -> None:
    """What the file says of the same dump."""
    with open_dump(target) as dump:
        assert registers_of(page) == dump.registers
        kinds = {row[0]: row[1] for row in page.rows("Granules of 16 KiB")}
    out = target.with_suffix(".html")
    assert main(["report", str(target), "-o", str(out)]) == 0
    finished = parse(out.read_text())
    assert {row[0]: row[1] for row in finished.rows("Granules of 16 KiB")} == kinds
    assert finished.rows("Faults by their time") == page.rows("Faults by their time")
    pictures = [
        [path.attributes for path in one.one("section", id="map").all("path")]
        for one in (page, finished)
    ]
    assert pictures[0] == pictures[1]


def test_a_host_that_ended(run_host: Callable[..., RunningHost], tmp_path: Path) -> None:
    host = run_host()
    host.end()
    assert main(["report", "--device", host.device, "-o", str(tmp_path / "page")]) == 1
    assert not (tmp_path / "page").exists()
