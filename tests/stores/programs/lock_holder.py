# SPDX-License-Identifier: GPL-2.0-or-later
"""Holds the lock of a store alone until it is killed: lock_holder.py PLACE."""

from __future__ import annotations

import sys
import threading

from livedumpfs.stores.store import open_objects

if __name__ == "__main__":
    with open_objects(sys.argv[1]).lock(alone=True, wait_s=0):
        print("held", flush=True)
        threading.Event().wait(300)
