# SPDX-License-Identifier: GPL-2.0-or-later
"""Root gives up all that it is, for one user."""

from __future__ import annotations

import os
from collections.abc import Sequence


def become(user: int, groups: Sequence[int], umask: int) -> None:
    """The user's own group has the same number."""
    os.umask(umask)
    os.setgroups(groups)
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
