# SPDX-License-Identifier: GPL-2.0-or-later
"""What the ioctls carry: the structs of the typed ones, and the path that INIT points to."""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace

from livedumpfs import abi
from livedumpfs.abi import InitFlag, SweepFlag
from livedumpfs.control import settings_files as text
from livedumpfs.control.caller import Caller
from livedumpfs.control.settings_files import Settings
from livedumpfs.core.capi import ffi, lib
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import TargetError, UsageError, os_cause


@dataclass(frozen=True)
class InitRequest:
    """What an INIT asks for."""

    settings: Settings
    memory_only: bool = False
    release_on_close: bool = False
    """RELEASE follows when the open file is closed through which it was asked."""


def untyped_init(settings: Settings, caller: Caller, address: int) -> InitRequest:
    """Of INIT with a pointer to a path, not NULL, in the caller's memory; the rest is as in
    `settings`. TargetError: see read_path."""
    return InitRequest(replace(settings, output=read_path(caller, address)))


def typed_init(settings: Settings, payload: bytes) -> InitRequest:
    """Of a struct livedump_init; what it does not say is as in `settings`. UsageError: EINVAL, or
    EPROTO for another version; TargetError ENAMETOOLONG."""
    request = abi.Init.from_buffer_copy(payload)
    check_version("INIT", request.version)
    settings = text.from_init(settings, request)
    path = _typed_path(payload, abi.offset_of(abi.Init, "path"))
    sidecar = _typed_path(payload, abi.offset_of(abi.Init, "sidecar"))
    memory_only = bool(request.flags & InitFlag.NO_TARGET)
    if memory_only and path:
        raise UsageError("INIT: a path, and NO_TARGET too", errno=errno.EINVAL)
    if path:
        settings = replace(settings, output=path)
    if sidecar:
        settings = replace(settings, dump=replace(settings.dump, sidecar=sidecar))
        _check_sidecar(settings.dump)
    return InitRequest(settings, memory_only, bool(request.flags & InitFlag.RELEASE_ON_CLOSE))


def typed_sweep(payload: bytes) -> bool:
    """Of a struct livedump_sweep: whether the caller waits for the end. UsageError: EINVAL, or
    EPROTO for another version."""
    request = abi.Sweep.from_buffer_copy(payload)
    check_version("SWEEP", request.version)
    if request.flags & ~int(SweepFlag.ASYNC):
        raise UsageError("SWEEP: a flag that is not known", errno=errno.EINVAL)
    return not request.flags & SweepFlag.ASYNC


def check_version(step: str, version: int) -> None:
    """UsageError EPROTO: another version."""
    if version != abi.VERSION:
        raise UsageError(
            f"{step}: the caller speaks version {version} of the interface, the host {abi.VERSION}",
            errno=errno.EPROTO,
        )


def _check_sidecar(settings: DumpSettings) -> None:
    if (settings.format, settings.table) != ("raw", "sidecar"):
        where = "a table at the tail" if settings.format == "raw" else f"format {settings.format}"
        raise UsageError(f"INIT: a sidecar file does not go with {where}", errno=errno.EINVAL)


def _typed_path(payload: bytes, offset: int) -> str:
    """A path member. ENAMETOOLONG: no NUL in it; ctypes would read on to its end in silence."""
    path, nul, _ = payload[offset : offset + abi.PATH_MAX].partition(b"\0")
    if not nul:
        raise TargetError("INIT: the path has no end", errno=errno.ENAMETOOLONG)
    return path.decode(errors="surrogateescape")


def read_path(caller: Caller, address: int) -> str:
    """The NUL-terminated path at `address` of the caller's memory.

    TargetError: EFAULT not readable, ENAMETOOLONG no end within PATH_MAX, EPERM not permitted (the
    typed INIT needs no permission).
    """
    buffer = ffi.new("char[]", abi.PATH_MAX)
    rc = (
        lib.ldfs_read_string(caller.tid, address, buffer, abi.PATH_MAX)
        if caller.tid
        else -errno.EPERM
    )
    if rc == 0:
        return bytes(ffi.string(buffer)).decode(errors="surrogateescape")
    hint = "use the typed INIT" if rc == -errno.EPERM else ""
    raise TargetError(
        f"cannot read the target's path at {address:#x} of task {caller.tid}: {os_cause(-rc)}",
        errno=-rc,
        hint=hint,
    )
