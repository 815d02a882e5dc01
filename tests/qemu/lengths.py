# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the tests of QEMU guests are: `make test-qemu` sets LIVEDUMP_QEMU_DUMPS=20."""

from __future__ import annotations

import os

DUMPS = int(os.environ.get("LIVEDUMP_QEMU_DUMPS", "3"))
"""Live dumps of one guest, each compared."""
LONG = DUMPS >= 10
"""`make test-qemu`: also what `make test` tries with smaller guests, or with firmware instead of a
kernel."""
MEMORY = 1024 if LONG else 512
"""MiB of the guest that most tests share."""
