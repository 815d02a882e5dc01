# SPDX-License-Identifier: GPL-2.0-or-later
"""INIT at the device argv[1], over whatever lies on the target argv[2]."""

from __future__ import annotations

import sys

from livedumpfs.client import Client, InitOptions

Client(sys.argv[1]).init(sys.argv[2], InitOptions(force=True))
