# SPDX-License-Identifier: GPL-2.0-or-later
"""The sessions of the pages for new users are typed as they stand there, and print what the pages
show. Those with a guest of QEMU: tests/qemu/test_doc_guests.py."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.fixtures.doc_sessions import pattern, run_blocks, session, typed
from tests.fixtures.documents import DOCS, blocks, name_of

FOLDERS = ("start", "howto")
WITH_QEMU = ("start/qemu.md", "howto/forensics.md", "howto/leak.md")
PAGES = [path for folder in FOLDERS for path in sorted((DOCS / folder).glob("*.md"))]
HERE = [path for path in PAGES if str(path.relative_to(DOCS)) not in WITH_QEMU]


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="hosts need /dev/fuse")
@pytest.mark.parametrize("path", HERE, ids=name_of)
def test_the_sessions_of_a_page(path: Path, tmp_path: Path) -> None:
    with session(tmp_path) as opened:
        assert run_blocks(opened, tmp_path, blocks(path.read_text())) > 1


def test_the_program_of_the_page_on_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its state is of one step."""
    monkeypatch.chdir(tmp_path)
    found = blocks((DOCS / "howto" / "training.md").read_text())
    (program,) = [one.text for one in found if one.language == "python"]
    exec(program, {})
    assert re.fullmatch(r"consistent of step \d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_each_page_has_a_session(path: Path) -> None:
    assert any(one.language == "console" for one in blocks(path.read_text()))


def test_what_the_first_page_shows_is_of_a_session_that_is_run() -> None:
    (shown,) = blocks((DOCS / "index.md").read_text())
    lines = (DOCS / "start" / "qemu.md").read_text().splitlines()
    assert not [line for line in shown.text.splitlines() if line not in lines]


def test_pages_with_a_guest_are_there() -> None:
    assert not [name for name in WITH_QEMU if not (DOCS / name).exists()]


@pytest.mark.parametrize(
    ("shown", "said", "fits"),
    [
        ("stopped for 265 us, 8 of 9", "stopped for 1.2 ms, 10 of 12", True),
        ("stopped for 265 us", "stopped for 265 pages", False),
        ("verdict   consistent", "verdict     consistent", True),
        ("verdict   consistent", "verdict     torn", False),
        ("device vm1/livedump", "device /tmp/x/vm2/livedump", True),
        ("Linux version 6.1 ... (2026-11-26)", "Linux version 7 (x y) #1 SMP (2027)", True),
        ("Linux version 6.1 ... (2026-11-26)", "Linux version 7 SMP", False),
    ],
)
def test_what_a_line_may_be(shown: str, said: str, fits: bool) -> None:
    assert bool(pattern(shown).fullmatch(said)) is fits


def test_what_is_typed_and_what_is_shown() -> None:
    block = "$ one \\\n> more &\nit says\n$ two\n"
    assert typed(block) == [("one \\\nmore &", ["it says"]), ("two", [])]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("$ echo verdict torn\nverdict consistent\n", "has no line"),
        ("$ false\n", "ended with 1"),
    ],
)
def test_a_session_that_is_not_as_it_is_shown(text: str, wrong: str, tmp_path: Path) -> None:
    with session(tmp_path) as opened, pytest.raises(AssertionError, match=wrong):
        run_blocks(opened, tmp_path, blocks(f"```console\n{text}```"))


def test_a_background_command_that_never_says_what_is_shown(tmp_path: Path) -> None:
    shown = blocks("```console\n$ sleep 0 &\nit never says that\n```")
    with session(tmp_path, 1.0) as opened, pytest.raises(AssertionError, match="hangs"):
        run_blocks(opened, tmp_path, shown)
