# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian guest of guest/linux/ in a QEMU of the test's own."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from livedumpfs.machines.qemu import QemuMachine

TOP = Path(__file__).resolve().parents[2]
GUEST = TOP / "guest" / "linux"
BOOT_S = 90.0
STEP_S = 30.0


@dataclass
class Guest:
    """A machine, and what it printed."""

    machine: QemuMachine | None
    console: Path

    def lines(self) -> list[str]:
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        return [line for line in text.splitlines() if line.startswith("guest:")]

    def number(self, pattern: str) -> int:
        """The newest number that the guest printed in such a line; -1: none yet."""
        found = [m for line in self.lines() if (m := re.search(pattern, line))]
        return int(found[-1][1]) if found else -1

    def wait_for(self, what: Callable[[], bool], seconds: float = STEP_S) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.lines()[-8:]
            time.sleep(0.1)

    def beats(self) -> int:
        return self.number(r"beat (\d+)")

    def goes_on(self) -> None:
        """Its heart beats, its disk is read without an error, its memory is as it was written."""
        beat, reads = self.beats(), self.number(r"direct reads (\d+)")
        self.wait_for(lambda: self.beats() > beat + 1)
        self.wait_for(lambda: self.number(r"direct reads (\d+)") > reads)
        assert self.number(r"direct reads \d+ errors (\d+)") == 0
        assert not [line for line in self.lines() if "WRONG" in line]


def guest_command(console: Path) -> list[str]:
    """1 GiB, 2 vCPUs, TCG; three processes write memory, one reads a disk directly."""
    build = GUEST / "build"
    drive = f"file={build}/disk.img,format=raw,if=virtio,cache=none,aio=threads,readonly=on"
    return [
        "qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-m", "1G", "-smp", "2",
        "-display", "none", "-no-reboot", "-serial", f"file:{console}",
        "-kernel", f"{build}/vmlinuz", "-initrd", f"{build}/initramfs.gz",
        "-append", "console=ttyS0 quiet init_on_alloc=0 churn=3",
        "-device", "virtio-balloon-pci", "-drive", drive,
    ]  # fmt: skip


@pytest.fixture(scope="session")
def guest_files() -> None:
    """Kernel, initramfs and disk: fetched and built once."""
    done = subprocess.run(
        ["make", "-s", "-C", str(GUEST)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nscripts/setup packages installs it"


@pytest.fixture
def guest_parts(guest_files: None) -> tuple[Callable[[Path], list[str]], type[Guest]]:
    """For tests that start QEMU themselves."""
    del guest_files
    return guest_command, Guest


@pytest.fixture(scope="module")
def guest(guest_files: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    del guest_files
    console = tmp_path_factory.mktemp("guest") / "console"
    with QemuMachine(guest_command(console)) as machine:
        found = Guest(machine, console)
        machine.start()
        found.wait_for(lambda: found.number(r"direct reads (\d+)") > 0, BOOT_S)
        found.wait_for(lambda: found.beats() > 0)
        yield found
