# SPDX-License-Identifier: GPL-2.0-or-later
"""The target of a dump and its sidecar, opened with the rights of the task that asks."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from livedumpfs.control.caller import Caller
from livedumpfs.control.settings_files import Settings
from livedumpfs.errors import TargetError
from livedumpfs.rights.helper import Helper
from livedumpfs.targets import (
    Kind,
    Rights,
    Target,
    open_error,
    open_sidecar,
    open_target,
    sidecar_path,
)

_KINDS = {"memdump": Kind.BLOCK, "filedump": Kind.FILE}


def open_for(caller: Caller, settings: Settings) -> tuple[Target, Target | None]:
    """Open and check the target and, of a raw dump, its sidecar.

    TargetError with the errno that the caller itself would have got, or that of open_target;
    EINVAL when it is not of the kind that control/type demands; UsageError: a pipe, and not for
    this format. Nothing that is there is changed.
    """
    dump = settings.dump
    with _rights_of(caller, settings.output) as rights:
        target = open_target(settings.output, force=dump.force, rights=rights)
        try:
            target.check_format(dump.format)
            _expect_kind(target, settings)
            if dump.format != "raw" or dump.table == "tail":
                return target, None
            chosen = dump.sidecar if isinstance(dump.sidecar, str) else None
            return target, _open_sidecar(rights, chosen, target, force=dump.force)
        except BaseException:
            target.abandon()
            raise


def _expect_kind(target: Target, settings: Settings) -> None:
    wanted = _KINDS.get(settings.type)
    if wanted is not None and target.kind is not wanted:
        raise TargetError(
            f"cannot dump to {settings.output}: it is a {target.kind.value}",
            errno=errno.EINVAL,
            hint=f"control/type is {settings.type}",
        )


def _open_sidecar(rights: Rights, path: str | None, target: Target, *, force: bool) -> Target:
    """`path`, or the usual place. A device's usual place is a directory of the host, so the host
    opens it; all else takes the caller's rights."""
    usual = sidecar_path(target.goal.path if target.goal else target.path, os.fstat(target.fd))
    if path is None and target.kind is Kind.BLOCK:
        return open_sidecar(usual, force=force, make_folder=True)
    return open_sidecar(path or usual, force=force, beside=target, rights=rights)


@contextlib.contextmanager
def _rights_of(caller: Caller, path: str) -> Iterator[Helper]:
    """Of the caller, as long as a folder is open that was found with them."""
    if caller.tid == 0:
        raise TargetError(
            f"cannot open {path}: the caller is in another pid namespace", errno=errno.EPERM
        )
    try:
        helper = Helper(caller.tid, caller.uid, caller.gid)
    except OSError as error:
        raise open_error(path, error) from error
    try:
        yield helper
    finally:
        helper.let_go()
