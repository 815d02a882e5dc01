# SPDX-License-Identifier: GPL-2.0-or-later
"""INIT at the host that is mounted at argv[1], with a target below what is not there: argv[2]."""

from __future__ import annotations

import fcntl
import sys

with open(sys.argv[1] + "/livedump") as device:
    try:
        fcntl.ioctl(device, 0xFF64, sys.argv[2].encode() + b"/x\0")
    except OSError as error:
        print(error.errno)
