# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that runs already, with nothing prepared but two monitors: one for livedumpfs, the other
for the test."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from aftermath import wait_for
from firmware import ROUNDS

from livedumpfs.machines.machine import PhysicalRange
from livedumpfs.machines.qemu.guest_kind import ask_kind
from livedumpfs.machines.qemu.monitor import Monitor
from livedumpfs.machines.qemu.qmp_commands import QmpCommands
from livedumpfs.units import PAGE_SIZE

SIZE = 32 << 20
"""More than the sockets' buffers and the stream's window: it cannot all come at once."""
START_S = 300.0
QEMU = "qemu-system-x86_64"
ADDRESS = re.compile(r"is (0x[0-9a-f]+)")
SETTINGS = ("max-bandwidth", "tls-creds")


@dataclass
class SomeGuest:
    """`socket` is for AttachedMachine, `other` the test's own monitor, `pid` QEMU's."""

    pid: int
    socket: Any
    other: QmpCommands

    def rounds(self) -> int:
        """Of the firmware: how often it has stored to all of its memory."""
        found = re.search(r": (0x[0-9a-f]+)", self.other.hmp(f"xp /1wx {ROUNDS:#x}"))
        assert found
        return int(found[1], 16)

    def boot(self) -> None:
        wait_for(lambda: self.rounds() > 1, self.rounds)

    def goes_on(self) -> None:
        """A store to each of its pages has come through."""
        before = self.rounds()
        wait_for(lambda: self.rounds() > before + 1, self.rounds)

    def registers(self) -> list[Any]:
        """A state of each vCPU, as its processor has them."""
        return [*ask_kind(self.other).parse_registers(self.other.hmp("info registers -a"))]

    def settings(self) -> dict[str, Any]:
        """Of migrations: those that are changed for a snapshot, and what is on."""
        parameters = self.other.execute("query-migrate-parameters")
        capabilities = self.other.execute("query-migrate-capabilities")
        assert isinstance(parameters, dict) and isinstance(capabilities, list)
        return {
            **{name: parameters.get(name) for name in SETTINGS},
            "on": [one["capability"] for one in capabilities if one["state"]],
        }

    def migration(self) -> str:
        found = self.other.execute("query-migrate")
        assert isinstance(found, dict)
        return str(found.get("status", "none"))

    def memory(self, ranges: Sequence[PhysicalRange], size: int) -> npt.NDArray[np.uint8]:
        """All RAM of the guest, which stands still, from QEMU's own memory: a row each page."""
        made = np.zeros(size, dtype=np.uint8)
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as file:
            for one in ranges:
                # At the VGA's window the RAM is hidden from the CPUs; it is there all the same.
                found = ADDRESS.search(self.other.hmp(f"gpa2hva {one.start:#x}"))
                assert found
                file.seek(int(found[1], 16))
                got = file.readinto(memoryview(made)[one.arena_offset :][: one.size])
                assert got == one.size
        return made.reshape(-1, PAGE_SIZE)


def firmware_words(firmware: Path, memory: str = f"{SIZE >> 20}M") -> list[str]:
    return ["-accel", "tcg", "-nodefaults", "-m", memory, "-bios", str(firmware)]


@dataclass
class RunningGuest(SomeGuest):
    """The test itself has started it."""

    process: subprocess.Popen[str]


@contextlib.contextmanager
def running(
    folder: Path, words: Sequence[str], nice: int = 19, program: str = QEMU
) -> Iterator[RunningGuest]:
    """QEMU with those options; ended with the block. `nice`: firmware, which stores all the time,
    leaves the processors to the test."""
    command = ["nice", "-n", str(nice), program, "-display", "none", *words]
    paths = [folder / "qmp", folder / "other"]
    for path in paths:
        command += ["-qmp", f"unix:{path},server=on,wait=off"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True)
    try:
        with Monitor(str(paths[1]), START_S, alive=lambda: process.poll() is None) as other:
            yield RunningGuest(process.pid, str(paths[0]), other, process)
    finally:
        process.kill()
        process.wait()


def wait_until_ended(process: subprocess.Popen[str], seconds: float = START_S) -> None:
    end = time.monotonic() + seconds
    while process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
