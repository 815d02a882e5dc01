# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line."""

from __future__ import annotations

import sys

from livedumpfs.cli.main import main

sys.exit(main(sys.argv[1:]))
