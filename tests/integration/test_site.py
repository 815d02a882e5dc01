# SPDX-License-Identifier: GPL-2.0-or-later
"""The site is built from docs/, reads nothing from the network, and a link to nowhere ends it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import livedumpfs

TOP = Path(__file__).resolve().parents[2]
PARTS = ("docs", "livedumpfs", "native", "scripts", "systemd", "mkdocs.yml", "CONTRIBUTING.md")
"""What the site is made of."""
MORE = ("CHANGELOG.md", "README.md")

pytestmark = pytest.mark.together


class Page(HTMLParser):
    """What a page refers to, and where it can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        if "src" in values:
            self.fetched.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.fetched.append(values["href"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def build(tree: Path, into: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", into]
    return subprocess.run(
        command, cwd=tree, capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site")
    done = build(TOP, into)
    assert done.returncode == 0, done.stderr
    return into


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    found = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    assert len(found) > 30
    return found


def test_pages_refer_only_to_what_the_site_has(site: Path, pages: dict[Path, Page]) -> None:
    """Every link and anchor, and all that a browser fetches by itself."""
    for path, page in pages.items():
        if path.name == "404.html":  # for a server: its paths are absolute
            continue
        assert not [one for one in page.fetched if "://" in one], path
        for link in (*page.fetched, *page.links):
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "data"):
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            assert there.is_file() and there.is_relative_to(site), f"{path.name}: {link}"
            if parts.fragment and there in pages:
                assert unquote(parts.fragment) in pages[there].anchors, f"{path.name}: {link}"


def test_style_sheets_fetch_nothing(site: Path) -> None:
    for path in site.rglob("*.css"):
        found = re.findall(r"url\(\s*[\"']?(?!data:)([^)\"']+)", path.read_text())
        assert not [one for one in found if "://" in one or one.startswith("//")], path


def test_the_search_knows_the_documents(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    assert index.startswith("var __index = ")
    for word in ("copy-on-write", "crash and drgn", "livedump doctor", "the arena is closed"):
        assert word in index


def test_the_reference_has_the_header_and_the_docstrings(site: Path) -> None:
    header = re.sub(r"<[^>]+>", "", (site / "c-header.html").read_text())
    for name in re.findall(r"^#define (LIVEDUMP_\w+)", (
        TOP / "native" / "livedump_ioctl.h"
    ).read_text(), re.MULTILINE):  # fmt: skip
        assert name in header
    python = Page((site / "python.html").read_text())
    for name in set(livedumpfs.__all__) - {"__version__"}:
        assert f"livedumpfs.{name}" in python.anchors
    assert "livedumpfs.Arena.zeros" in python.anchors  # of a base class


@pytest.mark.parametrize(
    ("link", "said"),
    [("[x](nowhere.md)", "nowhere.md"), ("[x](cli.md#nowhere)", "nowhere")],
)
def test_a_link_to_nowhere_ends_the_build(tmp_path: Path, link: str, said: str) -> None:
    for name in (*PARTS, *MORE):
        path = TOP / name
        if path.is_dir():
            shutil.copytree(path, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "*.o"))
        else:
            shutil.copy(path, tmp_path / name)
    with open(tmp_path / "docs" / "linux.md", "a") as file:
        file.write(f"\n{link}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stderr
