# SPDX-License-Identifier: GPL-2.0-or-later
"""What the opener says to the ids of its own task, each with a change (JSON): argv[2:]. argv[1]:
the user that it becomes before."""

from __future__ import annotations

import json
import os
import sys

from livedumpfs.rights import opener


def tell(change: dict[str, object]) -> None:
    own = opener.read_task("self")
    try:
        opener.take_ids(own._replace(**change), own)
        print("done", os.getresuid())
    except OSError as error:
        print(error.errno, error.strerror)


if user := int(sys.argv[1]):
    opener.read_task("self")  # loads what its user may not read
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
for one in sys.argv[2:]:
    tell(json.loads(one))
