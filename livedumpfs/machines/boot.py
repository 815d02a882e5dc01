# SPDX-License-Identifier: GPL-2.0-or-later
"""The boot parameters of a guest: guest/boot.h, in Python. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from livedumpfs.errors import UsageError

PARAMS = 0x1000
"""Where vCPU 0's parameters are, from the start of RAM on."""
STRIDE = 256
"""Bytes from one vCPU's parameters to the next."""
STACK_TOP = 0x10000
STACK_SIZE = 0x3000
END = 0x10000
"""First address from the start of RAM on that a guest's segments may use."""
MAGIC = int.from_bytes(b"LDFSBOOT", "little")
VERSION = 1
VCPUS_MAX = 4
RANGES_MAX = 4
ALL_PAGES = 65536
"""dirty_share of a guest that writes to all of its memory."""
TICKS_PER_SECOND = 1000
RATE_MAX = 1_000_000_000
"""Transfers a second; more than any guest does."""

_LAYOUT = struct.Struct("<Q4IQQ4I8QQ")
SIZE = _LAYOUT.size


@dataclass(frozen=True)
class BootParams:
    """struct boot_params. Addresses and sizes in bytes; ranges are (start, size)."""

    vcpu: int
    vcpus: int
    ram_size: int
    ranges: Sequence[tuple[int, int]]
    seed: int
    dirty_share: int = ALL_PAGES
    burst: int = 0
    ticks: int = 1
    ledger: int = 0

    def pack(self) -> bytes:
        """The bytes that the guest finds."""
        ranges = [word for pair in self.ranges for word in pair]
        ranges += [0] * (2 * RANGES_MAX - len(ranges))
        return _LAYOUT.pack(
            MAGIC,
            VERSION,
            self.vcpu,
            self.vcpus,
            len(self.ranges),
            self.ram_size,
            self.seed,
            self.dirty_share,
            self.burst,
            self.ticks,
            0,
            *ranges,
            self.ledger,
        )

    @classmethod
    def unpack(cls, data: bytes) -> BootParams:
        """ValueError: not boot parameters of this version, or numbers that cannot be."""
        magic, version, vcpu, vcpus, count, ram_size, seed, share, burst, ticks, _, *rest = (
            _LAYOUT.unpack(data)
        )
        if magic != MAGIC:
            raise ValueError("no boot parameters")
        if version != VERSION:
            raise ValueError(f"boot parameters of version {version}, not {VERSION}")
        if not (1 <= vcpus <= VCPUS_MAX and vcpu < vcpus and 1 <= count <= RANGES_MAX):
            raise ValueError(f"boot parameters with vCPU {vcpu} of {vcpus}, {count} ranges")
        ranges = tuple(zip(rest[0 : 2 * count : 2], rest[1 : 2 * count : 2], strict=True))
        return cls(vcpu, vcpus, ram_size, ranges, seed, share, burst, ticks, rest[-1])


def address(vcpu: int, ram_start: int = 0) -> int:
    """Physical address of that vCPU's parameters."""
    return ram_start + PARAMS + vcpu * STRIDE


def share_of(fraction: float) -> int:
    """dirty_share for a fraction in (0, 1]. UsageError: outside."""
    if not 0 < fraction <= 1:
        raise UsageError(f"share of memory to write to is {fraction}, not in (0, 1]")
    return max(1, round(fraction * ALL_PAGES))


def pace_of(rate: int) -> tuple[int, int]:
    """(burst, ticks) for `rate` transfers a second and vCPU; 0: no limit. UsageError: outside."""
    if not 0 <= rate <= RATE_MAX:
        raise UsageError(f"rate is {rate} transfers a second, not 0 to {RATE_MAX}")
    if rate == 0:
        return 0, 1
    if rate >= TICKS_PER_SECOND:
        return round(rate / TICKS_PER_SECOND), 1
    return 1, round(TICKS_PER_SECOND / rate)


def first_registers(vcpu: int, entry: int) -> dict[str, int]:
    """What guest/boot.h promises on x86-64; registers that are not named are 0."""
    return {
        "rip": entry,
        "rdi": address(vcpu),
        "rsp": STACK_TOP - vcpu * STACK_SIZE,
        "eflags": 2,  # the bit that is always 1; interrupts off
    }
