# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that are asked every few seconds load no library that they do not need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
HEAVY = {
    "cachetools", "elftools", "fuse", "msgspec", "numpy", "prometheus_client", "qemu", "unicorn",
    "xxhash",
}  # fmt: skip
PROGRAM = """
import atexit, runpy, sys
atexit.register(lambda: print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr))
import livedumpfs.client
runpy.run_module("livedumpfs.cli", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("command", ["--help", "status"])
def test_they_load_none(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, command], cwd=tmp_path, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(TOP), "XDG_RUNTIME_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "argparse" in loaded, done
    assert not loaded & HEAVY
