# SPDX-License-Identifier: GPL-2.0-or-later
"""A program's own threads as the machine: they write an arena, and the program can hold them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import CData
from livedumpfs.machines.machine import InProcess, PhysicalRange, Registers

# e_machine of the host: what an ELF dump of its memory says. 0 (EM_NONE) for any other.
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243, "ppc64le": 21, "s390x": 22}


def _nothing() -> None:
    pass


class ThreadMachine(InProcess):
    """The threads of this program.

    `quiesce` must return only when nothing writes the arena any more: no thread of the program, no
    system call (`read`, `recv_into`) or direct I/O into it that is still under way, no child
    process. It is called on the thread that calls START, with the GIL. `resume` lets them go on; it
    is called once for each quiesce that returned, whatever happened between, also when a signal's
    handler raised there (Ctrl-C). One that raises, by such a handler too, has held nobody: it lets
    go itself whom it had stopped. A quiesce that returns after `quiesce_deadline` has failed:
    `resume` is called at once, and START raises ETIMEDOUT. One that never returns keeps START for
    ever: Python has no way to end it, so it should look at the clock itself.

    Left out, they do nothing: then the caller itself holds the writers while it calls START.
    """

    name = "threads"

    def __init__(
        self,
        arena: Arena,
        quiesce: Callable[[], object] | None = None,
        resume: Callable[[], object] | None = None,
    ) -> None:
        self.arena = arena
        self.vcpus = 0
        self.architecture = platform.machine()
        self.elf_machine = _ELF_MACHINES.get(self.architecture, 0)
        self.memory_map: Sequence[PhysicalRange] = (PhysicalRange(0, arena.size, 0),)
        self._quiesce = quiesce or _nothing
        self._resume = resume or _nothing

    def quiesce_ops(self) -> CData | None:
        """None: quiesce and resume are Python."""
        return None

    def quiesce(self) -> None:
        """The program's own; its exceptions pass through."""
        self._quiesce()

    def resume(self) -> None:
        """The program's own."""
        self._resume()

    def registers(self) -> list[Registers]:
        """None: threads of a program are no vCPUs."""
        return []

    def snapshot_registers(self) -> list[Registers]:
        """None."""
        return []

    def console(self) -> bytes:
        """Empty."""
        return b""

    def metadata(self) -> dict[str, object]:
        """Only the kind."""
        return {"name": self.name}

    def start(self) -> None:
        """Nothing to do: the program started its threads."""

    def close(self) -> None:
        """Nothing to do: arena and threads are the program's."""
