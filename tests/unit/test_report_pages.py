# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page of `livedump report` says of a dump: the numbers of open_dump and compare_dumps."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.cli.main import main
from livedumpfs.dumpfile import (
    Difference,
    compare_dumps,
    describe_dump,
    description_rows,
    open_dump,
)
from livedumpfs.formats import MachineInfo, MemoryRange
from livedumpfs.formats.table import (
    ARMED,
    BY_FAULT,
    BY_NONE,
    BY_STEAL,
    BY_SWEEP,
    HOLE,
    LOST,
    SAVED,
)
from livedumpfs.stores import create_store
from tests.fixtures.html_pages import Element, parse
from tests.fixtures.makedumpfiles import small_filtered
from tests.fixtures.small_stores import keep_file

PAGE = 4096
GRANULE = 2 * PAGE
PAGES = 23
"""The last granule is shorter than the others."""
MEMORY = b"".join(bytes([i + 1]) * PAGE for i in range(PAGES))
STATES = [SAVED] * 7 + [HOLE, LOST, LOST, ARMED, SAVED]
HOW = [*[BY_SWEEP] * 3, *[BY_FAULT] * 2, BY_STEAL, BY_NONE, *[BY_NONE] * 4, BY_FAULT]
MAP = (MemoryRange(0x1000, 7 * PAGE, 16 * PAGE), MemoryRange(0x100000, 16 * PAGE, 0))
MACHINE = MachineInfo("test", vcpus=2, memory_map=MAP)
REGISTERS = [{"rip": 0x1234, "rsp": 0x8000}, {"rip": (1 << 64) - 1}]
BINS = [0] * 10 + [3, 0, 40, 1] + [0] * 26
COUNTERS = {
    "faults": 44, "slot_waits": 5, "stall_max_ns": 9000, "pause_ns": 123_000,
    "instant_mono_ns": 10**9, "instant_wall_ns": 1_790_000_000 * 10**9 + 7_000_000,
    "sweep_start_ns": 10**9 + 1_000_000, "drained_ns": 10**9 + 4_000_000, "handler_ns": BINS,
}  # fmt: skip
META = {
    "counters": COUNTERS,
    "instant": {"wall_ns": COUNTERS["instant_wall_ns"]},
    "policy": "block",
}

WriteReport = Callable[..., Element]


@pytest.fixture
def report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> WriteReport:
    """report(dump, *options, code=0): the page of that dump."""

    def write(dump: Path | str, *options: str, code: int = 0) -> Element:
        out = tmp_path / "page.html"
        out.unlink(missing_ok=True)
        assert main(["report", str(dump), "-o", str(out), *options]) == code, capsys.readouterr()
        return parse(out.read_text(encoding="utf-8"))

    return write


@pytest.fixture
def torn(tmp_path: Path, write_dump: Callable[..., Any]) -> Path:
    """A dump that has all kinds of granules."""
    write_dump(
        tmp_path / "torn.elf", MEMORY, granule=GRANULE, machine=MACHINE, states=STATES, how=HOW,
        verdict="torn", registers=REGISTERS, meta=META,
    )  # fmt: skip
    return tmp_path / "torn.elf"


def test_the_verdict_and_the_figures(torn: Path, report: WriteReport) -> None:
    page = report(torn, code=3)
    with open_dump(torn) as dump:
        assert page.one("p", **{"class": "verdict incomplete"}).text.startswith(dump.verdict)
    assert page.one("head").one("title").text == "test: incomplete - livedump report"
    assert page.one("h1").text == "test"
    figures = page.pairs("figures")
    moment = datetime.fromtimestamp(COUNTERS["instant_wall_ns"] / 1e9, UTC)
    assert figures["Instant (UTC)"] == f"{moment:%H:%M:%S}.007 {moment:%Y-%m-%d}, 1.0 s after boot"
    assert figures["Stop"] == "123 us the machine stood still"
    assert figures["Memory"] == "92 KiB 12 granules of 8 KiB"
    assert figures["Longest stall"] == "9 us of one store"
    assert figures["Faults"] == "44 5 waits for a slot"


