# SPDX-License-Identifier: GPL-2.0-or-later
"""What dump number `index` of a soak is: all of it follows from seed and index."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass

from writers import PATTERNS

from livedumpfs.dump import DumpSettings
from livedumpfs.kinds import AUTO
from livedumpfs.settings import REAL_BACKENDS
from livedumpfs.units import PAGE_SIZE

MIB = 1 << 20
DUMPS_OF_MACHINE = 8
"""So many in a row are dumps of one machine."""
STEPS = ("begin", "init", "start", "sweep", "finish")
"""What a host reports, in order."""
NEVER_S = 3600.0
"""Deadline of a stall, far behind the soak's own: under `block` nothing may be lost."""
FULL_SPEED = 400 * MIB
"""Bytes a second, about; only for choosing moments."""
_SIZES = ((1, 32), (64, 512), (512, 1024))
"""MiB of machines, and how often."""
_SHARES = (10, 78, 12)
_GRANULES = (4096, 4096, 16384, 16384, 65536, 65536, 65536, 262144, 1 * MIB, 0)
_COMPRESSIONS = ("zstd", "zstd", "zlib", "lzo", "snappy", "none")


@dataclass(frozen=True)
class MachineChoice:
    """A machine, and what writes its memory."""

    kind: str
    """`threads`: an arena that C threads write; `ledger`: the built-in guest."""
    size: int
    """Bytes, whole pages."""
    patterns: tuple[str, ...]
    """Of each thread; for a ledger only their number counts: vCPUs."""
    resident: float
    """Share of the memory that exists at first; the rest are holes."""
    seed: int


@dataclass(frozen=True)
class DumpChoice:
    """One dump. Times in seconds."""

    index: int
    machine: MachineChoice
    settings: DumpSettings
    target: str
    """`tmpfs`, `file`; `slow`: a file with O_DSYNC; `pipe`: with a slow reader; `none`."""
    fresh: bool
    """Nothing of an older dump is in the target."""
    before_sweep: float
    readers: int
    discards: bool
    verify: bool
    """Also by its checksums, and the guest's ledger."""
    end: str
    """`finish`; `release` or `kill`: `after` so many seconds from the `step` on."""
    step: str = "finish"
    after: float = 0.0

    @property
    def may_lose(self) -> bool:
        """The policy is one that loses pages rather than to stop the machine."""
        settings = self.settings
        least = self.machine.size + max(settings.granule, MIB)
        return settings.policy == "fail" or (self.target == "none" and settings.spill_limit < least)

    def describe(self) -> dict[str, object]:
        """JSON types."""
        return asdict(self)


def _machine(seed: int, number: int, largest: int) -> MachineChoice:
    r = random.Random(f"{seed}:machine:{number}")
    if r.random() < 0.1:
        size = r.randrange(8 * MIB, min(96, largest) * MIB, PAGE_SIZE)
        vcpus = ("",) * r.randint(1, 2)
        return MachineChoice("ledger", size, vcpus, 1.0, r.getrandbits(63))
    sizes = [(low, high) for low, high in _SIZES if high <= largest] or [_SIZES[0]]
    low, high = r.choices(sizes, _SHARES[: len(sizes)])[0]
    return MachineChoice(
        "threads",
        r.randrange(low * MIB, high * MIB + 1, PAGE_SIZE),
        tuple(r.choices(PATTERNS, k=r.choices((1, 2, 3, 4), (45, 40, 10, 5))[0])),
        r.choice((1.0, 1.0, 1.0, 0.7, 0.3, 0.02)),
        r.getrandbits(63),
    )


def _target(r: random.Random, size: int) -> str:
    found = r.choices(("tmpfs", "file", "slow", "pipe", "none"), (66, 10, 6, 6, 12))[0]
    # What is slow would only make fewer dumps of it.
    return "tmpfs" if size > {"slow": 64, "pipe": 256}.get(found, 1024) * MIB else found


def _format(r: random.Random, target: str) -> dict[str, object]:
    format = "kdump" if target == "pipe" else r.choices(("elf", "raw", "kdump"), (3, 3, 4))[0]
    if format != "kdump":
        return {
            "format": format,
            "table": r.choice(("sidecar", "tail")) if format == "raw" else "sidecar",
        }
    compression = r.choice(_COMPRESSIONS)
    level = r.choice((0, 1, 3)) if compression == "zstd" else 0
    level = 1 if compression == "zlib" else level
    return {
        "format": format, "compression": compression, "level": level, "threads": r.randint(1, 3),
    }  # fmt: skip


def _settings(r: random.Random, size: int, target: str) -> DumpSettings:
    granule = r.choice(_GRANULES[3:] if target == "slow" else _GRANULES)
    least = granule or MIB
    pool = least * r.choice((1, 2, 7, 64))
    if r.random() < 0.4:
        pool = r.choice((8, 64)) * MIB
    most = size + 2 * MIB + pool
    return DumpSettings(
        **_format(r, target),  # type: ignore[arg-type]
        policy=r.choices(("block", "spill", "fail"), (5, 3, 2))[0],
        arming=r.choice(("swap", "mprotect")),
        backend=r.choice(REAL_BACKENDS),
        granule=granule,
        pool=AUTO if r.random() < 0.3 else min(pool, most),
        spill_limit=r.choice((most, most, max(pool, size // 4))),
        sweep_rate=int(size / r.uniform(0.3, 1.5)) if r.random() < 0.2 else 0,
        stall_deadline=NEVER_S,
        quiesce_deadline=60.0,
        force=True,
    )


def _end(r: random.Random, size: int, settings: DumpSettings, target: str) -> dict[str, object]:
    end = r.choices(("finish", "release", "kill"), (78, 13, 9))[0]
    if target == "none" and end == "kill":
        end = "release"  # a kill leaves nothing that could be looked at
    if end == "finish":
        return {"end": end}
    steps = STEPS if end == "kill" else STEPS[1:4]
    step = r.choices(steps, (1, 1, 2, 8, 1) if end == "kill" else (1, 2, 6))[0]
    rate = settings.sweep_rate or FULL_SPEED
    long = size / min(rate, FULL_SPEED) if step == "sweep" else 0.05
    return {"end": end, "step": step, "after": r.uniform(0, 1.2) * long}


@dataclass(frozen=True)
class Chooser:
    """What a run's dumps are: the same for the same numbers."""

    seed: int
    largest: int
    """MiB that a machine has at the most; at least 32."""

    def words(self) -> tuple[str, str]:
        """For a command line."""
        return str(self.seed), str(self.largest)

    def choose(self, index: int) -> DumpChoice:
        """Dump number `index`."""
        machine = _machine(self.seed, index // DUMPS_OF_MACHINE, self.largest)
        r = random.Random(f"{self.seed}:dump:{index}")
        target = _target(r, machine.size)
        settings = _settings(r, machine.size, target)
        return DumpChoice(
            index,
            machine,
            settings,
            target,
            fresh=r.random() < 0.5,
            before_sweep=r.choice((0.0, 0.0, r.uniform(0, 0.03), r.uniform(0, 0.1))),
            readers=r.choice((0, 0, 1, 2)),
            discards=machine.kind == "threads" and r.random() < 0.3,
            verify=r.random() < 0.25,
            **_end(r, machine.size, settings, target),  # type: ignore[arg-type]
        )
