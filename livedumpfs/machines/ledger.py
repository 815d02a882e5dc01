# SPDX-License-Identifier: GPL-2.0-or-later
"""Prove from memory alone that the built-in guest was seen at one instant. Pure.

What the guest keeps, and why a mixture of instants breaks it, is said in guest/ledger.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from livedumpfs.machines import boot
from livedumpfs.machines.boot import BootParams
from livedumpfs.machines.machine import Registers
from livedumpfs.units import PAGE_SIZE

Reader = Callable[[int, int], bytes]
"""(physical address, length in bytes) -> bytes; OSError or ValueError: cannot be read."""

MAGIC = int.from_bytes(b"LDLEDGER", "little")
TAG = int.from_bytes(b"acctpage", "little")
ACCOUNTS = 7
"""Accounts a page."""
INITIAL = 1_000_000
"""What each account holds at first."""
HASH_PFN = 0x9E3779B97F4A7C15
HASH_K = 0xC2B2AE3D27D4EB4F
STEP_SHIFT = 20
OFF, FILLING, RUNNING = 0, 1, 2
CLOSED, OPEN = 0, 1
STORES = 6
"""Words of account pages that a transfer changes."""

WORDS = PAGE_SIZE // 8
CHUNK_PAGES = 1024
"""Pages that are read at once."""
BAD_PAGES_MAX = 1000
"""How many bad pages a report names."""

_LEDGER = struct.Struct("<Q2I7Q3Q4Q4Q")
_WRAP = 1 << 64

Words = npt.NDArray[np.uint64]


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
    """No instruction ran twice, and (if given) register r15 agrees with memory."""


@dataclass(frozen=True)
class _Side:
    """One of the two accounts of a transfer, with everything of before it."""

    account: int
    value: int
    total: int
    version: int
    change: int
    """What the transfer adds to the account, modulo 2^64."""

    @property
    def page(self) -> int:
        return self.account & -PAGE_SIZE


@dataclass
class _Ledger:
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
    sides: tuple[_Side, _Side]
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
        return self.filled * ACCOUNTS * INITIAL


@dataclass
class _Proof:
    """What is known while pages go by."""

    params: BootParams
    ledgers: list[_Ledger]
    problems: list[str] = field(default_factory=list)
    bad_pages: list[int] = field(default_factory=list)
    bad_page_count: int = 0

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def bad(self, pfns: npt.NDArray[Any], what: str) -> None:
        if len(pfns):
            self.bad_page_count += len(pfns)
            self.bad_pages += [int(p) for p in pfns[: BAD_PAGES_MAX - len(self.bad_pages)]]
            self.problem(f"page {int(pfns[0]):#x} {what}")


class _NoLedger(Exception):
    """There is nothing to verify; str() says why."""


def verify_ledger(
    read: Reader, ram_size: int, registers: Sequence[Registers] | None = None
) -> LedgerReport:
    """Check the ledger of the built-in guest in a memory of `ram_size` bytes.

    `registers`, one mapping for each vCPU at the same instant, adds the proof that the vCPUs were
    held exactly. Never raises for what the memory holds or for what cannot be read: the report
    says it.
    """
    try:
        params = _boot_params(read, ram_size)
        proof = _Proof(params, [_ledger(read, params, i) for i in range(params.vcpus)])
    except _NoLedger as error:
        return LedgerReport(False, str(error))
    if not any(ledger.phase for ledger in proof.ledgers):
        return LedgerReport(False, "no ledger: the guest had not begun", vcpus=params.vcpus)
    if _check_control(proof):
        for first_page, addresses in _chunks(proof):
            _check_chunk(proof, read, first_page, addresses)
        _check_sums(proof)
    counter_ok = _check_counters(proof, registers or ())
    return _report(proof, counter_ok)


def ledger_phases(read: Reader) -> list[bool]:
    """For each vCPU: it has filled its accounts and makes transfers. [False]: no ledger."""
    try:
        params = BootParams.unpack(read(boot.PARAMS, boot.SIZE))
        return [_ledger(read, params, i).phase == RUNNING for i in range(params.vcpus)]
    except (ValueError, _NoLedger):
        return [False]


# ---------------------------------------------------------------------- control blocks


def _read_exactly(read: Reader, address: int, length: int) -> bytes | None:
    try:
        data = read(address, length)
    except (OSError, ValueError):
        return None
    return data if len(data) == length else None


def _boot_params(read: Reader, ram_size: int) -> BootParams:
    data = _read_exactly(read, boot.PARAMS, boot.SIZE)
    if data is None:
        raise _NoLedger(f"no ledger: the boot parameters at {boot.PARAMS:#x} cannot be read")
    try:
        params = BootParams.unpack(data)
    except ValueError as error:
        raise _NoLedger(f"no ledger: {error} at {boot.PARAMS:#x}") from error
    end = 0
    for start, size in params.ranges:
        if start < end or not size or (start | size) % PAGE_SIZE or start + size > _WRAP:
            raise _NoLedger("no ledger: its memory map is damaged")
        end = start + size
    if sum(size for _, size in params.ranges) != params.ram_size or params.ram_size != ram_size:
        raise _NoLedger(f"no ledger: made for {params.ram_size} bytes of RAM, not {ram_size}")
    return params


def _ledger(read: Reader, params: BootParams, vcpu: int) -> _Ledger:
    data = _read_exactly(read, boot.address(vcpu), boot.SIZE)
    if data is None:
        raise _NoLedger(f"no ledger: the boot parameters of vCPU {vcpu} cannot be read")
    try:
        own = BootParams.unpack(data)
    except ValueError as error:
        raise _NoLedger(f"no ledger: vCPU {vcpu} has {error}") from error
    if (own.vcpu, own.vcpus, own.ranges, own.dirty_share) != (
        vcpu,
        params.vcpus,
        params.ranges,
        params.dirty_share,
    ):
        raise _NoLedger(f"no ledger: vCPU {vcpu} has boot parameters of another machine")
    if own.ledger == 0:
        nowhere = _Side(0, 0, 0, 0, 0)
        return _Ledger(OFF, 0, 0, 0, 0, 0, 0, CLOSED, 0, (nowhere, nowhere))
    data = _read_exactly(read, own.ledger, _LEDGER.size)
    if data is None:
        raise _NoLedger(f"no ledger: that of vCPU {vcpu} at {own.ledger:#x} cannot be read")
    return _unpack_ledger(data, vcpu)


def _unpack_ledger(data: bytes, vcpu: int) -> _Ledger:
    magic, owner, phase, base, step, pages, filled, transfers, mismatches, _, *journal = (
        _LEDGER.unpack(data)
    )
    if magic != MAGIC or owner != vcpu or phase not in (FILLING, RUNNING):
        raise _NoLedger(f"no ledger: the control block of vCPU {vcpu} is damaged")
    journal_phase, transfer, amount, *sides = journal
    return _Ledger(
        phase,
        base,
        step,
        pages,
        filled,
        transfers,
        mismatches,
        journal_phase,
        transfer,
        (_side(sides[:4], -amount % _WRAP), _side(sides[4:], amount)),
    )


def _side(words: Sequence[int], change: int) -> _Side:
    account, value, total, version = words
    return _Side(account, value, total, version, change)


def _pages_from(params: BootParams, base: int) -> int:
    """RAM pages from `base` on, which lies in the first range."""
    start, size = params.ranges[0]
    return (start + size - base + sum(size for _, size in params.ranges[1:])) // PAGE_SIZE


def _check_control(proof: _Proof) -> bool:
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


# ---------------------------------------------------------------------- pages


def _chunks(proof: _Proof) -> Iterator[tuple[int, range]]:
    """(number of the first RAM page, addresses of the pages), over all RAM for accounts."""
    base = next(ledger.base for ledger in proof.ledgers if ledger.phase != OFF)
    number = 0
    for start, size in proof.params.ranges:
        address, end = max(start, base), start + size
        while address < end:
            chunk_end = min(end, address + CHUNK_PAGES * PAGE_SIZE)
            yield number, range(address, chunk_end, PAGE_SIZE)
            number += (chunk_end - address) // PAGE_SIZE
            address = chunk_end


def _account_pages(proof: _Proof, first_page: int, count: int) -> tuple[Words, Words]:
    """Of RAM pages [first_page, +count): (index in it, number of the account page), filled ones."""
    step = next(ledger.step for ledger in proof.ledgers if ledger.phase != OFF)
    first = -(-(first_page << STEP_SHIFT) // step)
    behind = -(-((first_page + count) << STEP_SHIFT) // step)
    numbers = np.arange(first, behind, dtype=np.uint64)
    filled = np.array([ledger.filled for ledger in proof.ledgers], dtype=np.uint64)
    vcpus = np.uint64(proof.params.vcpus)
    numbers = numbers[numbers // vcpus < filled[(numbers % vcpus).astype(np.intp)]]
    pages = (numbers * np.uint64(step)) >> np.uint64(STEP_SHIFT)
    return pages - np.uint64(first_page), numbers


def _read_pages(read: Reader, addresses: range) -> tuple[Words, npt.NDArray[np.bool_]]:
    """(words of each page, which pages could be read)."""
    data = _read_exactly(read, addresses[0], len(addresses) * PAGE_SIZE)
    readable = np.ones(len(addresses), dtype=bool)
    if data is None:
        pages = [_read_exactly(read, address, PAGE_SIZE) for address in addresses]
        readable = np.array([page is not None for page in pages], dtype=bool)
        data = b"".join(page or bytes(PAGE_SIZE) for page in pages)
    return np.frombuffer(data, dtype="<u8").reshape(-1, WORDS), readable


def _places(pfns: Words) -> Words:
    """Word of each account in each page."""
    k = np.arange(ACCOUNTS, dtype=np.uint64)
    hashes = pfns[:, None] * np.uint64(HASH_PFN) + (k * np.uint64(HASH_K))[None, :]
    places: Words = (k[None, :] + np.uint64(1)) * np.uint64(64) + (hashes >> np.uint64(58))
    return places


def _check_chunk(proof: _Proof, read: Reader, first_page: int, addresses: range) -> None:
    index, numbers = _account_pages(proof, first_page, len(addresses))
    if not len(index):
        return
    words, readable = _read_pages(read, addresses)
    rows = index.astype(np.intp)
    first_pfn = np.uint64(addresses[0] // PAGE_SIZE)
    proof.bad((index + first_pfn)[~readable[rows]], "cannot be read")
    rows, numbers = rows[readable[rows]], numbers[readable[rows]]
    words = words[rows]  # a copy, in which journals are rolled back
    pfns = rows.astype(np.uint64) + first_pfn
    owners = numbers % np.uint64(proof.params.vcpus)
    for vcpu, ledger in enumerate(proof.ledgers):
        if ledger.journal_phase == OPEN:
            _roll_back(proof, vcpu, words, pfns, owners)
    values = np.take_along_axis(words, _places(pfns).astype(np.intp), axis=1)
    _check_pages(proof, words, pfns, values)
    for vcpu, ledger in enumerate(proof.ledgers):
        own = owners == np.uint64(vcpu)
        ledger.found += int(np.add.reduce(values[own], axis=None, dtype=np.uint64))
        ledger.versions += int(np.add.reduce(words[own, 1], dtype=np.uint64))


def _check_pages(proof: _Proof, words: Words, pfns: Words, values: Words) -> None:
    tags, versions, totals = words[:, 0], words[:, 1], words[:, 2]
    misplaced = tags != pfns ^ np.uint64(TAG)
    # All words together: nothing may lie where no account is.
    whole = np.add.reduce(words, axis=1) - tags - versions - totals
    torn = (np.add.reduce(values, axis=1) != totals) | (whole != totals)
    proof.bad(pfns[misplaced], "is misplaced or damaged")
    proof.bad(pfns[torn & ~misplaced], "is torn: its accounts do not make its sum")


def _roll_back(proof: _Proof, vcpu: int, words: Words, pfns: Words, owners: Words) -> None:
    """Put the words that an open journal names back to their values of before the transfer."""
    ledger = proof.ledgers[vcpu]
    for which, side in enumerate(ledger.sides):
        (rows,) = np.nonzero((pfns == np.uint64(side.page // PAGE_SIZE)) & (owners == vcpu))
        if not len(rows):
            continue
        row, place = int(rows[0]), side.account % PAGE_SIZE // 8
        if side.account % 8 or place not in _places(pfns[rows[:1]]):
            continue
        now = [int(words[row, i]) for i in (place, 2, 1)]
        before = (side.value, side.total, side.version)
        changes = (side.change, side.change, 1)
        for i, (n, old, change) in enumerate(zip(now, before, changes, strict=True)):
            ledger.stores[len(now) * which + i] = (n == old, n == (old + change) % _WRAP)
        words[row, [place, 2, 1]] = np.array(before, dtype=np.uint64)
        ledger.in_flight += side.value - now[0]


# ---------------------------------------------------------------------- verdict


def _signed(number: int) -> int:
    """A sum modulo 2^64 as the nearest number to 0; accounts may be overdrawn."""
    return (number + _WRAP // 2) % _WRAP - _WRAP // 2


def _check_journal(proof: _Proof, vcpu: int) -> None:
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


def _check_sums(proof: _Proof) -> None:
    for vcpu, ledger in enumerate(proof.ledgers):
        if ledger.journal_phase == OPEN:
            _check_journal(proof, vcpu)
        missing = _signed(ledger.expected - ledger.found)
        if missing:
            proof.problem(f"vCPU {vcpu}: its accounts are {missing} short of {ledger.expected}")
        stale = _signed(2 * ledger.settled_transfers - ledger.versions)
        if stale:
            proof.problem(f"vCPU {vcpu}: versions of its pages are {stale} behind its transfers")


def _check_counters(proof: _Proof, registers: Sequence[Registers]) -> bool:
    before = len(proof.problems)
    for vcpu, ledger in enumerate(proof.ledgers):
        if ledger.mismatches:
            proof.problem(f"vCPU {vcpu}: {ledger.mismatches} of its instructions ran twice")
        if ledger.phase == OFF or vcpu >= len(registers) or "r15" not in registers[vcpu]:
            continue
        ahead = _signed(ledger.transfers - registers[vcpu]["r15"])
        if ahead not in (0, 1):
            proof.problem(f"vCPU {vcpu}: memory is {ahead} transfers ahead of its registers")
    return len(proof.problems) == before


def _report(proof: _Proof, counter_ok: bool) -> LedgerReport:
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
