# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpFiles: the target of one dump, the sidecar of a raw one, and the plan for both."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from livedumpfs.core.capi import lib
from livedumpfs.dump.core_dump import CoreFiles
from livedumpfs.dump.instant import machine_info
from livedumpfs.dump.room import expect_room, refuse_sealed
from livedumpfs.errors import TargetError, os_cause
from livedumpfs.formats import Plan, Registers, VerdictWord, plan_dump, room_for
from livedumpfs.formats.meta import text_size
from livedumpfs.formats.note import Note
from livedumpfs.formats.plan import new_dump_id
from livedumpfs.machines import Machine, page_size_of
from livedumpfs.settings import DumpSettings
from livedumpfs.targets import (
    SIDECAR,
    Kind,
    Target,
    apply,
    finish_rename,
    open_sidecar,
    open_target,
    publish,
    retire_in,
    retire_sidecar,
    sidecar_path,
)
from livedumpfs.targets.pipe import PipeTarget

TargetLike = Target | str | os.PathLike[str]


def _plan(machine: Machine, settings: DumpSettings, target: Target, dump_id: bytes | None) -> Plan:
    size = machine.arena.size
    usual = max(int(lib.ldfs_granule_default(size)), page_size_of(machine))
    granule = settings.granule or usual
    # Asked once: while we look more of them may be plugged in.
    info = machine_info(machine, machine.vcpus)
    said = {"machine": machine.metadata(), "arrays": [a.describe() for a in machine.arena.named]}
    return plan_dump(
        settings.format,
        info,
        arena_size=size,
        granule_size=granule,
        dump_id=dump_id,
        identity=target.identity,
        meta_room=room_for(info, text_size(said)),
        compression=settings.compression,
        level=settings.level,
        table=settings.table,
        device_size=target.capacity,
    )


def _is_at(path: str, target: Target) -> bool:
    """Whether that path is the open target, for us."""
    try:
        return os.path.isabs(path) and os.path.samestat(os.stat(path), os.fstat(target.fd))
    except OSError:
        return False


