# SPDX-License-Identifier: GPL-2.0-or-later
"""ArraySave: one save of arrays, from what is refused before anything is written to the group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from livedumpfs import __version__
from livedumpfs.closing import Closing
from livedumpfs.compression import check_compression, usual_threads
from livedumpfs.core.array_info import ArrayInfo
from livedumpfs.formats import VerdictWord
from livedumpfs.named.group_target import GroupTarget
from livedumpfs.named.icechunk_group import IcechunkGroup
from livedumpfs.named.local_group import LocalGroup
from livedumpfs.named.object_group import ObjectGroup
from livedumpfs.named.places import is_icechunk, is_object_store
from livedumpfs.named.save_record import SaveRecord, new_id
from livedumpfs.named.writing import OnArrayBytes, Origin, PieceCounts, Writer, plan_arrays


def group_target(path: str, *, force: bool) -> GroupTarget:
    """By what the path names. TargetError: something else is there."""
    if is_icechunk(path):
        return IcechunkGroup(path, force=force)
    if is_object_store(path):
        return ObjectGroup(path, force=force)
    return LocalGroup(path, force=force)


class ArraySave(Closing):
    """`begin`, then `write` what a snapshot or a dump has, then `publish`. Closed before that it
    leaves nothing."""

    def __init__(
        self,
        path: str,
        named: Sequence[ArrayInfo],
        *,
        force: bool = False,
        compression: str = "zstd",
        level: int = 0,
        threads: int = 0,
    ) -> None:
        """UsageError: an array that cannot be in a group, or none. TargetError: the path has
        something else. MissingPackage."""
        check_compression(compression, level)
        self._threads = usual_threads(threads)
        sharded = not is_icechunk(path)
        self._plans = plan_arrays(named, sharded, compression, level)
        self._target = group_target(path, force=force)
        self.path = self._target.path
        self.written = PieceCounts()
        self._writer: Writer | None = None

    def begin(self) -> None:
        """Make the group, which cannot be opened yet. TargetError."""
        self._target.begin({plan.info.name: plan.document for plan in self._plans})

    def write(
        self, origin: Origin, *, accept_missing: bool = False, progress: OnArrayBytes | None = None
    ) -> None:
        """All arrays. OSError EIO: something is lost. TargetError: it cannot be written."""
        self._writer = Writer(
            self._target, self._plans, origin, accept_missing=accept_missing, progress=progress
        )
        self.written = self._writer.written
        self._writer.run(self._threads)

    @property
    def lost(self) -> dict[str, int]:
        """Bytes of each array that were lost, of those that have any."""
        return {
            plan.info.name: sum(one.end - one.first for one in plan.missing)
            for plan in self._plans
            if plan.missing
        }

    def publish(
        self, verdict: VerdictWord, said: Mapping[str, Any], arena_size: int, reason: str | None
    ) -> None:
        """`said`: what the dump says of itself. TargetError."""
        instant = said.get("instant")
        self._target.publish(
            SaveRecord(
                version=1,
                dump_id=new_id(),
                verdict=verdict,
                host_version=__version__,
                instant=dict(instant) if isinstance(instant, dict) else {},
                arena_size=arena_size,
                arrays={plan.info.name: plan.record(self._target.stamped) for plan in self._plans},
                pause_ns=int(said.get("pause_ns") or 0),
                reason=reason,
            )
        )

    def close(self) -> None:
        """See above. Waits for what a thread still writes."""
        if self._writer:
            self._writer.close()
        self._target.close()
