# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that stops the guest, and has no more to say."""

from __future__ import annotations

import time

from started_machine import started

machine = started()
machine.quiesce()
print(machine.monitor.status(), flush=True)
time.sleep(600)