class DumpFiles:
    """Owns target and sidecar from the first moment; closes both."""

    def __init__(
        self,
        machine: Machine,
        settings: DumpSettings,
        target: TargetLike,
        dump_id: bytes | None = None,
        since: bytes = b"",
    ) -> None:
        """Open, lay out and make room: nothing is lost before the sizes are known to fit. `since`:
        see LiveDump.init. TargetError, UsageError; nothing stays open then, and no empty file
        behind."""
        self.since = since
        self.sidecar: Target | None = None
        if isinstance(settings.sidecar, Target):
            self.sidecar = settings.sidecar
        try:
            if isinstance(target, Target):
                self.target = target
            else:
                self.target = open_target(target, force=settings.force)
        except BaseException:
            if self.sidecar:
                self.sidecar.abandon()
            raise
        try:
            self.target.check_format(settings.format)
            self.plan = _plan(machine, settings, self.target, dump_id)
            # What goes through a pipe cannot be written twice, and nothing older lies there.
            self._wished = dump_id is not None and self.target.kind is not Kind.STREAM
            if self.plan.book == "sidecar" and self.sidecar is None:
                self.sidecar = self._open_sidecar(settings)
            self._expect_room(machine, settings)
            self._make_room()
        except BaseException:
            self.abandon()
            raise

    @property
    def path(self) -> str:
        """Where the dump lies now; see publish()."""
        return self.target.path

    def _expect_room(self, machine: Machine, settings: DumpSettings) -> None:
        """All refusals that are left; nothing is lost by them."""
        self.target.expect_room(self.plan.total_size)
        if self.sidecar:
            self.sidecar.expect_room(self.plan.book_size)
        if not settings.force:
            refuse_sealed(self.target, self.sidecar)
            expect_room(machine.arena, self.plan, self.target, self.sidecar)

    def _make_room(self) -> None:
        """An older sidecar goes, durably, before the memory that it may vouch for is touched: zeros
        with a good seal would be left if we, or the power, fail in between."""
        self._retire_old_sidecar()
        if self.sidecar:
            self.sidecar.prepare(self.plan.book_size)
            self.sidecar.sync()
        self.target.prepare(self.plan.total_size)
        self.book.reserve(*self.plan.description)

    def _open_sidecar(self, settings: DumpSettings) -> Target:
        goal = self.target.goal
        usual = sidecar_path(goal.path if goal else self.path, os.fstat(self.target.fd))
        chosen = settings.sidecar if isinstance(settings.sidecar, str) else None
        ours = self.target.kind is Kind.BLOCK and chosen is None
        return open_sidecar(
            chosen or usual, force=settings.force, beside=self.target, make_folder=ours
        )

    @property
    def book(self) -> Target:
        """The file with superblock and granule table."""
        return self.sidecar or self.target

    def for_core(self) -> CoreFiles:
        """What the C core needs of both."""
        pipe = self.target if isinstance(self.target, PipeTarget) else None
        return CoreFiles(self.target.fd, self.book.fd, self.target.reads_zero, pipe, self.since)

    def patience(self, settings: DumpSettings) -> AbstractContextManager[None]:
        """Around INIT: the reader of a pipe that does not read ends it, and nothing else could."""
        return self.target.patience(settings.stall_deadline)

    def open(self, meta: Mapping[str, object]) -> None:
        """INIT: any older dump there is invalid from here on. Under a wished id, which an older
        table there may have too, it is a nameless one until opened()."""
        plan = replace(self.plan, dump_id=new_dump_id()) if self._wished else self.plan
        apply(plan.opening(meta), self.target, self.sidecar)

    def opened(self, meta: Mapping[str, object]) -> None:
        """INIT: the core has made the table empty."""
        if self._wished:
            apply(self.plan.renamed(meta), self.target, self.sidecar)

    def _retire_old_sidecar(self) -> None:
        """An older raw dump here would be taken for what lies there now, also if we are killed
        before that is a dump. TargetError: it cannot be removed."""
        usual = sidecar_path(self.path, os.fstat(self.target.fd))
        try:
            if self.target.kind is Kind.FILE:
                self._retire_beside(os.path.basename(usual))
            elif (
                self.target.kind is Kind.BLOCK
                and _is_at(self.path, self.target)
                and not (
                    self.sidecar and _is_at(usual, self.sidecar)  # it is overwritten
                )
            ):
                retire_sidecar(usual)
        except OSError as error:
            raise TargetError(
                f"cannot remove {usual} of an older dump: {os_cause(error.errno or 0)}",
                errno=error.errno or 0,
            ) from error

    def _retire_beside(self, name: str) -> None:
        folder, goal = self.target.folder, self.target.goal
        if folder is None:
            return
        if goal and goal.standing:
            finish_rename(folder, goal.name + SIDECAR, goal.standing)
        retire_in(folder, name, self.sidecar.identity if self.sidecar else None)

    def started(
        self, registers: Sequence[Registers], notes: Sequence[Note], meta: Mapping[str, object]
    ) -> None:
        """After START: what a broken-off dump can say of its instant."""
        self.plan = self.plan.with_notes(notes)
        apply(self.plan.started(registers, meta), self.target, self.sidecar)

    def seal(
        self,
        verdict: VerdictWord,
        registers: Sequence[Registers],
        meta: Mapping[str, object],
        total_size: int | None = None,
    ) -> None:
        """FINISH: sync, seal, sync. `total_size`: of the target, where INIT could not know it; what
        was to be appended to a full one is not there. TargetError, also when the dump
        would not be found by its name: then it is not sealed."""
        self.target.expect_name()
        self.book.expect_name()
        if total_size is not None and self.target.kind is not Kind.STREAM:
            total_size = min(total_size, self.target.size)
        steps = self.plan.seal(verdict, meta, registers, total_size=total_size)
        apply(steps, self.target, self.sidecar)
        self.target.complete()

    def publish(self, verdict: VerdictWord) -> None:
        """After the seal: the dump gets its name. TargetError: it lies where it lies, and why."""
        itself = self.plan.format != "raw"
        publish(self.target, self.sidecar, verdict, describes_itself=itself)

    def close(self) -> None:
        """Close both files; harmless when done twice."""
        self.target.close()
        if self.sidecar:
            self.sidecar.close()

    def discard(self) -> None:
        """Close a dump that never began: what was made beside the last one has nothing of any."""
        if self.target.goal:
            self.abandon()
        else:
            self.close()

    def abandon(self) -> None:
        """Close, and take away what was made for this dump: it has nothing of one."""
        self.target.abandon()
        if self.sidecar:
            self.sidecar.abandon()
