# SPDX-License-Identifier: GPL-2.0-or-later
"""A file server of root's that acts as the user argv[1], a member of the group argv[2], for one
call: that of init_targets.py."""

from __future__ import annotations

import ctypes
import os
import sys

from init_targets import init_all

user, group = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([group])
libc = ctypes.CDLL(None)
libc.setfsgid(user)
libc.setfsuid(user)
init_all(*sys.argv[3:])
