# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole dump in one call, to whatever the target is."""

from __future__ import annotations

import os
from functools import partial
from typing import Protocol

from livedumpfs.dump.array_save import InMemory, save_arrays
from livedumpfs.dump.dump_files import TargetLike
from livedumpfs.dump.saved_to_store import is_store_target, save_to_store
from livedumpfs.errors import UsageError
from livedumpfs.formats import VerdictWord
from livedumpfs.named.places import is_for_arrays
from livedumpfs.settings import DumpSettings


class InOneCall(InMemory, Protocol):
    """LiveDump, as far as it is needed here."""

    def init(
        self,
        target: TargetLike | None,
        settings: DumpSettings | None = None,
        *,
        since: bytes = b"",
        reference: int = -1,
    ) -> None: ...
    def sweep(self) -> None: ...
    def finish(self, timeout: float | None = None, *, check: bool = True) -> VerdictWord: ...


def save_in_one_call(
    live: InOneCall, target: TargetLike | None, settings: DumpSettings | None, *, check: bool
) -> VerdictWord:
    """See LiveDump.save."""
    if target is None:
        raise UsageError(
            "save needs a target: what is only in memory is gone with its release",
            hint="init(None) and start() give a snapshot",
        )
    if is_for_arrays(target):
        return save_arrays(live, os.fspath(target), settings, check=check)
    if is_store_target(target):
        settings = settings or DumpSettings()
        save = partial(_all_steps, live, check=check)
        return save_to_store(target, settings, live.machine, save).record.verdict
    return _all_steps(live, target, settings, check=check)


def _all_steps(
    live: InOneCall,
    target: TargetLike,
    settings: DumpSettings | None,
    since: bytes = b"",
    *,
    check: bool,
) -> VerdictWord:
    live.init(target, settings, since=since)
    try:
        live.start()
        live.sweep()
        return live.finish(check=check)
    finally:
        live.release()
