# SPDX-License-Identifier: GPL-2.0-or-later
"""The named arrays of a machine, saved to a Zarr group while they are written: by a dump in memory,
of which several threads read and write the pieces."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from livedumpfs.dump.counters import Counters
from livedumpfs.dump.instant import Snapshot
from livedumpfs.dump.verdict import inconsistent
from livedumpfs.errors import InconsistentDump, UsageError
from livedumpfs.formats import VerdictWord
from livedumpfs.machines import Machine
from livedumpfs.settings import DumpSettings

if TYPE_CHECKING:
    from livedumpfs.named.saving import ArraySave


class InMemory(Protocol):
    """LiveDump, as far as it is needed here."""

    machine: Machine

    def init(
        self, target: None, settings: DumpSettings | None = None, *, reference: int = -1
    ) -> None: ...
    def expect_init(self, settings: DumpSettings) -> None: ...
    def start(self) -> None: ...
    def release(self) -> None: ...
    @property
    def so_far(self) -> VerdictWord | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def snapshot(self) -> Snapshot: ...
    def counters(self) -> Counters: ...


def save_arrays(
    dump: InMemory,
    path: str,
    settings: DumpSettings | None = None,
    *,
    check: bool = True,
    reference: int = -1,
) -> VerdictWord:
    """One whole save; the verdict. InconsistentDump: memory was lost, and with `check` nothing is
    left of it. What LiveDump.init and start raise; TargetError, UsageError, MissingPackage.
    `reference`: as LiveDump.init."""
    from livedumpfs.named.saving import ArraySave

    chosen = settings or DumpSettings()
    in_memory = _in_memory(path, chosen)
    dump.expect_init(in_memory)
    with ArraySave(
        path,
        dump.machine.arena.named,
        force=chosen.force,
        compression=chosen.compression,
        level=chosen.level,
        threads=chosen.threads,
    ) as save:
        save.begin()
        dump.init(None, in_memory, reference=reference)
        try:
            dump.start()
            return _save(dump, save, check)
        finally:
            dump.release()


def _in_memory(path: str, chosen: DumpSettings) -> DumpSettings:
    """Settings of the dump, without those of the group. UsageError."""
    usual = DumpSettings()
    if chosen.format != usual.format:
        raise UsageError(
            f"{path} is a group of arrays, not a dump of format {chosen.format}",
            hint="another name, or no <format>",
        )
    return replace(chosen, compression=usual.compression, level=usual.level, threads=usual.threads)


def _save(dump: InMemory, save: ArraySave, check: bool) -> VerdictWord:
    snapshot = dump.snapshot
    try:
        save.write(snapshot, accept_missing=not check)
    except OSError as error:
        if error.errno == errno.EIO and dump.so_far in ("torn", "incomplete"):
            raise _inconsistent(dump) from error
        raise
    verdict = _verdict(dump, save)
    said = snapshot.describe()
    reason = dump.reason if verdict != "consistent" else None
    dump.release()
    save.publish(verdict, said, snapshot.size, reason)
    return verdict


def _verdict(dump: InMemory, save: ArraySave) -> VerdictWord:
    """Of what was read. Memory that was lost after it was read, or is in no array, is not missed:
    a snapshot gives each byte as it was, or none."""
    if dump.so_far == "incomplete":
        return "incomplete"
    return "torn" if save.lost else "consistent"


def _inconsistent(dump: InMemory) -> InconsistentDump:
    counters = dump.counters()
    number = counters.failure.error
    return inconsistent(dump.so_far or "incomplete", counters, None, dump.reason, number)
