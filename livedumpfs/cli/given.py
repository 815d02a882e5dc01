# SPDX-License-Identifier: GPL-2.0-or-later
"""From the options of a command to the settings of a dump."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import Any

from livedumpfs.errors import UsageError
from livedumpfs.kinds import FilePath
from livedumpfs.settings import OPTIONS, DumpSettings


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The options of add_settings that were given, by the names of their rows. UsageError: some
    exclude each other, or a value is impossible for any dump."""
    found = {one.name: value for one in OPTIONS if (value := getattr(args, one.name, None))}
    _refuse_foreign(found)
    replace(DumpSettings(), **found).check_values()
    return found


def given_settings(args: argparse.Namespace) -> DumpSettings:
    """The same as settings for a host. Paths are made absolute, because a caller of INIT has its
    own working directory."""
    found = given(args)
    paths = {one.name for one in OPTIONS if isinstance(one.kind, FilePath)} & found.keys()
    found |= {name: os.path.abspath(found[name]) for name in paths}
    return replace(DumpSettings(), **found)


def _refuse_foreign(found: dict[str, Any]) -> None:
    """UsageError: an option that belongs to another format than the given one."""
    format = found.get("format")
    for one in OPTIONS:
        if one.name in found and format and not one.goes_with(format):
            raise UsageError(f"{one.flag} goes with --format {one.formats[0]}, not with {format}")
    if "sidecar" in found and found.get("table") == "tail":
        raise UsageError("--sidecar does not go with --table tail")
