# SPDX-License-Identifier: GPL-2.0-or-later
"""What INIT prepares: the files on the target and the core's part. The target may hang, so this is
an errand: INIT waits for a limited time, and what comes of it later is given up."""

from __future__ import annotations

import os

from livedumpfs.dump.dump_files import DumpFiles, TargetLike
from livedumpfs.dump.hanging import reap
from livedumpfs.dump.remote import make_core
from livedumpfs.dump.run import DumpRun
from livedumpfs.machines import LimitsVcpus, Machine
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
) -> DumpRun:
    """A dump of the machine that START can follow. `target`: see LiveDump.init; None: memory only,
    and no errand. TargetError (ETIMEDOUT: the target hangs), MachineError,
    StateError; nothing is left behind then, and an adopted target is abandoned."""
    if target is None:
        run = DumpRun(machine, settings, None)
        _limit_vcpus(machine, None)
        run.take(make_core(machine, settings, None, reference=reference))
        return run

    def work() -> DumpRun:
        files = DumpFiles(machine, settings, target)
        run = DumpRun(machine, settings, files)
        _limit_vcpus(machine, files.plan.machine.vcpus)
        try:
            with files.patience(settings):
                files.open(run.describe())
                run.take(
                    make_core(machine, settings, files.plan, files.for_core(), reference=reference)
                )
        except BaseException:
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


def _limit_vcpus(machine: Machine, most: int | None) -> None:
    """`most`: those that the files have room for; a dump in memory has room for all."""
    if isinstance(machine, LimitsVcpus):
        machine.limit_vcpus(most)


def _give_up(run: DumpRun) -> None:
    """What was prepared for an INIT that has failed meanwhile."""
    run.free()
    reap(run)


def abandon(target: TargetLike | None, settings: DumpSettings) -> None:
    """Close the open files that INIT was given and has not begun to use."""
    for given in (target, settings.sidecar):
        if not isinstance(given, (str, type(None))) and hasattr(given, "abandon"):
            given.abandon()
