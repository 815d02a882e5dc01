# SPDX-License-Identifier: GPL-2.0-or-later
"""What some machines can do beyond Machine, each as a protocol of its own.

A machine has a capability when it has all the names that the protocol has; nothing is registered.
Other rooms ask with isinstance for a protocol of this file, or for a shim with shim_of, and never
for a class of machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from livedumpfs.formats import Registers
from livedumpfs.machines.machine import Machine
from livedumpfs.machines.shim import Shim
from livedumpfs.settings import CpuNotes
from livedumpfs.units import HOST_PAGE


@runtime_checkable
class ChecksFirst(Protocol):
    """A machine that can say, before anything is written, what START would refuse."""

    def check_start(self, backend: str) -> None:
        """MachineError: a dump by that backend is not possible as it is now. The machine runs
        on."""


@runtime_checkable
class HasPages(Protocol):
    """A machine whose memory may have larger pages than the kernel's (a hugetlbfs)."""

    @property
    def page_size(self) -> int:
        """Bytes of one, the least that can be protected: no granule is smaller. Above HOST_PAGE the
        memory is armed in place, whatever the settings say."""


@runtime_checkable
class ChoosesBackend(Protocol):
    """A machine with more than one backend, of which not each can be had at each time."""

    def best_backend(self) -> str:
        """The fastest of them that can be had as this process is now; "auto": sigsegv would be
        refused now, so INIT tries sigbus, and takes sigsegv where that fails."""


@runtime_checkable
class LooksAhead(Protocol):
    """A machine that needs facts at START which take longer to find than a pause may last."""

    def look_ahead(self) -> None:
        """Find those facts, at INIT, while the machine runs. Raises nothing: START can do without
        them."""


@runtime_checkable
class StopsLater(Protocol):
    """A machine that runs on for a while after quiesce was called, because quiesce first asks it
    questions; and whose pause ends by itself."""

    def quiesce_for(self, seconds: float) -> None:
        """As Machine.quiesce, with an end: the machine runs again `seconds` seconds from now, also
        if resume is not called by then. MachineError (ETIMEDOUT): it runs on."""

    @property
    def stop_asked_ns(self) -> int:
        """The last time, in ns of CLOCK_MONOTONIC, at which the machine ran for certain before it
        stopped: the pause is counted from there."""

    @property
    def resumed_ns(self) -> int:
        """The first time, in ns of CLOCK_MONOTONIC, at which it certainly ran again after the last
        resume that has returned."""

    @property
    def pause_left_s(self) -> float:
        """Seconds, above 0, until the pause ends by itself; the least number once it has."""


@runtime_checkable
class LetRunByOthers(Protocol):
    """A machine that another program can let run while we hold it. A hold may last for seconds."""

    def rest(self, seconds: float) -> None:
        """After quiesce_for: the pause now ends so many seconds from now, and as nothing is done
        meanwhile, nothing is hurried. MachineError: it ends when it would have."""

    def why_not_held(self) -> str:
        """Of a machine that has been stopped since the last quiesce_for: "". Else why not, in half
        a sentence."""

    def look_again(self) -> str:
        """The same by what quiesce_for has kept: whether the registers are still those. Takes as
        long as it took then. MachineError: they cannot be had."""


@runtime_checkable
class HoldsNobody(Protocol):
    """A machine whose quiesce and resume may have nothing to do."""

    @property
    def holds_nobody(self) -> bool:
        """They return at once, and may be called on any thread."""


@runtime_checkable
class StoresFromPython(Protocol):
    """A machine whose writers may be Python threads of this process."""

    @property
    def stores_from_python(self) -> bool:
        """They may store while they hold the interpreter's lock: then no other Python thread runs
        while such a store waits."""


@runtime_checkable
class InOtherProcess(Protocol):
    """A machine that may have its memory in another process, where the core works then."""

    @property
    def shim(self) -> Shim | None:
        """The connection to the core in that process; None: the memory is in this one."""


@runtime_checkable
class Outliving(Protocol):
    """A machine in a process of its own, which need not end with this one."""

    @property
    def pid(self) -> int:
        """Number of that process."""

    def detach(self) -> None:
        """Leave the process to itself, at full speed and without a dump, for good; `ended` and
        `close` go on to work. MachineError: the machine may not be at full speed."""


@runtime_checkable
class NumbersVcpus(Protocol):
    """A machine whose vCPUs come and go. Each has a number that stays its own, and is the same one
    when it comes back; lists of them are in the order of the numbers."""

    def registers_by_number(self) -> Mapping[int, Registers]:
        """Live registers."""

    def snapshot_by_number(self) -> Mapping[int, Registers]:
        """Registers of the last START. MachineError: there was none."""


@runtime_checkable
class LimitsVcpus(Protocol):
    """A machine whose vCPUs may become more between INIT and START, when the dump has room for so
    many only."""

    def limit_vcpus(self, most: int | None) -> None:
        """At INIT: from now on quiesce refuses more than `most` vCPUs (MachineError EBUSY); None:
        the dump has room for any number."""


@runtime_checkable
class HasCpuNotes(Protocol):
    """A machine whose dumps can have notes of its vCPUs besides NT_PRSTATUS, which some readers
    need, and others do not take."""

    def keep_cpu_notes(self, choice: CpuNotes) -> None:
        """At INIT: whether snapshot_notes has them; "auto": by what its guest is."""


@dataclass(frozen=True)
class StopTimes:
    """The stop of a machine elsewhere, as measured there."""

    wall_ns: int
    """When it stood, by CLOCK_REALTIME; 0: there was none."""
    mono_ns: int
    """The same moment by this computer's CLOCK_MONOTONIC."""
    stop_ns: int
    """How long it stood."""


@runtime_checkable
class BringsInstant(Protocol):
    """A machine whose memory is elsewhere, and of which START brings one instant into the arena. No
    program stores there, so quiesce and resume have nothing to do."""

    def bring(self) -> None:
        """Take the instant, and return when all of its memory and registers are here; what was in
        the arena before is gone. Takes as long as the way here. MachineError: it cannot, and the
        machine runs on; ECANCELED: it was given up."""

    def give_up(self) -> None:
        """End a `bring` that is under way on another thread; does nothing if there is none."""

    @property
    def stop_times(self) -> StopTimes:
        """Of the last `bring`."""


@runtime_checkable
class TakesTyping(Protocol):
    """A machine with a console at which one can type."""

    def type(self, text: bytes) -> None:
        """All of it, or nothing. MachineError (EAGAIN): the guest has not read enough of what was
        typed before."""

    def console_stream(self) -> tuple[int, bytes]:
        """(bytes that were printed ever, the newest of them that are still kept)."""


@runtime_checkable
class HasStatus(Protocol):
    """A machine that can say how each of its vCPUs is."""

    def status(self) -> Sequence[object]:
        """One object for each vCPU, in their order; str() of it is one line without its end."""


def best_backend(machine: Machine) -> str:
    """What backend "auto" stands for; the usual one where the machine does not choose."""
    if isinstance(machine, ChoosesBackend):
        return machine.best_backend()
    return next(one for one in machine.backends if one != "auto")


def page_size_of(machine: Machine) -> int:
    """Bytes of a page of the machine's memory."""
    return machine.page_size if isinstance(machine, HasPages) else HOST_PAGE


def shim_of(machine: object) -> Shim | None:
    """The core in the machine's own process; None: its memory is in this process."""
    return machine.shim if isinstance(machine, InOtherProcess) else None
