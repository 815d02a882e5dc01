# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters: what the core has counted in one dump, taken at one moment; Progress: what that says
of the arena."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from livedumpfs.core.capi import CData, lib

NO_PFN: Final = 2**64 - 1


@dataclass(frozen=True)
class CoreFailure:
    """The first error: enum ldfs_operation, positive errno (0: none), page number or NO_PFN."""

    operation: int = 0
    error: int = 0
    pfn: int = NO_PFN


@dataclass(frozen=True)
class Counters:
    """As struct ldfs_counters in native/ldfs.h: counts of granules unless the name says
    otherwise."""

    granule_size: int = 0
    granules: int = 0
    faults: int = 0
    steals: int = 0
    by_fault: int = 0
    by_sweep: int = 0
    holes: int = 0
    lost: int = 0
    remaining: int = 0
    widened: int = 0
    slots: int = 0
    slots_peak: int = 0
    slots_most: int = 0
    helpers_most: int = 0
    slot_waits: int = 0
    slot_wait_ns: int = 0
    spilled: int = 0
    bytes_written: int = 0
    bytes_pool: int = 0
    target_end: int = 0
    stall_max_ns: int = 0
    handler_sum_ns: int = 0
    quiesce_ns: int = 0
    arm_ns: int = 0
    resume_ns: int = 0
    pause_ns: int = 0
    instant_mono_ns: int = 0
    instant_wall_ns: int = 0
    sweep_start_ns: int = 0
    drained_ns: int = 0
    gave_up: int = 0
    abandoned: int = 0
    not_durable: int = 0
    chained: int = 0
    retaken: int = 0
    omitted: int = 0
    tracking: int = 0
    """enum ldfs_tracking."""
    since: int = 0
    """enum ldfs_since."""
    handler_ns: tuple[int, ...] = (0,) * lib.LDFS_HISTOGRAM_BINS
    """[i]: faults that took [2**i, 2**(i+1)) ns in the handler."""
    failure: CoreFailure = CoreFailure()

    @property
    def throughput(self) -> float:
        """Bytes a second from SWEEP to the end of the drain; 0.0 before that."""
        if self.drained_ns <= self.sweep_start_ns:
            return 0.0
        return self.bytes_written * 1e9 / (self.drained_ns - self.sweep_start_ns)


_PLAIN: Final = tuple(f.name for f in fields(Counters) if f.name not in ("handler_ns", "failure"))


def take_counters(struct: CData) -> Counters:
    """The values of a struct ldfs_counters."""
    failure = struct.failure
    return Counters(
        **{name: int(getattr(struct, name)) for name in _PLAIN},
        handler_ns=tuple(struct.handler_ns),
        failure=CoreFailure(failure.operation, failure.error, failure.pfn),
    )


@dataclass(frozen=True)
class Progress:
    """Bytes of the arena: all, those that the dump has (saved, or zeros that need no saving), and
    those that are lost. `done` never counts what is lost; what is left is total - done - lost."""

    total: int = 0
    done: int = 0
    lost: int = 0
    phase: str = "uninit"

    @classmethod
    def of(cls, counters: Counters, size: int, phase: str) -> Progress:
        """Of an arena of `size` bytes, whose last granule may be shorter."""
        if not counters.granules:
            return cls(size, phase=phase)
        granule = counters.granule_size
        final = min((counters.granules - counters.remaining) * granule, size)
        lost = min(counters.lost * granule, final)
        return cls(size, final - lost, lost, phase)
