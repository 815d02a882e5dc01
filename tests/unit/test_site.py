# SPDX-License-Identifier: GPL-2.0-or-later
"""The site has all documents: each page of docs/ is in the nav of mkdocs.yml, and each name of the
package in the page on Python. tests/integration/test_site.py builds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import site_hooks
import stopwatch
import yaml

import livedumpfs
from tests.fixtures.documents import DOCS, DOCUMENTS, PAGES, RESULTS, TOP, blocks, name_of

MADE = {"c-header.md", *site_hooks._PAGES.values()}
"""Pages that the hooks make."""
NAMED = [path for path in DOCUMENTS if any(one.file for one in blocks(path.read_text()))]


class Loader(yaml.SafeLoader):
    """Without making the objects of Python that mkdocs.yml names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def site() -> Any:
    return yaml.load((TOP / "mkdocs.yml").read_text(), Loader)


def pages(nav: Any) -> Iterator[str]:
    """Of a part of the nav."""
    for one in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages(one)
    if isinstance(nav, str):
        yield nav


def test_each_document_is_in_the_nav_once() -> None:
    there = {str(path.relative_to(DOCS)) for path in [*PAGES, RESULTS]}
    named = list(pages(site()["nav"]))
    missing = sorted(there - set(named))
    assert not missing, f"not in the nav of mkdocs.yml: {', '.join(missing)}"
    assert set(named) - there == MADE, "named in the nav of mkdocs.yml, and not there"
    assert len(named) == len(set(named))


def test_the_four_kinds_of_documents_are_there() -> None:
    parts = [name for one in site()["nav"] for name in one]
    kinds = ["Start here", "How to", "Reference", "Explanation", "Troubleshooting"]
    assert [name for name in parts if name in kinds] == kinds


def test_each_public_name_is_on_the_page_of_python() -> None:
    shown = re.findall(r"^::: livedumpfs\.(\w+)$", (DOCS / "python.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(set(livedumpfs.__all__) - {"__version__"})


def test_nothing_is_fetched_when_the_site_is_read() -> None:
    assert site()["theme"]["font"] is False
    assert "offline" in site()["plugins"]
    text = (DOCS / "offline_worker.js").read_text() + (DOCS / "site.css").read_text()
    assert "://" not in text and "import " not in text


@pytest.mark.parametrize("path", NAMED, ids=name_of)
def test_a_program_of_a_page_is_the_example(path: Path) -> None:
    """Where examples/ has a file of that name, the page shows a part of it, as it is."""
    for one in blocks(path.read_text()):
        example = TOP / "examples" / one.file
        if one.file and example.exists():
            assert one.text.strip() in example.read_text(), f"{path.name}: {one.file}"


def test_the_stopwatch_has_each_way_and_what_is_typed_for_it() -> None:
    text = (DOCS / "stopwatch.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (\d+) \| [\d.]+ \| (.*?) ?\|$", text, re.MULTILINE)
    made = [stopwatch.row(way, 1.0) for way in (stopwatch.INSTALL, *stopwatch.WAYS)]
    again = [re.findall(r"^\| (.+?) \| (\d+) \| [\d.]+ \| (.*?) ?\|$", row)[0] for row in made]
    assert rows == again


def test_each_example_is_run_by_a_test() -> None:
    """By a test of the examples, or in a session of a page; or another example imports it."""
    sessions = "".join(
        one.text
        for path in PAGES
        if path.parent != DOCS
        for one in blocks(path.read_text())
        if one.language == "console"
    )
    tests = (TOP / "tests/integration/test_examples.py").read_text()
    imported = (TOP / "examples" / "training.py").read_text()
    left = {
        path.name
        for path in (TOP / "examples").iterdir()
        if path.suffix in (".py", ".c")
        and path.name not in sessions + tests
        and f"from {path.stem} import" not in imported
    }
    assert not left
