# SPDX-License-Identifier: GPL-2.0-or-later
"""The control block of a vCPU's ledger, and the boot parameters that lead to it. Pure.

What is read may be damaged: NoLedger says in one sentence why there is nothing to verify. The
layout is that of struct ledger in guest/ledger.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from livedumpfs.machines import boot
from livedumpfs.machines.boot import BootParams
from livedumpfs.units import PAGE_SIZE

ReadMemory = Callable[[int, int], bytes]
"""(physical address, length in bytes) -> bytes; OSError or ValueError: cannot be read."""

MAGIC = int.from_bytes(b"LDLEDGER", "little")
ACCOUNTS = 7
"""Accounts a page."""
INITIAL = 1_000_000
"""What each account holds at first."""
OFF, FILLING, RUNNING = 0, 1, 2
CLOSED, OPEN = 0, 1
WRAP = 1 << 64
"""All sums of the guest are modulo this."""

_LEDGER = struct.Struct("<Q2I7Q3Q4Q4Q")


@dataclass(frozen=True)
class LedgerSide:
    """One of the two accounts of a transfer, with everything of before it."""

    account: int
    value: int
    total: int
    version: int
    change: int
    """What the transfer adds to the account, modulo 2^64."""

    @property
    def page(self) -> int:
        """Physical address of the page that it lies in."""
        return self.account & -PAGE_SIZE


@dataclass
class LedgerBlock:
    """struct ledger of one vCPU, and what is summed up over its pages."""

    phase: int
    base: int
    step: int
    pages: int
    filled: int
    transfers: int
    mismatches: int
    journal_phase: int
    journal_transfer: int
    sides: tuple[LedgerSide, LedgerSide]
    found: int = 0
    versions: int = 0
    in_flight: int = 0
    stores: dict[int, tuple[bool, bool]] = field(default_factory=dict)
    """Stores of an open transfer, in the guest's order: (may be undone, may be done)."""

    @property
    def settled_transfers(self) -> int:
        """Transfers that the pages show once the journal is rolled back."""
        return self.journal_transfer if self.journal_phase == OPEN else self.transfers

    @property
    def expected(self) -> int:
        """What its accounts must hold together."""
        return self.filled * ACCOUNTS * INITIAL


class NoLedger(Exception):
    """There is nothing to verify; str() says why."""


def read_exactly(read: ReadMemory, address: int, length: int) -> bytes | None:
    """`length` bytes from physical `address`; None: not all of them can be read."""
    try:
        data = read(address, length)
    except (OSError, ValueError):
        return None
    return data if len(data) == length else None


def read_boot_params(read: ReadMemory, ram_size: int, ram_start: int) -> BootParams:
    """Of vCPU 0. NoLedger: they cannot be read, are damaged, or those of a machine with another
    size of RAM than `ram_size` bytes, or whose RAM begins elsewhere than at `ram_start`."""
    place = boot.address(0, ram_start)
    data = read_exactly(read, place, boot.SIZE)
    if data is None:
        raise NoLedger(f"no ledger: the boot parameters at {place:#x} cannot be read")
    try:
        params = BootParams.unpack(data)
    except ValueError as error:
        raise NoLedger(f"no ledger: {error} at {place:#x}") from error
    end = ram_start
    for start, size in params.ranges:
        if start < end or not size or (start | size) % PAGE_SIZE or start + size > WRAP:
            raise NoLedger("no ledger: its memory map is damaged")
        end = start + size
    if sum(size for _, size in params.ranges) != params.ram_size or params.ram_size != ram_size:
        raise NoLedger(f"no ledger: made for {params.ram_size} bytes of RAM, not {ram_size}")
    return params


def read_block(read: ReadMemory, params: BootParams, vcpu: int) -> LedgerBlock:
    """The control block of vCPU number `vcpu`; one in phase OFF if there is none yet. `params`:
    those of vCPU 0. NoLedger: it cannot be read, is damaged, or does not fit them."""
    data = read_exactly(read, boot.address(vcpu, params.ranges[0][0]), boot.SIZE)
    if data is None:
        raise NoLedger(f"no ledger: the boot parameters of vCPU {vcpu} cannot be read")
    try:
        own = BootParams.unpack(data)
    except ValueError as error:
        raise NoLedger(f"no ledger: vCPU {vcpu} has {error}") from error
    if (own.vcpu, own.vcpus, own.ranges, own.dirty_share) != (
        vcpu,
        params.vcpus,
        params.ranges,
        params.dirty_share,
    ):
        raise NoLedger(f"no ledger: vCPU {vcpu} has boot parameters of another machine")
    if own.ledger == 0:
        nowhere = LedgerSide(0, 0, 0, 0, 0)
        return LedgerBlock(OFF, 0, 0, 0, 0, 0, 0, CLOSED, 0, (nowhere, nowhere))
    data = read_exactly(read, own.ledger, _LEDGER.size)
    if data is None:
        raise NoLedger(f"no ledger: that of vCPU {vcpu} at {own.ledger:#x} cannot be read")
    return _unpack_ledger(data, vcpu)


def _unpack_ledger(data: bytes, vcpu: int) -> LedgerBlock:
    magic, owner, phase, base, step, pages, filled, transfers, mismatches, _, *journal = (
        _LEDGER.unpack(data)
    )
    if magic != MAGIC or owner != vcpu or phase not in (FILLING, RUNNING):
        raise NoLedger(f"no ledger: the control block of vCPU {vcpu} is damaged")
    journal_phase, transfer, amount, *sides = journal
    return LedgerBlock(
        phase,
        base,
        step,
        pages,
        filled,
        transfers,
        mismatches,
        journal_phase,
        transfer,
        (_side(sides[:4], -amount % WRAP), _side(sides[4:], amount)),
    )


def _side(words: Sequence[int], change: int) -> LedgerSide:
    account, value, total, version = words
    return LedgerSide(account, value, total, version, change)


def ledger_phases(read: ReadMemory, ram_start: int) -> list[bool]:
    """For each vCPU: it has filled its accounts and makes transfers. [False]: no ledger."""
    try:
        params = BootParams.unpack(read(boot.address(0, ram_start), boot.SIZE))
        return [read_block(read, params, i).phase == RUNNING for i in range(params.vcpus)]
    except (ValueError, NoLedger):
        return [False]
