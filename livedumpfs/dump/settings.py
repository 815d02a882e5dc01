# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpSettings: what one dump is told at INIT."""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from livedumpfs.errors import UsageError, WrongType
from livedumpfs.units import PAGE_SIZE

if TYPE_CHECKING:
    from livedumpfs.targets import Target

Format = Literal["elf", "raw", "kdump"]
Policy = Literal["block", "fail", "spill"]
Arming = Literal["swap", "mprotect"]
Backend = Literal["sigsegv", "uffd"]
Compression = Literal["zstd", "zlib", "lzo", "snappy", "none"]
Table = Literal["sidecar", "tail"]

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)
"""In the order of enum ldfs_policy."""
ARMINGS: Final[tuple[Arming, ...]] = get_args(Arming)
"""In the order of enum ldfs_arming."""
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)
"""In the order of enum ldfs_backend."""
MAX_GRANULE: Final = 64 << 20
COMPRESSIONS: Final[tuple[Compression, ...]] = get_args(Compression)
"""How kdump stores pages; the fastest good one first."""
MAX_LEVELS: Final = {"zstd": 22, "zlib": 9, "lzo": 0, "snappy": 0, "none": 0}
"""Highest level of each; 0: it has none."""
MAX_THREADS: Final = 64
"""As LDFS_MAX_PACKERS."""
TABLES: Final[tuple[Table, ...]] = get_args(Table)
"""Where superblock and granule table of a raw dump lie."""
MOST: Final = (1 << 63) - 1
"""Bytes: no size is set larger than that."""
LONGEST: Final = 1e9
"""Seconds: no time is set longer than that."""
SPILL_LIMIT: Final = 256 << 20
"""Bytes: of `spill` on a target, unless another is set."""

# Seconds. Read whenever settings are made, so a program that always needs others sets them once.
STALL_DEADLINE = 10.0
QUIESCE_DEADLINE = 1.0
INIT_DEADLINE = 30.0


