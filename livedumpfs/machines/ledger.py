# SPDX-License-Identifier: GPL-2.0-or-later
"""Prove from memory alone that the built-in guest was seen at one instant. Pure.

What the guest keeps, and why a mixture of instants breaks it, is said in guest/ledger.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livedumpfs.formats import Registers
from livedumpfs.machines import boot
from livedumpfs.machines.boot import BootParams
from livedumpfs.machines.ledger_block import (
    ACCOUNTS,
    CLOSED,
    OFF,
    OPEN,
    RUNNING,
    WRAP,
    NoLedger,
    ReadMemory,
    read_block,
    read_boot_params,
)
from livedumpfs.machines.ledger_pages import STEP_SHIFT, LedgerProof, check_pages
from livedumpfs.units import PAGE_SIZE

STORES = 6
"""Words of account pages that a transfer changes."""
COUNTERS = ("r15", "s11")
"""The registers, of one processor each, in which a guest counts its transfers."""


@dataclass(frozen=True)
class LedgerReport:
    """The proof, or what is wrong. Amounts are sums over all vCPUs."""

    ok: bool
    """Everything fits one instant: pages, sums, versions and counters."""
    message: str
    vcpus: int = 0
    accounts: int = 0
    expected: int = 0
    """What all accounts must hold together."""
    found: int = 0
    """What they hold in memory."""
    in_flight: int = 0
    """Taken from one account and not yet given to another, by the journals."""
    transfers: int = 0
    mismatches: int = 0
    """Times that a guest saw one of its instructions run twice."""
    bad_pages: tuple[int, ...] = ()
    """Frame numbers of pages that are unreadable, misplaced or torn; the first 1000."""
    bad_page_count: int = 0
    counter_ok: bool = False
    """No instruction ran twice, and (if given) the counter in a register agrees with memory."""


def verify_ledger(
    read: ReadMemory,
    ram_size: int,
    registers: Sequence[Registers] | None = None,
    *,
    ram_start: int = 0,
) -> LedgerReport:
    """Check the ledger of the built-in guest in a memory of `ram_size` bytes that begins at the
    physical address `ram_start`.

    `registers`, one mapping for each vCPU at the same instant, adds the proof that the vCPUs were
    held exactly. Never raises for what the memory holds or for what cannot be read: the report
    says it.
    """
    try:
        params = read_boot_params(read, ram_size, ram_start)
        proof = LedgerProof(params, [read_block(read, params, i) for i in range(params.vcpus)])
    except NoLedger as error:
        return LedgerReport(False, str(error))
    if not any(ledger.phase for ledger in proof.ledgers):
        return LedgerReport(False, "no ledger: the guest had not begun", vcpus=params.vcpus)
    if _check_control(proof):
        check_pages(proof, read)
        _check_sums(proof)
    counter_ok = _check_counters(proof, registers or ())
    return _report(proof, counter_ok)


def _pages_from(params: BootParams, base: int) -> int:
    """RAM pages from `base` on, which lies in the first range."""
    start, size = params.ranges[0]
    return (start + size - base + sum(size for _, size in params.ranges[1:])) // PAGE_SIZE


def _check_control(proof: LedgerProof) -> bool:
    """Compare each control block with what the guest must have computed; sizes come from here."""
    params = proof.params
    for vcpu, ledger in enumerate(proof.ledgers):
        if ledger.phase == OFF:
            continue
        start, size = params.ranges[0]
        if ledger.base % PAGE_SIZE or not start <= ledger.base < start + size:
            proof.problem(f"vCPU {vcpu}: accounts from {ledger.base:#x}, which is not RAM")
            continue
        everything = _pages_from(params, ledger.base)
        used = max(everything * params.dirty_share // boot.ALL_PAGES, 2 * params.vcpus)
        pages = (used - vcpu + params.vcpus - 1) // params.vcpus
        if used > everything:
            proof.problem(f"vCPU {vcpu}: {used} account pages in {everything} pages of RAM")
        elif (ledger.step, ledger.pages) != ((everything << STEP_SHIFT) // used, pages):
            proof.problem(f"vCPU {vcpu}: the layout of its accounts is damaged")
        elif ledger.filled > pages or (ledger.phase == RUNNING and ledger.filled != pages):
            proof.problem(f"vCPU {vcpu}: {ledger.filled} of {pages} pages filled")
        elif ledger.journal_phase not in (CLOSED, OPEN):
            proof.problem(f"vCPU {vcpu}: its journal is damaged")
    bases = {ledger.base for ledger in proof.ledgers if ledger.phase != OFF}
    if len(bases) > 1:
        proof.problem("the vCPUs disagree on where accounts begin")
    return not proof.problems


def _signed(number: int) -> int:
    """A sum modulo 2^64 as the nearest number to 0; accounts may be overdrawn."""
    return (number + WRAP // 2) % WRAP - WRAP // 2


def _check_journal(proof: LedgerProof, vcpu: int) -> None:
    """An open transfer has done its stores up to one of them, and none behind it."""
    ledger = proof.ledgers[vcpu]
    if len(ledger.stores) != STORES:
        proof.problem(f"vCPU {vcpu}: its journal names accounts that are not there")
        return
    stores = [ledger.stores[i] for i in range(STORES)]
    counted = ledger.transfers - ledger.journal_transfer
    stores.append((counted == 0, counted == 1))
    if not any(
        all(done for _, done in stores[:n]) and all(undone for undone, _ in stores[n:])
        for n in range(len(stores) + 1)
    ):
        pages = " and ".join(f"{side.page // PAGE_SIZE:#x}" for side in ledger.sides)
        proof.problem(f"vCPU {vcpu}: pages {pages} do not fit its open journal")


def _check_sums(proof: LedgerProof) -> None:
    for vcpu, ledger in enumerate(proof.ledgers):
        if ledger.journal_phase == OPEN:
            _check_journal(proof, vcpu)
        missing = _signed(ledger.expected - ledger.found)
        if missing:
            proof.problem(f"vCPU {vcpu}: its accounts are {missing} short of {ledger.expected}")
        stale = _signed(2 * ledger.settled_transfers - ledger.versions)
        if stale:
            proof.problem(f"vCPU {vcpu}: versions of its pages are {stale} behind its transfers")


def _counted(registers: Registers) -> int | None:
    return next((registers[name] for name in COUNTERS if name in registers), None)


def _check_counters(proof: LedgerProof, registers: Sequence[Registers]) -> bool:
    before = len(proof.problems)
    for vcpu, ledger in enumerate(proof.ledgers):
        if ledger.mismatches:
            proof.problem(f"vCPU {vcpu}: {ledger.mismatches} of its instructions ran twice")
        counted = _counted(registers[vcpu]) if vcpu < len(registers) else None
        if ledger.phase == OFF or counted is None:
            continue
        ahead = _signed(ledger.transfers - counted)
        if ahead not in (0, 1):
            proof.problem(f"vCPU {vcpu}: memory is {ahead} transfers ahead of its registers")
    return len(proof.problems) == before


def _report(proof: LedgerProof, counter_ok: bool) -> LedgerReport:
    ledgers = proof.ledgers
    in_flight = sum(_signed(ledger.in_flight) for ledger in ledgers)
    found = sum(_signed(ledger.found) for ledger in ledgers) - in_flight
    accounts = sum(ledger.filled for ledger in ledgers) * ACCOUNTS
    transfers = sum(ledger.transfers for ledger in ledgers)
    if proof.problems:
        more = len(proof.problems) - 1
        message = proof.problems[0] + (f" (and {more} more)" if more else "")
    else:
        message = (
            f"{accounts} accounts hold {found} and {in_flight} are in flight, as they must"
            f" after {transfers} transfers"
        )
    return LedgerReport(
        ok=not proof.problems,
        message=message,
        vcpus=len(ledgers),
        accounts=accounts,
        expected=sum(ledger.expected for ledger in ledgers),
        found=found,
        in_flight=in_flight,
        transfers=transfers,
        mismatches=sum(ledger.mismatches for ledger in ledgers),
        bad_pages=tuple(proof.bad_pages),
        bad_page_count=proof.bad_page_count,
        counter_ok=counter_ok,
    )
