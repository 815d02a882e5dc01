# SPDX-License-Identifier: GPL-2.0-or-later
"""A client that starts a dump and stays; a third argument: its dump is released with it."""

from __future__ import annotations

import sys
import time

from livedumpfs.client import Client, InitOptions

client = Client(sys.argv[1])
client.init(sys.argv[2], InitOptions(release_on_close=len(sys.argv) > 3))
client.start()
print("started", flush=True)
time.sleep(600)
