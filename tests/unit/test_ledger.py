# SPDX-License-Identifier: GPL-2.0-or-later
"""The ledger's proof, on a small guest written down once more in Python, store by store."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedumpfs.machines import LedgerReport, boot, ledger_block, ledger_pages, verify_ledger

PAGE = 4096
LOW, HIGH_START, HIGH = 0x20000, 4 << 30, 0x10000
RAM = LOW + HIGH
BASE = 0x18000  # first page for accounts: 8 pages here, 16 behind the hole
MASK = (1 << 64) - 1
# Offsets in struct ledger, in words.
FILLED, TRANSFERS, MISMATCHES = 5, 6, 7
J_PHASE, J_TRANSFER, J_AMOUNT, J_FROM, J_TO = 9, 10, 11, 12, 16


class Guest:
    """Memory and ledgers of `vcpus` vCPUs; `transfer` yields after each store."""

    def __init__(self, vcpus: int = 2, share: int = boot.ALL_PAGES, seed: int = 1) -> None:
        self.low, self.high = bytearray(LOW), bytearray(HIGH)
        self.random = random.Random(seed)
        self.vcpus = vcpus
        self.r15 = [0] * vcpus
        everything = 24
        used = max(everything * share // boot.ALL_PAGES, 2 * vcpus)
        self.step = (everything << 20) // used
        ranges = ((0, LOW), (HIGH_START, HIGH))
        for v in range(vcpus):
            block = self.block(v)
            params = boot.BootParams(v, vcpus, RAM, ranges, 1, share, ledger=block)
            at = boot.address(v)
            self.low[at : at + boot.SIZE] = params.pack()
            pages = len(range(v, used, vcpus))
            head = struct.pack(
                "<Q2I4Q", ledger_block.MAGIC, v, ledger_block.RUNNING, BASE, self.step, pages, pages
            )
            self.low[block : block + len(head)] = head
        for number in range(used):
            self.fill(self.page(number))
        self.used = used

    def block(self, vcpu: int) -> int:
        return 0x10000 + vcpu * PAGE

    def page(self, number: int) -> int:
        address = BASE + (number * self.step >> 20) * PAGE
        return address if address < LOW else address - LOW + HIGH_START

    def account(self, page: int, k: int) -> int:
        mixed = (page // PAGE * ledger_pages.HASH_PFN + k * ledger_pages.HASH_K) & MASK
        return page + 8 * (64 * (k + 1) + (mixed >> 58))

    def fill(self, page: int) -> None:
        for k in range(ledger_block.ACCOUNTS):
            self.store(self.account(page, k), ledger_block.INITIAL)
        self.store(page, ledger_pages.TAG ^ (page // PAGE))
        self.store(page + 16, ledger_block.ACCOUNTS * ledger_block.INITIAL)

    def view(self, address: int, length: int) -> memoryview:
        memory, at = (self.low, address) if address < LOW else (self.high, address - HIGH_START)
        if at < 0 or at + length > len(memory):
            raise ValueError(f"{address:#x} is not RAM")
        return memoryview(memory)[at : at + length]

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.view(address, length))

    def load(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def store(self, address: int, value: int) -> None:
        self.view(address, 8)[:] = (value & MASK).to_bytes(8, "little")

    def transfer(self, vcpu: int) -> Iterator[None]:
        block = self.block(vcpu)
        numbers = self.random.sample(range(vcpu, self.used, self.vcpus), 2)
        pages = [self.page(n) for n in numbers]
        accounts = [self.account(p, self.random.randrange(ledger_block.ACCOUNTS)) for p in pages]
        amount = self.random.getrandbits(32) + 1
        for side, page, account in zip((J_FROM, J_TO), pages, accounts, strict=True):
            words = (account, self.load(account), self.load(page + 16), self.load(page + 8))
            for i, word in enumerate(words):
                self.store(block + 8 * (side + i), word)
                yield
        transfers = self.load(block + 8 * TRANSFERS)
        for word, value in ((J_TRANSFER, transfers), (J_AMOUNT, amount), (J_PHASE, 1)):
            self.store(block + 8 * word, value)
            yield
        for page, account, change in zip(pages, accounts, (-amount, amount), strict=True):
            for address, add in ((account, change), (page + 16, change), (page + 8, 1)):
                self.store(address, self.load(address) + add)
                yield
        self.store(block + 8 * TRANSFERS, transfers + 1)
        yield
        self.r15[vcpu] += 1
        yield
        self.store(block + 8 * J_PHASE, 0)
        yield

    def run(self, transfers: int) -> None:
        for _ in range(transfers):
            for _ in self.transfer(self.random.randrange(self.vcpus)):
                pass

    def verify(self) -> LedgerReport:
        return verify_ledger(self.read, RAM, [{"r15": n} for n in self.r15])


@pytest.mark.parametrize("vcpus", [1, 2, 4])
@pytest.mark.parametrize("share", [boot.ALL_PAGES, boot.ALL_PAGES // 3])
def test_exact_between_any_two_stores(vcpus: int, share: int) -> None:
    guest = Guest(vcpus, share)
    seen_in_flight = 0
    for _ in range(10):
        # All vCPUs stand in the middle of a transfer of their own.
        running = [guest.transfer(v) for v in range(vcpus)]
        while running:
            one = guest.random.choice(running)
            if next(one, "end") == "end":
                running.remove(one)
            report = guest.verify()
            assert report.ok, report.message
            assert report.counter_ok
            assert report.found + report.in_flight == report.expected
            seen_in_flight += report.in_flight != 0
    assert seen_in_flight > 10
    assert guest.verify().transfers == 10 * vcpus
    assert guest.verify().accounts == 7 * guest.used


@settings(max_examples=200)
@given(st.integers(0, 1 << 32), st.integers(1, 3), st.integers(0, 20))
def test_any_page_from_another_instant_is_found(seed: int, stale: int, stop: int) -> None:
    guest = Guest(2, seed=seed)
    guest.run(20)
    before = {n: guest.read(guest.page(n), PAGE) for n in range(guest.used)}
    guest.run(20)
    # Not a page that only the open transfer changed: to undo its newest stores gives the memory of
    # an instruction or two earlier, which is an instant too.
    changed = [n for n, old in before.items() if old != guest.read(guest.page(n), PAGE)]
    for _, _ in zip(range(stop), guest.transfer(0), strict=False):
        pass
    assert guest.verify().ok
    for n in guest.random.sample(changed, min(stale, len(changed))):
        guest.view(guest.page(n), PAGE)[:] = before[n]
    assert not guest.verify().ok


def test_an_open_journal_needs_its_stores_in_order() -> None:
    guest = Guest(1)
    guest.run(3)
    before = [guest.read(guest.page(n), PAGE) for n in range(guest.used)]
    transfer = guest.transfer(0)
    for _ in range(8 + 3 + 5):  # journal written and open; all stores but the last
        next(transfer)
    assert guest.verify().ok
    first = guest.load(guest.block(0) + 8 * J_FROM) & -PAGE
    number = next(n for n in range(guest.used) if guest.page(n) == first)
    guest.view(first, PAGE)[:] = before[number]
    report = guest.verify()
    assert not report.ok and "do not fit its open journal" in report.message


def test_an_old_control_block_is_found() -> None:
    guest = Guest(1)
    guest.run(5)
    old = guest.read(guest.block(0), PAGE)
    guest.run(5)
    guest.view(guest.block(0), PAGE)[:] = old
    report = guest.verify()
    assert not report.ok and "behind its transfers" in report.message


def test_half_a_page_is_named() -> None:
    guest = Guest(1, share=boot.ALL_PAGES // 12)  # two pages: every transfer touches both
    page = guest.page(1)
    old = guest.read(page, PAGE)
    guest.run(9)
    guest.view(page + PAGE // 2, PAGE // 2)[:] = old[PAGE // 2 :]
    report = guest.verify()
    assert not report.ok
    assert report.bad_pages == (page // PAGE,) and "torn" in report.message


def test_two_pages_swapped_are_named() -> None:
    guest = Guest(2)
    pages = [guest.page(n) for n in (3, 11)]
    data = [guest.read(p, PAGE) for p in pages]
    guest.view(pages[0], PAGE)[:], guest.view(pages[1], PAGE)[:] = data[1], data[0]
    report = guest.verify()
    assert set(report.bad_pages) == {p // PAGE for p in pages}
    assert "misplaced" in report.message and report.bad_page_count == 2


def test_a_stray_word_is_found() -> None:
    guest = Guest(1)
    guest.store(guest.page(5) + 4 * 8, 1)
    assert guest.verify().bad_pages == (guest.page(5) // PAGE,)


def test_a_zeroed_page_is_found() -> None:
    guest = Guest(1)
    guest.view(guest.page(23), PAGE)[:] = bytes(PAGE)
    report = guest.verify()
    assert report.bad_pages == (guest.page(23) // PAGE,) and not report.ok


def test_a_page_that_cannot_be_read_is_named() -> None:
    guest = Guest(2)
    lost = guest.page(20)

    def read(address: int, length: int) -> bytes:
        if address <= lost < address + length:
            raise OSError(errno.EIO, "lost")
        return guest.read(address, length)

    report = verify_ledger(read, RAM)
    assert not report.ok
    assert report.bad_pages == (lost // PAGE,) and "cannot be read" in report.message


def test_counters() -> None:
    guest = Guest(2)
    guest.run(10)
    guest.r15[1] += 1  # the register ran ahead: an instruction was lost or replayed
    report = guest.verify()
    assert not report.ok and not report.counter_ok and "ahead of its registers" in report.message
    guest.r15[1] -= 1
    assert guest.verify().ok
    guest.store(guest.block(1) + 8 * MISMATCHES, 3)
    report = guest.verify()
    assert not report.ok and report.mismatches == 3 and "ran twice" in report.message


def test_a_replayed_store_is_found() -> None:
    guest = Guest(1)
    guest.run(3)
    version = guest.page(0) + 8
    guest.store(version, guest.load(version) + 1)
    assert not guest.verify().ok


def test_still_filling() -> None:
    guest = Guest(2)
    block = guest.block(1)
    guest.view(block + 12, 4)[:] = ledger_block.FILLING.to_bytes(4, "little")
    guest.store(block + 8 * FILLED, 5)
    for i in range(5, 12):
        guest.view(guest.page(2 * i + 1), PAGE)[:] = bytes(PAGE)
    report = guest.verify()
    assert report.ok, report.message
    assert report.accounts == 7 * (12 + 5)


def test_not_begun_and_no_ledger() -> None:
    guest = Guest(1)
    guest.store(boot.PARAMS + 120, 0)
    assert guest.verify().message == "no ledger: the guest had not begun"
    assert not verify_ledger(lambda a, n: bytes(n), RAM).ok
    guest = Guest(1)
    report = verify_ledger(guest.read, RAM + PAGE)
    assert "not 200704" in report.message and not report.ok


@settings(max_examples=400)
@given(st.integers(0, 1), st.integers(0, 160), st.binary(min_size=1, max_size=16))
def test_damaged_control_data_never_raise(where: int, at: int, damage: bytes) -> None:
    guest = Guest(2)
    guest.run(4)
    for _, _ in zip(range(14), guest.transfer(0), strict=False):
        pass
    assert guest.verify().ok
    address = (boot.PARAMS, guest.block(0))[where] + at
    guest.view(address, len(damage))[:] = damage
    report = guest.verify()
    assert report.message
