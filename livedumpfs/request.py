# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings in the structs of the ioctl interface, both ends of it. A leaf.

A path is left to its end: the client's is bytes, and the host's leads from the client's folder.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

from livedumpfs import abi
from livedumpfs.errors import UsageError
from livedumpfs.kinds import FilePath, Flag
from livedumpfs.option import Option
from livedumpfs.settings import OPTIONS, DumpSettings


def fill_init(
    request: abi.Init, values: Mapping[str, Any], rows: Sequence[Option] = OPTIONS
) -> None:
    """A typed INIT with those values, by the names of their rows; what is none, 0 or not there is
    as set in control/."""
    for one in rows:
        value = values.get(one.name)
        if not one.ioctl or not value or isinstance(one.kind, FilePath):
            continue
        if isinstance(one.kind, Flag):
            request.flags |= abi.InitFlag[one.ioctl]
        else:
            setattr(request, one.ioctl, one.kind.to_ioctl(value))


def read_init(request: abi.Init, rows: Sequence[Option] = OPTIONS) -> dict[str, Any]:
    """The values that a typed INIT has. UsageError EINVAL: a number that nothing has."""
    return {one.name: _value(request, one) for one in rows if _is_said(request, one)}


def _is_said(request: abi.Init, one: Option) -> bool:
    if not one.ioctl or isinstance(one.kind, FilePath):
        return False
    if isinstance(one.kind, Flag):
        return bool(request.flags & abi.InitFlag[one.ioctl])
    return bool(getattr(request, one.ioctl))


def _value(request: abi.Init, one: Option) -> Any:
    if isinstance(one.kind, Flag):
        return True
    number = getattr(request, one.ioctl or "")
    try:
        return one.kind.from_ioctl(number)
    except ValueError as error:
        raise UsageError(f"INIT: there is no {one.name} {number}", errno=errno.EINVAL) from error


def fill_status(
    status: abi.Status, settings: DumpSettings, rows: Sequence[Option] = OPTIONS
) -> None:
    """STATUS' settings."""
    for one in rows:
        if one.status:
            setattr(status, one.status, one.kind.to_ioctl(getattr(settings, one.name)))


def read_status(status: abi.Status, rows: Sequence[Option] = OPTIONS) -> dict[str, Any]:
    """Back, by the names of the rows. None: a choice of which an older host says nothing."""
    return {
        one.name: one.kind.from_ioctl(number) if (number := getattr(status, one.status)) else
        one.kind.nothing
        for one in rows
        if one.status
    }  # fmt: skip
