# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines, one after the other: the exit code of each, in a file."""

from __future__ import annotations

import json
import sys

from livedumpfs.cli.output import keep_descriptors

keep_descriptors()
from livedumpfs.cli.main import main  # noqa: E402 - as the command itself does it


def end(words):
    try:
        return main(words)
    except SystemExit as ended:
        return ended.code


codes = [end(line.split()) for line in sys.argv[2:]]
with open(sys.argv[1], "w") as file:
    json.dump(codes, file)
