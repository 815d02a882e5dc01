# SPDX-License-Identifier: GPL-2.0-or-later
"""The only importer of the C core. Turns its -errno answers into exceptions."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from livedumpfs._native import ffi, lib
from livedumpfs.errors import LivedumpError, os_cause

CData = Any
"""A cffi object; cffi has no types for them."""

__all__ = ["CData", "PythonOps", "check", "ffi", "lib"]


def check(rc: int, doing: str, error: type[LivedumpError] = LivedumpError, hint: str = "") -> int:
    """`rc` when it is not negative, else `error`: "cannot <doing>: <cause>"."""
    if rc >= 0:
        return rc
    raise error(f"cannot {doing}: {os_cause(-rc)}", errno=-rc, hint=hint)


class PythonOps:
    """struct ldfs_quiesce_ops of two Python functions; `ops` is valid as long as this object.

    An exception of either is kept in `error`; after one of `quiesce` the core does not arm.
    """

    def __init__(self, quiesce: Callable[[], object], resume: Callable[[], object]) -> None:
        self.quiesce = quiesce
        self.resume = resume
        self.error: BaseException | None = None
        self._self = ffi.new_handle(self)
        self.ops = ffi.new("ldfs_quiesce_ops *")
        self.ops.quiesce = lib.livedumpfs_quiesce
        self.ops.resume = lib.livedumpfs_resume
        self.ops.ctx = self._self

    def call(self, function: Callable[[], object]) -> int:
        """0, or -ECANCELED with the exception kept."""
        try:
            function()
        except BaseException as error:
            self.error = self.error or error
            return -errno.ECANCELED
        return 0


@ffi.def_extern()  # type: ignore[untyped-decorator]
def livedumpfs_quiesce(context: CData, _deadline_ns: int) -> int:
    """Called by ldfs_dump_start, with the GIL."""
    ops: PythonOps = ffi.from_handle(context)
    return ops.call(ops.quiesce)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def livedumpfs_resume(context: CData) -> None:
    """Called by ldfs_dump_start, with the GIL."""
    ops: PythonOps = ffi.from_handle(context)
    ops.call(ops.resume)
