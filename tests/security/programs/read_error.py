# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the last error of the host that is mounted at argv[1]."""

from __future__ import annotations

import sys

with open(sys.argv[1] + "/control/error") as file:
    print(file.read())
