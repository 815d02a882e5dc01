# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of `livedump report` in Chromium: light and dark, on wide and narrow screens, by the
keyboard, and for a screen reader."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import wait_for
from headless import opened

from livedumpfs.cli.main import main
from livedumpfs.formats import MachineInfo, MemoryRange
from livedumpfs.formats.table import ARMED, BY_FAULT, BY_STEAL, BY_SWEEP, HOLE, LOST, SAVED
from livedumpfs.html_report import HostSaid, TaskList, of_host, render
from livedumpfs.html_report.task_list import TaskRow

pytestmark = pytest.mark.timeout(600)

PAGE = 4096
PAGES = 3000
WORDS = 512
LOOKS = list(itertools.product(("light", "dark"), ("wide", "narrow")))
EVIL = "</title><script>document.title='evil'</script><img src=x onerror=\"document.title='evil'\">"
DARKEST, LIGHTEST = 60, 195
"""Mean of red, green and blue, of 255."""


def memory(add: int) -> bytes:
    return b"".join((n + add).to_bytes(8, "little") * WORDS for n in range(1, PAGES + 1))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, write_dump: Callable[..., Any]) -> Path:
    """Of a torn dump with all kinds of granules, hostile names, and another dump beside it."""
    folder = tmp_path_factory.mktemp("page")
    states = [SAVED] * (PAGES - 40) + [HOLE] * 20 + [LOST] * 10 + [ARMED] * 10
    how = [(BY_SWEEP, BY_FAULT, BY_STEAL)[n // 7 % 3] for n in range(PAGES)]
    counters = {
        "faults": 999, "handler_ns": [0] * 12 + [900, 90, 0, 9] + [0] * 24, "pause_ns": 10**5,
        "instant_wall_ns": 1_790_000_000 * 10**9, "instant_mono_ns": 10**9,
        "sweep_start_ns": 10**9 + 5, "drained_ns": 10**9 + 99, "stall_max_ns": 50_000,
    }  # fmt: skip
    arrays = [{"name": EVIL, "dtype": "<i8", "shape": [4], "offset": 0}]
    write_dump(
        folder / "new.elf", memory(0), states=states, how=how, verdict="torn",
        machine=MachineInfo(EVIL[:60], vcpus=2, memory_map=(MemoryRange(0, PAGES * PAGE, 0),)),
        registers=[{"rip": 1}, {"rip": 2}],
        meta={"counters": counters, "policy": EVIL, "arrays": arrays},
    )  # fmt: skip
    old = bytearray(memory(0))
    old[PAGE : 900 * PAGE] = memory(1)[PAGE : 900 * PAGE]
    write_dump(folder / "old.elf", bytes(old))
    words = ("report", str(folder / "new.elf"), "--against", str(folder / "old.elf"))
    assert main([*words, "-o", str(folder / "page.html")]) == 3
    return folder / "page.html"


@pytest.fixture(params=LOOKS, ids="-".join)
def shown(browser: Any, page: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, in each look."""
    with opened(browser, page, *request.param) as found:
        yield found


def said_while(browser: Any, page: Path, scheme: str) -> list[str]:
    """All that the console gets, and all that the page asks the network for."""
    context = browser.new_context(color_scheme=scheme)
    said: list[str] = []
    found = context.new_page()
    found.on("console", lambda message: said.append(message.text))
    found.on("pageerror", lambda error: said.append(str(error)))
    found.on("request", lambda request: said.append(request.url))
    found.goto(page.as_uri())
    found.wait_for_load_state("networkidle")
    context.close()
    return said


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_fetched_and_nothing_is_wrong(browser: Any, page: Path, scheme: str) -> None:
    assert said_while(browser, page, scheme) == [page.as_uri()]


def test_the_console_is_looked_at(browser: Any, tmp_path: Path) -> None:
    """A page that does what ours must not do is found."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='nosuch.png'><script>throw Error('evil')</script>")
    said = said_while(browser, bad, "light")
    assert any("nosuch.png" in one for one in said) and any("evil" in one for one in said)


def test_hostile_text_is_text(shown: Any) -> None:
    assert shown.evaluate("document.title").startswith("</title><script>document.title='evil'")
    assert shown.locator("script, img").count() == 0
    assert shown.get_by_text("onerror").count() > 0


def test_the_policy_stops_a_script_that_had_come_in(browser: Any, page: Path) -> None:
    """Were something not escaped: the page itself allows no script, no style and no picture."""
    broken = page.with_name("broken.html")
    text = page.read_text().replace("<main", "<script>document.title='evil'</script><main", 1)
    broken.write_text(text.replace("</h1>", "</h1><style>h1 { display: none }</style>", 1))
    with opened(browser, broken, "light") as found:
        assert found.title() != "evil"
        assert found.locator("script").count() == 1
        assert found.locator("h1").is_visible()


def test_no_fault_of_accessibility_is_found(shown: Any) -> None:
    """By axe: names, roles, contrasts, the order of headings, regions that scroll."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(shown)
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 20


@pytest.mark.parametrize(("scheme", "size"), LOOKS)
def test_a_page_of_a_host_in_the_middle_of_its_dump(
    browser: Any, tmp_path: Path, scheme: str, size: str
) -> None:
    """With what is under way in its map, and a long list of tasks that scrolls by the keyboard."""
    from axe_playwright_python.sync_playwright import Axe

    letters = b"-.0SsfFtTL" * 400
    counters = {"granules": len(letters), "granule_size": PAGE, "faults": 7}
    stats = {
        "state": "SWEEP", "so_far": "torn", "reason": "page 0x7 found no free slot " * 5,
        "machine": {"name": "guest"}, "counters": counters,
        "progress": {"total": len(letters) * PAGE},
    }  # fmt: skip
    said = HostSaid("/run/" + "vm/" * 40, stats, letters, {}, [("0-1", "0")], [("state", "SWEEP")])
    tasks = TaskList([TaskRow(n, 1, "S", "x" * 15, n % 2 > 0) for n in range(500)], "6.1", "drgn")
    (tmp_path / "page.html").write_text(render(of_host(said), tasks))
    with opened(browser, tmp_path / "page.html", scheme, size) as found:
        report = Axe().run(found)
        assert report.violations_count == 0, report.generate_report()
        assert (
            found.evaluate("document.documentElement.scrollWidth") == found.viewport_size["width"]
        )
        assert found.locator("#map .map path:not(.grid)").count() == 10
        region = found.get_by_role("region", name="500 tasks at the instant")
        region.focus()
        found.keyboard.press("End")
        wait_for(lambda: region.evaluate("one => one.scrollTop") > 1000)


def test_it_fits_the_screen(shown: Any) -> None:
    """Nothing makes the page wider than the window."""
    assert shown.evaluate("document.documentElement.scrollWidth") == shown.viewport_size["width"]


def test_light_and_dark(browser: Any, page: Path) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        with opened(browser, page, scheme) as found:
            colour = found.evaluate("getComputedStyle(document.body).backgroundColor")
            parts = [int(one) for one in colour.removeprefix("rgb(").removesuffix(")").split(",")]
            brightness[scheme] = sum(parts) / 3
    assert brightness["dark"] < DARKEST and brightness["light"] > LIGHTEST


def test_each_kind_has_a_colour_of_its_own(shown: Any) -> None:
    """As the browser has it, and none is that of the ground behind the map."""
    colours = shown.evaluate(
        "[...document.querySelectorAll('#map .map path:not(.grid)')]"
        ".map(one => getComputedStyle(one).fill)"
    )
    ground = shown.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
    assert len(colours) == len(set(colours)) == 6
    assert ground not in colours


def test_the_keyboard_alone(shown: Any) -> None:
    """Tab goes through all of it in the order of the page, the place that has the focus is drawn,
    and Enter opens what is closed."""
    order = []
    while True:
        shown.keyboard.press("Tab")
        at = shown.evaluate(
            "(one => [one.tagName, (one.textContent || '').trim().slice(0, 30),"
            " one.getBoundingClientRect().top + scrollY,"
            " getComputedStyle(one).outlineStyle])(document.activeElement)"
        )
        if at[0] == "BODY" or len(order) > 60:
            break
        order.append(at)
    names = [(tag, text) for tag, text, _, _ in order]
    assert names[0] == ("A", "Skip to the report")
    links = ["Page map", "How it was saved", "Stalls", "Changes", "Registers", "Tasks", "All facts"]
    assert [text for tag, text in names[1:] if tag == "A"] == links
    assert [tag for tag, _ in names].count("SUMMARY") == 2
    assert [tag for tag, _ in names].count("DIV") == 3  # ranges, memory, arrays
    tops = [top for _, _, top, _ in order[1 + len(links) :]]
    assert tops == sorted(tops)
    assert all(outline == "solid" for *_, outline in order)
    second = shown.locator("details").nth(1)
    assert second.get_attribute("open") is None
    second.locator("summary").focus()
    shown.keyboard.press("Enter")
    assert second.get_attribute("open") is not None


def test_the_first_link_skips_to_the_report(shown: Any) -> None:
    shown.keyboard.press("Tab")
    assert shown.locator(".skip").bounding_box()["x"] >= 0
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.id") == "main"


def test_what_a_screen_reader_is_told(browser: Any, page: Path) -> None:
    """Landmarks, headings, and the names of pictures, tables and regions."""
    with opened(browser, page, "light") as found:
        told = found.locator("body").aria_snapshot()
        for one in (
            *("- banner:", "- main:", "- contentinfo:", 'navigation "Sections"'),
            *('img "Page map of the dump', 'img "Map of the changes'),
            *('table "Granules of 4 KiB', 'table "Faults by their time in the handler'),
            *('table "Pages of both dumps"', 'region "Physical ranges that differ'),
            *('region "Page map"', 'region "Named arrays"', 'heading "Registers" [level=2]'),
        ):
            assert one in told, f"{one} is not in:\n{told}"
        tree = found.context.new_cdp_session(found).send("Accessibility.getFullAXTree")["nodes"]
        pictures = [one for one in tree if role(one) == "image" and not one["ignored"]]
        assert len(pictures) == 2
        for one in pictures:
            assert "cells in rows from the upper left" in one["name"]["value"]


def role(node: dict[str, Any]) -> str:
    return str(node.get("role", {}).get("value", ""))
