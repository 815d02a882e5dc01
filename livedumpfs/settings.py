# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpSettings: the settings of one dump at INIT, and the one table of options.

A member is a row: its name, type, unit, range, default, formats, texts, and its names on the
command line, in control/, in the ioctl interface and in the core. These interfaces and the
documents are made from the rows; docs/architecture.md tells how to add one. This module is a leaf:
the command line reads the table at its start.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, get_args

from livedumpfs.compression import (
    COMPRESSION,
    COMPRESSIONS,
    LEVELS,
    MAX_LEVELS,
    MAX_THREADS,
    USUAL_THREADS,
    Compression,
    Level,
    check_compression,
)
from livedumpfs.errors import UsageError
from livedumpfs.kinds import AUTO, AutoSize, Choice, Count, Duration, FilePath, Flag, Seconds, Size
from livedumpfs.option import Option, made, option, rows_of
from livedumpfs.units import PAGE_SIZE, format_size

Format = Literal["elf", "raw", "kdump"]
Policy = Literal["block", "fail", "spill"]
Arming = Literal["swap", "mprotect"]
Backend = Literal["sigsegv", "uffd", "sigbus", "auto"]
Table = Literal["sidecar", "tail"]
AtLimit = Literal["lose", "hold"]
CpuNotes = Literal["auto", "on", "off"]

# The order of the words is that of their numbers in both C interfaces.
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)
ARMINGS: Final[tuple[Arming, ...]] = get_args(Arming)
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)
REAL_BACKENDS: Final = BACKENDS[:-1]
"""Without the word for one of them."""
AT_LIMITS: Final[tuple[AtLimit, ...]] = get_args(AtLimit)
CPU_NOTES: Final[tuple[CpuNotes, ...]] = get_args(CpuNotes)
TABLES: Final[tuple[Table, ...]] = get_args(Table)
"""Places of superblock and granule table of a raw dump."""

CONVERTED: Final = ("elf", "raw", "lime", "kdump", "flat")
"""Formats to which a finished dump can be converted. `raw` is then a plain image, like `lime`,
unless its table is at the tail; `flat` is kdump in makedumpfile's flattened form."""
PACKED: Final = ("kdump", "flat")
"""Those of them that have compressed pages."""
EXPORTED: Final = ("npy", "npz", "safetensors", "zarr")
"""Formats of named arrays alone."""
CONVERTED_TABLES: Final = ("none", "tail")

MAX_GRANULE: Final = 64 << 20
POOL_START: Final = 64 << 20
"""What pool `auto` has at INIT, and keeps, in bytes."""
SPILL_LIMIT: Final = 256 << 20
"""Default limit in bytes of policy `spill` on a target, with a pool that is set."""

# Seconds. It is read at each creation of settings, so a program can set it once for all.
STALL_DEADLINE = 10.0
QUIESCE_DEADLINE = 1.0
INIT_DEADLINE = 30.0


class GivenFile(Protocol):
    """A file that was opened before: a Target."""

    def abandon(self) -> None:
        """Close it without using it."""


