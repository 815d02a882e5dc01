# SPDX-License-Identifier: GPL-2.0-or-later
"""`make man`: a page for each command, with what its --help has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from livedumpfs.cli.completion_command import SHELLS
from tests.unit.test_docs import commands, options

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("man")
    program = [sys.executable, str(TOP / "scripts" / "man_pages.py"), str(place)]
    subprocess.run(program, capture_output=True, timeout=100, check=True)
    return place


def test_each_command_has_its_page(folder: Path) -> None:
    pages = {path.name for path in (folder / "man" / "man1").iterdir()}
    names = {f"livedump-{name.replace(' ', '-')}.1" for name in commands() if name != "uninit"}
    assert pages == {*names, "livedump.1", "livedump-fleet.1"}
    assert {path.suffix[1:] for path in (folder / "completions").iterdir()} == set(SHELLS)


@pytest.mark.parametrize("name", ["dump", "fleet dump", "completion"])
def test_a_page_has_options_and_examples(folder: Path, name: str) -> None:
    page = folder / "man" / "man1" / f"livedump-{name.replace(' ', '-')}.1"
    text = page.read_text().replace("\\-", "-")
    assert {one for one in options(commands()[name]) - {"-h", "--help"} if one not in text} == set()
    assert ".SH EXAMPLES" in text and f".B livedump {name}" in text and ".SH SEE ALSO" in text


def test_references_lead_to_pages(folder: Path) -> None:
    pages = {path.stem for path in (folder / "man" / "man1").iterdir()}
    for path in (folder / "man" / "man1").iterdir():
        named = re.findall(r"\b(livedump[a-z-]*) ?\(1\)", path.read_text().replace("\\-", "-"))
        assert set(named) <= pages and named, path.name


def test_roff_has_nothing_to_say(folder: Path) -> None:
    if not shutil.which("groff"):
        pytest.skip("no groff (scripts/setup packages)")
    pages = sorted(map(str, (folder / "man" / "man1").iterdir()))
    for page in pages:
        done = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8", "-z", page],
            capture_output=True, text=True, timeout=100, check=True,
        )  # fmt: skip
        assert done.stderr == "", page
