# SPDX-License-Identifier: GPL-2.0-or-later
"""A client within the old ioctl of SWEEP, which returns when the sweep has ended."""

from __future__ import annotations

import fcntl
import sys

from livedumpfs import abi

with open(sys.argv[1]) as device:
    print("asking", flush=True)
    fcntl.ioctl(device, abi.SWEEP)
