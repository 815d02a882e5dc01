# SPDX-License-Identifier: GPL-2.0-or-later
"""The account pages of a ledger: each checked by itself, open transfers rolled back, all summed up
in the proof. Pure.

What the guest keeps in a page is said in guest/ledger.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from livedumpfs.machines.boot import BootParams
from livedumpfs.machines.ledger_block import (
    ACCOUNTS,
    OFF,
    OPEN,
    WRAP,
    LedgerBlock,
    ReadMemory,
    read_exactly,
)
from livedumpfs.units import PAGE_SIZE

TAG = int.from_bytes(b"acctpage", "little")
HASH_PFN = 0x9E3779B97F4A7C15
HASH_K = 0xC2B2AE3D27D4EB4F
STEP_SHIFT = 20

WORDS = PAGE_SIZE // 8
CHUNK_PAGES = 1024
"""Pages that are read at once."""
BAD_PAGES_MAX = 1000
"""How many bad pages a report names."""

Words = npt.NDArray[np.uint64]


@dataclass
class LedgerProof:
    """What is known while pages go by."""

    params: BootParams
    ledgers: list[LedgerBlock]
    problems: list[str] = field(default_factory=list)
    bad_pages: list[int] = field(default_factory=list)
    bad_page_count: int = 0

    def problem(self, text: str) -> None:
        """Something is wrong, in one sentence."""
        self.problems.append(text)

    def bad(self, pfns: npt.NDArray[Any], what: str) -> None:
        """Pages of these frame numbers are wrong, if there are any; `what`: how the first is."""
        if len(pfns):
            self.bad_page_count += len(pfns)
            self.bad_pages += [int(p) for p in pfns[: BAD_PAGES_MAX - len(self.bad_pages)]]
            self.problem(f"page {int(pfns[0]):#x} {what}")


def check_pages(proof: LedgerProof, read: ReadMemory) -> None:
    """Read all account pages, and put into the proof what is wrong and what they sum up to."""
    for first_page, addresses in _chunks(proof):
        _check_chunk(proof, read, first_page, addresses)


def _chunks(proof: LedgerProof) -> Iterator[tuple[int, range]]:
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


def _account_pages(proof: LedgerProof, first_page: int, count: int) -> tuple[Words, Words]:
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


def _read_pages(read: ReadMemory, addresses: range) -> tuple[Words, npt.NDArray[np.bool_]]:
    """(words of each page, which pages could be read)."""
    data = read_exactly(read, addresses[0], len(addresses) * PAGE_SIZE)
    readable = np.ones(len(addresses), dtype=bool)
    if data is None:
        pages = [read_exactly(read, address, PAGE_SIZE) for address in addresses]
        readable = np.array([page is not None for page in pages], dtype=bool)
        data = b"".join(page or bytes(PAGE_SIZE) for page in pages)
    return np.frombuffer(data, dtype="<u8").reshape(-1, WORDS), readable


def _places(pfns: Words) -> Words:
    """Word of each account in each page."""
    k = np.arange(ACCOUNTS, dtype=np.uint64)
    hashes = pfns[:, None] * np.uint64(HASH_PFN) + (k * np.uint64(HASH_K))[None, :]
    places: Words = (k[None, :] + np.uint64(1)) * np.uint64(64) + (hashes >> np.uint64(58))
    return places


def _check_chunk(proof: LedgerProof, read: ReadMemory, first_page: int, addresses: range) -> None:
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


def _check_pages(proof: LedgerProof, words: Words, pfns: Words, values: Words) -> None:
    tags, versions, totals = words[:, 0], words[:, 1], words[:, 2]
    misplaced = tags != pfns ^ np.uint64(TAG)
    # All words together: nothing may lie where no account is.
    whole = np.add.reduce(words, axis=1) - tags - versions - totals
    torn = (np.add.reduce(values, axis=1) != totals) | (whole != totals)
    proof.bad(pfns[misplaced], "is misplaced or damaged")
    proof.bad(pfns[torn & ~misplaced], "is torn: its accounts do not make its sum")


def _roll_back(proof: LedgerProof, vcpu: int, words: Words, pfns: Words, owners: Words) -> None:
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
            ledger.stores[len(now) * which + i] = (n == old, n == (old + change) % WRAP)
        words[row, [place, 2, 1]] = np.array(before, dtype=np.uint64)
        ledger.in_flight += side.value - now[0]
