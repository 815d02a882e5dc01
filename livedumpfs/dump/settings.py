# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpSettings: what one dump is told at INIT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from livedumpfs.errors import UsageError
from livedumpfs.units import PAGE_SIZE

if TYPE_CHECKING:
    from livedumpfs.targets import Target

POLICIES: Final = ("block", "fail", "spill")
"""In the order of enum ldfs_policy."""
ARMINGS: Final = ("swap", "mprotect")
"""In the order of enum ldfs_arming."""
MAX_GRANULE: Final = 64 << 20


@dataclass(frozen=True)
class DumpSettings:
    """Sizes in bytes, times in seconds."""

    format: str = "elf"
    policy: str = "block"
    """When no slot is free: `block` waits, `fail` loses the granule, `spill` grows the pool,
    then waits."""
    arming: str = "swap"
    granule: int = 0
    """Power of two of at least a page; 0: by arena size and vm.max_map_count."""
    pool: int = 64 << 20
    spill_limit: int = 256 << 20
    """`spill`: the pool at the most."""
    sweep_rate: int = 0
    """Bytes a second that the sweep writes at the most; 0: no cap."""
    stall_deadline: float = 10.0
    """Longest wait of a vCPU for a slot; after it the policy is `fail`."""
    quiesce_deadline: float = 1.0
    force: bool = False
    """Overwrite a file system, a partition table or a foreign file."""
    sidecar: str | Target | None = None
    """raw: path or open file for superblock and granule table; None: the usual place."""

    def check(self) -> None:
        """UsageError (ValueError): a value that makes no sense, named."""
        if self.policy not in POLICIES:
            raise UsageError(
                f"unknown policy {self.policy!r}", hint=f"one of {', '.join(POLICIES)}"
            )
        if self.arming not in ARMINGS:
            raise UsageError(f"unknown arming {self.arming!r}", hint=f"one of {', '.join(ARMINGS)}")
        if self.granule and not self._granule_possible():
            raise UsageError(
                f"granule of {self.granule} bytes is not possible",
                hint=f"a power of two from {PAGE_SIZE} to {MAX_GRANULE}",
            )
        if self.pool <= 0 or self.spill_limit < 0 or self.sweep_rate < 0:
            raise UsageError("pool, spill limit and sweep rate cannot be negative, nor the pool 0")
        if self.stall_deadline <= 0 or self.quiesce_deadline <= 0:
            raise UsageError("a deadline must be longer than 0 s")

    def _granule_possible(self) -> bool:
        power = self.granule > 0 and self.granule & (self.granule - 1) == 0
        return power and PAGE_SIZE <= self.granule <= MAX_GRANULE
