# SPDX-License-Identifier: GPL-2.0-or-later
"""The only module that imports the C core. It turns the core's -errno results into exceptions."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType
from typing import Any

from livedumpfs._native import ffi, lib
from livedumpfs.errors import LivedumpError, os_cause

CData = Any
"""A cffi object; cffi has no types for them."""

__all__ = ["CData", "PythonOps", "check", "ffi", "lib"]


def check(rc: int, doing: str, error: type[LivedumpError] = LivedumpError, hint: str = "") -> int:
    """`rc` when it is not negative; else raises `error` with the sentence "cannot <doing>:
    <cause>"."""
    if rc >= 0:
        return rc
    raise error(f"cannot {doing}: {os_cause(-rc)}", errno=-rc, hint=hint)


class PythonOps:
    """Python functions as the core's struct ldfs_quiesce_ops; `ops` is valid as long as this
    object.

    START calls `quiesce`, then `then` when all writers are stopped, and `resume` at the end. An
    exception that one of them raises is kept in `error`; so is one that a signal handler raises
    before, between or after them. The core protects the memory (arms it) only when `quiesce` and
    `then` have returned. Call `let_go` after START: it resumes what `quiesce` stopped, once.
    """

    def __init__(
        self,
        quiesce: Callable[[], object],
        resume: Callable[[], object],
        then: Callable[[], object] = lambda: None,
    ) -> None:
        self._quiesce = quiesce
        self._then = then
        self._resume = resume
        self._held = False
        self.error: BaseException | None = None
        self._self = ffi.new_handle(self)
        self.ops = ffi.new("ldfs_quiesce_ops *")
        self.ops.quiesce = lib.livedumpfs_quiesce
        self.ops.resume = lib.livedumpfs_resume
        self.ops.ctx = self._self

    def close(self) -> None:
        """Call it when the core will not call these functions any more. Otherwise the reference
        cycle keeps all objects that they refer to until the garbage collector runs."""
        self._self = self.ops = None

    def hold(self) -> None:
        """Quiesce, then call `then`."""
        self._quiesce()
        self._held = True
        self._then()

    def let_go(self) -> None:
        """Resume, unless that was done since the last `hold`."""
        if self._held:
            self._held = False
            self._resume()


def _keep(_: type[BaseException], error: BaseException, traceback: TracebackType) -> None:
    """Keep what came out of a callback, or out of a signal handler that ran before the callback's
    first line. cffi would print it and forget it, and the callback would not have run."""
    ops: PythonOps = ffi.from_handle(traceback.tb_frame.f_locals["context"])
    ops.error = ops.error or error


@ffi.def_extern(error=-errno.ECANCELED, onerror=_keep)  # type: ignore[untyped-decorator]
def livedumpfs_quiesce(context: CData, _deadline_ns: int) -> int:
    """Called by ldfs_dump_start, with the GIL."""
    ops: PythonOps = ffi.from_handle(context)
    ops.hold()
    return 0


@ffi.def_extern(onerror=_keep)  # type: ignore[untyped-decorator]
def livedumpfs_resume(context: CData) -> None:
    """Called by ldfs_dump_start, with the GIL."""
    ops: PythonOps = ffi.from_handle(context)
    ops.let_go()
