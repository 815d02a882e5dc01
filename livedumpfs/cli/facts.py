# SPDX-License-Identifier: GPL-2.0-or-later
"""`--json`: facts for programs, in one form. docs/json.md lists the members of each command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, Final

from livedumpfs.cli.outcome import Exit, answer

SCHEMA: Final = "livedump/1"
"""The number goes up when a member goes away or changes its meaning; new members may come."""


def add_json(parser: argparse.ArgumentParser, help: str = "all of it, for programs") -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=help)


def tell_facts(command: str, content: Mapping[str, Any], code: int = Exit.DONE) -> int:
    """Print one object. Returns `code`, or FAILED as answer() does."""
    found = {"schema": SCHEMA, "command": command, **content}
    return answer(json.dumps(found, indent=2), code)
