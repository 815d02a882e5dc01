# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a dump goes: a block device, a regular file or a pipe, opened and checked before anything
is lost.

`open_target` opens with this process's rights, `adopt_target` takes an fd that somebody else opened
(the helper process that has the caller's rights) with `open_flags`. All checks are made on the open
fd. Nothing is written by either; `Target.prepare` is the first call that changes something.
"""

from __future__ import annotations

from livedumpfs.targets.check import open_flags, refuse_kind
from livedumpfs.targets.errand import Errands, start_thread
from livedumpfs.targets.sidecar import retire_sidecar, sidecar_path
from livedumpfs.targets.target import (
    OPEN_HINTS,
    Kind,
    Target,
    adopt_sidecar,
    adopt_target,
    apply,
    open_sidecar,
    open_target,
)

__all__ = [
    "OPEN_HINTS",
    "Errands",
    "Kind",
    "Target",
    "adopt_sidecar",
    "adopt_target",
    "apply",
    "open_flags",
    "open_sidecar",
    "open_target",
    "refuse_kind",
    "retire_sidecar",
    "sidecar_path",
    "start_thread",
]
