# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that say no to a shorter way of writing: the longer one is taken, and nothing is lost."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.patience import patient_path
from tests.fixtures.program_files import program_command

FOLDER = Path(__file__).resolve().parent


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
    environment = {"PYTHONPATH": patient_path(FOLDER), "LD_PRELOAD": str(odd_target)}
    done = subprocess.run(
        program_command(__file__, "dump_with_a_tail.py", device),
        capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | environment | {what: str(code)},
    )  # fmt: skip
    assert done.returncode == 0, done
    refused = re.search(r"^refused (\d+)$", done.stderr, re.MULTILINE)
    assert refused and int(refused[1]) > 0, done
