# SPDX-License-Identifier: GPL-2.0-or-later
"""A program's own threads as the machine: they write an arena, and the program can hold them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import CData
from livedumpfs.formats import Registers
from livedumpfs.machines.machine import InProcess, PhysicalRange

# e_machine of the host: what an ELF dump of its memory says. 0 (EM_NONE) for any other.
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243, "ppc64le": 21, "s390x": 22}


def _nothing() -> None:
    pass


class ThreadMachine(InProcess):
    """The threads of this program.

    `quiesce` must return only when nothing writes the arena any more: no thread of the program, no
    system call (`read`, `recv_into`) or direct I/O into it that is still under way, no child
    process. It is called with the GIL, on a thread that is made for this START, in the context
    (contextvars) of the thread that calls START and waits for it: what belongs to that thread, such
    as an RLock that it holds, is not there. `resume` lets them go on; it is called on the same
    thread as quiesce, once for each that returned, whatever happened between, also when a signal's
    handler raised in the thread that waits (Ctrl-C). A quiesce that raises must itself let go what
    it had stopped.

    A quiesce that returns after `quiesce_deadline` has failed: `resume` is called at once, and
    START raises ETIMEDOUT. START does so too, a moment after the deadline, while a quiesce has not
    returned at all: nothing is armed then, the dump can be released, and its `resume` is called
    when it does. Until then START, and the next INIT, are EBUSY: it would be called twice at once.
    One that never returns keeps its thread and what INIT took. `resume` has as much time; when it
    is late START raises ETIMEDOUT, and the dump is released.

    Left out, they do nothing: then the caller itself holds the writers while it calls START.
    """

    name = "threads"
    identity = ""
    """Which of several such machines of this computer it is: a store's `forget` tells their dumps
    apart by it. A program may set it."""
    stores_from_python = True
    """See StoresFromPython. A subclass whose writers never store with the interpreter's lock (C
    threads) may say False, and have `at_limit` "hold"."""
    backends = ("auto", *InProcess.backends)

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

    @property
    def holds_nobody(self) -> bool:
        """See HoldsNobody: then both are called on the thread that calls START."""
        usual = (ThreadMachine.quiesce, ThreadMachine.resume)
        own = (type(self).quiesce, type(self).resume)
        idle = not self.arena.receivers.busy
        return idle and own == usual and self._quiesce is self._resume is _nothing

    def quiesce(self) -> None:
        """The program's own; its exceptions pass through. Then the blocks of Arena.receiving: a
        writer that the program holds between two of them is not waited for."""
        self._quiesce()
        try:
            self.arena.receivers.quiesce()
        except BaseException:
            self._resume()
            raise

    def resume(self) -> None:
        """Undo both."""
        self.arena.receivers.resume()
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
        """Kind and identity."""
        return {"name": self.name, **({"identity": self.identity} if self.identity else {})}

    def start(self) -> None:
        """Nothing to do: the program started its threads."""

    def close(self) -> None:
        """Nothing to do: arena and threads are the program's."""
