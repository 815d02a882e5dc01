# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a dump goes: a block device, a regular file or a pipe. It is opened and checked before any
data on it is lost.

`open_target` opens with this process's rights, or with those of a caller (`Rights`); `adopt_target`
takes an fd that was opened elsewhere. All checks use the open fd, and neither function changes
existing data. `Target.prepare` is the first call that destroys data. A dump to a regular file
destroys none there either: it is written to a new file beside it, and `publish` gives that file the
name when the dump is finished.
"""

from __future__ import annotations

from livedumpfs.targets.check import refuse_kind
from livedumpfs.targets.content import sealed_as
from livedumpfs.targets.errand import Errands
from livedumpfs.targets.names import SIDECAR, incomplete_name
from livedumpfs.targets.opening import (
    Rights,
    adopt_sidecar,
    adopt_target,
    open_error,
    open_in_place,
    open_sidecar,
    open_target,
)
from livedumpfs.targets.publish import publish
from livedumpfs.targets.series import expect_series, prune
from livedumpfs.targets.sidecar import (
    current_sidecar,
    finish_rename,
    retire_in,
    retire_sidecar,
    sidecar_path,
)
from livedumpfs.targets.space import expect_space
from livedumpfs.targets.target import Kind, Target, apply

__all__ = [
    "SIDECAR",
    "Errands",
    "Kind",
    "Rights",
    "Target",
    "adopt_sidecar",
    "adopt_target",
    "apply",
    "current_sidecar",
    "expect_series",
    "expect_space",
    "finish_rename",
    "incomplete_name",
    "open_error",
    "open_in_place",
    "open_sidecar",
    "open_target",
    "prune",
    "publish",
    "refuse_kind",
    "retire_in",
    "retire_sidecar",
    "sealed_as",
    "sidecar_path",
]
