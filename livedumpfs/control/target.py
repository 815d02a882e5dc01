# SPDX-License-Identifier: GPL-2.0-or-later
"""The target of a dump and its sidecar, opened with the rights of who asks for the dump."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from livedumpfs import opener
from livedumpfs.control.caller import Caller
from livedumpfs.errors import TargetError, os_cause
from livedumpfs.targets import (
    OPEN_HINTS,
    Kind,
    Target,
    adopt_sidecar,
    adopt_target,
    open_sidecar,
    refuse_kind,
    sidecar_path,
)

_HINTS = {
    **OPEN_HINTS,
    errno.EEXIST: "it is a link that leads nowhere",
    errno.EPERM: "the host cannot act for this caller",
    errno.ETIMEDOUT: f"the device did not answer within {opener.TIMEOUT:g} s",
}

_KINDS = {"memdump": Kind.BLOCK, "filedump": Kind.FILE}


def open_for(
    caller: Caller, path: str, *, force: bool, kind: str = "auto", format: str = "elf"
) -> Target:
    """Open and check the target. `kind`: what control/type demands of it.

    TargetError with the errno that the caller himself would have got, or that of adopt_target;
    EINVAL when it is not of that kind; UsageError: a pipe, and not for this format. Nothing is
    written to it.
    """
    target = _open(caller, path, adopt_target, force=force)
    try:
        target.check_format(format)
        wanted = _KINDS.get(kind)
        if wanted is not None and target.kind is not wanted:
            raise TargetError(
                f"cannot dump to {path}: it is a {target.kind.value}",
                errno=errno.EINVAL,
                hint=f"control/type is {kind}",
            )
        return target
    except BaseException:
        target.abandon()
        raise


def open_sidecar_for(caller: Caller, path: str | None, target: Target, *, force: bool) -> Target:
    """Open the sidecar of a raw dump: `path`, or the usual place. A device's usual place is a
    directory of the host, so the host opens it; all else takes the caller's rights."""
    if path is None and target.kind is Kind.BLOCK:
        return open_sidecar(sidecar_path(target.path, os.fstat(target.fd)), force=force)
    name = path or sidecar_path(target.path, os.fstat(target.fd))
    return _open(caller, name, adopt_sidecar, force=force)


def _open(caller: Caller, path: str, adopt: Callable[..., Target], *, force: bool) -> Target:
    if caller.tid == 0:
        raise TargetError(
            f"cannot open {path}: the caller is in another pid namespace", errno=errno.EPERM
        )
    try:
        opened = opener.open_as(caller.tid, caller.uid, caller.gid, os.fsencode(path))
    except opener.Refused as error:
        code = error.errno or errno.EIO
        if error.mode:
            refuse_kind(os.stat_result((error.mode, *(0,) * 9)), path)
        raise TargetError(
            f"cannot open {path}: {os_cause(code)}", errno=code, hint=_HINTS.get(code, "")
        ) from error
    # Taking a new file away again, by its name, is an act of the host's own: only where the name
    # means the same file to it, and for one who has its rights anyway.
    made = opened.created and opened.same_root and caller.uid in (0, os.geteuid())
    return adopt(opened.fd, opened.path, force=force, created=made)
