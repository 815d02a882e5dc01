# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host's INIT goes by unless it is told otherwise: options of `host` and `qemu`.

The untyped INIT of the kernel patches says nothing but a path, so a program that was written for
them gets what its host was started with; `control/` begins with it, too.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from livedumpfs.cli.connect import refuse_foreign
from livedumpfs.cli.options import add_settings

if TYPE_CHECKING:
    from livedumpfs.dump import DumpSettings


def add_defaults(parser: argparse.ArgumentParser) -> None:
    """Those of add_settings, and where to."""
    parser.add_argument(
        "--output",
        metavar="TARGET",
        help="where INIT writes to when it names no target; as control/output",
    )
    add_settings(parser)


def default_settings(args: argparse.Namespace) -> DumpSettings:
    """UsageError: some that make no sense, or not together."""
    from livedumpfs.dump import DumpSettings

    refuse_foreign(args)
    given: dict[str, Any] = {
        "format": args.format,
        "policy": args.policy,
        "arming": args.arming,
        "backend": args.backend,
        "granule": args.granule,
        "pool": args.pool,
        "spill_limit": args.spill_limit,
        "sweep_rate": args.sweep_rate,
        "stall_deadline": args.deadline,
        "force": args.force,
        "buffered": args.buffered,
        "sidecar": args.sidecar and os.path.abspath(args.sidecar),
        "table": args.table,
        "compression": args.compress,
        "level": args.level,
        "threads": args.threads,
        "max_age": args.max_age,
    }
    settings = replace(DumpSettings(), **{name: value for name, value in given.items() if value})
    settings.check()
    return settings


def default_output(args: argparse.Namespace) -> str:
    """Absolute: a caller of INIT has a working directory of its own. "": none."""
    return os.path.abspath(args.output) if args.output else ""
