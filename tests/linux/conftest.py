# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux in this process: the system of guest/linux/riscv64/, which proves its own work."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs.machines import LinuxMachine

BOOT_S = 600.0
"""On a computer that has much else to do."""
LOAD = ("stores", "forks", "files", "ticks")


class LinuxGuest:
    """A machine with a disk, and what it says."""

    def __init__(self, folder: Path, ram: str, arguments: str) -> None:
        self.disk = folder / "disk"
        self.disk.write_bytes(b"")
        with self.disk.open("r+b") as file:
            file.truncate(32 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.disk)], check=True, timeout=300)
        self.machine = LinuxMachine(ram, disk=self.disk, arguments=arguments)

    def wait_for(self, pattern: str, timeout: float = BOOT_S) -> re.Match[str]:
        """Until the console has it."""
        end = time.monotonic() + timeout
        while True:
            said = self.machine.console().decode(errors="replace")
            found = re.search(pattern, said, re.MULTILINE)
            if found:
                return found
            assert self.machine.state == "running", (self.machine.status(), said[-4000:])
            assert time.monotonic() < end, f"no {pattern!r} in:\n{said[-4000:]}"
            time.sleep(0.05)

    def right(self) -> dict[str, int]:
        """How much of each load was found right by the guest itself; none is wrong."""
        said = self.machine.console().decode(errors="replace")
        wrong = [line for line in said.splitlines() if "WRONG" in line or "Oops" in line]
        assert not wrong, wrong
        found = re.findall(r"load: (\w+) (\d+) right", said)
        return {name: int(number) for name, number in found}

    def switch_off(self, timeout: float = BOOT_S) -> None:
        """As a user does, and all that the guest has cached is on its disk."""
        self.machine.type(b"\numount /disk || mount -o remount,ro /disk; poweroff -f\n")
        end = time.monotonic() + timeout
        while not self.machine.ended():
            assert time.monotonic() < end, self.machine.console()[-4000:].decode(errors="replace")
            time.sleep(0.05)

    def check_disk(self) -> None:
        """After the machine was closed."""
        found = subprocess.run(
            ["e2fsck", "-fn", str(self.disk)], capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout + found.stderr


@pytest.fixture(scope="module")
def linux(
    linux_files: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., LinuxGuest]]:
    """linux(ram, arguments): a guest that was started; it is closed at the end."""
    del linux_files
    made: list[LinuxGuest] = []

    def start(ram: str = "128MiB", arguments: str = "") -> LinuxGuest:
        made.append(LinuxGuest(tmp_path_factory.mktemp("linux"), ram, arguments))
        made[-1].machine.start()
        return made[-1]

    try:
        yield start
    finally:
        for guest in made:
            guest.machine.close()
