# SPDX-License-Identifier: GPL-2.0-or-later
"""What INIT prepares: the files on the target and the core's part. The target may hang, so this is
an errand: INIT waits for a limited time, and what comes of it later is given up."""

from __future__ import annotations

import os

from livedumpfs.dump.dump_files import DumpFiles, TargetLike
from livedumpfs.dump.hanging import reap
from livedumpfs.dump.remote import make_core
from livedumpfs.dump.run import DumpRun
from livedumpfs.machines import HasCpuNotes, LimitsVcpus, Machine
from livedumpfs.machines.shim import init_seconds
from livedumpfs.settings import DumpSettings
from livedumpfs.targets import Errands, Target


def prepare(
    machine: Machine,
    settings: DumpSettings,
    target: TargetLike | None,
    errands: Errands,
    *,
    reference: int = -1,
    dump_id: bytes | None = None,
    since: bytes = b"",
) -> DumpRun:
    """A dump of the machine that START can follow. `target`, `dump_id`, `since`: see LiveDump.init;
    no target: memory only, and no errand. TargetError (ETIMEDOUT: the target hangs), MachineError,
    StateError; nothing is left behind then, and an adopted target is abandoned."""
    if target is None:
        run = DumpRun(machine, settings, None, dump_id)
        _tell(machine, settings, None)
        run.take(make_core(machine, settings, None, reference=reference))
        return run

    def work() -> DumpRun:
        files = DumpFiles(machine, settings, target, dump_id, since)
        run = DumpRun(machine, settings, files)
        _tell(machine, settings, files.plan.machine.vcpus)
        try:
            with files.patience(settings):
                files.open(run.describe())
                run.take(
                    make_core(machine, settings, files.plan, files.for_core(), reference=reference)
                )
                files.opened(run.describe())
        except BaseException:
            if run.core:
                _give_up(run)  # which closes the files, too
            files.abandon()
            raise
        return run

    path = target.path if isinstance(target, Target) else os.fspath(target)
    return errands.run(
        path,
        work,
        _give_up,
        settings.init_deadline,
        more=init_seconds(machine.arena.size),
        never=lambda: abandon(target, settings),
    )


def _tell(machine: Machine, settings: DumpSettings, most: int | None) -> None:
    """What this dump wants of it. `most`: the vCPUs that the files have room for; a dump in memory
    has room for all."""
    if isinstance(machine, LimitsVcpus):
        machine.limit_vcpus(most)
    if isinstance(machine, HasCpuNotes):
        machine.keep_cpu_notes(settings.cpu_notes)


def _give_up(run: DumpRun) -> None:
    """What was prepared for an INIT that has failed meanwhile."""
    run.free()
    reap(run)


def abandon(target: TargetLike | None, settings: DumpSettings) -> None:
    """Close the open files that INIT was given and has not begun to use."""
    for given in (target, settings.sidecar):
        if not isinstance(given, (str, type(None))) and hasattr(given, "abandon"):
            given.abandon()
