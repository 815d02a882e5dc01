# SPDX-License-Identifier: GPL-2.0-or-later
"""A client that holds a host's machine, and waits to be killed. Arguments: the device, "held" or
"armed", seconds, and "on close" for RELEASE_ON_CLOSE."""

from __future__ import annotations

import sys
import time

from livedumpfs.client import Client, InitOptions

device, gap, seconds, on_close = sys.argv[1:]
client = Client(device)
dump_id = client.init_as(None, None, InitOptions(release_on_close=bool(on_close)))
client.hold(dump_id, float(seconds))
if gap == "armed":
    client.arm(dump_id)
print("held", flush=True)
time.sleep(600)
