# SPDX-License-Identifier: GPL-2.0-or-later
"""With which errno a step is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable

from livedumpfs.errors import LivedumpError


def refused(step: Callable[[], object]) -> int:
    """0: it is not."""
    try:
        step()
    except LivedumpError as error:
        print(error, file=sys.stderr)
        return error.errno or 0
    return 0
