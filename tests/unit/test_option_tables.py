# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of options in the documents are those that the rows make."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import option_tables
import pytest

TOP = Path(__file__).resolve().parents[2]
FIX = "run scripts/option_tables.py --update"


@pytest.mark.parametrize("name", option_tables.BLOCKS)
def test_the_documents_are_as_the_rows_say(name: str) -> None:
    text = (TOP / name).read_text()
    assert option_tables.made(name, text) == text, FIX


def test_every_table_of_options_is_made() -> None:
    for name, blocks in option_tables.BLOCKS.items():
        marked = re.findall(r"<!-- (.+?): begin", (TOP / name).read_text())
        assert sorted(marked) == sorted(blocks), name


@pytest.mark.parametrize("name", option_tables.BLOCKS)
def test_what_somebody_wrote_into_a_table_is_seen(name: str) -> None:
    text = (TOP / name).read_text()
    for block in option_tables.BLOCKS[name]:
        end = f"<!-- {block}: end -->"
        edited = text.replace(end, f"| `--mine` | of mine |\n{end}")
        assert edited != text
        assert option_tables.made(name, edited) == text
        with pytest.raises(ValueError, match="once, not 0 times"):
            option_tables.made(name, text.replace(end, ""))


def test_the_program_writes_what_it_misses(tmp_path: Path) -> None:
    """Run from a copy of the tree, for it writes."""
    for name in option_tables.BLOCKS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (TOP / name).read_text()
        (tmp_path / name).write_text(text.replace("| 10 s |", "| 11 s |"))
    (tmp_path / "scripts").mkdir()
    program = tmp_path / "scripts" / "option_tables.py"
    program.write_text((TOP / "scripts" / "option_tables.py").read_text())
    (tmp_path / "livedumpfs").symlink_to(TOP / "livedumpfs")

    def run(*words: str) -> tuple[int, str]:
        command = [sys.executable, str(program), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        return done.returncode, done.stdout

    code, said = run()
    assert code == 1 and "docs/cli.md is not as the rows say" in said
    assert run("--update") == (0, "docs/cli.md: written\n")
    assert run() == (0, "")
    assert "| 10 s |" in (tmp_path / "docs/cli.md").read_text()
