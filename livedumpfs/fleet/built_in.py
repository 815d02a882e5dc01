# SPDX-License-Identifier: GPL-2.0-or-later
"""What `fleet map` can do without a script: tasks of all guests, pages that they share, what
differs between two fleet dumps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from livedumpfs.dumpfile import DumpFile, compare_dumps, open_dump
from livedumpfs.fleet.script import drgn_program
from livedumpfs.machines.ledger import verify_ledger
from livedumpfs.units import PAGE_SIZE

_PIECE: Final = 1 << 20
_ZEROS: Final = bytes(PAGE_SIZE)
Hashes = npt.NDArray[np.void]
"""XXH3-128 of pages, 16 bytes each."""


def tasks_of(path: str, vmlinux: str | None) -> list[dict[str, Any]]:
    """Tasks of a Linux guest, by drgn; without vmlinux the vCPUs of the built-in guest."""
    if vmlinux is None:
        with open_dump(path) as dump:
            return _ledger_tasks(dump)
    from drgn.helpers.linux.pid import for_each_task

    rows = []
    for task in for_each_task(drgn_program(path, vmlinux)):
        rows.append(
            {
                "pid": task.pid.value_(),
                "tgid": task.tgid.value_(),
                "parent": task.real_parent.pid.value_(),
                "command": task.comm.string_().decode(errors="backslashreplace"),
            }
        )
    return rows


def _ledger_tasks(dump: DumpFile) -> list[dict[str, Any]]:
    report = verify_ledger(
        *(dump.read_physical, dump.arena_size, dump.registers), ram_start=dump.memory_map[0].start
    )
    rows: list[dict[str, Any]] = [
        {
            "pid": number,
            "command": f"vcpu{number}",
            "rip": registers.get("rip", registers.get("pc")),
        }
        for number, registers in enumerate(dump.registers)
    ]
    if report.vcpus:
        return [{**row, "ledger": report.ok, "transfers": report.transfers} for row in rows]
    return rows


# --------------------------------------------------------------------------- shared pages


def page_hashes(path: str) -> tuple[Hashes, dict[str, int]]:
    """The hashes of all pages that the dump has and that are not zeros, each once; and how many
    pages there are of which kind."""
    found: list[bytes] = []
    zeros = missing = 0
    with open_dump(path) as dump:
        for offset in range(0, dump.arena_size, _PIECE):
            length = min(_PIECE, dump.arena_size - offset)
            for page in _pages(dump, offset, length):
                if page is None:
                    missing += 1
                elif page == _ZEROS:
                    zeros += 1
                else:
                    found.append(xxhash.xxh3_128_digest(page))
        pages = -(-dump.arena_size // PAGE_SIZE)
    hashes = np.unique(np.frombuffer(b"".join(found), dtype="V16"))
    counts = {"pages": pages, "zeros": zeros, "missing": missing, "distinct": len(hashes)}
    return hashes, counts


def _pages(dump: DumpFile, offset: int, length: int) -> list[memoryview | None]:
    """The pages of a piece; None: the dump has not got it."""
    try:
        data = memoryview(dump.read_arena(offset, length))
    except OSError:
        if length <= PAGE_SIZE:
            return [None]
        return [
            page
            for start in range(offset, offset + length, PAGE_SIZE)
            for page in _pages(dump, start, min(PAGE_SIZE, offset + length - start))
        ]
    return [data[at : at + PAGE_SIZE] for at in range(0, length, PAGE_SIZE)]


def shared_rows(
    names: Sequence[str], found: Sequence[tuple[Hashes, Mapping[str, int]]]
) -> list[dict[str, Any]]:
    """For each guest how many of its distinct pages another has, too; and a row for all."""
    everything = np.concatenate([hashes for hashes, _ in found])
    distinct, owners = np.unique(everything, return_counts=True)
    common = distinct[owners > 1]
    rows: list[dict[str, Any]] = []
    for name, (hashes, counts) in zip(names, found, strict=True):
        shared = int(np.isin(hashes, common, assume_unique=True).sum())
        rows.append({"member": name, **counts, "shared": shared})
    whole = {key: sum(row[key] for row in rows) for key in ("pages", "zeros", "missing")}
    rows.append({"member": "all", **whole, "distinct": len(distinct), "shared": len(common)})
    return rows


def shared_task(names: Sequence[str], *found: tuple[Hashes, Mapping[str, int]]) -> Any:
    """shared_rows, on a worker: hashes go from worker to worker."""
    return shared_rows(names, found)


# ----------------------------------------------------------------------------- difference


def difference(before: str, after: str) -> dict[str, Any]:
    """How many pages of two dumps of one guest are equal."""
    with open_dump(before) as a, open_dump(after) as b:
        found = compare_dumps(a, b, max_ranges=0)
    words = ("equal", "different", "missing_before", "missing_after", "missing_in_both")
    return dict(zip(words, found.pages.values(), strict=True))
