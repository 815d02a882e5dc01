# SPDX-License-Identifier: GPL-2.0-or-later
"""The target of a dump and its sidecar, opened with the rights of who asks for the dump."""

from __future__ import annotations

import errno
import os
import stat

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
    errno.EAGAIN: "it became another file meanwhile",
    errno.EEXIST: "it is a link that leads nowhere",
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
    target = _adopt_for(caller, _open(caller, path), force=force)
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
    opened = _open(caller, name)
    return adopt_sidecar(opened.fd, opened.path, force=force, created=_made(caller, opened))


def _adopt_for(caller: Caller, opened: opener.Opened, *, force: bool) -> Target:
    # What lies beside the target is his business, too: the host must not look at it, let alone
    # remove it, with rights that he has not.
    own = opened.same_root and _has_our_rights(caller)
    beside = None
    if not own and stat.S_ISREG(os.fstat(opened.fd).st_mode):
        beside = _open_beside(caller, opened)
    made = _made(caller, opened)
    return adopt_target(opened.fd, opened.path, force=force, created=made, named=own, beside=beside)


def _open_beside(caller: Caller, opened: opener.Opened) -> int | None:
    """An older sidecar file of the target; None: none that he may write."""
    try:
        name = os.fsencode(sidecar_path(opened.path, os.fstat(opened.fd)))
        return opener.open_as(caller.tid, caller.uid, caller.gid, name, create=False).fd
    except opener.Refused:
        return None


def _has_our_rights(caller: Caller) -> bool:
    return caller.uid in (0, os.geteuid())


def _made(caller: Caller, opened: opener.Opened) -> bool:
    """Whether a new file may be taken away again. That, by its name, is an act of the host's own:
    only where the name means the same file to it, and for one who has its rights anyway."""
    return opened.created and opened.same_root and _has_our_rights(caller)


def _open(caller: Caller, path: str) -> opener.Opened:
    if caller.tid == 0:
        raise TargetError(
            f"cannot open {path}: the caller is in another pid namespace", errno=errno.EPERM
        )
    try:
        return opener.open_as(caller.tid, caller.uid, caller.gid, os.fsencode(path))
    except opener.Refused as error:
        code = error.errno or errno.EIO
        if error.mode:
            refuse_kind(os.stat_result((error.mode, *(0,) * 9)), path)
        said = "" if error.strerror in (None, os_cause(code)) else str(error.strerror)
        raise TargetError(
            f"cannot open {path}: {os_cause(code)}", errno=code, hint=said or _HINTS.get(code, "")
        ) from error
