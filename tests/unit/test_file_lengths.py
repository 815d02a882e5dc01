# SPDX-License-Identifier: GPL-2.0-or-later
"""No source file is long: one noun a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
FOLDERS = ("livedumpfs", "native", "guest", "tests", "bench", "examples", "scripts")
ENDINGS = (".py", ".c", ".h", ".S")
LINES_MOST = 400
LONGER = {
    "native/ldfs.h": "the one public header, which cffi reads as it is",
}
"""File -> why it may be."""


def sources(top: Path) -> list[str]:
    """Of a clone: what git knows, or would if it were added. Programs without an ending too."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z", "--", *FOLDERS]
    done = subprocess.run(command, cwd=top, capture_output=True, timeout=300, check=True)
    names = [name for name in done.stdout.decode().split("\0") if name]
    return [name for name in names if (top / name).is_file() and is_source(top / name)]


def is_source(path: Path) -> bool:
    if path.suffix:
        return path.suffix in ENDINGS
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def longer(top: Path, names: list[str]) -> set[str]:
    return {name for name in names if len((top / name).read_bytes().splitlines()) > LINES_MOST}


@pytest.fixture(scope="module")
def names() -> list[str]:
    if not (TOP / ".git").exists():
        pytest.skip("no clone: its files are not told from what was built")
    return sources(TOP)


def test_no_file_is_long(names: list[str]) -> None:
    found = longer(TOP, names) - set(LONGER)
    assert not found, f"longer than {LINES_MOST} lines, cut them along their nouns: {found}"


def test_the_exceptions_are_longer(names: list[str]) -> None:
    """The list shrinks with the files."""
    short = set(LONGER) - longer(TOP, names)
    assert not short, f"no longer than {LINES_MOST} lines, or gone; no exceptions: {short}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_is_looked_at(names: list[str], folder: str) -> None:
    assert any(name.startswith(f"{folder}/") for name in names)


def test_a_long_file_is_found(tmp_path: Path) -> None:
    """Of each kind; what is ignored, is no source or has just so many lines is not."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, timeout=300, check=True)
    (tmp_path / ".gitignore").write_text("_made.c\n")
    kinds = ("a.py", "b.c", "c.h", "d.S", "program", "_made.c", "f.md", "just.py", "text")
    for name in kinds:
        path = tmp_path / "tests" / "inner" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        first = "words\n" if name == "text" else "#!/bin/sh\n"
        path.write_text(first + "\n" * (LINES_MOST - (name == "just.py")))
    found = longer(tmp_path, sources(tmp_path))
    assert {Path(name).name for name in found} == {"a.py", "b.c", "c.h", "d.S", "program"}
