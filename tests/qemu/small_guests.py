# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest for the tests of faults that is up within a second: firmware that stores to all of its
memory, over and over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aftermath import wait_for
from firmware import ROUNDS

from livedumpfs.machines.qemu.guest_memory import find_mapping, open_mapped
from livedumpfs.proc import proc_text

SIZE = 256 << 20


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def qemu_of(host: int) -> int:
    """Process id of the one QEMU among the children of a process."""
    names = {pid: proc_text(f"/proc/{pid}/comm") for pid in children(host)}
    (found,) = [pid for pid, name in names.items() if name.startswith("qemu")]
    return found


def held_by(host: Any, orphans: list[int]) -> int:
    """Process id of QEMU, which outlives `host` from here on; `host` runs held_guest.py or one like
    it, and has started."""
    assert host.stdin and host.stdout and host.stdout.readline() == "started\n"
    qemu = qemu_of(host.pid)
    orphans.append(qemu)
    return qemu


def let_pause(host: Any) -> None:
    """Returns when it holds the guest."""
    host.stdin.write("\n")
    host.stdin.flush()
    assert host.stdout.readline() == "paused\n"


def firmware_command(firmware: Path) -> list[str]:
    return [
        "qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults",
        "-m", str(SIZE >> 20), "-bios", str(firmware),
    ]  # fmt: skip


class FirmwareGuest:
    """Offers what these tests use of conftest.Guest. Its heart is the number of rounds that it has
    stored, which is in its memory."""

    def __init__(self, pid: int) -> None:
        maps = proc_text(f"/proc/{pid}/maps")
        self._memory = open_mapped(pid, find_mapping(maps, SIZE))

    def close(self) -> None:
        os.close(self._memory)

    def rounds(self) -> int:
        return int.from_bytes(os.pread(self._memory, 4, ROUNDS), "little")

    def wait_for(self, what: Callable[[], object]) -> None:
        wait_for(what, lambda: f"the guest has stored {self.rounds()} rounds")

    def boot(self) -> None:
        self.wait_for(lambda: self.rounds() > 1)

    def goes_on(self) -> None:
        """A store to each of its pages has come through."""
        before = self.rounds()
        self.wait_for(lambda: self.rounds() > before + 1)
