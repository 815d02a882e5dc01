# SPDX-License-Identifier: GPL-2.0-or-later
"""fixtures/bytecode.py: what a test imports, or a program of its own, is compiled once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_a_program_finds_what_the_last_one_compiled(tmp_path: Path) -> None:
    source = tmp_path / "some_module.py"
    source.write_text("WORD = 1\n")
    code = "import some_module; print(some_module.__cached__)"
    words = [sys.executable, "-c", code]
    shown = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300
    ).stdout.strip()
    try:
        assert Path(shown).is_file() and Path(shown).is_relative_to(TOP / "build")
        assert shown == importlib.util.cache_from_source(str(source)), "not that of this process"
        assert not list(tmp_path.rglob("__pycache__"))
    finally:
        Path(shown).unlink()
