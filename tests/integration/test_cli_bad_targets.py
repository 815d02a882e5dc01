# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands, as they are typed: targets that are no good."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.shells import Shell, runs_on


def test_bad_targets(shell: Shell, quiet: str, tmp_path: Path) -> None:
    other = tmp_path / "letter"
    other.write_text("Dear reader")
    for target in (str(tmp_path), "/no/such/folder/dump", str(other), "/dev/null", "x" * 5000):
        shell.fails("dump", target)
    shell.fails("dump", "", code=2)
    assert other.read_text() == "Dear reader"
    assert shell.status()["state"] == "UNDEFINED"
    shell.run("dump", str(other), "--force")
    shell.run("verify", str(other))
    runs_on(quiet)


def test_a_device_that_is_too_small(
    shell: Shell, quiet: str, loop_device: Callable[..., str]
) -> None:
    assert "the device has 8 MiB" in shell.fails("dump", loop_device(8 << 20))
    assert shell.status()["state"] == "UNDEFINED"
    runs_on(quiet)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_disk_that_fills_up(shell: Shell, quiet: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", small], check=True)
    try:
        foreseen = shell.fails("dump", str(small / "dump"))
        assert "the dump needs" in foreseen and "--force goes on" in foreseen
        assert list(small.iterdir()) == []
        sentence = shell.fails("dump", str(small / "dump"), "--force", code=3)
        assert re.search(
            r"cannot write page 0x[0-9a-f]+ to \S+/small/dump.incomplete: No space left", sentence
        )
        shell.run("info", str(small / "dump.incomplete"), code=3)
        assert re.search(r"^reason +cannot write page", shell.run("status")[0], re.M)
        runs_on(quiet)
        shell.run("dump", str(tmp_path / "next"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_relative_path_is_the_callers(shell: Shell, quiet: str, tmp_path: Path) -> None:
    shell.run("dump", "here")
    assert (tmp_path / "here").stat().st_size > 16 << 20
