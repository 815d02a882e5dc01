# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump by the device argv[1] to `out` in the working directory."""

from __future__ import annotations

import sys

from livedumpfs.client import Client

client = Client(sys.argv[1])
client.init("out")
client.start()
client.sweep()
client.finish()
client.release()
