# SPDX-License-Identifier: GPL-2.0-or-later
"""INIT and START of a target, by a process that is not as the one that started it.

Each further argument is MOMENT:WHAT:VALUE; MOMENT is "first", before the device is opened, or
"then", before it is asked. groups:USER,GROUP,...: gives up root for that user, a member of
these groups besides the own group; chroot:FOLDER."""

from __future__ import annotations

import os
import sys

from livedumpfs.client import Client
from livedumpfs.errors import LivedumpError

device, target, *changes = sys.argv[1:]


def change(now: str) -> None:
    for one in changes:
        moment, what, value = one.split(":", 2)
        if moment != now:
            continue
        if what == "chroot":
            os.chroot(value)
            os.chdir("/")
        else:
            user, *groups = map(int, value.split(","))
            os.setgroups(groups)
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)


change("first")
client = Client(device)
change("then")
try:
    client.init(target)
    client.start()  # from here on the target stays, whatever becomes of the dump
    client.release()
    print("done")
except LivedumpError as error:
    print(error.errno, error)
