# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings in the structs of the ioctl interface, for both ends. This module is a leaf.

Paths are left to the ends: the client has bytes, and the host resolves them from the client's
working directory.
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
    """Fill a typed INIT with values, by the names of their rows. A value that is None, 0 or missing
    means: as set in control/."""
    for one in rows:
        value = values.get(one.name)
        if not one.ioctl or not value or isinstance(one.kind, FilePath):
            continue
        if isinstance(one.kind, Flag):
            request.flags |= abi.InitFlag[one.ioctl]
        else:
            setattr(request, one.ioctl, one.kind.to_ioctl(value))


def read_init(request: abi.Init, rows: Sequence[Option] = OPTIONS) -> dict[str, Any]:
    """The values of a typed INIT. UsageError EINVAL: a number has no meaning."""
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
    """Fill in the settings of a STATUS."""
    for one in rows:
        if one.status:
            setattr(status, one.status, one.kind.to_ioctl(getattr(settings, one.name)))


def read_status(status: abi.Status, rows: Sequence[Option] = OPTIONS) -> dict[str, Any]:
    """The settings of a STATUS, by the names of the rows. None: an older host does not have the
    choice."""
    return {
        one.name: one.kind.from_ioctl(number) if (number := getattr(status, one.status)) else
        one.kind.nothing
        for one in rows
        if one.status
    }  # fmt: skip
