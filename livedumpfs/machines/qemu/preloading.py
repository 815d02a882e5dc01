# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the dynamic loader would bring our shim into a program (ld.so(8), LD_PRELOAD)."""

from __future__ import annotations

import contextlib
import os
import stat

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

_CAPABILITIES = "security.capability"


def why_not_preloaded(path: str) -> str:
    """Why not into the executable file; empty: no reason can be seen, or it is a script."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            kinds = {one["p_type"] for one in ELFFile(file).iter_segments()}
    except (OSError, ELFError):  # the error comes when it is started
        return ""
    if "PT_INTERP" not in kinds:
        return "it is statically linked"
    if status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid():
        return "it is set-user-ID"
    if status.st_mode & stat.S_ISGID and status.st_gid != os.getegid():
        return "it is set-group-ID"
    with contextlib.suppress(OSError):
        if os.getxattr(path, _CAPABILITIES) and os.geteuid() != 0:
            return "it has capabilities of its own"
    return ""
