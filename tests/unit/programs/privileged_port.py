# SPDX-License-Identifier: GPL-2.0-or-later
"""Listen at a port without a right to it, and print what is said."""

import os
import sys

from livedumpfs.errors import HostError
from livedumpfs.mount.metrics_address import MetricsAddress

if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
try:
    MetricsAddress("127.0.0.1", int(sys.argv[1])).listen()
except HostError as error:
    print(error)
