# SPDX-License-Identifier: GPL-2.0-or-later
"""Why there can be no helper for the process argv[1]."""

from __future__ import annotations

import sys

from livedumpfs.rights.helper import Helper

try:
    Helper(int(sys.argv[1]), 7, 7)
except OSError as error:
    print(error.errno, error.strerror)
