# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole dump of this process's machine into a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeGuard

from livedumpfs.core.capi import lib
from livedumpfs.dump.tracking import bases_of
from livedumpfs.errors import InconsistentDump, InvalidDump, UsageError
from livedumpfs.machines import Machine, page_size_of
from livedumpfs.settings import DumpSettings
from livedumpfs.targets import Target, adopt_target

if TYPE_CHECKING:
    from livedumpfs.stores.receive import Published

_SCHEME: Final = "store:"


def is_store_target(target: object) -> TypeGuard[str]:
    """Whether it names a store, by its scheme or by what is there."""
    if not isinstance(target, str) or not (
        target.startswith(_SCHEME) or "#" in target or os.path.isdir(target)
    ):
        return False
    from livedumpfs.stores import takes_dumps

    return takes_dumps(target)


def save_to_store(
    url: str,
    settings: DumpSettings,
    machine: Machine,
    save: Callable[[Target, DumpSettings, bytes], object],
) -> Published:
    """Let `save` write the dump into a pipe, whose reader is a process of its own; its last
    argument is the base that the store has, b"": none. UsageError:
    format or granule are not for this store; what `save` raises; TargetError: the store failed."""
    from livedumpfs.stores.receiver import Receiver

    settings.check()
    if settings.format != "elf":
        raise UsageError(f"a store takes dumps of format elf, not {settings.format}")
    torn: InconsistentDump | None = None
    bases = bases_of(machine.arena) if settings.track else ()
    with Receiver(url, bases=bases, granule=settings.granule) as receiver:
        fitted = replace(settings, granule=_granule(settings, machine, receiver.chunk_size))
        end, receiver.write_end = receiver.write_end, -1
        target = adopt_target(end, url)
        try:
            save(target, fitted, receiver.base)
        except InconsistentDump as error:
            torn = error
        try:
            published = receiver.finish()
        except InvalidDump as error:  # it ended before its time; why is known here
            raise torn or error from error
    if torn:
        raise torn
    return published


def _granule(settings: DumpSettings, machine: Machine, chunk_size: int) -> int:
    usual = int(lib.ldfs_granule_default(machine.arena.size))
    return settings.granule or max(usual, chunk_size, page_size_of(machine))