@pytest.mark.parametrize(
    ("states", "verdict", "saying"),
    [
        ([SAVED] * 12, "consistent", "All 92 KiB are as they were at one instant."),
        ([SAVED] * 10 + [LOST] * 2, "torn", "Of its memory 3 pages were lost"),
        ([SAVED] * 11 + [LOST], "torn", "Of its memory 1 page was lost"),
        ([SAVED] * 11 + [ARMED], "incomplete", "1 page of its memory is missing"),
    ],
)
def test_what_the_verdict_means(
    states: list[int],
    verdict: str,
    saying: str,
    tmp_path: Path,
    report: WriteReport,
    write_dump: Callable[..., Any],
) -> None:
    write_dump(tmp_path / "dump", MEMORY, granule=GRANULE, states=states, verdict=verdict)
    page = report(tmp_path / "dump", code=0 if verdict == "consistent" else 3)
    assert saying in page.one("p", **{"class": f"verdict {verdict}"}).text


def test_how_it_was_saved(torn: Path, report: WriteReport) -> None:
    """Each kind with its granules, and its bytes: the last granule is half a one."""
    page = report(torn, code=3)
    assert [row[:4] for row in page.rows("Granules of 8 KiB")] == [
        ["by sweep", "4", "32 KiB", "34.8 %"],
        ["by fault", "3", "20 KiB", "21.7 %"],
        ["stolen", "1", "8 KiB", "8.7 %"],
        ["zeros", "1", "8 KiB", "8.7 %"],
        ["lost", "2", "16 KiB", "17.4 %"],
        ["missing", "1", "8 KiB", "8.7 %"],
    ]
    with open_dump(torn) as dump:
        kinds = describe_dump(dump)["kinds"].values()
    numbers = [int(row[1]) for row in page.rows("Granules")]
    assert sorted(numbers) == sorted(kind["granules"] for kind in kinds)
    assert list(page.pairs("legend")) == [row[0] for row in page.rows("Granules")]


def test_the_moments_and_what_the_file_does_not_know(torn: Path, report: WriteReport) -> None:
    page = report(torn, code=3)
    (stores, sweep) = page.rows("The time after the instant")
    assert stores[1:3] == ["0 ns", "1 ms"]
    assert sweep[1:3] == ["1 ms", "3 ms"]
    assert "but not when" in page.one("section", id="saving").text


def test_a_dump_that_was_not_sealed_says_so(
    tmp_path: Path, report: WriteReport, write_dump: Callable[..., Any]
) -> None:
    write_dump(tmp_path / "open", MEMORY, granule=GRANULE, until="started", meta=META)
    page = report(tmp_path / "open", code=3)
    assert "This dump was not sealed" in page.one("section", id="saving").text


def test_the_page_map_has_each_granule(torn: Path, report: WriteReport) -> None:
    """Twelve cells in their order, each in the colour of its kind."""
    page = report(torn, code=3)
    assert cells(page.one("section", id="map")) == [
        *["sweep"] * 3, *["fault"] * 2, "steal", "sweep", "zeros", "lost", "lost", "waiting",
        "fault",
    ]  # fmt: skip


def cells(section: Element) -> list[str]:
    """The class of each cell of the picture, from its paths."""
    svg = next(one for one in section.all("svg") if one.attributes.get("class") == "map")
    found = {}
    for path in svg.all("path"):
        style = path.attributes["class"]
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path.attributes["d"]):
            for cell in range(int(x), int(x) + int(width)):
                assert (int(y), cell) not in found
                found[int(y), cell] = style
    return [found[place] for place in sorted(found)]


