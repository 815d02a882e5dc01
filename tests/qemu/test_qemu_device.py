# SPDX-License-Identifier: GPL-2.0-or-later
"""The production example of docs/qemu.md: a dump on a block device, and how a program reads it
there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.machines.qemu import QemuMachine
from tests.fixtures import forks

WORDS = [
    "qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-display", "none", "-nodefaults",
    "-m", "64M", "-smp", "2",
]  # fmt: skip
DEADLINE_S = 300.0
READELF = shutil.which("readelf")


def notes(path: str) -> subprocess.CompletedProcess[str]:
    assert READELF
    return subprocess.run(
        [READELF, "-n", path], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.skipif(READELF is None, reason="readelf (binutils) is not installed")
@pytest.mark.parametrize("kind", ["elf", "kdump"])
def test_a_dump_on_a_device_is_read_through_the_mount(
    tmp_path: Path, loop_device: Callable[..., str], kind: str
) -> None:
    device, place = loop_device(96 << 20), tmp_path / "place"
    place.mkdir()
    with QemuMachine(WORDS) as machine:
        machine.start()
        settings = DumpSettings(format=kind, quiesce_deadline=DEADLINE_S)
        assert LiveDump(machine).save(device, settings) == "consistent"
        registers = machine.snapshot_registers()
    assert "not an ordinary file" in notes(device).stderr
    mount = forks.start(
        [sys.executable, "-m", "livedumpfs.cli", "mount", device, str(place)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert mount.stdout and mount.stdout.readline()
        core = place / "snapshot" / "vmcore"
        shown = notes(str(core))
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.count("NT_PRSTATUS") == len(registers) == 2
    finally:
        mount.terminate()
        mount.communicate(timeout=DEADLINE_S)
