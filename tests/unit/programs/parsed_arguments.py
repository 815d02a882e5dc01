# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses a command line; tells on stderr which modules that loaded."""

from __future__ import annotations

import contextlib
import sys

from livedumpfs.cli.main import build_parser

with contextlib.suppress(SystemExit):
    build_parser().parse_args(sys.argv[1:])
print(*sorted(sys.modules), file=sys.stderr)
