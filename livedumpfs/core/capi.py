# SPDX-License-Identifier: GPL-2.0-or-later
"""The only importer of the C core. Turns its -errno answers into exceptions."""

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
    """`rc` when it is not negative, else `error`: "cannot <doing>: <cause>"."""
    if rc >= 0:
        return rc
    raise error(f"cannot {doing}: {os_cause(-rc)}", errno=-rc, hint=hint)


class PythonOps:
    """struct ldfs_quiesce_ops of Python functions; `ops` is valid as long as this object.

    `then` is called when all stand. An exception of any of them is kept in `error`, as is one that
    a signal's handler raises before, between or after them; the core arms only when `quiesce` and
    `then` have returned. `let_go` belongs after START: what quiesce held is resumed, once.
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

    def hold(self) -> None:
        """Quiesce."""
        self._quiesce()
        self._held = True
        self._then()

    def let_go(self) -> None:
        """Resume, if nobody has since they were held."""
        if self._held:
            self._held = False
            self._resume()


def _keep(_: type[BaseException], error: BaseException, traceback: TracebackType) -> None:
    """What came out of a callback, or of a signal's handler before its first line: there it would
    be printed and forgotten, and the callback left out."""
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
