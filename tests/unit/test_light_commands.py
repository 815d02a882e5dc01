# SPDX-License-Identifier: GPL-2.0-or-later
"""No library is loaded that is not needed: commands that are asked every few seconds, and programs
whose own memory is dumped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
HEAVY = {
    "cachetools", "dask", "distributed", "elftools", "fuse", "msgspec", "numpy",
    "prometheus_client", "qemu", "shtab", "tomllib", "unicorn", "xxhash", "zstandard",
}  # fmt: skip
EXIT = """
import atexit, sys
atexit.register(lambda: print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr))
"""
COMMAND = """
import runpy
import livedumpfs.client
runpy.run_module("livedumpfs.cli", run_name="__main__", alter_sys=True)
"""


def loaded_by(tmp_path: Path, program: str, *words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", EXIT + program, *words], cwd=tmp_path, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(TOP), "XDG_RUNTIME_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "livedumpfs" in loaded, done
    return loaded & HEAVY


@pytest.mark.parametrize("command", ["--help", "status", "list", "__complete"])
def test_commands_that_load_none(command: str, tmp_path: Path) -> None:
    assert not loaded_by(tmp_path, COMMAND, command)


@pytest.mark.parametrize(
    ("modules", "more"), [("dump, livedumpfs.machines", {"cachetools"}), ("dumpfile", set())]
)
def test_a_program_that_dumps_its_own_arrays_or_reads_dumps(
    modules: str, more: set[str], tmp_path: Path
) -> None:
    """What stores need comes with the first store."""
    needed = {"msgspec", "numpy", "xxhash"}
    assert loaded_by(tmp_path, f"import livedumpfs.{modules}") == needed | more
