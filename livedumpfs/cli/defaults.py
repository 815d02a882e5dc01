# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host's INIT goes by unless it is told otherwise: options of `host` and `qemu`.

The untyped INIT of the kernel patches says nothing but a path, so a program that was written for
them gets what its host was started with; `control/` begins with it, too.
"""

from __future__ import annotations

import argparse
import os

from livedumpfs.cli.arguments import add_settings
from livedumpfs.cli.given import given_settings
from livedumpfs.settings import OPTIONS, DumpSettings


def add_defaults(parser: argparse.ArgumentParser) -> None:
    """All options of a dump, and where to."""
    parser.add_argument(
        "--output",
        metavar="TARGET",
        help="where INIT writes to when it names no target; as control/output",
    )
    add_settings(parser, OPTIONS)


def default_settings(args: argparse.Namespace) -> DumpSettings:
    """UsageError: some that make no sense, or not together."""
    settings = given_settings(args)
    settings.check()
    return settings


def default_output(args: argparse.Namespace) -> str:
    """Absolute: a caller of INIT has a working directory of its own. "": none."""
    return os.path.abspath(args.output) if args.output else ""
