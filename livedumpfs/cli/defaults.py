# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host's INIT goes by unless it is told otherwise: options of `host` and `qemu`.

The untyped INIT of the kernel patches says nothing but a path, so a program that was written for
them gets what its host was started with; `control/` begins with it, too.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from livedumpfs.cli.arguments import add_settings
from livedumpfs.cli.connect import refuse_foreign
from livedumpfs.errors import TargetError

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
    refuse_foreign(args)
    settings = _given_settings(args)
    settings.check()
    return settings


@contextlib.contextmanager
def usage_first(args: argparse.Namespace) -> Iterator[None]:
    """Around an INIT with the options of `args`: UsageError when it was refused for a value that no
    host takes. Only then it is looked for, because that needs the whole package."""
    try:
        yield
    except TargetError as error:
        if error.errno == errno.EINVAL:
            _given_settings(args).check_values()
        raise


def _given_settings(args: argparse.Namespace) -> DumpSettings:
    from livedumpfs.dump import DumpSettings

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
    return replace(DumpSettings(), **{name: value for name, value in given.items() if value})


def default_output(args: argparse.Namespace) -> str:
    """Absolute: a caller of INIT has a working directory of its own. "": none."""
    return os.path.abspath(args.output) if args.output else ""