def test_the_histogram_is_that_of_the_counters(torn: Path, report: WriteReport) -> None:
    page = report(torn, code=3)
    rows = page.rows("Faults by their time")
    assert [row[:3] for row in rows] == [
        ["1.02 us", "2.05 us", "3"], ["2.05 us", "4.1 us", "0"],
        ["4.1 us", "8.19 us", "40"], ["8.19 us", "16.4 us", "1"],
    ]  # fmt: skip
    assert sum(int(row[2]) for row in rows) == sum(BINS)
    said = page.one("section", id="stalls").text
    assert (
        "44 faults. Half of them held their thread up for less than 8.19 us, 99 of 100 for" in said
    )
    assert "100 for less than 16.4 us, the longest for 9 us." in said


def test_the_facts_are_those_of_info(torn: Path, report: WriteReport) -> None:
    page = report(torn, code=3)
    with open_dump(torn) as dump:
        known = dict(description_rows(describe_dump(dump)))
    assert page.pairs("facts") == {name: " ".join(text.split()) for name, text in known.items()}
    assert page.rows("Physical memory") == [
        ["0x1000-0x7fff", "0x10000"],
        ["0x100000-0x10ffff", "0x0"],
    ]


def test_the_registers(torn: Path, report: WriteReport) -> None:
    page = report(torn, code=3)
    with open_dump(torn) as dump:
        known = dump.registers
    for number, block in enumerate(page.one("section", id="registers").all("details")):
        assert block.one("summary").text == f"vCPU {number} rip {known[number]['rip']:#018x}"
        shown = {one.one("dt").text: int(one.one("dd").text, 16) for one in block.all("div")}
        assert shown == known[number]
    assert number == 1


def test_the_tasks_of_what_is_no_linux(torn: Path, report: WriteReport) -> None:
    said = report(torn, code=3).one("section", id="tasks").text
    assert "No Linux: the dump has no VMCOREINFO." in said


# ------------------------------------------------------------------------- changes


def test_what_has_changed(tmp_path: Path, report: WriteReport, write_dump: Any) -> None:
    """Pages 3 and 4 differ, granule 11 is lost in the new dump, granule 0 in the old one."""
    changed = bytearray(MEMORY)
    changed[3 * PAGE] ^= 1
    changed[5 * PAGE - 1] ^= 1
    lost = [SAVED] * 12
    for name, memory, gone in (("old", MEMORY, 0), ("new", bytes(changed), 11)):
        states = [*lost[:gone], LOST, *lost[gone + 1 :]]
        write_dump(
            tmp_path / name, memory, granule=GRANULE, machine=MACHINE, states=states, verdict="torn"
        )
    page = report(tmp_path / "new", "--against", str(tmp_path / "old"), code=3)
    with open_dump(tmp_path / "old") as a, open_dump(tmp_path / "new") as b:
        found = compare_dumps(a, b)
    rows = page.rows("Pages of both dumps")
    assert [int(row[1]) for row in rows] == list(found.pages.values())
    assert found.pages[Difference.DIFFERENT] == 2
    assert [row[0] for row in rows] == [
        "equal", "different", "missing in the other dump", "missing in this dump",
        "missing in both",
    ]  # fmt: skip
    ranges = [(int(a, 16), int(b, 16) + 1) for a, b, *_ in page.rows("Physical ranges that differ")]
    assert ranges == [(one.start, one.end) for one in found.ranges]
    drawn = cells(page.one("section", id="changes"))
    expected = ["same"] * PAGES
    expected[3] = expected[4] = "step4"
    expected[0] = expected[1] = expected[22] = "missing"
    assert drawn == expected


def test_what_both_lack_is_no_equality(torn: Path, report: WriteReport) -> None:
    page = report(torn, "--against", str(torn), code=3)
    assert "nothing has changed" not in page.one("section", id="changes").text  # pages are missing
    assert "Changes" in page.one("nav").text


def test_against_an_equal_one(tmp_path: Path, report: WriteReport, write_dump: Any) -> None:
    for name in ("a", "b"):
        write_dump(tmp_path / name, MEMORY, granule=GRANULE)
    section = report(tmp_path / "a", "--against", str(tmp_path / "b")).one("section", id="changes")
    assert "nothing has changed" in section.text
    assert not [one for one in section.all("svg") if one.attributes.get("class") == "map"]