@dataclass(frozen=True)
class DumpSettings:
    """The settings of one dump. Sizes in bytes, times in seconds."""

    format: Format = option(
        "elf",
        Choice(FORMATS),
        "layout on the target",
        more="layout on the target: `elf` is an ELF64 vmcore, in `raw` the offset is the physical "
        "address, `kdump` is compressed and has zero pages once",
        ioctl="format",
        status="format",
    )
    policy: Policy = option(
        "block",
        Choice(POLICIES),
        "what to do when no slot is free",
        more="what happens when no slot is free: `block`, the vCPU waits; `fail`, the page is lost "
        "and the dump torn; `spill`, a pool of a set size grows, and then the vCPU waits",
        ioctl="policy",
        status="policy",
        core="policy",
    )
    arming: Arming = option(
        "swap",
        Choice(ARMINGS),
        "how to write-protect",
        more="how memory becomes read-only: `swap`, by an exchange of page tables, or `mprotect`",
        ioctl="arming",
        status="arming",
        core="arming",
    )
    backend: Backend | Literal[""] = option(
        "",
        Choice(BACKENDS, unset="default"),
        "what notices a store",
        usual="as the machine has it",
        more="what notices a store: `sigsegv`, mprotect and a SIGSEGV handler on the thread that "
        "stores; `sigbus`, userfaultfd and a SIGBUS handler on that thread, which splits no "
        "mapping (both for machines in the host's process); `uffd`, "
        "userfaultfd with a thread of its own, which sees stores of the kernel's too (the only "
        "one for QEMU); `auto`, `sigsegv`, or `sigbus` where [that would be "
        "refused](performance.md#backends), and STATUS and `info` say which. One that the machine "
        "has not is EINVAL at INIT",
        ioctl="backend",
        status="backend",
        core="backend",
    )
    granule: int = option(
        0,
        Size(PAGE_SIZE, MAX_GRANULE, power=True),
        "unit of protection and saving",
        usual="the smallest from 64K on that vm.max_map_count allows",
        more="unit of protection and of saving; no smaller than a page of the memory",
        ioctl="granule_size",
        core="granule_size",
    )
    pool: int | Literal["auto"] = option(
        "auto",
        AutoSize(1, start=POOL_START),
        "memory for slots, or auto: as much as the machine needs and is free",
        more=f"memory for slots. `auto` has {format_size(POOL_START)} at INIT, or what the machine "
        "has or half of what is available; it grows ahead of need, up to `--spill-limit`, the "
        "machine's RAM and half of what is available, without swap, and gives back what it does "
        "not need any more. A size is fixed",
        file="buffer_size",
        ioctl="pool_size",
        core="pool_size",
    )
    spill_limit: int = option(
        0,
        Size(),
        "memory for slots at the most, where the pool grows",
        usual=f"the machine's RAM, without a target at most half of what is free at INIT; "
        f"{format_size(SPILL_LIMIT)} under spill",
        more="memory for slots at the most with pool `auto` or policy `spill`; less where the "
        "machine's process would be killed for it",
        ioctl="spill_limit",
        status="spill_limit",
        core="spill_limit",
    )
    at_limit: AtLimit = option(
        "lose",
        Choice(AT_LIMITS),
        "without a target: what to do when the pool cannot grow",
        more="[without a target](control.md#no-target), when the pool is at its limit or there is "
        "no memory: `lose`, the page is lost; `hold`, the vCPU waits until there is memory, the "
        "dump is released, or `--deadline` has passed, and then pages are lost; not with policy "
        "`fail`, nor for threads of a Python program",
        ioctl="at_limit",
        core="at_limit",
    )
    sweep_rate: int = option(
        0,
        Size(unit="bytes a second"),
        "bytes a second that the sweep may write",
        usual="no cap",
        more="what the sweep may write in a second, counted as it goes to the target: of a `kdump` "
        "after compression; holes and pages of zeros count only where zeros have to be written "
        "out. What is saved by fault is not held up",
        ioctl="sweep_rate",
        core="sweep_rate",
    )
    stall_deadline: float = option(
        made(lambda: STALL_DEADLINE),
        Seconds(),
        "longest wait of a vCPU for a slot, after which pages are lost instead",
        more="longest wait of a vCPU for a slot; after it the policy is `fail`, and pages are lost "
        "instead",
        flag="--deadline",
        ioctl="stall_deadline_ns",
        core="stall_deadline_ns",
    )
    quiesce_deadline: float = option(
        made(lambda: QUIESCE_DEADLINE),
        Seconds(),
        "longest that START waits until the machine stands",
        more="longest that START waits until the machine stands; then START has failed, and the "
        "machine runs on",
    )
    init_deadline: float = option(
        made(lambda: INIT_DEADLINE),
        Seconds(),
        "longest that INIT waits for its target",
        more="longest that INIT waits for its target, to open it and again to write its header, "
        "there with a second more for each GiB of memory; then INIT has failed (ETIMEDOUT), and "
        "the next one does (EBUSY) until that I/O has come back",
    )
    force: bool = option(
        False,
        Flag(),
        "take a target that holds something else",
        more="take a target that holds a file system, a partition table, a file of another kind, "
        "or a finished dump, or that is too small by its file system's word",
        ioctl="FORCE",
    )
    buffered: bool = option(
        False,
        Flag(),
        "write through the page cache, also where the target can be written past it",
        more="what the machine did not write goes to an `elf` or `raw` target through the page "
        "cache; else past it (O_DIRECT), where file system or device can",
        ioctl="BUFFERED",
    )
    sidecar: str | GivenFile | None = option(
        None,
        FilePath(),
        "file that describes a raw dump",
        usual="TARGET.ldfs, for a device in a state folder",
        more="the file that describes the dump. The default for a block device is a file named "
        "after it in the host's `$LIVEDUMPFS_STATE`, else in `/var/lib/livedumpfs` (root) or "
        "`~/.local/state/livedumpfs`. `info`, `verify` and the others look in the same place",
        ioctl="sidecar",
        formats=("raw",),
    )
    table: Table = option(
        "sidecar",
        Choice(TABLES),
        "where a raw dump's granule table lies",
        more="where the granule table lies: in a `sidecar` file of its own, or at the `tail`, "
        "behind the memory on the target, when that is large enough",
        noun="place of the table",
        phrase="a table at the {}",
        ioctl="table",
        status="table",
        formats=("raw",),
    )
    compression: Compression = option(
        COMPRESSION,
        Choice(COMPRESSIONS),
        "how kdump stores the memory",
        more="how pages are stored",
        flag="--compress",
        ioctl="compression",
        status="compression",
        formats=("kdump",),
    )
    level: int = option(
        0,
        Level("levels", max(MAX_LEVELS.values())),
        f"of kdump's compression: {LEVELS}",
        usual="1",
        more="of the compression",
        phrase="compression level {}",
        ioctl="level",
        status="level",
        core="level",
        formats=("kdump",),
    )
    threads: int = option(
        0,
        Count("threads", MAX_THREADS),
        f"that compress and write a kdump, 1 to {MAX_THREADS}",
        usual=f"one a CPU, at most {USUAL_THREADS}",
        more="that compress and write",
        phrase="a number of threads of {}",
        ioctl="threads",
        status="threads",
        formats=("kdump",),
    )
    max_age: float = option(
        0.0,
        Duration(),
        "release the dump when its next step is not taken for so long",
        usual="never",
        noun="maximum age",
        more="the host releases the dump when its next step is not taken for so long after START "
        "or FINISH, see [control](control.md#maximum-age); a sweep is never cut off",
        ioctl="max_age_ns",
        status="max_age_ns",
    )
    cpu_notes: CpuNotes = option(
        "auto",
        Choice(CPU_NOTES),
        "whether a dump of a QEMU guest has QEMU's own note of each vCPU, which elf2dmp needs",
        usual="auto: for Linux with VMCOREINFO, and for Windows",
        more="whether a dump of a QEMU guest has QEMU's own note of each vCPU, beside NT_PRSTATUS: "
        "`auto`, where [the guest](qemu.md#qemus-notes-of-the-vcpus) is Linux with VMCOREINFO, or "
        "Windows; `on` and `off`, always and never. Another machine has none: EINVAL at INIT",
        noun="choice of CPU notes",
    )
    track: bool = option(
        False,
        Flag(),
        "keep track of changes: the next dump into the same store reads only what has changed",
        more="keep track of what is stored to from START on, so that the next dump into the same "
        "[store](store.md#increments) reads only what may have changed; where that is not "
        "possible all is read, and `dump` says why. From the first such dump on, memory that the "
        "machine gives back is filled with zeros instead",
        core="track",
    )

    def check(self) -> None:
        """UsageError (ValueError): a value is impossible, or not for this format; the sentence
        names it."""
        self.check_values()
        usual = type(self)()
        for one in self._foreign():
            if getattr(self, one.name) != getattr(usual, one.name):
                raise UsageError(
                    f"{one.phrase.format(getattr(self, one.name))} does not go with format "
                    f"{self.format}",
                    hint=f"format {' or '.join(one.formats)} has it",
                )
        if (self.policy, self.at_limit) == ("fail", "hold"):
            raise UsageError("policy fail holds nothing at its limit", hint="policy block does")
        if self.table == "tail" and self.sidecar is not None:
            raise UsageError("a raw dump with its table at the tail has no sidecar file")

    def fitted(self) -> DumpSettings:
        """A copy without the settings of other formats, for settings that are made one after the
        other."""
        usual = type(self)()
        fitted = replace(self, **{one.name: getattr(usual, one.name) for one in self._foreign()})
        return replace(fitted, sidecar=None) if fitted.table == "tail" else fitted

    def _foreign(self) -> list[Option]:
        """Options that are set, but belong to other formats. A path does not count: it is kept
        until its format is chosen."""
        rows = rows_of(type(self))
        foreign = [one for one in rows if not one.goes_with(self.format)]
        return [one for one in foreign if not isinstance(one.kind, FilePath)]

    def for_machine(self, backends: Sequence[str], best: Callable[[], str]) -> DumpSettings:
        """A copy with a backend that the machine has, or "auto": `sigbus` if INIT can. `best`: see
        ChoosesBackend, asked for "auto" alone. UsageError: the machine lacks what is set."""
        if self.backend and self.backend not in (*backends, "auto"):
            raise UsageError(
                f"this machine's stores cannot be noticed by {self.backend}",
                errno=errno.EINVAL,
                hint=f"backend {' or '.join(backends)} can",
            )
        chosen = self.backend or backends[0]
        chosen = best() if chosen == "auto" else chosen
        return replace(self, backend=next(one for one in BACKENDS if one == chosen))

    @property
    def pool_is_auto(self) -> bool:
        """Whether the pool follows the memory that is free."""
        return self.pool == AUTO

    def on_target(self, room: int = SPILL_LIMIT) -> DumpSettings:
        """A copy for a dump on a target. `room`: pool `auto`'s limit in bytes when none is set."""
        limit = self.spill_limit or (room if self.pool_is_auto else SPILL_LIMIT)
        return replace(self, spill_limit=limit)

    def without_target(self, room: int = SPILL_LIMIT) -> DumpSettings:
        """A copy for a dump in memory. Nothing frees a slot there, so instead of waiting, a thread
        that needs a slot gets more memory up to the limit; beyond it the granule is lost. `room`:
        the limit in bytes when none is set."""
        limit = self.spill_limit or room
        if self.policy == "fail":
            return replace(self, spill_limit=limit)
        pool = self.pool if isinstance(self.pool, str) else min(self.pool, limit)
        return replace(self, policy="spill", pool=pool, spill_limit=limit)

    def check_types(self) -> None:
        """WrongType (UsageError, TypeError): a value does not have its member's type."""
        for one in rows_of(type(self)):
            one.kind.check_type(one.name, getattr(self, one.name))

    def check_values(self) -> None:
        """UsageError (ValueError): a value that is impossible in any format."""
        self.check_types()
        for one in rows_of(type(self)):
            one.check(getattr(self, one.name))
        check_compression(self.compression, self.level)


OPTIONS: Final = rows_of(DumpSettings)
"""The table."""
OPTION: Final = {one.name: one for one in OPTIONS}
"""Name -> row."""