@dataclass(frozen=True)
class DumpSettings:
    """Sizes in bytes, times in seconds."""

    format: Format = "elf"
    policy: Policy = "block"
    """When no slot is free: `block` waits, `fail` loses the granule, `spill` grows the pool,
    then waits."""
    arming: Arming = "swap"
    backend: Backend | Literal[""] = ""
    """Who notices a store: our SIGSEGV handler (`sigsegv`), or userfaultfd (`uffd`), which the
    kernel's own stores do not escape; empty: as the machine has it."""
    granule: int = 0
    """Power of two of at least a page; 0: by arena size and vm.max_map_count."""
    pool: int = 64 << 20
    spill_limit: int = 0
    """`spill`: the pool at the most. 0: SPILL_LIMIT; without a target the size of the machine's
    memory, but no more than half of what is available at INIT."""
    sweep_rate: int = 0
    """Bytes a second that the sweep writes at the most; 0: no cap."""
    stall_deadline: float = field(default_factory=lambda: STALL_DEADLINE)
    """Longest wait of a vCPU for a slot; after it the policy is `fail`."""
    quiesce_deadline: float = field(default_factory=lambda: QUIESCE_DEADLINE)
    init_deadline: float = field(default_factory=lambda: INIT_DEADLINE)
    """Longest that INIT waits for its target; after it INIT fails, and the next one does until that
    I/O has come back."""
    force: bool = False
    """Overwrite a file system, a partition table or a foreign file."""
    buffered: bool = False
    """Write through the page cache also where the target can be written past it."""
    sidecar: str | Target | None = None
    """raw: path or open file for superblock and granule table; None: the usual place."""
    table: Table = "sidecar"
    """raw: superblock and granule table in a `sidecar` file, or at the target's `tail`."""
    compression: Compression = "zstd"
    """kdump: one of COMPRESSIONS."""
    level: int = 0
    """kdump: 1 to MAX_LEVELS; 0: the default of the compression."""
    threads: int = 0
    """kdump: threads that compress and write, at most 64; 0: one for each CPU, at most 4."""
    max_age: float = 0.0
    """Seconds after which the dump is released when nobody takes a step: after START without SWEEP,
    after FINISH without RELEASE. A sweep is never cut off. 0: none."""

    def check(self) -> None:
        """UsageError (ValueError): a value that makes no sense, or not for this format, named."""
        self.check_values()
        for name, format, word in _BELONGS:
            if self.format != format and getattr(self, name) != _DEFAULTS[name]:
                raise UsageError(
                    f"{word} {getattr(self, name)} does not go with format {self.format}",
                    hint=f"format {format} has it",
                )
        if self.table == "tail" and self.sidecar is not None:
            raise UsageError("a raw dump with its table at the tail has no sidecar file")

    def fitted(self) -> DumpSettings:
        """The same, less what belongs to other formats: for settings that are made one by one."""
        foreign = {name: _DEFAULTS[name] for name, format, _ in _BELONGS if self.format != format}
        fitted = replace(self, **foreign)
        return replace(fitted, sidecar=None) if fitted.table == "tail" else fitted

    def for_machine(self, backends: Sequence[str]) -> DumpSettings:
        """The same, with a backend that the machine has. UsageError: it has not the one asked
        for."""
        if self.backend and self.backend not in backends:
            raise UsageError(
                f"this machine's stores cannot be noticed by {self.backend}",
                errno=errno.EINVAL,
                hint=f"backend {' or '.join(backends)} can",
            )
        chosen = self.backend or backends[0]
        return replace(self, backend=next(one for one in BACKENDS if one == chosen))

    def on_target(self) -> DumpSettings:
        """The same for a dump on a target."""
        return replace(self, spill_limit=self.spill_limit or SPILL_LIMIT)

    def without_target(self, room: int = SPILL_LIMIT) -> DumpSettings:
        """The same for a dump in memory only. There nothing ever frees a slot: who would wait for
        one gets more memory up to the limit, and loses the granule then. `room`: the limit in bytes
        when none is set."""
        if self.policy == "fail":
            return self
        limit = self.spill_limit or room
        return replace(self, policy="spill", pool=min(self.pool, limit), spill_limit=limit)

    def check_types(self) -> None:
        """WrongType (UsageError, TypeError): a value of another type than its member's."""
        for one in fields(self):
            if one.name == "sidecar":
                continue
            value = getattr(self, one.name)
            given = one.default if one.default_factory is MISSING else one.default_factory()
            kind = type(given)
            wanted: tuple[type[Any], ...] = (int, float) if kind is float else (kind,)
            if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
                raise WrongType(f"{one.name} must be {_CALLED[kind]}, not {value!r}")

    def check_values(self) -> None:
        """UsageError (ValueError): a value that makes no sense whatever the format."""
        self.check_types()
        if self.format not in FORMATS:
            raise UsageError(f"unknown format {self.format!r}", hint=f"one of {', '.join(FORMATS)}")
        if self.policy not in POLICIES:
            raise UsageError(
                f"unknown policy {self.policy!r}", hint=f"one of {', '.join(POLICIES)}"
            )
        if self.arming not in ARMINGS:
            raise UsageError(f"unknown arming {self.arming!r}", hint=f"one of {', '.join(ARMINGS)}")
        if self.backend and self.backend not in BACKENDS:
            raise UsageError(
                f"unknown backend {self.backend!r}", hint=f"one of {', '.join(BACKENDS)}"
            )
        if self.granule and not self._granule_possible():
            raise UsageError(
                f"granule of {self.granule} bytes is not possible",
                hint=f"a power of two from {PAGE_SIZE} to {MAX_GRANULE}",
            )
        if self.pool <= 0 or self.spill_limit < 0 or self.sweep_rate < 0:
            raise UsageError("pool, spill limit and sweep rate cannot be negative, nor the pool 0")
        if max(self.pool, self.spill_limit, self.sweep_rate) > MOST:
            raise UsageError("pool, spill limit and sweep rate must be less than 8 EiB")
        deadlines = (self.stall_deadline, self.quiesce_deadline, self.init_deadline)
        if min(deadlines) <= 0:
            raise UsageError("a deadline must be longer than 0 s")
        if max(deadlines) >= LONGEST:
            raise UsageError(f"a deadline must be shorter than {LONGEST:g} s")
        self._check_packing()
        if self.table not in TABLES:
            raise UsageError(
                f"unknown place of the table {self.table!r}", hint=f"one of {', '.join(TABLES)}"
            )
        if not (math.isfinite(self.max_age) and 0 <= self.max_age < LONGEST):
            raise UsageError(f"a maximum age of {self.max_age:g} s is not possible")

    def _check_packing(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise UsageError(
                f"unknown compression {self.compression!r}",
                hint=f"one of {', '.join(COMPRESSIONS)}",
            )
        highest = MAX_LEVELS[self.compression]
        if not 0 <= self.level <= highest:
            raise UsageError(
                f"{self.compression} has no level {self.level}",
                hint=f"from 1 to {highest}, 0: its default" if highest else "it has no levels",
            )
        if not 0 <= self.threads <= MAX_THREADS:
            raise UsageError(
                f"{self.threads} threads are not possible", hint=f"from 1 to {MAX_THREADS}"
            )

    def _granule_possible(self) -> bool:
        power = self.granule > 0 and self.granule & (self.granule - 1) == 0
        return power and PAGE_SIZE <= self.granule <= MAX_GRANULE


_CALLED: Final = {
    str: "text",
    bool: "True or False",
    int: "a whole number",
    float: "a number of seconds",
}
_BELONGS: Final = (
    ("compression", "kdump", "compression"),
    ("level", "kdump", "compression level"),
    ("threads", "kdump", "a number of threads of"),
    ("table", "raw", "a table at the"),
)
"""What only one format can have: member, format, and what to call it before its value."""
_DEFAULTS: Final = {name: getattr(DumpSettings, name) for name, _, _ in _BELONGS}
