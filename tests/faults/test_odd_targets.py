# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that say no to a shorter way of writing: the longer one is taken, and nothing is lost."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
DUMP = """
import sys
import numpy as np
from aftermath import unharmed
from livedumpfs.cli.proof import prove_dump
from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump
MIB = 1 << 20
with Arena(8 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = np.random.default_rng(3).integers(1, 256, 8 * MIB, dtype=np.uint8)
    arena.live[2 * MIB : 3 * MIB] = 0
    arena.discard(5 * MIB, MIB)
    live.init(sys.argv[1], DumpSettings(format="raw", table="tail", granule=16 << 10, force=True))
    live.start(); live.sweep()
    assert live.finish(300) == "consistent", live.failure
    live.release()
    with open_dump(sys.argv[1]) as dump:
        assert prove_dump(dump).ok
        assert dump.read_arena(0, 8 * MIB) == arena.live.tobytes()
"""


@pytest.fixture(scope="module")
def odd_target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("odd") / "odd_target.so"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(FOLDER / "odd_target.c")], check=True, timeout=300)
    return library


@pytest.mark.parametrize(
    ("what", "code"),
    [("ODD_DIRECT", errno.EOPNOTSUPP), ("ODD_DIRECT", errno.EINVAL), ("ODD_ZERO", errno.EIO)],
)
def test_the_longer_way_is_taken(
    loop_device: Callable[..., str], odd_target: Path, what: str, code: int
) -> None:
    device = loop_device(16 << 20)
    Path(device).write_bytes(b"\xa5" * (16 << 20))  # what zeros must replace
    environment = {"PYTHONPATH": f"{FOLDER.parents[1]}:{FOLDER}", "LD_PRELOAD": str(odd_target)}
    done = subprocess.run(
        [sys.executable, "-c", DUMP, device],
        capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | environment | {what: str(code)},
    )  # fmt: skip
    assert done.returncode == 0, done
    refused = re.search(r"^refused (\d+)$", done.stderr, re.MULTILINE)
    assert refused and int(refused[1]) > 0, done
