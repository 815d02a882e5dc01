# SPDX-License-Identifier: GPL-2.0-or-later
"""The tasks of a Linux in a dump: by its own tables, or by drgn with debug symbols."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from livedumpfs.errors import InvalidDump
from livedumpfs.formats import MemoryRange
from livedumpfs.formats.note import VMCOREINFO, parse_notes
from livedumpfs.linux import Kernel, tasks
from livedumpfs.linux.kernel_description import Description
from livedumpfs.paging.table_form import ReadPhysical

TASKS_MOST: Final = 2000
_NONSENSE: Final = (
    *(InvalidDump, OSError, LookupError, ValueError, OverflowError),
    struct.error,
)
"""What reading tables that a dump's author has made up can raise."""
_NOT_DRGN: Final = ("riscv64",)
"""Processors whose page tables drgn 0.3 does not read."""


@dataclass(frozen=True)
class TaskRow:
    """A process."""

    pid: int
    parent: int
    state: str
    name: str
    is_kernel: bool


@dataclass(frozen=True)
class LinuxMemory:
    """The memory of a machine at its instant."""

    meta: Mapping[str, object]
    """As that of a dump: "architecture", "notes"."""
    memory_map: tuple[MemoryRange, ...]
    read: ReadPhysical
    """Bytes [address, address+length) of physical memory. OSError."""


@dataclass(frozen=True)
class TaskList:
    """The first TASKS_MOST of them; or why there are none, in one sentence."""

    rows: list[TaskRow] = field(default_factory=list)
    release: str = ""
    by: str = ""
    """What has read them."""
    problem: str = ""
    cut: bool = False
    """There are more."""


def task_list(memory: LinuxMemory, vmlinux: str | None) -> TaskList:
    """All problems are sentences: the rest of the page is worth having without tasks. `vmlinux`:
    the kernel with debug symbols, for drgn; None: what the kernel has in its memory is enough for
    Linux 6.0 and later with CONFIG_DEBUG_INFO_BTF."""
    try:
        notes = parse_notes(memory.meta.get("notes", []))
    except _NONSENSE as error:
        return TaskList(problem=f"The tasks cannot be read: {error}.")
    said = next((one.content for one in notes if one.name == VMCOREINFO), None)
    if said is None:
        return TaskList(problem="No Linux: the dump has no VMCOREINFO.")
    drgn_reads = memory.meta.get("architecture") not in _NOT_DRGN
    try:
        return _by_drgn(memory, said, vmlinux) if vmlinux and drgn_reads else _by_its_tables(memory)
    except _NONSENSE as error:
        hint = "; its kernel with debug symbols may help" if drgn_reads and not vmlinux else ""
        return TaskList(
            release=Description(said).release, problem=f"The tasks cannot be read: {error}{hint}."
        )


def _by_its_tables(memory: LinuxMemory) -> TaskList:
    kernel = Kernel(memory.meta, memory.read)
    rows = (
        TaskRow(one.pid, one.parent, one.state, one.name, not one.user_memory)
        for one in tasks(kernel)
    )
    return _listed(rows, kernel.description.release, "its kernel's own tables")


def _listed(rows: Iterable[TaskRow], release: str, by: str) -> TaskList:
    """A hostile list may have no end."""
    found = list(itertools.islice(rows, TASKS_MOST + 1))
    return TaskList(found[:TASKS_MOST], release, by, cut=len(found) > TASKS_MOST)


# --------------------------------------------------------------------------- drgn


def _by_drgn(memory: LinuxMemory, vmcoreinfo: bytes, vmlinux: str) -> TaskList:
    try:
        import drgn
        from drgn.helpers.linux.pid import for_each_task
    except ImportError:
        return TaskList(
            release=Description(vmcoreinfo).release,
            problem="drgn reads its tasks, and is not installed here (pip install drgn).",
        )
    try:
        program = _program(drgn, memory, vmcoreinfo)
        program.load_debug_info([vmlinux])
        rows = (_drgn_row(task) for task in for_each_task(program))
        return _listed(rows, Description(vmcoreinfo).release, f"drgn {drgn.__version__}")
    except Exception as error:  # drgn has no base class for what it raises
        said = " ".join(str(error).split())
        return TaskList(
            release=Description(vmcoreinfo).release, problem=f"drgn cannot read its tasks: {said}."
        )


def _program(drgn: Any, memory: LinuxMemory, vmcoreinfo: bytes) -> Any:
    """A program over our own reader: dumps of each format, and those in stores."""
    architecture = drgn.Architecture[str(memory.meta.get("architecture")).upper()]
    program = drgn.Program(drgn.Platform(architecture))

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        del offset, physical
        try:
            return memory.read(address, count)
        except OSError as error:
            raise drgn.FaultError(error.strerror or "it is not in the dump", address) from error

    for one in memory.memory_map:
        program.add_memory_segment(one.start, one.size, read, True)
    program.set_linux_kernel_custom(vmcoreinfo, False)
    return program


def _drgn_row(task: Any) -> TaskRow:
    from drgn.helpers.linux.sched import task_state_to_char

    return TaskRow(
        task.pid.value_(),
        task.real_parent.tgid.value_(),
        task_state_to_char(task),
        task.comm.string_().decode("utf-8", "backslashreplace"),
        not task.mm,
    )