def test_without_another_dump_there_is_no_such_section(torn: Path, report: WriteReport) -> None:
    page = report(torn, code=3)
    assert not page.all("section", id="changes")
    targets = [one.attributes["href"] for one in page.one("nav").all("a")]
    assert targets == [f"#{one.attributes['id']}" for one in page.all("section")]


# ---------------------------------------------------------------- other places of a dump


@pytest.mark.parametrize("format", ["raw", "kdump"])
def test_other_formats(format: str, tmp_path: Path, report: WriteReport, write_dump: Any) -> None:
    write_dump(
        tmp_path / "dump", MEMORY, granule=GRANULE, machine=MACHINE, format=format, how=HOW,
        states=STATES, verdict="torn", registers=REGISTERS,
        meta={**META, "registers": REGISTERS},
    )  # fmt: skip
    page = report(tmp_path / "dump", code=3)
    assert [row[1] for row in page.rows("Granules")] == ["4", "3", "1", "1", "2", "1"]
    assert "rip 0x0000000000001234" in page.one("section", id="registers").text


def test_dumps_in_a_store(torn: Path, tmp_path: Path, report: WriteReport) -> None:
    with create_store(str(tmp_path / "store")) as store:
        keep_file(store, torn, "one")
    kept = report(f"{tmp_path}/store#one", "--against", str(torn), code=3)
    assert kept.one("p", **{"class": "path"}).text == f"{tmp_path}/store#one"
    assert [row[1] for row in kept.rows("Granules")] == ["4", "3", "1", "1", "2", "1"]
    assert kept.rows("Pages of both dumps")[1][1] == "0"


def test_what_makedumpfile_has_filtered(tmp_path: Path, report: WriteReport) -> None:
    small_filtered(
        tmp_path / "filtered",
        counters=COUNTERS,
        machine={"name": "engine"},
        registers=REGISTERS,
        makedumpfile="1.7.2",
    )
    page = report(tmp_path / "filtered")
    assert page.one("h1").text == "engine"
    assert "has no table of granules" in page.one("section", id="map").text
    assert len(page.rows("Faults by their time")) == 4
    assert page.pairs("facts")["written by"] == "makedumpfile 1.7.2"


# ------------------------------------------------------------------------ the page itself


def test_a_page_needs_nothing_and_runs_nothing(torn: Path, report: WriteReport) -> None:
    page = report(torn, code=3)
    assert {one.tag for one in page.everything()} & {
        "script",
        "link",
        "img",
        "iframe",
        "base",
    } == set()
    for one in page.everything():
        assert not [name for name in one.attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src"):
            assert one.attributes.get(name, "#").startswith("#")
    (policy,) = (
        one.attributes["content"]
        for one in page.all("meta")
        if one.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "url(" not in page.one("style").text and "@import" not in page.one("style").text


def test_each_picture_and_table_has_a_name(torn: Path, report: WriteReport) -> None:
    page = report(torn, "--against", str(torn), code=3)
    ids = [one.attributes["id"] for one in page.everything() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    for svg in page.all("svg"):
        if svg.attributes.get("aria-hidden") == "true":
            continue
        assert svg.attributes["role"] == "img"
        assert svg.one("title").text and svg.one("desc").text
        assert set(svg.attributes["aria-labelledby"].split()) <= set(ids)
    for table in page.all("table"):
        assert table.one("caption").text
        assert all(one.attributes["scope"] in ("col", "row") for one in table.all("th"))
    for section in page.all("section"):
        assert section.attributes["aria-labelledby"] in ids
    for region in page.all("div", role="region"):
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-labelledby"] in ids
    assert page.one("html").attributes["lang"] == "en"
    assert page.one("main") and page.one("header") and page.one("footer")


def test_a_page_is_the_same_twice(torn: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        assert main(["report", str(torn), "-o", str(tmp_path / name)]) == 3
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
